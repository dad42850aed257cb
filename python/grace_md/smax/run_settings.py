"""How a run is laid out: sizes of batches, rounds and shards, and the device. They do not belong to the method."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from grace_md.strict import ConfigError

__all__ = ["RunSettings", "device_kind"]

DEVICE = re.compile(r"auto|cpu|(cuda|emulated)(:\d{1,4})?")  # emulated: the kernels of GPUs on the CPU, for tests


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"source": "ours", "help": text})


def device_kind(device: str) -> str:
    """Return "cpu", "cuda" or "emulated" for a device."""
    return device.partition(":")[0]


@dataclass(frozen=True)
class RunSettings:
    """Section `run` of a file of settings."""

    batch: int = _setting(32, "candidates of one task, maximised side by side against one snapshot of the statistics")
    round_batches: int = _setting(
        16, "tasks of a round with --deterministic; all of a round start from the same statistics, at most so many "
        "workers are busy, and results do not depend on their number"
    )  # fmt: skip
    structures_per_shard: int = _setting(10_000, "accepted structures of a file")
    device: str = _setting(
        "cpu", "where descriptors are computed: cpu; cuda: the GPUs, shared by all workers; cuda:N: one of them; auto: "
        "GPUs if there are any"
    )  # fmt: skip

    def check(self) -> None:
        """Raise ConfigError for sizes below one and words that are no device."""
        for name in ("batch", "round_batches", "structures_per_shard"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`run.{name}` = {getattr(self, name)} must be at least 1.")
        if not DEVICE.fullmatch(self.device):
            raise ConfigError(f"`run.device` = {self.device!r} must be auto, cpu, cuda or cuda:N.")
