"""Together with other pair styles, with NULL types, with two types of one element, and scaled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_numbers

from lammps_tools import OUTPUT, potential, run, run_here, setup, single_point
from tolerances import MIXED_FORCE_RELATIVE, RANKS, assert_close

RANKS_TRIED = pytest.mark.parametrize("ranks", [1, 2])


def zbl(elements: list[str], style: str = "") -> str:
    pairs = [(a, b) for a in range(len(elements)) for b in range(a, len(elements))]
    z = [atomic_numbers[symbol] for symbol in elements]
    return "\n".join(f"pair_coeff {a + 1} {b + 1} {style} {z[a]} {z[b]}" for a, b in pairs) + "\n"


@RANKS_TRIED
@pytest.mark.parametrize("precision", ["fp64", "mixed"])
def test_overlay_with_zbl(case: tuple[Path, Atoms], ranks: int, precision: str, tmp_path: Path) -> None:
    model, atoms = case
    elements = sorted(set(atoms.symbols))
    words = f"threads 1 precision {precision}"
    both = (
        setup(atoms, tmp_path, "cell", elements)
        + f"pair_style hybrid/overlay zbl 2.0 3.5 grace {words}\n{zbl(elements, style='zbl')}"
        + f"pair_coeff * * grace {model} {' '.join(elements)}\n{OUTPUT}run 0"
    )
    core = (
        setup(atoms, tmp_path, "cell", elements)
        + f"pair_style zbl 2.0 3.5\n{zbl(elements)}thermo_modify norm no\nrun 0"
    )
    core.peratom = False
    [sum_of_both] = run([both], tmp_path, ranks)
    [grace] = run([single_point(atoms, tmp_path, "cell", model, words)], tmp_path)
    [alone] = run([core], tmp_path)
    assert abs(alone["energy"]) > 1.0
    tolerance = RANKS if precision == "fp64" else MIXED_FORCE_RELATIVE * np.abs(grace["forces"]).max()
    assert_close(sum_of_both["energy"], grace["energy"] + alone["energy"], tolerance)
    assert_close(sum_of_both["forces"], grace["forces"] + alone["forces"], tolerance)


def test_scaled(case: tuple[Path, Atoms], tmp_path: Path) -> None:
    """Two styles grace of different words in one hybrid; `tabulated` is `table`, which is the name of a pair style."""
    model, atoms = case
    elements = sorted(set(atoms.symbols))
    symbols = " ".join(elements)
    mixed = (
        setup(atoms, tmp_path, "cell", elements) + "pair_style hybrid/scaled 0.25 grace threads 1 radial exact "
        "0.5 grace threads 1 radial tabulated precision mixed\n"
        + f"pair_coeff * * grace 1 {model} {symbols}\npair_coeff * * grace 2 {model} {symbols}\nrun 0"
    )
    mixed.peratom = False
    [expected] = run([single_point(atoms, tmp_path, "cell", model)], tmp_path)
    [result] = run([mixed], tmp_path, ranks=2)
    largest = np.abs(expected["forces"]).max()
    assert_close(result["forces"], 0.75 * expected["forces"], MIXED_FORCE_RELATIVE * largest)


@RANKS_TRIED
def test_null_types(case: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    """Atoms mapped to NULL are no neighbours: energy and forces are those of the other atoms alone."""
    model, atoms = case
    elements = sorted(set(atoms.symbols))
    mapped = [symbol if symbol == "O" else "NULL" for symbol in elements]
    assert mapped.count("O") == 1
    k = mapped.index("O")
    others = "\n".join(
        f"pair_coeff {a + 1} {b + 1} zero"
        for a in range(len(elements))
        for b in range(a, len(elements))
        if (a, b) != (k, k)
    )
    hybrid = (
        setup(atoms, tmp_path, "cell", elements)
        + f"pair_style hybrid grace threads 1 zero 4.0\npair_coeff * * grace {model} {' '.join(mapped)}\n{others}\n"
        + "compute e all pe/atom\ncompute p all pressure NULL pair\ncompute t all reduce sum c_e\n"
        + "thermo_style custom step pe c_p[1] c_t\nthermo_modify norm no\nrun 0"
    )
    hybrid.peratom = False
    [result] = run([hybrid], tmp_path, ranks)
    chosen = atoms.symbols == "O"
    [alone] = run([single_point(atoms[chosen], tmp_path, "oxygen", model, words="")], tmp_path)
    assert_close(result["energy"], alone["energy"], RANKS)
    assert_close(result["forces"][chosen], alone["forces"], RANKS)
    assert np.all(result["forces"][~chosen] == 0.0)


@RANKS_TRIED
def test_two_types_of_one_element(case: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    model, atoms = case
    [expected] = run([single_point(atoms, tmp_path, "cell", model)], tmp_path)
    elements = ["Fe", "O", *(["Si"] if "Si" in atoms.symbols else []), "Fe"]
    types = [elements.index(symbol) + 1 for symbol in atoms.symbols]
    last = len(elements)
    types = [last if t == 1 and n % 4 > 1 else t for n, t in enumerate(types)]
    assert types.count(1) > 1
    assert types.count(last) > 1
    job = setup(atoms, tmp_path, "types", elements, types) + potential(model, elements) + OUTPUT + "run 0"
    [result] = run([job], tmp_path, ranks)
    for key in ("energies", "forces", "virials"):
        assert_close(result[key], expected[key], RANKS)


@pytest.mark.parametrize("factor", [0.25, 0.0])
def test_adapt_scale(case: tuple[Path, Atoms], factor: float, tmp_path: Path) -> None:
    """Thermodynamic integration scales the whole potential."""
    model, atoms = case
    [plain] = run([single_point(atoms, tmp_path, "cell", model)], tmp_path)
    job = single_point(atoms, tmp_path, "cell", model)
    job.commands.insert(-1, f"variable s equal {factor}")
    job.commands.insert(-1, "fix scale all adapt 1 pair grace scale * * v_s")
    [scaled] = run([job], tmp_path)
    for key in ("energy", "energies", "forces", "virial", "virials", "centroid_virials"):
        assert_close(scaled[key], factor * plain[key], RANKS, what=key)


def test_adapt_scale_of_some_pairs(case: tuple[Path, Atoms], tmp_path: Path) -> None:
    model, atoms = case
    job = single_point(atoms, tmp_path, "cell", model)
    job.commands.insert(-1, "variable s equal 0.5")
    job.commands.insert(-1, "fix scale all adapt 1 pair grace scale 1 1 v_s")
    with pytest.raises(Exception, match="grace: scale must be the same for all pairs of types"):
        run_here(job)
