"""What a run leaves for people and machines: run.json, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from grace_md.strict import ConfigError

__all__ = ["MetricsLog", "data_hash", "versions", "write_json"]

PACKAGES = ("grace_md", "torch", "numpy", "ase")


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def data_hash(paths: list[str]) -> str:
    """SHA-256 over the bytes of input files, in their order; folders count by the names and sizes of their files."""
    digest = hashlib.sha256()
    for name in paths:
        path = Path(name)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if path.is_dir():
                digest.update(f"{file.relative_to(path)} {file.stat().st_size}".encode())
                continue
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, complete or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


class MetricsLog:
    """metrics.jsonl, one line per record, and TensorBoard where asked for. Lines after `keep_to` steps are dropped.

    Parameters
    ----------
    folder : of the run; None writes nothing
    tensorboard : also write event files to ``folder/tensorboard``
    keep_to : optimiser steps of the checkpoint a run goes on from; a run that was killed may have logged more
    """

    def __init__(self, folder: Path | None, *, tensorboard: bool, keep_to: int = 0) -> None:
        self._writer: Any = None
        self.path = None if folder is None else folder / "metrics.jsonl"
        if folder is None or self.path is None:
            return
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional
            except ImportError:
                raise ConfigError(
                    "`output.tensorboard` needs the package tensorboard; install it with `pip install tensorboard`."
                ) from None
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=keep_to)
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= keep_to]
            if kept != lines:
                self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record, which has a `step`; numbers that are not finite become null."""
        if self.path is None:
            return
        clean = {key: _finite(value) for key, value in record.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean, allow_nan=False) + "\n")
        if self._writer is not None:
            for key, value in record.items():
                if isinstance(value, (int, float)) and key != "step":
                    self._writer.add_scalar(key, value, record["step"])

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError):  # the last line of a run that was killed
        return 1 << 62
