"""Invariant features of GRACE models: against the NumPy oracle, invariant, and as many as the weight file says."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii

from evaluator_tools import SYMBOLS, TINY, tiny
from grace_md import GraceModel
from grace_md._core import SnapKernel
from grace_md.analysis.dataset_features import SNAP_CUTOFF, GraceFeatures, SnapFeatures
from grace_md.reference import build_stages, find_bonds, pair_cutoffs, reference_gradients
from grace_md.reference_stages import FunctionReduce
from grace_md.training.data.labels import LabelKeys, Record, extract
from grace_md.training.data.readers import frame_from_atoms
from grace_md.weights import element_names
from tolerances import assert_close

TABLES = 1e-7  # of the largest feature: the evaluator tabulates its radial functions
INVARIANCE = 1e-10
NO_LABELS = LabelKeys(energy=None, forces=None, stress=None, virial=None)


def record(atoms: Atoms) -> Record:
    return extract(frame_from_atoms(atoms, 0), NO_LABELS)


def structure(name: str, seed: int = 0) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = Atoms("X9", positions=rng.uniform(0.0, 5.0, (9, 3)), cell=np.diag([5.0, 5.5, 6.0]), pbc=True)
    atoms.symbols = rng.choice(SYMBOLS[name], 9)
    return atoms


def expected(name: str, atoms: Atoms) -> np.ndarray:
    """Inputs of the reductions to densities, channel-major."""
    arrays = tiny(name)
    elements = element_names(arrays)
    species = np.array([elements.index(symbol) for symbol in atoms.symbols])
    _, values, _ = reference_gradients(arrays, species, find_bonds(atoms, species, pair_cutoffs(arrays)))
    reduces = [stage for stage in build_stages(arrays) if isinstance(stage, FunctionReduce)]
    parts = []
    for stage in sorted((s for s in reduces if s.output in ("rho", "I2")), key=lambda s: s.output):
        for item in stage.inputs:
            parts.append(values[item.tensor][:, item.source].transpose(0, 2, 1).reshape(len(atoms), -1))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("name", TINY)
def test_features_are_those_of_the_oracle(name: str) -> None:
    atoms = structure(name)
    wanted = expected(name, atoms)
    features = GraceFeatures(GraceModel(tiny(name)), threads=1)
    found = features.rows([record(atoms), record(atoms)])
    largest = np.abs(wanted).max()
    assert largest > 0.0
    assert features.n_features == wanted.shape[1] == sum(rows * channels for _, rows, channels in features.blocks)
    assert_close(found, np.concatenate([wanted, wanted]), TABLES * largest)


@pytest.mark.parametrize("name", ["tiny_1l", "tiny_2l"])
def test_features_are_invariant(name: str) -> None:
    atoms = structure(name, seed=2)
    features = GraceFeatures(GraceModel(tiny(name)), sorted(set(atoms.symbols)), threads=1)
    before = features.rows([record(atoms)])
    order = np.random.default_rng(3).permutation(len(atoms))
    assert (order != np.arange(len(atoms))).any()
    moved = atoms[order]
    rotation, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((3, 3)))
    assert np.abs(rotation - np.eye(3)).max() > 0.1
    moved.set_cell(moved.cell.array @ rotation, scale_atoms=True)
    moved.positions += [0.7, -3.0, 11.0]
    largest = np.abs(before).max()
    assert_close(features.rows([record(moved)]), before[order], INVARIANCE * largest)
    moved.positions[0] += 0.1
    assert np.abs(features.rows([record(moved)]) - before[order]).max() > 1e-3 * largest


def test_large_batches_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from grace_md.analysis import dataset_features

    features = GraceFeatures(GraceModel(tiny("tiny_1l")), threads=1)
    records = [record(structure("tiny_1l", seed)) for seed in range(5)]
    whole = features.rows(records)
    monkeypatch.setattr(dataset_features, "ATOMS_PER_CALL", 10)
    assert_close(features.rows(records), whole, 0.0)


def test_elements_that_a_model_lacks() -> None:
    features = GraceFeatures(GraceModel(tiny("tiny_1l")), ["Mo", "Xe"])
    assert features.knows(np.array([42, 42]))
    assert not features.knows(np.array([42, 41]))  # niobium was not asked for
    with pytest.raises(ValueError, match="knows none of the elements Xe"):
        GraceFeatures(GraceModel(tiny("tiny_1l")), ["Xe"])


def test_bispectrum_features_of_a_batch_are_those_of_each_structure() -> None:
    molecule = Atoms("H2O", positions=[[0, 0, 0], [0.9, 0, 0], [-0.3, 0.9, 0]])
    atoms = structure("tiny_1l")
    features = SnapFeatures(threads=1)
    assert features.n_features == 55
    both = features.rows([record(molecule), record(atoms)])
    assert both.shape == (12, 55)
    assert np.isfinite(both).all()
    kernel = SnapKernel()
    alone = kernel.descriptors(
        atoms.positions, atoms.cell.array[None], atoms.pbc[None], np.array([0, 9]),
        SNAP_CUTOFF * covalent_radii[atoms.numbers], pair_rule=False, n_threads=1,
    )  # fmt: skip
    assert_close(both[3:], alone, 0.0)
    assert np.ptp(alone, axis=0).max() > 1.0
    assert not len(features.rows([]))
