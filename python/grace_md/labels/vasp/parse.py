"""Results of a VASP run as a label, if the run is complete and its self-consistency converged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase import Atoms
from ase.io import read

from grace_md.labels.records import Label, LabelFailedError
from grace_md.labels.vasp.inputs import NELM, species_order

__all__ = ["has_results", "read_run"]

VASPRUN, OUTCAR = "vasprun.xml", "OUTCAR"
SAME_POSITION = 1e-4  # A, between what was asked for and what was calculated
_ITERATION = re.compile(rb"-+ Iteration +(\d+)\( *(\d+)\) +-+")


def has_results(folder: Path) -> bool:
    """Whether VASP has run in `folder`."""
    return any((folder / name).is_file() for name in (VASPRUN, OUTCAR))


def read_run(folder: Path, atoms: Atoms) -> Label:
    """Return the label of `atoms` from the files of VASP in `folder`.

    The energy is the one extrapolated to zero smearing, the free energy the one that belongs to the forces.

    Raises
    ------
    LabelFailedError
        If there are no results, the run was cut off, did not converge within NELM steps, or is of another structure.
    """
    if (folder / VASPRUN).is_file():
        extra = _check_vasprun(folder / VASPRUN)
        found = _read(folder / VASPRUN, "vasp-xml")
    elif (folder / OUTCAR).is_file():
        extra = _check_outcar(folder / OUTCAR)
        found = _read(folder / OUTCAR, "vasp-out")
    else:
        raise LabelFailedError("VASP has not run: there is neither vasprun.xml nor OUTCAR")
    _, order = species_order(atoms)
    _check_same(atoms, found, order)
    if (folder / OUTCAR).is_file() and (moments := _moments(folder / OUTCAR, len(atoms))) is not None:
        extra["magmoms"] = _unsorted(moments, order).tolist()
    try:
        forces, stress = found.get_forces(), found.get_stress()
    except Exception as error:
        raise LabelFailedError(f"the VASP run has no forces or stress ({error})") from None
    free = float(found.get_potential_energy(force_consistent=True))
    return Label(float(found.get_potential_energy()), _unsorted(forces, order), np.array(stress), free, extra)


def _unsorted(values: Any, order: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = np.empty_like(values)
    result[order] = values
    return result


def _read(path: Path, kind: str) -> Atoms:
    try:
        atoms = read(path, format=kind)
    except Exception as error:
        raise LabelFailedError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from None
    assert isinstance(atoms, Atoms)
    return atoms


def _check_same(atoms: Atoms, found: Atoms, order: np.ndarray[Any, Any]) -> None:
    wanted = atoms[order]
    if len(found) != len(atoms) or (found.numbers != wanted.numbers).any():
        raise LabelFailedError(f"the VASP run is of {found.get_chemical_formula()}, not of this structure")
    shift = (found.get_scaled_positions(wrap=False) - wanted.get_scaled_positions(wrap=False)) @ atoms.cell.array
    shift -= np.round(shift @ np.linalg.inv(atoms.cell.array)) @ atoms.cell.array
    moved, strained = np.abs(shift).max(), np.abs(found.cell.array - atoms.cell.array).max()
    if not max(moved, strained) < SAME_POSITION:
        raise LabelFailedError("the VASP run is of other positions or another cell than this structure")


def _check_vasprun(path: Path) -> dict[str, Any]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        raise LabelFailedError("vasprun.xml is cut off: the run was interrupted") from None
    calculations = root.findall("calculation")
    if not calculations:
        raise LabelFailedError("vasprun.xml has no calculation: the run was interrupted")
    limit = root.find(".//parameters//i[@name='NELM']")
    if limit is None:
        limit = root.find("./incar/i[@name='NELM']")
    _check_steps(len(calculations[-1].findall("scstep")), int(str(limit.text)) if limit is not None else NELM)
    mesh = root.find("./kpoints/generation/v[@name='divisions']")
    return {} if mesh is None or not mesh.text else {"kpoints": [int(n) for n in mesh.text.split()]}


def _check_steps(steps: int, limit: int) -> None:
    if steps >= limit:
        raise LabelFailedError(f"the self-consistent field did not converge in {limit} steps (NELM)")


def _check_outcar(path: Path) -> dict[str, Any]:
    text = path.read_bytes()
    if b"General timing and accounting" not in text:
        raise LabelFailedError("OUTCAR is cut off: the run was interrupted")
    steps = [(int(ion), int(electronic)) for ion, electronic in _ITERATION.findall(text)]
    limit = re.search(rb"NELM *= *(\d+)", text)
    _check_steps(max(steps)[1] if steps else 0, int(limit.group(1)) if limit else NELM)
    mesh = re.search(rb"generate k-points for: *(\d+) +(\d+) +(\d+)", text)
    return {"kpoints": [int(n) for n in mesh.groups()]} if mesh else {}


def _moments(path: Path, n_atoms: int) -> np.ndarray[Any, Any] | None:
    """Moments of the last table "magnetization (x)", [n_atoms] in mu_B, in the order of POSCAR."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    heads = [k for k, line in enumerate(lines) if "magnetization (x)" in line]
    if not heads:
        return None
    rows = [line.split() for line in lines[heads[-1] + 4 : heads[-1] + 4 + n_atoms]]
    try:
        return np.array([float(row[-1]) for row in rows], dtype=np.float64) if len(rows) == n_atoms else None
    except (ValueError, IndexError):
        return None
