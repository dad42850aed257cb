"""The union of sets that were generated independently: statistics and shards, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from grace_md.progress import ProgressBar
from grace_md.smax.config import SmaxConfig
from grace_md.smax.folder import RunFolder, clear, provenance, refuse_existing
from grace_md.smax.run_settings import RunSettings
from grace_md.smax.shards import ShardCard, copy_prefix, verify_shards
from grace_md.smax.state import RunState, load_state
from grace_md.smax.statistics import EntropyState
from grace_md.strict import ConfigError

__all__ = ["merge"]

SUMMED = ("accepted", "atoms", "decided", "seeded", "evaluations", "commits", "core_seconds", "wall_seconds")


def merge(folders: Sequence[str | Path], out: str | Path, *, force: bool = False) -> RunState:
    """Write the union of sets to the folder `out`, which `read`, `status`, `export` and ``--extend`` take.

    Statistics of a union are the sum of those of its parts, so that the order of merging does not matter but for
    rounding. A set that several parts extend counts once.

    Raises
    ------
    ConfigError
        If the parts have other descriptors, radii or statistics, or hold the same candidates.
    FileExistsError
        If `out` is taken.
    CorruptShardError
        For a shard that is missing, short or altered.
    """
    if len(folders) < 2:
        raise ValueError("`grace-md smax merge` needs at least two folders.")
    target = Path(out)
    if any(Path(folder).resolve() == target.resolve() for folder in folders):
        raise ValueError(f"`{target}` is one of the folders to merge; choose another one for the result.")
    if not force:
        refuse_existing(target)
    parts = [(Path(folder), *load_state(Path(folder))) for folder in folders]
    origins = _check(parts)
    for path, state, _ in parts:
        verify_shards(path, state.cards)
    if force:
        clear(target)
    config = SmaxConfig.of(parts[0][2]["config"])
    record = provenance(
        config, RunSettings(**parts[0][2]["run"]), deterministic=False, n_features=parts[0][2]["n_features"],
        n_seed=parts[0][2]["n_seed"], extended=_extended(parts), status="complete", merged=origins,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )  # fmt: skip
    state = _joined([state for _, state, _ in parts], config)
    state.cards = _copy(parts, target)
    folder = RunFolder(target, config, RunSettings(**record["run"]), record)
    folder.save(state)
    folder.write_manifest(state)
    return state


def _origins(path: Path, state: RunState, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that a set consists of."""
    if "merged" in record:
        return list(record["merged"])
    return [
        {
            "path": str(path),
            "seed": record["seed"],
            "config_sha256": record["config_sha256"],
            "accepted": state.accepted,
            "next_index": state.next_index,
            "created": record["created"],
            "versions": record["versions"],
        }
    ]


def _check(parts: Sequence[tuple[Path, RunState, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Compare what must be equal, and return the runs that the union consists of."""
    first_path, _, first = parts[0]
    for path, _, record in parts[1:]:
        for section in ("descriptor", "statistics"):
            before, after = first["config"][section], record["config"][section]
            changed = [key for key in before if before[key] != after[key]]
            if changed:
                raise ConfigError(
                    f"{path} has another `{section}.{changed[0]}` ({after[changed[0]]}) than {first_path} "
                    f"({before[changed[0]]}); only sets of equal features can be merged."
                )
        if first["config"]["radii"]["cutoff_factor"] != record["config"]["radii"]["cutoff_factor"]:
            raise ConfigError(
                f"{path} has another `radii.cutoff_factor` than {first_path}; only sets of equal features can be "
                "merged."
            )
    origins = [origin for part in parts for origin in _origins(*part)]
    seen: dict[tuple[int, str], str] = {}
    for origin in origins:
        key = (origin["seed"], origin["config_sha256"])
        if key in seen:
            raise ConfigError(
                f"{origin['path']} and {seen[key]} have the same settings and the same seed {origin['seed']}, so they "
                "hold the same candidates; merge sets of different seeds (`--set seed=2`)."
            )
        seen[key] = origin["path"]
    return origins


def _extended(parts: Sequence[tuple[Path, RunState, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Sets that all parts extend; ConfigError if they do not extend the same ones."""
    first_path, _, first = parts[0]
    checksums = [[source["sha256"] for source in record["extended"]] for _, _, record in parts]
    for (path, _, _), found in zip(parts, checksums, strict=True):
        if found != checksums[0]:
            raise ConfigError(
                f"{path} and {first_path} extend different sets; merge sets that extend the same ones or none, or add "
                "one to the other with --extend."
            )
    return list(first["extended"])


def _joined(states: Sequence[RunState], config: SmaxConfig) -> RunState:
    own = states[0].own
    for state in states[1:]:
        own = own.merged(state.own)
    base = states[0].base or EntropyState.empty(own.atom.n_features)
    entropy = EntropyState(base.atom.merged(own.atom), base.config.merged(own.config))
    entropy.update_phase(config.statistics)
    result = RunState(entropy, own, base=states[0].base)
    for name in SUMMED:
        setattr(result, name, sum(getattr(state, name) for state in states))
    for state in states:
        for reason, count in state.rejected.items():
            result.rejected[reason] = result.rejected.get(reason, 0) + count
    return result


def _copy(parts: Sequence[tuple[Path, RunState, dict[str, Any]]], target: Path) -> list[ShardCard]:
    """Copy the valid part of all shards under new numbers; return their cards."""
    (target / "shards").mkdir(parents=True, exist_ok=True)
    cards: list[ShardCard] = []
    with ProgressBar(math.fsum(card.bytes for _, state, _ in parts for card in state.cards), "merging") as bar:
        for path, state, _ in parts:
            for card in state.cards:
                cards.append(replace(card, file=f"shards/{len(cards):05d}.extxyz.gz"))
                copy_prefix(path / card.file, target / cards[-1].file, card.bytes)
                bar.update(card.bytes)
    return cards
