"""What is drawn follows the laws of the settings; limits hold; impossible requests are refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import atomic_numbers, covalent_radii
from scipy import stats

from grace_md.smax.candidate import Candidate
from grace_md.smax.cells import aspect, heights, niggli, shortest_vector
from grace_md.smax.config import SmaxConfig
from grace_md.smax.sampling import Sampler, atom_number_law, element_weights
from grace_md.strict import ConfigError
from tolerances import CHANCE, REDUCED_CELL, assert_close

PAPER = SmaxConfig.of({})


@pytest.fixture(scope="module")
def thousand() -> list[Candidate]:
    sampler = Sampler(PAPER)
    return [sampler.draw(k) for k in range(1000)]


def test_radii_follow_the_beta_law(thousand: list[Candidate]) -> None:
    share = np.concatenate([c.radii / covalent_radii[c.numbers] for c in thousand])
    settings = PAPER.radii
    width = settings.width_hi - settings.width_lo
    law = stats.beta(settings.beta_a, settings.beta_b, loc=settings.width_lo, scale=width)
    assert settings.width_lo <= share.min() < share.max() <= settings.width_hi
    assert len(share) > 10_000
    # Of structures of ordinary cells: small cells of light elements are drawn again until they are thick enough.
    heavy = np.concatenate(
        [c.radii / covalent_radii[c.numbers] for c in thousand if covalent_radii[c.numbers].min() > 1]
    )
    assert len(heavy) > 3000
    assert stats.kstest(heavy, law.cdf).pvalue > CHANCE
    assert stats.kstest(heavy, stats.beta(2.0, 2.0, loc=0.7, scale=0.6).cdf).pvalue < CHANCE


def test_cutoffs_and_cores_are_multiples_of_the_radii(thousand: list[Candidate]) -> None:
    for c in thousand:
        assert np.array_equal(c.cutoffs, PAPER.radii.cutoff_factor * c.radii)
        factor = PAPER.radii.core_factor_extreme if c.extreme else PAPER.radii.core_factor
        assert np.array_equal(c.core_radii, factor * c.radii)
    extremes = sum(c.extreme for c in thousand)
    assert stats.binomtest(extremes, 1000, PAPER.radii.extreme_fraction).pvalue > CHANCE


def test_numbers_of_elements_follow_their_law(thousand: list[Candidate]) -> None:
    law = Sampler(PAPER).element_law
    assert_close(law @ np.arange(1, 16), 2.6, 1e-3)
    counts = np.bincount([len(set(c.numbers)) for c in thousand], minlength=16)[1:]
    observed, expected = np.append(counts[:6], counts[6:].sum()), 1000 * np.append(law[:6], law[6:].sum())
    assert stats.chisquare(observed, expected).pvalue > CHANCE
    assert stats.chisquare(observed, np.full(7, 1000 / 7)).pvalue < CHANCE


def test_elements_follow_their_weights() -> None:
    sampler = Sampler(PAPER)
    numbers, weights = element_weights(PAPER)
    assert_close(weights[numbers <= 18] / weights[-1], np.full(18, 2.0), 1e-12)
    rng = np.random.default_rng(2)
    drawn = [sampler.draw_elements(rng) for _ in range(8000)]
    assert all(len(set(elements)) == len(elements) for elements in drawn)
    first = np.bincount([elements[0] for elements in drawn], minlength=89)[1:]
    assert stats.chisquare(first, 8000 * weights).pvalue > CHANCE
    given = Sampler(SmaxConfig.of({"elements": {"symbols": ["Mo", "Nb", "W"], "weights": {"W": 3.0}}}))
    first = np.bincount([given.draw_elements(rng)[0] for _ in range(3000)], minlength=75)[[41, 42, 74]]
    assert stats.chisquare(first, 3000 * np.array([0.2, 0.2, 0.6])).pvalue > CHANCE


def test_counts_are_flat_on_the_simplex_and_numbers_of_atoms_have_their_mean(thousand: list[Candidate]) -> None:
    sampler = Sampler(SmaxConfig.of({"elements": {"symbols": ["Mo", "W"]}, "composition": {"n_atoms": {"9": 1.0}}}))
    rng = np.random.default_rng(3)
    counts = [int(np.sum(sampler.draw_numbers(rng, np.array([42, 74])) == 42)) for _ in range(4000)]
    assert (min(counts), max(counts)) == (1, 8)
    assert stats.chisquare(np.bincount(counts)[1:], np.full(8, 500.0)).pvalue > CHANCE  # 1 + uniform over 0..7
    law, sizes = Sampler(PAPER).size_law, Sampler(PAPER).sizes
    assert (sizes[0], sizes[-1]) == (1, 32)
    mean = sum(
        p * float(law[sizes >= k] @ sizes[sizes >= k] / law[sizes >= k].sum())
        for k, p in enumerate(Sampler(PAPER).element_law, start=1)
    )
    assert_close(mean, 13.6, 1e-6)
    # Light elements need more atoms for a cell that is thick enough, which shifts what is drawn a little.
    assert abs(np.mean([len(c) for c in thousand]) - 13.6) < 1.0


def test_densities_and_cells_are_within_their_limits(thousand: list[Candidate]) -> None:
    density, cell = PAPER.density, PAPER.cell
    packing = np.array([c.packing for c in thousand])
    high = packing > density.phi_max * (1 + 1e-9)
    low = packing < density.phi_min * (1 - 1e-9)
    assert packing.min() >= density.phi_lowest
    assert packing.max() <= density.phi_highest
    assert 0.01 < high.mean() < 0.06
    assert 0.005 < low.mean() < 0.05
    assert all(c.extreme for c, is_high in zip(thousand, high, strict=True) if is_high)
    for c in thousand:
        assert heights(c.cell).min() >= cell.min_height
        assert aspect(c.cell) <= cell.max_aspect
        assert np.linalg.det(c.cell) > 0.0
        assert shortest_vector(c.cell) >= c.core_radii.max() * (1 - 1e-12)
        fractions = c.positions @ np.linalg.inv(c.cell)
        assert -1e-9 < fractions.min() < fractions.max() < 1 + 1e-9


def test_density_is_log_uniform_where_cells_do_not_limit_it() -> None:
    config = SmaxConfig.of({"density": {"high_fraction": 0.0, "low_fraction": 0.0}})
    sampler, rng = Sampler(config), np.random.default_rng(4)
    logs = np.log([sampler.draw_density(rng, False) for _ in range(3000)])
    low, high = np.log(config.density.phi_min), np.log(config.density.phi_max)
    assert stats.kstest(logs, stats.uniform(low, high - low).cdf).pvalue > CHANCE


def test_reduction_keeps_the_lattice() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        cell = 4.0 * (np.eye(3) + rng.uniform(-0.35, 0.35, (3, 3)))
        sheared = np.array([[1, 2, 0], [0, 1, -3], [0, 0, 1]]) @ cell
        reduced = niggli(sheared)
        multiples = np.linalg.solve(sheared.T, reduced.T)
        assert_close(multiples, np.round(multiples), REDUCED_CELL)
        assert_close(np.linalg.det(reduced), np.linalg.det(cell), REDUCED_CELL)
        assert_close(np.linalg.norm(reduced, axis=1).min(), shortest_vector(reduced), REDUCED_CELL)
        assert np.linalg.norm(reduced, axis=1).max() <= np.linalg.norm(sheared, axis=1).max() + REDUCED_CELL


def test_a_candidate_depends_on_seed_and_number_only() -> None:
    one, two = Sampler(PAPER), Sampler(PAPER)
    for k in (5, 2, 17):
        two.draw(k + 1)
        a, b = one.draw(k), two.draw(k)
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.numbers, b.numbers)
    other = Sampler(SmaxConfig.of({"seed": 2})).draw(5)
    assert len(other) != len(one.draw(5)) or not np.array_equal(other.cell, one.draw(5).cell)


def test_neutral_mixtures_and_formulas() -> None:
    charges = {"Fe": [2, 3], "O": [-2], "Al": [3]}
    neutral = SmaxConfig.of(
        {"elements": {"symbols": ["Fe", "O", "Al"]}, "composition": {"rule": "neutral", "charges": charges}}
    )
    sampler = Sampler(neutral)
    compositions = [sampler.draw(k).atoms().symbols.formula.count() for k in range(60)]
    assert any(set(c) == {"Fe", "O", "Al"} for c in compositions)
    for c in compositions:
        missing = 2 * c["O"] - 3 * c.get("Al", 0)
        assert 2 * c.get("Fe", 0) <= missing <= 3 * c.get("Fe", 0), c
    formulas = SmaxConfig.of(
        {
            "elements": {"symbols": ["Fe", "O", "Al"]},
            "composition": {"rule": "formulas", "formulas": {"Al2O3": 1.0, "FeO": 1.0}},
        }
    )
    sampler = Sampler(formulas)
    reduced = [sampler.draw(k).atoms().get_chemical_formula(empirical=True) for k in range(60)]
    assert set(reduced) == {"Al2O3", "FeO"}
    assert 15 < reduced.count("FeO") < 45


def test_laws_of_the_number_of_atoms() -> None:
    for law, ratio in (("uniform", 1.0), ("log-uniform", 32.0)):
        settings = SmaxConfig.of({"composition": {"n_atoms": law}}).composition
        _, weights = atom_number_law(settings, np.array([1.0]))
        assert_close(weights[0] / weights[-1], ratio, 1e-12)
    settings = SmaxConfig.of({"composition": {"n_atoms": {"4": 1.0, "20": 3.0}, "max_elements": 4}}).composition
    sizes, weights = atom_number_law(settings, np.array([0.5, 0.5]))
    assert (list(sizes), list(weights)) == ([4, 20], [0.25, 0.75])


def test_modes_are_mixed_in_their_share() -> None:
    sampler = Sampler(SmaxConfig.of({"statistics": {"mode": "mixed", "atom_fraction": 0.3}}))
    atoms = sum(sampler.draw(k).mode == "atom" for k in range(400))
    assert stats.binomtest(atoms, 400, 0.3).pvalue > CHANCE
    assert all(Sampler(PAPER).draw(k).mode == "atom" for k in range(5))


def test_impossible_requests_of_the_laws_are_refused() -> None:
    thin = SmaxConfig.of({"elements": {"symbols": ["He"]}, "composition": {"max_atoms": 4, "mean_atoms": 3.0}})
    with pytest.raises(ConfigError, match=r"no cell fits candidate 0 of He .*`cell.min_height` = 2 A.*lower one"):
        Sampler(thin).draw(0)
    with pytest.raises(ConfigError, match=r"`composition.mean_atoms` = 31.5 cannot be reached|mean lies between"):
        Sampler(SmaxConfig.of({"composition": {"mean_atoms": 1.5}}))
    with pytest.raises(ConfigError, match=r"leaves no chance for at most 1 elements"):
        Sampler(SmaxConfig.of({"elements": {"symbols": ["W"]}, "composition": {"n_elements": [0.0, 1.0]}}))
    with pytest.raises(ConfigError, match=r"`composition.n_atoms` allows at most 3 atoms"):
        Sampler(SmaxConfig.of({"composition": {"n_atoms": {"3": 1.0}}}))
    hopeless = {"Fe": [2], "O": [-1]}
    settings = {"rule": "neutral", "charges": hopeless, "n_atoms": {"2": 1.0}, "n_elements": [0.0, 1.0]}
    with pytest.raises(ConfigError, match="no neutral mixture of"):
        Sampler(SmaxConfig.of({"elements": {"symbols": ["Fe", "O"]}, "composition": settings})).draw(0)


def test_elements_of_all_are_hydrogen_to_radium() -> None:
    numbers, _ = element_weights(PAPER)
    assert list(numbers) == list(range(1, atomic_numbers["Ra"] + 1))
