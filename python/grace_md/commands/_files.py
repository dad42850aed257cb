"""Output files of commands: never overwritten by accident, summaries for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_output(path: Path, *, force: bool) -> None:
    """Raise FileExistsError if `path` exists and `force` is false; make its directory."""
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; add --force to overwrite it, or choose another name.")
    path.parent.mkdir(parents=True, exist_ok=True)


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary` as JSON, complete or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
