"""Many small maximisations in lockstep: each as if it were alone, none beyond its limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from grace_md.smax.config import OptimiserSettings
from grace_md.smax.optimiser import maximise
from tolerances import assert_close

SETTINGS = OptimiserSettings(gradient_tolerance=1e-7, objective_tolerance=0.0, max_evaluations=2000)


class Hills:
    """Sums over rows of -(stiffness/4) |r - top|^4 - (stiffness/2) |r - top|^2: one maximum each, not quadratic."""

    def __init__(self, tops: list[np.ndarray], stiffness: list[float], log: list[int] | None = None) -> None:
        self.tops, self.stiffness = tops, stiffness
        self.first_row = np.concatenate([[0], np.cumsum([len(top) for top in tops])]).astype(np.int64)
        self.log = [] if log is None else log

    def evaluate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.log.append(len(self.tops))
        away = rows - np.concatenate(self.tops)
        k = np.repeat(self.stiffness, np.diff(self.first_row))
        square = np.sum(away**2, axis=1)
        values = np.add.reduceat(-k * (square**2 / 4 + square / 2), self.first_row[:-1])
        return values, -(k * (square + 1.0))[:, None] * away

    def select(self, kept: np.ndarray) -> Hills:
        chosen = np.flatnonzero(kept)
        return Hills([self.tops[k] for k in chosen], [self.stiffness[k] for k in chosen], self.log)


def hills(n: int = 6) -> Hills:
    rng = np.random.default_rng(1)
    return Hills([rng.normal(size=(1 + k, 3)) for k in range(n)], [float(10.0 ** (k - 2)) for k in range(n)])


@pytest.mark.parametrize("method", ["lbfgs", "fire"])
def test_every_problem_reaches_its_top(method: str) -> None:
    problem = hills(5)
    start = np.zeros((problem.first_row[-1], 3))
    settings = replace(SETTINGS, method=method, fire_step=0.05)
    found = maximise(problem, start, settings, 2000)
    assert_close(found.rows, np.concatenate(problem.tops), 1e-4)
    assert_close(found.values, 0.0 * found.values, 1e-8)
    assert len(set(found.evaluations)) > 1
    # Those that have ended are not evaluated any more.
    assert sum(problem.log) == found.evaluations.sum()
    assert problem.log[0] == 5


def test_company_does_not_matter() -> None:
    together = hills()
    start = np.zeros((together.first_row[-1], 3))
    found = maximise(together, start, SETTINGS, 200)
    for s in range(6):
        alone = Hills([together.tops[s]], [together.stiffness[s]])
        rows = slice(together.first_row[s], together.first_row[s + 1])
        single = maximise(alone, start[rows], SETTINGS, 200)
        assert single.evaluations[0] == found.evaluations[s]
        assert_close(single.rows, found.rows[rows], 1e-12)


@pytest.mark.parametrize("method", ["lbfgs", "fire"])
def test_steps_and_their_number_are_limited(method: str) -> None:
    class Watched(Hills):
        moves: list[float] = []  # noqa: RUF012 - shared by all selections on purpose
        last: np.ndarray | None = None

        def evaluate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if Watched.last is not None:
                Watched.moves.append(float(np.linalg.norm(rows - Watched.last, axis=1).max()))
            Watched.last = rows.copy()
            return super().evaluate(rows)

    problem = Watched([np.full((2, 3), 50.0)], [1.0])
    settings = replace(SETTINGS, method=method)
    found = maximise(problem, np.zeros((2, 3)), settings, 30)
    assert found.iterations[0] == 30
    assert max(Watched.moves) <= settings.max_displacement * (1.0 + 1e-12)
    assert found.values[0] > Watched([np.full((2, 3), 50.0)], [1.0]).evaluate(np.zeros((2, 3)))[0][0]
    few = maximise(problem, np.zeros((2, 3)), replace(settings, max_evaluations=7), 30)
    assert few.evaluations[0] == 7


def test_values_never_fall_along_lbfgs() -> None:
    class Rough(Hills):
        """A ripple, so that full steps overshoot."""

        seen: list[float] = []  # noqa: RUF012

        def evaluate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values, gradient = super().evaluate(rows)
            ripple = np.add.reduceat(np.cos(40.0 * rows).sum(axis=1), self.first_row[:-1])
            return values + ripple, gradient - 40.0 * np.sin(40.0 * rows)

    problem = Rough([np.full((2, 3), 1.0)], [3.0])
    start = np.full((2, 3), 0.03)
    first = problem.evaluate(start)[0][0]
    values = [maximise(problem, start, SETTINGS, n).values[0] for n in range(1, 12)]
    assert values[0] > first
    assert np.all(np.diff(values) >= 0.0)
    assert values[-1] > values[0]


def test_places_without_a_value_are_avoided_and_end_a_problem_that_starts_there() -> None:
    class Walled(Hills):
        def evaluate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values, gradient = super().evaluate(rows)
            beyond = np.maximum.reduceat(rows[:, 0], self.first_row[:-1]) > 1.0
            return np.where(beyond, -np.inf, values), gradient

        def select(self, kept: np.ndarray) -> Walled:
            chosen = np.flatnonzero(kept)
            return Walled([self.tops[k] for k in chosen], [self.stiffness[k] for k in chosen], self.log)

    problem = Walled([np.full((1, 3), 2.0), np.full((1, 3), 2.0), np.zeros((1, 3))], [1.0] * 3)
    start = np.array([[0.9, 0.0, 0.0], [1.5, 0.0, 0.0], [0.5, 0.0, 0.0]])
    found = maximise(problem, start, SETTINGS, 300)
    assert found.rows[0, 0] <= 1.0
    assert np.isfinite(found.values[0])
    assert found.values[1] == -np.inf
    assert found.evaluations[1] == 1
    assert_close(found.rows[2], np.zeros(3), 1e-4)


def test_nothing_to_do() -> None:
    problem = hills(2)
    rows = np.concatenate(problem.tops)
    found = maximise(problem, rows, SETTINGS, 10)
    assert np.array_equal(found.rows, rows)
    assert list(found.evaluations) == [1, 1]
    assert list(maximise(problem, rows, SETTINGS, 0).iterations) == [0, 0]


@pytest.mark.parametrize("method", ["lbfgs", "fire"])
def test_a_floor_that_is_out_of_reach_ends_a_climb(method: str) -> None:
    """Values rise to zero: a floor below is reached and changes nothing, one far above is given up after some steps."""
    problem = hills(4)
    start = np.zeros((problem.first_row[-1], 3))
    settings = replace(SETTINGS, method=method, fire_step=0.05, give_up_after=3, give_up_horizon=20.0)
    free = maximise(problem, start, settings, 500)
    reached = maximise(problem, start, settings, 500, floor=float(free.values.min()) - 1e3)
    assert np.array_equal(reached.rows, free.rows)
    given_up = maximise(problem, start, settings, 500, floor=1e6)
    assert (given_up.iterations == 3).all()
    assert (given_up.values < free.values).all()
    patient = maximise(problem, start, replace(settings, give_up_after=0), 500, floor=1e6)
    assert np.array_equal(patient.rows, free.rows)
