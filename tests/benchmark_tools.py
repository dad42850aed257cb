"""The scripts of benchmarks/: importable after this module, and run as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grace_md

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(ROOT / "tools")]


def run_script(*arguments: str, status: int = 0) -> str:
    """Output of a script in a process of its own, which finds the package that this process uses."""
    source = str(Path(grace_md.__file__).parents[1])
    paths = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout
