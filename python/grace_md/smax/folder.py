"""The folder of a run: whether to begin, to go on or to refuse, and what its manifest says."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ase import Atoms

from grace_md.smax.candidate import Mode
from grace_md.smax.config import SmaxConfig
from grace_md.smax.run_settings import RunSettings, device_kind
from grace_md.smax.shards import read_shard, verify_shards
from grace_md.smax.state import FORMAT, STATE_FILE, RunState, load_state, save_state
from grace_md.smax.statistics import SingularStatisticsError
from grace_md.strict import ConfigError
from grace_md.training.data.storage import write_json
from grace_md.training.folder import changed_settings
from grace_md.training.records import versions
from grace_md.weights import file_sha256

__all__ = [
    "MANIFEST_FILE",
    "RunFolder",
    "clear",
    "digest",
    "holds_run",
    "modes",
    "provenance",
    "read",
    "refuse_existing",
    "scalars",
]

MANIFEST_FILE = "manifest.json"
OURS = (STATE_FILE, MANIFEST_FILE, "metrics.jsonl", "shards")
MANIFEST_SECONDS = 5.0  # between two updates while a run is going on


def digest(plain: Any) -> str:
    """SHA-256 of settings."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def modes(config: SmaxConfig) -> list[Mode]:
    """Kinds of items whose entropy is of interest: "atom", "config" or both."""
    mode = config.statistics.mode
    return ["atom", "config"] if mode == "mixed" else [mode]


def provenance(config: SmaxConfig, run: RunSettings, **more: Any) -> dict[str, Any]:
    """What made a set, for its manifest: settings, their hash, seed, versions, the compiled core."""
    from grace_md import _core  # noqa: PLC0415 - its file is hashed

    model = config.descriptor.kind.partition("grace:")[2]
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": config.plain(),
        "config_sha256": digest(config.plain()),
        "run": asdict(run),
        "seed": config.seed,
        "ridge": config.statistics.ridge,
        "versions": {name: value for name, value in versions().items() if name != "torch"},
        "core_sha256": file_sha256(_core.__file__),
        "descriptor_sha256": file_sha256(model) if model else None,
        **more,
    }


def scalars(state: RunState, config: SmaxConfig) -> dict[str, float | int | None]:
    """Return number of items, ln det and effective dimension of each kind of item; None where they do not exist yet."""
    found: dict[str, float | int | None] = {}
    whole = state.whole()
    for mode in modes(config):
        part = whole.of(mode)
        found[f"{mode}_items"] = part.count
        try:
            log_det: float | None = whole.log_det(mode)
            dimension: float | None = part.effective_dimension()
        except SingularStatisticsError:
            log_det = dimension = None
        found[f"{mode}_log_det"] = log_det if log_det is None or math.isfinite(log_det) else None
        found[f"{mode}_dimension"] = dimension if dimension is None or math.isfinite(dimension) else None
    return found


class RunFolder:
    """Files of a run.

    Attributes
    ----------
    path : Path
    config : SmaxConfig
    record : what the manifest says besides the state
    """

    def __init__(self, path: Path, config: SmaxConfig, run: RunSettings, record: dict[str, Any]) -> None:
        self.path, self.config, self.run, self.record = path, config, run, record
        self._written = -math.inf

    @classmethod
    def begin(
        cls, path: Path, config: SmaxConfig, run: RunSettings, *, deterministic: bool, n_features: int, force: bool
    ) -> tuple[RunFolder, RunState]:
        """Make a folder for a new run.

        Raises
        ------
        FileExistsError
            If it holds a run or files named as those of one, unless `force`, which removes them.
        """
        if force:
            clear(path)
        refuse_existing(path)
        path.mkdir(parents=True, exist_ok=True)
        items = config.statistics.seed_items_per_feature * n_features
        record = provenance(
            config, run, deterministic=deterministic, n_features=n_features, n_seed=math.ceil(items), extended=[],
            status="running",
        )  # fmt: skip
        return cls(path, config, run, record), RunState.empty(n_features)

    @classmethod
    def resume(
        cls, path: Path, config: SmaxConfig, run: RunSettings, *, deterministic: bool
    ) -> tuple[RunFolder, RunState]:
        """Open a run to go on with it, after comparing settings and checksums.

        Raises
        ------
        ConfigError
            If the run has other settings, or it is a merged set.
        CorruptShardError
            For a shard that is missing, short or altered.
        """
        state, record = load_state(path)
        if "merged" in record:
            raise ConfigError(f"{path} is a merged set; begin a new folder with `--extend {path}` to add to it.")
        changed = changed_settings(record["config"], json.loads(json.dumps(config.plain())))
        sizes = ("batch", "round_batches") if deterministic else ()
        changed += [f"run.{name}" for name in sizes if record["run"][name] != getattr(run, name)]
        if record["deterministic"] != deterministic:
            raise ConfigError(
                f"{path} was begun {'with' if record['deterministic'] else 'without'} --deterministic; "
                f"{'add it' if record['deterministic'] else 'leave it out'} to go on, or choose another folder."
            )
        if changed:
            raise ConfigError(
                f"{path} holds a run with another `{changed[0]}`"
                + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
                + "; use the same settings to go on, another folder, or --force to start anew."
            )
        verify_shards(path, state.cards)
        record.update(run=asdict(run), status="running")
        return cls(path, config, run, record), state

    def require_same_extension(self, extend: Sequence[str | Path]) -> None:
        """Raise ConfigError if the run extends other sets than these; none is what a resumed run need not repeat."""
        before = [source["path"] for source in self.record["extended"]]
        if extend and [str(path) for path in extend] != before:
            raise ConfigError(
                f"{self.path} was begun {'with --extend ' + ' '.join(before) if before else 'without --extend'}; go on "
                "with the same, or choose another folder."
            )

    def require_same_device(self, device: str) -> None:
        """Raise ConfigError if a deterministic run would go on with other rounding, of a CPU or of a GPU."""
        before = device_kind(self.record.get("device", "cpu"))
        if self.record["deterministic"] and device_kind(device) != before:
            raise ConfigError(
                f"{self.path} was begun with --deterministic on device {before}, and the bits of "
                f"{device_kind(device)} differ; go on with `--device {before}`, or choose another folder."
            )

    def save(self, state: RunState) -> None:
        """Write the state, and the manifest now and then."""
        save_state(self.path, state, self.record)
        if time.monotonic() - self._written >= MANIFEST_SECONDS:
            self.write_manifest(state)

    def write_manifest(self, state: RunState) -> None:
        """Write what the state says for people and other programs."""
        plain = state.plain()
        attempts = max(1, state.decided)
        summary = {
            "format": FORMAT,
            **self.record,
            **{key: plain[key] for key in plain if key not in {"shards", "pending", "round_indices"}},
            "n_pending": len(state.pending),
            "acceptance": state.accepted / attempts,
            "evaluations_per_candidate": state.evaluations / attempts,
            **scalars(state, self.config),
            "shards": plain["shards"],
        }
        write_json(self.path / MANIFEST_FILE, summary)
        self._written = time.monotonic()


def holds_run(path: Path) -> bool:
    """Whether there is a run in the folder."""
    return (path / STATE_FILE).is_file()


def refuse_existing(path: Path) -> None:
    """Raise FileExistsError if there is a run in the folder, or files named as those of one."""
    if holds_run(path):
        state, _ = load_state(path)
        raise FileExistsError(
            f"{path} holds {state.accepted} accepted structures; add --resume to go on, --force to start anew, or "
            "choose another folder."
        )
    foreign = [name for name in OURS if (path / name).exists()]
    if foreign:
        raise FileExistsError(f"{path} has {foreign[0]} but no {STATE_FILE}; choose another folder, or add --force.")


def clear(path: Path) -> None:
    """Remove the files of a run; others stay."""
    for name in OURS:
        found = path / name
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink(missing_ok=True)


def read(*folders: str | Path) -> Iterator[Atoms]:
    """Yield the accepted structures of folders of `grace-md smax`, in the order of their acceptance.

    Each is plain `ase.Atoms` with its provenance in ``info`` (``smax_index``, ``smax_seed``, ``smax_mode``,
    ``smax_gain``, ``smax_log_det``, ``smax_d2_mean``, ``smax_d2_max``, ``smax_evaluations``; what the seed phase does
    not have is left out) and the radii in the array ``effective_radius``, A. A run that is going on can be read: what
    it had accepted at the beginning comes.

    Raises
    ------
    FileNotFoundError
        If a folder is none of `grace-md smax`.
    CorruptShardError
        For a shard that is missing or damaged.
    """
    states: Sequence[tuple[Path, RunState]] = [(Path(folder), load_state(Path(folder))[0]) for folder in folders]
    for folder, state in states:
        for card in state.cards:
            yield from read_shard(folder, card)
