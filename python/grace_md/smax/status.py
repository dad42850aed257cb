"""What a run has come to, from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grace_md.progress import format_seconds
from grace_md.smax.config import SmaxConfig
from grace_md.smax.folder import scalars
from grace_md.smax.state import load_state

__all__ = ["status", "status_lines"]


def status(folder: str | Path) -> dict[str, Any]:
    """Return the state of a run or a merged set as numbers and words.

    Keys: ``folder``, ``status`` ("running" also after a crash), ``accepted``, ``target`` (None for merged sets),
    ``atoms``, ``decided``, ``acceptance``, ``rejected`` by reason, ``evaluations_per_candidate``, ``rate`` (structures
    per second, of the last minutes), ``seconds_left`` (None if unknown), ``wall_seconds``, ``core_seconds``,
    ``seed_phase``, and number of items, ln det and effective dimension exp(H) per kind of item (``atom_log_det``, ...).

    Raises FileNotFoundError if the folder is none of `grace-md smax`.
    """
    state, record = load_state(Path(folder))
    target = record.get("target")
    left = None
    if target is not None and record["status"] != "complete" and state.rate > 0.0:
        left = max(0, target - state.accepted) / state.rate
    return {
        "folder": str(folder),
        "status": record["status"],
        "accepted": state.accepted,
        "target": target,
        "atoms": state.atoms,
        "decided": state.decided,
        "acceptance": state.accepted / max(1, state.decided),
        "rejected": dict(sorted(state.rejected.items())),
        "evaluations_per_candidate": state.evaluations / max(1, state.decided),
        "rate": state.rate,
        "seconds_left": left,
        "wall_seconds": state.wall_seconds,
        "core_seconds": state.core_seconds,
        "seed_phase": state.entropy.seeding,
        **scalars(state, SmaxConfig.of(record["config"])),
    }


def status_lines(found: dict[str, Any]) -> list[str]:
    """Return `status` for people."""
    of = "" if found["target"] is None else f" of {found['target']}"
    rejected = ", ".join(f"{count} {reason}" for reason, count in found["rejected"].items()) or "none"
    lines = [
        f"{found['folder']}: {found['status']}{', seed phase' if found['seed_phase'] else ''}",
        f"accepted    {found['accepted']}{of} structures, {found['atoms']} atoms",
        f"candidates  {found['decided']}, acceptance {100.0 * found['acceptance']:.1f} %, "
        f"{found['evaluations_per_candidate']:.1f} evaluations each; rejected: {rejected}",
    ]
    for mode in ("atom", "config"):
        if found.get(f"{mode}_log_det") is not None:
            lines.append(
                f"entropy     ln det {found[f'{mode}_log_det']:.3f} over {found[f'{mode}_items']} items ({mode}), "
                f"effective dimension {found[f'{mode}_dimension']:.2f}"
            )
    left = found["seconds_left"]
    lines.append(
        f"rate        {found['rate']:.2f} structures/s; {format_seconds(found['wall_seconds'])} so far, "
        f"{format_seconds(found['core_seconds'])} of processors"
        + ("" if left is None else f"; {format_seconds(left)} left")
    )
    return lines
