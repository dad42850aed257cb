"""How much memory a training step needs: an estimate from a small batch, and the attempt with the largest one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from grace_md.strict import ConfigError

__all__ = ["MemoryShortage", "available_bytes", "format_bytes", "run_probe", "saved_bytes"]

OUT_OF_MEMORY = ("out of memory", "can't allocate", "cannot allocate", "failed to allocate")


class MemoryShortage(ConfigError):  # noqa: N818 - a state of the machine more than a mistake
    """A batch that does not fit into memory; the message says which setting makes it smaller."""


def saved_bytes(step: Callable[[], Any]) -> int:
    """Return the bytes of all tensors that the graphs of `step` keep for the backward passes.

    They make up nearly all of the memory of a step and are proportional to the bonds of a batch.
    """
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        with suppress(RuntimeError, NotImplementedError):  # tensors without storage
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = max(storage.nbytes(), seen.get(storage.data_ptr(), 0))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(seen.values())


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a device; of the machine for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))


def run_probe(step: Callable[[], Any], what: str) -> None:
    """Run one step with the largest batch; `what` describes it.

    Raises MemoryShortage naming the settings that make batches smaller.
    """
    try:
        step()
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not memory and not any(words in str(error).lower() for words in OUT_OF_MEMORY):
            raise
        raise MemoryShortage(
            f"the largest batch ({what}) does not fit into memory; lower `fit.max_bonds` or `fit.batch`."
        ) from None
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def format_bytes(size: float) -> str:
    """Return for example ``"1.3 GB"``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
