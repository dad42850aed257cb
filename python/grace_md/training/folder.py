"""The folder of a run: whether to begin, to go on or to refuse, and what run.json says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grace_md.strict import ConfigError
from grace_md.training.config import RunConfig
from grace_md.training.records import write_json

__all__ = ["RunFolder"]

# Settings that do not change what is computed up to the present step; `epochs` changes the schedule from here on.
MAY_CHANGE = (
    "output", "fit.epochs", "fit.patience", "fit.validate_every", "fit.device", "fit.threads", "fit.backend",
    "fit.memory_probe", "fit.deterministic", "data.workers", "data.folder", "data.check",
)  # fmt: skip
OURS = ("run.json", "metrics.jsonl", "model.npz", "checkpoints", "tensorboard", "report")
ENDED = ("complete", "no longer improving")


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[str]:
    """Return the paths of settings that differ, without those that may."""
    found = []
    for key in {**before, **after}:
        inner = f"{path}.{key}" if path else key
        if inner in MAY_CHANGE:
            continue
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changed_settings(old, new, inner)
        elif old != new:
            found.append(inner)
    return found


class RunFolder:
    """Files of a run.

    Attributes
    ----------
    path : Path
    record : content of run.json
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "checkpoints" / "last.npz"

    def prepare(self, config: RunConfig, *, force: bool) -> bool:
        """Return whether an interrupted run goes on; clear the folder with `force`.

        Raises
        ------
        FileExistsError
            A finished run, or files that are no run.
        ConfigError
            An interrupted run with other settings.
        """
        if force:
            self._clear()
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / "run.json"
        if not file.exists():
            foreign = [name for name in OURS if (self.path / name).exists()]
            if foreign:
                raise FileExistsError(
                    f"{self.path} has {foreign[0]} but no run.json; choose another `output.dir`, or add --force."
                )
            return False
        self.record = json.loads(file.read_text(encoding="utf-8"))
        plain = json.loads(json.dumps(config.plain()))
        epochs = self.record["config"]["fit"]["epochs"]
        if self.record["status"] in ENDED and plain["fit"]["epochs"] <= epochs:
            raise FileExistsError(
                f"{self.path} holds a finished run ({self.record['status']}); choose another `output.dir`, raise "
                "`fit.epochs` to train longer, or add --force to start anew."
            )
        changed = changed_settings(self.record["config"], plain)
        if changed:
            raise ConfigError(
                f"{self.path} holds an interrupted run with another `{changed[0]}`"
                + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
                + "; use the same settings to go on, another `output.dir`, or --force to start anew."
            )
        return self.checkpoint.exists()

    def _clear(self) -> None:
        for name in (*OURS, "data"):
            found = self.path / name
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)
        for found in self.path.glob("diverged_batch*.extxyz"):
            found.unlink()

    def write(self, **changes: Any) -> None:
        """Update run.json."""
        self.record.update(changes)
        write_json(self.path / "run.json", self.record)
