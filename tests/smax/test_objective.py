"""Phi and its derivatives by positions and cells; repulsion of cores against explicit images."""

from __future__ import annotations

import numpy as np
import pytest

from entropy_tools import ToyDescriptor, small_config
from grace_md.smax.candidate import Batch
from grace_md.smax.config import SmaxConfig
from grace_md.smax.objective import CoreProblem, EntropyProblem, core_overlap, smallest_distance_ratio
from grace_md.smax.sampling import Sampler
from grace_md.smax.statistics import EntropyState, Snapshot
from tolerances import CORE_RELATIVE, ENTROPY_DIFFERENCE, ENTROPY_STEP, assert_close


def drawn(config: SmaxConfig, first: int, last: int) -> Batch:
    sampler = Sampler(config)
    return Batch.of([sampler.draw(k) for k in range(first, last)])


def snapshot_of_random(config: SmaxConfig) -> Snapshot:
    state = EntropyState.empty(ToyDescriptor.n_features)
    batch = drawn(config, 0, 80)
    values = ToyDescriptor().values(batch)
    for s in range(len(batch)):
        state.add(values[batch.first_atom[s] : batch.first_atom[s + 1]])
    state.update_phase(config.statistics)
    found = state.snapshot(config.statistics)
    assert found is not None
    return found


@pytest.mark.parametrize("relax_cell", [False, True])
@pytest.mark.parametrize("cutoff_scale", [0.6, 1.0])  # with and without images of the atom itself
def test_gradient_equals_central_differences(relax_cell: bool, cutoff_scale: float) -> None:
    config = small_config(statistics={"mode": "mixed"}, radii={"cutoff_factor": 4.0 * cutoff_scale})
    batch = drawn(config, 100, 108)
    assert core_overlap(batch).energy.max() > 0.0
    problem = EntropyProblem(batch, ToyDescriptor(), snapshot_of_random(config), 50.0, relax_cell)
    rng = np.random.default_rng(7)
    rows = problem.rows() + 0.1 * rng.normal(size=problem.rows().shape)
    _, gradient = problem.evaluate(rows)
    directions = [rng.normal(size=rows.shape) for _ in range(3)]
    only_cell = np.where(problem.is_atom[:, None], 0.0, directions[0])
    for direction in [*directions, only_cell] if relax_cell else directions:
        ahead, _ = problem.evaluate(rows + ENTROPY_STEP * direction)
        behind, _ = problem.evaluate(rows - ENTROPY_STEP * direction)
        slope = np.add.reduceat(np.sum(gradient * direction, axis=1), problem.first_row[:-1])
        assert np.all(slope != 0.0) or not relax_cell  # one atom alone has no gradient
        assert_close(slope, (ahead - behind) / (2 * ENTROPY_STEP), ENTROPY_DIFFERENCE * np.abs(slope).max())


def test_selected_candidates_have_the_same_values() -> None:
    config = small_config()
    snapshot = snapshot_of_random(config)
    batch = drawn(config, 100, 108)
    problem = EntropyProblem(batch, ToyDescriptor(), snapshot, 50.0, True)
    rows = problem.rows() + 0.05
    values, gradient = problem.evaluate(rows)
    kept = np.array([True, False, True, True, False, False, True, True])
    of_row = np.repeat(kept, np.diff(problem.first_row))
    part_values, part_gradient = problem.select(kept).evaluate(rows[of_row])
    assert_close(part_values, values[kept], 1e-9)
    assert_close(part_gradient, gradient[of_row], 1e-9)


def test_candidates_without_finite_features_are_marked_and_harm_no_other() -> None:
    class Broken(ToyDescriptor):
        def values(self, batch: Batch) -> np.ndarray:
            result = super().values(batch)
            result[batch.first_atom[1], 0] = np.nan
            return result

    config = small_config()
    batch, snapshot = drawn(config, 100, 104), snapshot_of_random(config)
    good, good_gradient = EntropyProblem(batch, ToyDescriptor(), snapshot, 50.0, False).evaluate(batch.positions)
    value, gradient = EntropyProblem(batch, Broken(), snapshot, 50.0, False).evaluate(batch.positions)
    assert value[1] == -np.inf
    assert not gradient[batch.owner == 1].any()
    others = np.arange(4) != 1
    assert_close(value[others], good[others], 1e-9)
    assert_close(gradient[batch.owner != 1], good_gradient[batch.owner != 1], 1e-9)


def explicit_core(batch: Batch, s: int) -> tuple[float, float]:
    """V_core and the smallest r/d of one candidate, by a sum over images."""
    atoms = slice(batch.first_atom[s], batch.first_atom[s + 1])
    positions, core = batch.positions[atoms], batch.core_radii[atoms]
    images = np.array(list(np.ndindex(9, 9, 9))) - 4
    vectors = positions[None, :, None] - positions[:, None, None] + images @ batch.cells[s]
    ratios = np.linalg.norm(vectors, axis=-1) / (0.5 * (core[:, None] + core))[:, :, None]
    itself = np.eye(len(core), dtype=bool)[:, :, None] & ~images.any(axis=1)
    ratios = np.minimum(np.where(itself, 1.0, ratios), 1.0)
    return 0.5 * float(np.sum((1.0 - ratios) ** 2)), float(ratios.min())


def test_core_repulsion_equals_a_sum_over_images() -> None:
    # Larger cores than any that are drawn, so that atoms overlap with their own images.
    config = small_config(elements={"symbols": ["Fe", "O"]}, composition={"mean_atoms": 3.0, "max_atoms": 5})
    batch = drawn(config, 0, 8)
    batch.core_radii[:] *= 1.5
    found, ratios = core_overlap(batch), smallest_distance_ratio(batch)
    assert np.all(found.energy > 0.0)
    for s in range(len(batch)):
        energy, smallest = explicit_core(batch, s)
        assert_close(found.energy[s], energy, 1e-14, CORE_RELATIVE)
        assert_close(ratios[s], smallest, 0.0, CORE_RELATIVE)


def test_core_gradient_and_strain_equal_central_differences() -> None:
    config = small_config()
    batch = drawn(config, 0, 8)
    found = core_overlap(batch)
    rng = np.random.default_rng(3)
    direction, strain = rng.normal(size=batch.positions.shape), rng.normal(size=(3, 3))
    values, _ = CoreProblem(batch).evaluate(batch.positions)
    assert_close(values, -found.energy, 0.0)
    for which in ("positions", "strain"):
        energies = []
        for step in (ENTROPY_STEP, -ENTROPY_STEP):
            deformation = np.eye(3) + step * strain
            moved = (
                batch.at(batch.positions + step * direction, batch.cells)
                if which == "positions"
                else batch.at(batch.positions @ deformation, batch.cells @ deformation)
            )
            energies.append(core_overlap(moved).energy)
        difference = (energies[0] - energies[1]) / (2 * ENTROPY_STEP)
        by_position = np.add.reduceat(np.sum(found.gradient * direction, axis=1), batch.first_atom[:-1])
        slope = by_position if which == "positions" else np.einsum("sab,ab->s", found.strain, strain)
        assert np.abs(slope).max() > 0.1
        assert_close(slope, difference, ENTROPY_DIFFERENCE * np.abs(slope).max(), what=which)


def test_atoms_in_one_place_do_not_break_it() -> None:
    config = small_config(composition={"n_atoms": {"3": 1.0}})
    batch = drawn(config, 0, 2)
    batch.positions[1] = batch.positions[0]
    found = core_overlap(batch)
    assert np.all(np.isfinite(found.gradient))
    assert found.energy[0] >= 1.0
    assert smallest_distance_ratio(batch)[0] < 1e-6
