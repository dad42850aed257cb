"""What became of structures: lines of JSON that are appended to a file, each complete or ignored.

Every attempt at a job writes a file of its own, ``labels.0001.jsonl`` and so on. These files are the truth; the
database only says who works on what. A worker that was believed dead therefore does no harm: the first label of a
structure counts, whoever wrote it, and there is never more than one.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DONE", "FAILED", "REJECTED", "FullDiskError", "Label", "LabelFailedError", "LabelRejectedError", "Outcome",
           "RecordWriter", "read_outcomes"]  # fmt: skip

DONE, FAILED, REJECTED, STARTED = "labelled", "failed", "rejected", "started"
MOST_STARTS = 3  # a structure that ends its worker so many times has failed


class LabelFailedError(RuntimeError):
    """A structure that could not be labelled: the reason in one sentence."""


class LabelRejectedError(LabelFailedError):
    """A structure or label outside the limits that the user set: not an error of the calculator."""


class FullDiskError(OSError):
    """No space left; the message says what is safe and what to do."""


@dataclass(frozen=True)
class Label:
    """Energy, forces and stress of one structure.

    Attributes
    ----------
    energy : float, eV; of codes with smearing the one extrapolated to zero width
    forces : float64 [n_atoms, 3], eV/A
    stress : float64 [6] in the order xx yy zz yz xz xy, eV/A^3, positive under tension; None without
    free_energy : float, eV; the one whose derivatives are the forces, None where the code knows no difference
    extra : plain values that are kept beside, such as ``{"magmoms": [...], "kpoints": [2, 2, 2]}``
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None = None
    free_energy: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, n_atoms: int, *, need_stress: bool) -> None:
        """Raise LabelFailedError unless everything is there, of the right shape and finite."""
        if self.forces.shape != (n_atoms, 3):
            raise LabelFailedError(f"the calculator gave forces of shape {list(self.forces.shape)} for {n_atoms} atoms")
        if need_stress and self.stress is None:
            raise LabelFailedError("there is no stress; a label of a periodic cell has one")
        for name in ("energy", "forces", "stress", "free_energy"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(np.asarray(value, dtype=np.float64)).all():
                raise LabelFailedError(f"the calculator gave a value of the {name} that is not finite")

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers keep all digits."""
        return {
            "energy": self.energy,
            "free_energy": self.free_energy,
            "forces": self.forces.tolist(),
            "stress": None if self.stress is None else self.stress.tolist(),
            "extra": dict(self.extra),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Label:
        """Inverse of `to_json`."""
        stress = values["stress"]
        return cls(
            energy=values["energy"],
            forces=np.array(values["forces"], dtype=np.float64).reshape(-1, 3),
            stress=None if stress is None else np.array(stress, dtype=np.float64),
            free_energy=values["free_energy"],
            extra=values["extra"],
        )


@dataclass(frozen=True)
class Outcome:
    """What became of structure `item` of a job: its label, or the reason why there is none."""

    item: int
    status: str
    round: int
    seconds: float
    reason: str = ""
    label: Label | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def full_disk(error: BaseException, folder: Path) -> FullDiskError | None:
    """Return the error to raise if `error` means that the disk is full, else None."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and "disk is full" not in str(error):
        return None
    return FullDiskError(
        errno.ENOSPC,
        f"the disk of `{folder}` is full; every label written so far is kept: free some space, then start the same "
        "command again",
    )


class RecordWriter:
    """Appends the outcomes of one attempt at a job; the file appears with the first of them."""

    def __init__(self, folder: Path, attempt: int, round_: int, provenance: Mapping[str, Any]) -> None:
        self.path = folder / f"labels.{attempt:04d}.jsonl"
        self._round = round_
        self._provenance = provenance
        self._handle: int | None = None

    def started(self, item: int) -> None:
        """Note that `item` is being worked on: whoever finds this without an outcome knows what ended the worker."""
        self._append({"item": item, "round": self._round, "status": STARTED})

    def done(self, item: int, label: Label, seconds: float) -> None:
        """Note a label."""
        line = {"item": item, "round": self._round, "status": DONE, "seconds": round(seconds, 4), **label.to_json()}
        self._append(line)

    def failed(self, item: int, reason: str, seconds: float, status: str = FAILED) -> None:
        """Note why there is no label."""
        line = {"item": item, "round": self._round, "status": status, "seconds": round(seconds, 4), "reason": reason}
        self._append(line)

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._append({"provenance": dict(self._provenance)})
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        length = os.fstat(self._handle).st_size
        try:
            while data:  # a short write is the usual sign of a full disk; the next one raises
                data = data[os.write(self._handle, data) :]
        except OSError as error:
            os.ftruncate(self._handle, length)  # no half line before those that come later
            raise full_disk(error, self.path.parent) or error from error

    def sync(self) -> None:
        """Wait until the lines are on the disk."""
        if self._handle is not None:
            try:
                os.fsync(self._handle)
            except OSError as error:
                raise full_disk(error, self.path.parent) or error from error

    def close(self) -> None:
        """Close the file; harmless when called twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Complete lines of a file; what a crash or a full disk left half written is passed over."""
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            found.append(content)
    return found


def read_outcomes(folder: Path, round_: int) -> dict[int, Outcome]:
    """Return what is known of the structures of a job, by their number in it.

    A label of any attempt counts, the first one if there are several. Failures count if they are of round `round_`
    (`grace-md label retry` opens a new one). A structure at which the worker died `MOST_STARTS` times has failed.
    """
    found: dict[int, Outcome] = {}
    starts: dict[int, int] = {}
    for path in sorted(folder.glob("labels.*.jsonl")):
        provenance: Mapping[str, Any] = {}
        for line in _lines(path):
            if "provenance" in line:
                provenance = line["provenance"]
                continue
            item, status = line["item"], line["status"]
            if status == STARTED:
                starts[item] = starts.get(item, 0) + (line["round"] == round_)
            elif status == DONE:
                if item not in found or found[item].status != DONE:
                    label = Label.from_json(line)
                    found[item] = Outcome(item, DONE, line["round"], line["seconds"], "", label, provenance)
            elif line["round"] == round_ and item not in found:
                found[item] = Outcome(item, status, round_, line["seconds"], line["reason"], None, provenance)
    for item, count in starts.items():
        if item not in found and count >= MOST_STARTS:
            reason = f"the worker died {count} times while it was labelling this structure"
            found[item] = Outcome(item, FAILED, round_, 0.0, reason)
    return found
