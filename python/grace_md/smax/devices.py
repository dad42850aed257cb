"""Where descriptors are computed: what the words of a run mean here, and which GPU a worker takes."""

from __future__ import annotations

import multiprocessing
import re
import threading
from typing import Any

from grace_md._core import cuda_obstacle, cuda_probe, resolve_device
from grace_md.smax.descriptors import Descriptor, DescriptorSettings, make_descriptor
from grace_md.strict import ConfigError

__all__ = ["choose_device", "descriptor_on", "worker_device"]

_kept = threading.local()


def choose_device(word: str, kind: str) -> tuple[str, str]:
    """Decide where the workers of a run compute descriptors, before anything is started.

    Parameters
    ----------
    word : "auto", "cpu", "cuda" or "cuda:N"
    kind : of the descriptors

    Returns
    -------
    device : "cpu", "cuda" (workers share the GPUs) or "cuda:N"
    line : what was chosen and why, for people; empty unless there was a choice

    Raises
    ------
    ConfigError
        If a GPU is asked for and there is none, or no kernel for it.
    """
    if word == "auto":
        return _automatic(kind)
    if word == "cpu":
        return word, ""
    if kind != "snap":
        raise ConfigError(f"`descriptor.kind` = {kind!r} has no kernels for GPUs; use snap there, or `--device cpu`.")
    _require_gpu(word)
    return word, ""


def _require_gpu(device: str) -> None:
    kind, _, index = device.partition(":")
    obstacle = cuda_obstacle(int(index or 0)) if kind == "cuda" else ""
    if obstacle:
        raise ConfigError(f"{obstacle}.")


def _automatic(kind: str) -> tuple[str, str]:
    if kind != "snap":
        return "cpu", f"device auto: cpu (descriptors of kind {kind} have no kernels for GPUs)"
    found = resolve_device("auto")
    if found == "cpu":
        return "cpu", f"device auto: cpu ({cuda_probe()['reason'] or 'GRACE_MD_DEVICE'})"
    _require_gpu(found)  # GRACE_MD_DEVICE may ask for one that is not there
    chosen = found if found != "cuda:0" else "cuda"
    return chosen, f"device auto: {chosen} ({', '.join(cuda_probe()['names']) or found})"


def worker_device(device: str) -> str:
    """Return the GPU of this process for "cuda": workers of a pool take them in turn, others the first one."""
    if device != "cuda":
        return device
    number = re.search(r"Process-(\d+)$", multiprocessing.current_process().name)
    index = int(number[1]) - 1 if number else 0
    return f"cuda:{index % max(1, cuda_probe()['n_devices'])}"


def descriptor_on(settings: DescriptorSettings, device: str) -> Descriptor:
    """Return the descriptor of `settings` on a device; on a GPU the same one for every task of a thread.

    Starting a GPU takes longer than many tasks.
    """
    if device == "cpu":
        return make_descriptor(settings)
    key = (settings, worker_device(device))
    before: tuple[Any, Descriptor] | None = getattr(_kept, "descriptor", None)
    if before is not None and before[0] == key:
        return before[1]
    before = _kept.descriptor = None  # its memory goes first
    made = make_descriptor(*key)
    _kept.descriptor = (key, made)
    return made
