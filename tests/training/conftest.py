"""Tests of fits need torch; those of run files, references and checkpoints do not."""

from __future__ import annotations

from importlib.util import find_spec

NEED_TORCH = ["loss", "fit", "loop", "resume", "ddp", "finetune", "export", "bad_input", "recipe"]
collect_ignore_glob = [] if find_spec("torch") else [f"test_{name}*.py" for name in NEED_TORCH]
