"""Relaxations: the steps of ASE, exact gradients of the cell, independence of the batch, guards, resumed runs."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import scipy.linalg
from ase import Atoms
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from grace_md import GraceCalculator
from grace_md.data import model_path
from grace_md.smax.relax_copies import Distinct
from grace_md.smax.relax_fire import FireBatch, expm_frechet
from grace_md.smax.relax_run import relax_files
from grace_md.smax.relaxation import KEPT, RelaxSettings, relax, relax_stream
from systems import pack
from tolerances import assert_close

STEPS = 25
SAME_PATH = 1e-8  # A, eV/A: rounding, amplified by the steps; 1e-9 is seen, from ASE's logarithms of matrices
SLOPE = 1e-6  # eV/A: central differences of energies of order 100 eV with a step of 1e-4


@pytest.fixture(scope="module")
def calculator() -> GraceCalculator:
    return GraceCalculator(model_path("lava9_1l"))


def cells(n: int, seed: int = 5, contact: float = 0.8) -> list[Atoms]:
    """Random oxides of 4 to 9 atoms."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        symbols = [*["O"] * int(rng.integers(2, 5)), *rng.choice(["Si", "Al", "Mg"], int(rng.integers(2, 6)))]
        shape = np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3))
        cell = shape * (14.0 * len(symbols) / np.linalg.det(shape)) ** (1 / 3)
        found.append(pack(symbols, cell, contact=contact, seed=int(rng.integers(1 << 30))))
    return found


def test_derivative_of_the_matrix_exponential() -> None:
    rng = np.random.default_rng(1)
    for scale in (0.0, 1e-6, 0.1, 0.7, 2.0):
        a, e = scale * rng.standard_normal((4, 3, 3)), 50.0 * rng.standard_normal((4, 3, 3))
        value, slope = expm_frechet(a, e)
        for k in range(4):
            expected = scipy.linalg.expm_frechet(a[k], e[k])
            assert_close(value[k], expected[0], 1e-13, 1e-12)
            assert_close(slope[k], expected[1], 1e-11, 1e-12)


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.filterwarnings("ignore:logm result may be inaccurate:RuntimeWarning")
def test_the_path_is_that_of_ase(calculator: GraceCalculator, variable: bool) -> None:
    structures = cells(3)
    mode = "variable" if variable else "fixed"
    found = relax(structures, calculator, cell=mode, steps=STEPS, fmax=1e-9, closest=0.01)
    for atoms, result in zip(structures, found, strict=True):
        other = atoms.copy()
        other.calc = calculator
        FIRE(FrechetCellFilter(other) if variable else other, logfile=None).run(fmax=1e-9, steps=STEPS)
        (end,) = result.frames
        assert result.reason == "steps"
        assert_close(end.cell.array, other.cell.array, SAME_PATH)
        difference = end.get_scaled_positions() - other.get_scaled_positions()
        assert_close(difference - np.round(difference), 0.0 * difference, SAME_PATH)
        assert_close(result.energy * len(atoms), other.get_potential_energy(), SAME_PATH)
        moved = np.abs(other.cell.array - atoms.cell.array).max()
        assert bool(moved > 0.05) is variable


def test_forces_on_the_coordinates_are_slopes_of_the_energy(calculator: GraceCalculator) -> None:
    """At a cell that is far from the first one, where the logarithm is no small strain."""
    (atoms,) = cells(1)
    batch = FireBatch()
    batch.add([atoms], [True])
    rng = np.random.default_rng(8)
    start = 0.25 * rng.standard_normal((1, 3, 3)) * len(atoms)

    def energy(dx: np.ndarray, dl: np.ndarray) -> tuple[float, dict[str, Any]]:
        batch._x, batch._l = atoms.positions + dx, start + dl
        batch._place()
        moved = Atoms(atoms.numbers, positions=batch.positions, cell=batch.cells[0], pbc=True)
        (result,) = calculator.evaluate([moved])
        return result["energy"], result

    zero = np.zeros((len(atoms), 3)), np.zeros((1, 3, 3))
    _, result = energy(*zero)
    rows, forces = batch.generalised(result["forces"], result["stress"][None])
    step = 1e-4
    for _ in range(4):
        dx, dl = rng.standard_normal(zero[0].shape), rng.standard_normal((1, 3, 3))
        slope = (energy(step * dx, step * dl)[0] - energy(-step * dx, -step * dl)[0]) / (2 * step)
        expected = -(rows * dx).sum() - (forces * dl).sum()
        assert abs(expected) > 0.1
        assert_close(slope, expected, SLOPE * 100, SLOPE * 10)


class Counting:
    """A calculator that notes the sizes of its batches."""

    def __init__(self, calculator: GraceCalculator) -> None:
        self.calculator, self.model = calculator, calculator.model
        self.sizes: list[int] = []

    def evaluate(self, structures: Any) -> Any:
        self.sizes.append(sum(map(len, structures)))
        return self.calculator.evaluate(structures)


def test_structures_do_not_know_of_each_other_and_the_batch_stays_full(calculator: GraceCalculator) -> None:
    structures = cells(10)
    options = {"cell": "mix:0.5", "steps": 25, "seed": 3}
    alone = relax(structures, calculator, batch_atoms=1, **options)
    counting = Counting(calculator)
    together = relax(structures, counting, batch_atoms=30, **options)
    assert {one.variable for one in together} == {True, False}
    for a, b in zip(alone, together, strict=True):
        assert (a.reason, a.steps, a.variable, a.energy) == (b.reason, b.steps, b.variable, b.energy)
        if a.kept:
            np.testing.assert_array_equal(a.frames[-1].positions, b.frames[-1].positions)
            np.testing.assert_array_equal(a.frames[-1].cell.array, b.frames[-1].cell.array)
    total = sum(map(len, structures))
    left = total - np.cumsum([len(structures[one.index]) for one in together])
    assert len(left) == 10
    full = counting.sizes[: len(counting.sizes) // 2]
    assert min(full) >= 30  # new structures take the places of those that ended


def test_forces_fall_and_atoms_stay_apart(calculator: GraceCalculator) -> None:
    structures = cells(16, contact=0.65)
    for mode in ("fixed", "variable"):
        kept = [one for one in relax(structures, calculator, cell=mode, steps=100) if one.kept]
        assert len(kept) >= 12
        assert np.median([one.fmax_first for one in kept]) > 5.0 * np.median([one.fmax for one in kept])
        for one in kept:
            atoms = one.frames[-1].repeat(2)
            limit = 0.7 * 1.5 * covalent_radii[atoms.numbers]
            distances = atoms.get_all_distances(mic=True) + 99.0 * np.eye(len(atoms))
            assert (distances >= 0.5 * (limit[:, None] + limit[None])).all()
            assert one.fmax < 0.05 or one.reason == "steps"
            assert "smax_relax_energy" in one.frames[-1].info
            assert one.frames[-1].calc is None


class Scripted:
    """A model that says what a test wants of a pair of atoms at each step."""

    class model:
        elements = ("Cu",)

    def __init__(self, energies: Any = 0.0, force: float = 0.0, stress: float = 0.0) -> None:
        self.energies, self.force, self.stress, self.call = energies, force, stress, 0

    def evaluate(self, structures: Any) -> Any:
        energy = self.energies[self.call] if isinstance(self.energies, list) else self.energies
        self.call += 1
        found = []
        for atoms in structures:
            x = atoms.get_distance(0, 1, mic=True, vector=True)[0]
            forces = np.zeros((2, 3))
            forces[:, 0] = [self.force * np.sign(x), -self.force * np.sign(x)]
            work = self.force * (2.6 - abs(x)) + self.stress * (1000.0 - atoms.get_volume())
            found.append({"energy": energy - work, "forces": forces, "stress": self.stress * np.repeat([1, 0], 3)})
        return found


def pair() -> Atoms:
    return Atoms("Cu2", positions=[[2, 5, 5], [4.6, 5, 5]], cell=np.eye(3) * 10.0, pbc=True)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Scripted(), "converged"), (Scripted(force=1.0), "close contact"), (Scripted(stress=-0.1), "volume"),
        (Scripted(stress=0.1), "volume"), (Scripted([0.0, 0.0, -50.0], force=0.2), "energy jump"),
        (Scripted([0.0, 0.0, np.nan], force=0.2), "not finite"), (Scripted(force=np.nan), "not finite"),
        (Scripted(force=0.06), "steps"),
    ],
)  # fmt: skip
def test_guards(model: Scripted, reason: str) -> None:
    (result,) = relax([pair()], model, cell="variable", steps=100 if reason != "steps" else 5, closest=0.7)
    assert result.reason == reason
    assert result.kept == (reason in KEPT) == bool(result.frames)
    if reason == "volume":
        assert not 1.0 / 3.0 <= result.volume_ratio <= 3.0


def test_structures_that_cannot_be_relaxed(calculator: GraceCalculator) -> None:
    nan, flat, close = pair(), pair(), pair()
    nan.positions[0] = np.nan
    flat.cell[2] = flat.cell[1]
    close.positions[1, 0] = 3.0
    slab = cells(1)[0]
    slab.pbc = [True, True, False]
    radii = pair()
    radii.set_array("effective_radius", np.array([2.6, 2.6]))  # 2.6 A are then too close
    found = relax([nan, flat, close, Atoms("He"), Atoms(), radii, slab], Counting(calculator), cell="variable", steps=2)
    reasons = [one.reason for one in found]
    assert reasons[:5] == ["invalid", "invalid", "unknown element", "unknown element", "invalid"]
    assert [one.reason for one in relax([close, radii], Scripted())] == ["close contact", "close contact"]
    assert (found[6].reason, found[6].variable) == ("steps", False)  # the cell of a slab has no stress to follow


def test_log_spaced_frames(calculator: GraceCalculator) -> None:
    (result,) = relax(cells(1), calculator, keep="log:4", steps=60, fmax=1e-9)
    steps = [atoms.info["smax_relax_step"] for atoms in result.frames]
    assert steps[-1] == 60
    assert len(steps) == 4
    assert steps[0] == 1
    assert_close(np.diff(np.log(steps)), np.full(3, np.log(60) / 3), 0.25)
    energies = [atoms.info["smax_relax_energy"] for atoms in result.frames]
    assert energies == sorted(energies, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "free"}, "`cell` = 'free' must be fixed, variable or mix:P"), ({"cell": "mix:2"}, "mix:P"),
        ({"keep": "log:0"}, "`keep` = 'log:0'"), ({"keep": "all"}, "`keep` = 'all'"), ({"fmax": 0}, "`fmax` = 0"),
        ({"volume_factor": 0.5}, "`volume_factor`"), ({"steps": -1}, "`steps` = -1"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RelaxSettings(**options)


def test_copies() -> None:
    distinct = Distinct(1e-3, "distances")
    first, other = cells(2)
    moved = first.copy()
    moved.positions += 1.0
    moved.positions[0] += 1e-5
    answers = [distinct.is_new(atoms) for atoms in (first, other, moved, first.repeat((2, 1, 1)))]
    assert answers == [True, True, False, False]
    assert Distinct(0.0, "distances").is_new(first)
    with pytest.raises(ValueError, match="`descriptor` = 'x' is unknown"):
        Distinct(1e-3, "x")


class Interrupting(Counting):
    """Raises or sends SIGTERM at one of its calls."""

    def __init__(self, calculator: GraceCalculator, kind: str, call: int) -> None:
        super().__init__(calculator)
        self.kind, self.at = kind, call

    def evaluate(self, structures: Any) -> Any:
        if len(self.sizes) == self.at:
            if self.kind == "crash":
                raise RuntimeError("out of memory")
            os.kill(os.getpid(), signal.SIGTERM)
        return super().evaluate(structures)


@pytest.mark.parametrize("kind", ["crash", "terminate"])
def test_an_interrupted_run_goes_on(
    kind: str, calculator: GraceCalculator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grace_md.smax.relax_run.SYNC_SECONDS", 0.0)
    structures = cells(10)
    structures.insert(4, structures[2].copy())  # ends where the other one does
    ase.io.write(tmp_path / "in.extxyz", structures)
    settings = RelaxSettings(cell="fixed", steps=20, keep="log:2", batch_atoms=20)
    options: dict[str, Any] = {"descriptor": "distances", "progress": False}
    source = [str(tmp_path / "in.extxyz")]
    whole = Counting(calculator)
    expected = relax_files(source, tmp_path / "a.extxyz", whole, settings, **options)
    assert expected.n_copies == 2
    first = Interrupting(calculator, kind, len(whole.sizes) // 2)
    out = tmp_path / "b.extxyz"
    if kind == "crash":
        with pytest.raises(RuntimeError, match="out of memory"):
            relax_files(source, out, first, settings, **options)
    else:
        assert relax_files(source, out, first, settings, **options).stopped
    assert not out.exists()
    with pytest.raises(FileExistsError, match="interrupted run with other settings"):
        relax_files(source, out, calculator, RelaxSettings(steps=21), **options)
    second = Counting(calculator)
    found = relax_files(source, out, second, settings, **options)
    assert 0 < len(second.sizes) < len(whole.sizes)
    assert found.outcomes == expected.outcomes
    assert out.read_bytes() == (tmp_path / "a.extxyz").read_bytes()
    table = [tmp_path / f"{name}.extxyz.outcomes.csv" for name in "ab"]
    assert table[0].read_bytes() == table[1].read_bytes()
    with table[0].open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(11))
    assert json.loads((tmp_path / "b.extxyz.summary.json").read_text())["n_written"] == expected.n_written
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".part", ".journal", ".frames")]
    with pytest.raises(FileExistsError, match="add --force"):
        relax_files(source, out, calculator, settings, **options)


def test_stream_takes_structures_one_by_one(calculator: GraceCalculator) -> None:
    taken = []

    def source() -> Any:
        for k, atoms in enumerate(cells(6)):
            taken.append(k)
            yield k, atoms

    stream = relax_stream(source(), calculator, RelaxSettings(steps=3, batch_atoms=5))
    next(stream)
    assert len(taken) < 4


def test_a_model_of_other_elements_is_refused(calculator: GraceCalculator, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "in.extxyz", [pair()])
    with pytest.raises(ValueError, match="Every structure has elements outside the model, which knows"):
        relax_files([str(tmp_path / "in.extxyz")], tmp_path / "a.extxyz", calculator, progress=False, tolerance=0.0)
