"""Rules one by one: what they drop at their limits, their words, and the fingerprints of copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii

from grace_md.merging import Duplicates, MinDistance, Rule, StressOutlier, parse_rules
from grace_md.merging.duplicates import FingerprintSet, fingerprint
from grace_md.merging.entries import Entry
from grace_md.merging.parse import RULE_NAMES, ordered
from grace_md.merging.rules import contacts
from grace_md.merging.split import choose_compositions, parse_split
from grace_md.training.data.labels import LabelKeys, extract
from grace_md.training.data.readers import frame_from_atoms
from tolerances import assert_close

KEYS = LabelKeys(energy="energy", forces="forces", stress="stress", virial=None)


def entry(atoms: Atoms | str, forces: Any = None, stress: Any = None) -> Entry:
    if isinstance(atoms, str):
        atoms = Atoms(atoms, cell=np.eye(3) * 9.0, pbc=True)
        atoms.positions[:, 0] = 3.0 * np.arange(len(atoms))
    forces = np.zeros((len(atoms), 3)) if forces is None else forces
    stress = np.zeros(6) if stress is None else stress
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces, stress=stress)
    frame = frame_from_atoms(atoms, 0)
    return Entry(0, "test", frame, extract(frame, KEYS), "", KEYS)


def one(words: str) -> Rule:
    (rule,) = parse_rules(words)
    return rule


@pytest.mark.parametrize(
    ("words", "formula", "reason"),
    [
        ("plus-u", "FeO", "Fe with O"), ("plus-u", "CoF2", "Co with F"), ("plus-u", "MnNiO2F", "Mn+Ni with F+O"),
        ("plus-u", "VO", "V with O"), ("plus-u", "WO3", "W with O"), ("plus-u", "FeSi", None), ("plus-u", "TiO2", None),
        ("plus-u", "FeS", None), ("plus-u", "Cu2O", None), ("plus-u:Cu", "Cu2O", "Cu with O"),
        ("plus-u:Cu", "FeO", None),
        ("pseudopotential", "GdN", "Gd"), ("pseudopotential", "EuYb", "Eu+Yb"), ("pseudopotential", "CeO2", None),
        ("pseudopotential:Ce", "CeO2", "Ce"), ("elements:O+Si", "SiO2", None), ("elements:O+Si", "AlFeO", "Al+Fe"),
    ],
)  # fmt: skip
def test_rules_of_elements(words: str, formula: str, reason: str | None) -> None:
    assert one(words).check([entry(formula)]) == [reason]


def test_limits_of_forces_and_stresses() -> None:
    forces = np.zeros((2, 3))
    forces[1] = [3.0, 0.0, 4.0]
    stress = np.array([0.0, -0.5, 0.0, 0.0, 0.0, 0.2])
    for words, expected in [("max-force:4.9", "5 eV/A"), ("max-force:5.1", None), ("max-stress:0.49", "0.5 eV/A^3"),
                            ("max-stress:0.51", None)]:  # fmt: skip
        assert one(words).check([entry("SiO", forces, stress)]) == [expected]
    missing = entry("SiO", np.full((2, 3), np.nan), np.full(6, np.nan))
    assert one("max-force:0.1").check([missing]) == one("max-stress:0.1").check([missing]) == [None]


def test_closest_distances_against_all_images() -> None:
    rng = np.random.default_rng(3)
    structures = [
        Atoms("SiO" * n, positions=rng.random((2 * n, 3)) * 6.0, cell=np.eye(3) * 6.0 + rng.uniform(-0.8, 0.8, (3, 3)),
              pbc=rng.random(3) < 0.7)
        for n in (1, 2, 3, 4)
    ]  # fmt: skip
    structures.append(bulk("Cu", cubic=False))  # closest to its own image
    radii = np.concatenate([rng.uniform(0.9, 1.5, len(atoms)) for atoms in structures])
    first = np.cumsum([0, *map(len, structures)])
    found = contacts(
        np.concatenate([atoms.positions for atoms in structures]), np.array([a.cell.array for a in structures]),
        np.array([a.pbc for a in structures]), first, radii,
    )  # fmt: skip
    for k, atoms in enumerate(structures):
        own, smallest = radii[first[k] : first[k + 1]], np.inf
        shifts = [np.arange(-2, 3) if periodic else [0] for periodic in atoms.pbc]
        for shift in np.array(np.meshgrid(*shifts)).reshape(3, -1).T:
            vectors = atoms.positions[None] + shift @ atoms.cell.array - atoms.positions[:, None]
            ratio = np.linalg.norm(vectors, axis=2) / (own[:, None] + own[None])
            smallest = np.min(ratio[ratio > 0.0], initial=smallest)
        assert_close(found[k] if smallest < 1.0 else 9.0, smallest if smallest < 1.0 else 9.0, 1e-12)
    assert np.isfinite(found).sum() >= 3


def test_min_distance_at_its_limit() -> None:
    sum_of_radii = covalent_radii[14] + covalent_radii[8]
    for factor, drops in [(0.499, True), (0.501, False)]:
        atoms = Atoms("SiO", positions=[[0, 0, 0], [factor * sum_of_radii, 0, 0]], cell=np.eye(3) * 12, pbc=True)
        assert (MinDistance(0.5).check([entry(atoms)]) != [None]) is drops


class Fixed:
    """A model whose stress is always zero."""

    class model:
        elements = ("O", "Si")

    def evaluate(self, structures: Any) -> Any:
        return [{"stress": np.zeros(6)} for _ in structures]


def test_stress_outliers() -> None:
    rule = StressOutlier(Fixed())
    entries = [entry("SiO", stress=value * np.eye(6)[4]) for value in (0.0839, -0.0841, np.nan)]
    entries.append(entry("FeO", stress=np.ones(6)))
    assert rule.check(entries) == [None, "error 0.0841 eV/A^3", None, None]
    assert rule.unchecked == 2
    with pytest.raises(ValueError, match="limit -1"):
        StressOutlier(Fixed(), -1.0)


def crystal(seed: int = 1) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.positions += rng.normal(0.0, 0.1, (8, 3))
    return atoms


def test_fingerprints_know_crystals_and_not_their_description() -> None:
    rng = np.random.default_rng(2)
    atoms = crystal()
    copy = atoms[rng.permutation(8)]
    copy.positions += rng.uniform(-9, 9, 3)
    copy.rotate(50.0, (1, 2, 3), rotate_cell=True)
    copy.set_cell([[1, 0, 0], [1, 1, 0], [0, -1, 1]] @ copy.cell.array)  # another choice of lattice vectors
    copy.wrap()
    assert_close(fingerprint(copy), fingerprint(atoms), 1e-12)
    assert_close(fingerprint(atoms.repeat((2, 1, 1))), fingerprint(atoms), 1e-12)
    moved = atoms.copy()
    moved.positions[3, 0] += 0.02
    assert np.abs(fingerprint(moved) - fingerprint(atoms)).max() > 1e-4
    exchanged = atoms.copy()
    exchanged.numbers[[0, 1]] = exchanged.numbers[[1, 0]]  # the same places, other species
    assert np.abs(fingerprint(exchanged) - fingerprint(atoms)).max() > 1e-3
    assert_close(fingerprint(Atoms("H")), np.zeros(6), 0.0)


def test_fingerprint_sets_have_no_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the grid, values within the tolerance are found and values beyond it are not; also in sorted arrays."""
    monkeypatch.setattr("grace_md.merging.duplicates.MERGE_AT", 50)
    rng = np.random.default_rng(4)
    seen, values = FingerprintSet(1e-3), rng.uniform(1.0, 4.0, (300, 6))
    for value in values:
        seen.add("A", value)
    assert len(seen) == 300
    for value in values:
        assert seen.contains("A", value + rng.choice([-0.999e-3, 0.999e-3], 6))
        outside = value.copy()
        outside[int(rng.integers(6))] += 1.01e-3
        assert not seen.contains("A", outside)
        assert not seen.contains("B", value)


def test_duplicates_depend_on_composition_and_periodicity() -> None:
    rule, molecular = Duplicates(), molecule("H2O", vacuum=8.0)
    boxed = molecular.copy()
    boxed.pbc = True
    heavy = molecular.copy()
    heavy.numbers[0] = 16
    assert [x is not None for x in rule.check([entry(a) for a in (molecular, boxed, heavy, molecular.copy())])] == [
        False, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plus_u", r"rule `plus_u` is unknown \(did you mean plus-u\?\)"), ("max-force", "needs a value: max-force:50"),
        ("max-force:many", "'many' is not a number"), ("max-force:-1", "is not a number > 0"),
        ("elements:O+Xx", "'Xx' is no element"), ("stress-outlier", "add --model FILE.npz"),
        ("plus-u,plus-u", "listed twice"), ("predicate:no.such:thing", "cannot be imported"),
        ("duplicates:0", "is not a number > 0"), ("pseudopotential:+", "it lists no element"),
    ],
)  # fmt: skip
def test_words_that_are_not_understood(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rules(words)


def test_words_and_order() -> None:
    words = "duplicates:0.001,plus-u,pseudopotential:Gd,elements:O+Si,max-force:50,max-stress:1,min-distance:0.5"
    rules = parse_rules(words)
    assert {rule.name for rule in rules} <= set(RULE_NAMES)
    assert ",".join(rule.describe() for rule in rules) == words
    assert [rule.name for rule in ordered(rules)][-1] == "duplicates"
    assert parse_rules("") == []


def test_words_of_splits() -> None:
    assert parse_split("composition:0.02", 5).fraction == 0.02
    for words in ("composition:2", "composition:0", "composition", "random:0.1", "composition:nan"):
        with pytest.raises(ValueError, match="--split"):
            parse_split(words, 0)
    counts = {f"A{k}": 1 + k % 3 for k in range(200)}
    chosen = choose_compositions(counts, parse_split("composition:0.1", 0))
    assert sum(counts[name] for name in chosen) == round(0.1 * sum(counts.values()))
    assert chosen == choose_compositions(counts, parse_split("composition:0.1", 0))
    assert chosen != choose_compositions(counts, parse_split("composition:0.1", 1))
