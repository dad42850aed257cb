"""Result files in the layout of VASP, written from known numbers, and a command that stands in for VASP.

As a script it plays VASP in the current directory: it reads INCAR, POSCAR and POTCAR and writes vasprun.xml and OUTCAR
with the energies, forces and stress of a pair potential.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.io import read

TO_KBAR = 1.0 / (0.1 * units.GPa)


@dataclass
class Run:
    """What a run gave, in the order of POSCAR; stress as ASE's 3x3, eV/A^3."""

    atoms: Atoms
    energy: float
    free_energy: float
    forces: np.ndarray
    stress: np.ndarray
    moments: np.ndarray = field(default_factory=lambda: np.zeros(0))
    steps: int = 12
    nelm: int = 120
    mesh: tuple[int, int, int] = (13, 10, 8)


def _varray(name: str, rows: Any, tag: str = "varray") -> str:
    lines = "".join(f"<v>{' '.join(f'{x:.10f}' for x in row)}</v>" for row in rows)
    return f'<{tag} name="{name}">{lines}</{tag}>'


def _structure(atoms: Atoms, name: str = "") -> str:
    label = f' name="{name}"' if name else ""
    return (
        f"<structure{label}><crystal>{_varray('basis', atoms.cell.array)}</crystal>"
        f"{_varray('positions', atoms.get_scaled_positions(wrap=False))}</structure>"
    )


def vasprun(run: Run) -> str:
    energies = (
        f'<energy><i name="e_fr_energy">{run.free_energy:.8f}</i><i name="e_wo_entrp">{run.energy:.8f}</i>'
        f'<i name="e_0_energy">{run.energy:.8f}</i></energy>'
    )
    atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in run.atoms.get_chemical_symbols())
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n'
        f'<kpoints><generation param="Gamma"><v type="int" name="divisions">{" ".join(map(str, run.mesh))}</v>'
        '</generation><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1.0</v></varray>'
        f'</kpoints>\n<parameters><separator name="electronic"><i type="int" name="NELM">{run.nelm}</i></separator>'
        f'</parameters>\n<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>\n'
        f"{_structure(run.atoms, 'initialpos')}\n<calculation>\n"
        + f"<scstep>{energies}</scstep>\n"
        * run.steps
        + f"{_structure(run.atoms)}\n{_varray('forces', run.forces)}\n{_varray('stress', -TO_KBAR * run.stress)}\n"
        f"{energies}</calculation>\n{_structure(run.atoms, 'finalpos')}\n</modeling>\n"
    )


def _moment_table(moments: Iterable[float]) -> str:
    rows = "".join(f"{k:5d}        0.000   0.000  {m:7.3f}  {m:7.3f}\n" for k, m in enumerate(moments, 1))
    line = "-" * 48
    return f"\n magnetization (x)\n\n# of ion       s       p       d       tot\n{line}\n{rows}{line}\n"


def outcar(run: Run) -> str:
    symbols = run.atoms.get_chemical_symbols()
    species = list(dict.fromkeys(symbols))
    potentials = "".join(f" POTCAR:    PAW_PBE {name} 01Jan2000\n" for name in species)
    counts = " ".join(str(symbols.count(name)) for name in species)
    iterations = "".join(
        f"----------------------- Iteration    1({k:4d})  ---------------------------------------\n"
        for k in range(1, run.steps + 1)
    )
    cell = "".join(f"{' '.join(f'{x:13.9f}' for x in row)}  0.0 0.0 0.0\n" for row in run.atoms.cell.array)
    xx, yy, zz, xy, yz, zx = (-TO_KBAR * run.stress[a, b] for a, b in [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0)])
    forces = "".join(
        f"{' '.join(f'{x:14.8f}' for x in (*p, *f))}\n" for p, f in zip(run.atoms.positions, run.forces, strict=True)
    )
    mesh = " ".join(f"{n:4d}" for n in run.mesh)
    return (
        f"{potentials}{potentials}   ions per type =               {counts}\n generate k-points for: {mesh}\n"
        f"   NELM   =    {run.nelm};   NELMIN=  2\n   ISPIN  =      2    spin polarized calculation?\n"
        f"   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=     8\n"
        f" k-points in reciprocal lattice and weights: \n   0.00000000  0.00000000  0.00000000      1.000\n{iterations}"
        f"{_moment_table(run.moments) if len(run.moments) else ''}"
        f"      direct lattice vectors                 reciprocal lattice vectors\n{cell}"
        f"  in kB  {xx:.8f} {yy:.8f} {zz:.8f} {xy:.8f} {yz:.8f} {zx:.8f}\n"
        f" POSITION                                       TOTAL-FORCE (eV/Angst)\n {'-' * 80}\n{forces}"
        "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  -------\n"
        f"  free  energy   TOTEN  =  {run.free_energy:.8f} eV\n\n"
        f"  energy  without entropy=  {run.energy:.8f}  energy(sigma->0) =  {run.energy:.8f}\n"
        " General timing and accounting informations for this job:\n"
    )


def calculated(atoms: Atoms, **changes: Any) -> Run:
    """A run with the results of a pair potential; `atoms` in the order of POSCAR."""
    work = atoms.copy()
    work.pbc = True
    work.calc = LennardJones(sigma=1.6, epsilon=0.4, rc=5.0)
    energy = work.get_potential_energy()
    moments = np.linspace(0.5, 3.0, len(work))
    stress = work.get_stress(voigt=False)
    return Run(work, energy, energy - 0.02, work.get_forces(), stress, moments, **changes)


def main() -> None:
    """Play VASP; an argument is the number of electronic steps."""
    assert Path("POTCAR").is_file()
    tags = dict(line.split(" = ") for line in Path("INCAR").read_text().splitlines())
    run = calculated(read("POSCAR", format="vasp"), steps=int(sys.argv[1]), nelm=int(tags["NELM"]))
    Path("vasprun.xml").write_text(vasprun(run))
    Path("OUTCAR").write_text(outcar(run))


if __name__ == "__main__":
    main()
