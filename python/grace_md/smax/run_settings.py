"""How a run is laid out: sizes of batches, rounds and shards. They do not belong to the method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from grace_md.strict import ConfigError

__all__ = ["RunSettings"]


def _setting(default: int, text: str) -> Any:
    return field(default=default, metadata={"source": "ours", "help": text})


@dataclass(frozen=True)
class RunSettings:
    """Section `run` of a file of settings."""

    batch: int = _setting(32, "candidates of one task, maximised side by side against one snapshot of the statistics")
    round_batches: int = _setting(
        16, "tasks of a round with --deterministic; all of a round start from the same statistics, at most so many "
        "workers are busy, and results do not depend on their number"
    )  # fmt: skip
    structures_per_shard: int = _setting(10_000, "accepted structures of a file")

    def check(self) -> None:
        """Raise ConfigError for sizes below one."""
        for name in ("batch", "round_batches", "structures_per_shard"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`run.{name}` = {getattr(self, name)} must be at least 1.")
