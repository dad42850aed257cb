"""Local maximisation of many small problems side by side: one call of the function per step serves all of them.

L-BFGS by the two-loop recursion (Nocedal, Math. Comp. 35, 773 (1980)) with steps of limited length and backtracking.
Every problem has its own step, history and end; those that have ended leave, so that no evaluation is spent on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from grace_md.smax.config import OptimiserSettings

__all__ = ["Maximum", "Problem", "maximise"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
CURVATURE = 1e-10  # |cos| of step and change of gradient below which a pair says nothing about curvature
SHRINK = (0.1, 0.5)  # bounds of the factor between tries of a line search
# FIRE: Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006).
FIRE_WAIT, FIRE_GROW, FIRE_CUT, FIRE_ALPHA, FIRE_FADE, FIRE_LIMIT = 5, 1.1, 0.5, 0.1, 0.99, 10.0


class Problem(Protocol):
    """Functions of rows of variables; rows first_row[s] to first_row[s + 1] belong to problem s."""

    @property
    def first_row(self) -> NDArray[np.int64]:
        """Offsets, [S + 1]."""

    def evaluate(self, rows: Floats) -> tuple[Floats, Floats]:
        """Values [S] and gradients [R, 3]; a value of -inf marks a place that cannot be used."""

    def select(self, kept: Flags) -> Problem:
        """Return the problems with ``kept[s]``."""


@dataclass(frozen=True)
class Maximum:
    """Where the problems ended.

    Attributes
    ----------
    rows : float64 [R, 3]
    values : float64 [S]
    evaluations, iterations : int64 [S]
        Evaluations of each problem, and the steps that were taken.
    """

    rows: Floats
    values: Floats
    evaluations: NDArray[np.int64]
    iterations: NDArray[np.int64]


def maximise(
    problem: Problem, rows: Floats, settings: OptimiserSettings, max_iterations: int, floor: float = -np.inf
) -> Maximum:
    """Climb from `rows` [R, 3] to local maxima, at most `max_iterations` steps each.

    A problem ends when no component of its gradient exceeds `gradient_tolerance`, a step gains less than
    `objective_tolerance` times max(1, |value|), no step along its gradient gains, or steps or evaluations are used up;
    also when, at the rate of the last `give_up_after` steps, `give_up_horizon` more would not bring it to `floor`.
    """
    if not max_iterations:
        values, _ = problem.evaluate(rows)
        return Maximum(rows, values, np.ones(len(values), np.int64), np.zeros(len(values), np.int64))
    climb = (_Fire if settings.method == "fire" else _Lbfgs)(problem, rows, settings, max_iterations, floor)
    while climb.step():
        pass
    return climb.result()


class _Climb:
    """What all methods share: the problems that still move, and where the others ended."""

    def __init__(
        self, problem: Problem, rows: Floats, settings: OptimiserSettings, max_iterations: int, floor: float
    ) -> None:
        self.settings = settings
        self.max_iterations = max_iterations
        self.floor = floor if settings.give_up_after else -np.inf
        self.all_rows = rows.copy()
        self.all_values = np.full(len(problem.first_row) - 1, -np.inf)
        self.all_evaluations = np.zeros(len(self.all_values), np.int64)
        self.all_iterations = np.zeros(len(self.all_values), np.int64)
        self.ids = np.arange(len(self.all_values))
        self.row_ids = np.arange(len(rows))
        self.problem = problem
        self.x = rows.copy()
        self.f, self.g = problem.evaluate(self.x)
        self.iterations = np.zeros(len(self.ids), np.int64)
        self.evaluations = np.ones(len(self.ids), np.int64)
        self.past = np.tile(self.f, (settings.give_up_after + 1, 1))  # values after the last steps, newest last
        self._index()

    def _index(self) -> None:
        self.first = self.problem.first_row[:-1]
        self.owner = np.repeat(np.arange(len(self.ids)), np.diff(self.problem.first_row))

    def dot(self, a: Floats, b: Floats) -> Floats:
        """Scalar products of rows [..., R, 3], one per problem, [..., S]."""
        return np.asarray(np.add.reduceat(np.einsum("...rk,...rk->...r", a, b), self.first, axis=-1))

    def largest(self, a: Floats) -> Floats:
        """Largest length of a row, per problem, [S]."""
        return np.asarray(np.sqrt(np.maximum.reduceat(np.einsum("rk,rk->r", a, a), self.first)))

    def flat(self) -> Flags:
        """Where no component of the gradient exceeds the tolerance, or the gradient is unusable, [S]."""
        steepest = np.maximum.reduceat(np.abs(self.g).max(axis=1), self.first)
        return np.asarray(~(steepest > self.settings.gradient_tolerance) | ~np.isfinite(self.f + steepest))

    def below_floor(self, moved: Flags) -> Flags:
        """Where a step was taken and the floor is out of reach, [S]."""
        self.past[:-1, moved] = self.past[1:, moved]
        self.past[-1, moved] = self.f[moved]
        after = self.settings.give_up_after
        if not np.isfinite(self.floor):
            return np.zeros(len(moved), np.bool_)
        rate = np.maximum((self.past[-1] - self.past[0]) / after, 0.0)
        out_of_reach = self.past[-1] + self.settings.give_up_horizon * rate < self.floor
        return np.asarray(moved & (self.iterations >= after) & out_of_reach)

    def retire(self, ended: Flags) -> Flags:
        """Put down the problems that ended, and return which rows stay."""
        rows = ended[self.owner]
        self.all_rows[self.row_ids[rows]] = self.x[rows]
        self.all_values[self.ids[ended]] = self.f[ended]
        self.all_evaluations[self.ids[ended]] = self.evaluations[ended]
        self.all_iterations[self.ids[ended]] = self.iterations[ended]
        stay, rows = ~ended, ~rows
        self.ids, self.row_ids, self.x, self.g = self.ids[stay], self.row_ids[rows], self.x[rows], self.g[rows]
        self.f, self.iterations, self.evaluations = self.f[stay], self.iterations[stay], self.evaluations[stay]
        self.past = self.past[:, stay]
        if len(self.ids):
            self.problem = self.problem.select(stay)
            self._index()
        return rows

    def result(self) -> Maximum:
        return Maximum(self.all_rows, self.all_values, self.all_evaluations, self.all_iterations)

    def step(self) -> bool:
        """Evaluate once more and return whether there is more to do."""
        raise NotImplementedError


class _Lbfgs(_Climb):
    def __init__(
        self, problem: Problem, rows: Floats, settings: OptimiserSettings, max_iterations: int, floor: float
    ) -> None:
        super().__init__(problem, rows, settings, max_iterations, floor)
        n = len(self.ids)
        # Steps s and falls y of the gradient, newest last; pairs that do not exist have rho = 0 and do nothing.
        self.s = np.zeros((settings.history, *rows.shape))
        self.y = np.zeros((settings.history, *rows.shape))
        self.rho = np.zeros((settings.history, n))
        self.gamma = np.zeros(n)
        self.d = np.zeros_like(rows)
        self.slope, self.t = np.zeros(n), np.ones(n)
        self.tries = np.zeros(n, np.int64)
        self._aim(np.ones(n, np.bool_))
        self._drop(self.flat())

    def step(self) -> bool:
        if not len(self.ids):
            return False
        trial = self.x + self.t[self.owner, None] * self.d
        f, g = self.problem.evaluate(trial)
        self.evaluations += 1
        gain = f - self.f
        good = np.isfinite(f) & (gain >= self.settings.armijo * self.t * self.slope)
        rows = good[self.owner]
        self._remember(good, rows, trial, g)
        tolerance = self.settings.objective_tolerance * np.maximum(1.0, np.abs(self.f))
        self.x[rows], self.g[rows] = trial[rows], g[rows]
        self.f = np.where(good, f, self.f)
        self.iterations += good
        self.tries = np.where(good, 0, self.tries + 1)
        hopeless = self._backtrack(~good, gain)
        ended = hopeless | (good & (self.flat() | (gain < tolerance) | (self.iterations >= self.max_iterations)))
        ended |= self.below_floor(good) | (self.evaluations >= self.settings.max_evaluations)
        self._aim(good)
        self._drop(ended)
        return bool(len(self.ids))

    def _remember(self, good: Flags, rows: Flags, trial: Floats, g: Floats) -> None:
        s, y = trial - self.x, self.g - g
        ss, yy, sy = self.dot(s, s), self.dot(y, y), self.dot(s, y)
        useful = good & (sy > CURVATURE * np.sqrt(ss * yy))
        rows = useful[self.owner]
        for kept, new in ((self.s, s), (self.y, y)):
            kept[:-1, rows] = kept[1:, rows]
            kept[-1, rows] = new[rows]
        self.rho[:-1, useful] = self.rho[1:, useful]
        self.rho[-1, useful] = 1.0 / sy[useful]
        self.gamma[useful] = sy[useful] / yy[useful]

    def _backtrack(self, failed: Flags, gain: Floats) -> Flags:
        """Shorten steps; where that has been done too often, forget the history. Return where nothing is left."""
        if not failed.any():
            return failed
        with np.errstate(invalid="ignore", divide="ignore"):
            linear = self.t * self.slope
            factor = np.nan_to_num(0.5 * linear / (linear - gain), nan=SHRINK[0])  # the top of a parabola
        self.t = np.where(failed, self.t * np.clip(factor, *SHRINK), self.t)
        stuck = failed & (self.tries > self.settings.max_backtracks)
        hopeless = stuck & (self.rho[-1] == 0.0)
        restart = stuck & ~hopeless
        if restart.any():
            self.rho[:, restart] = 0.0
            self.tries[restart] = 0
            self._aim(restart)
        return np.asarray(hopeless)

    def _aim(self, which: Flags) -> None:
        """New directions for some problems: L-BFGS with a history, else along the gradient."""
        q = self.g.copy()
        alphas = np.empty_like(self.rho)
        used = np.flatnonzero(self.rho.any(axis=1))
        for k in used[::-1]:
            alphas[k] = self.rho[k] * self.dot(self.s[k], q)
            q -= alphas[k][self.owner, None] * self.y[k]
        bare = self.rho[-1] == 0.0
        q *= np.where(bare, 1.0, self.gamma)[self.owner, None]
        for k in used:
            q += (alphas[k] - self.rho[k] * self.dot(self.y[k], q))[self.owner, None] * self.s[k]
        longest = self.largest(q)
        settings = self.settings
        with np.errstate(divide="ignore", invalid="ignore"):
            capped = np.minimum(1.0, settings.max_displacement / longest)
            scale = np.where(bare, settings.first_displacement / longest, capped)
        q *= np.nan_to_num(scale, nan=0.0, posinf=0.0)[self.owner, None]
        rows = which[self.owner]
        self.d[rows] = q[rows]
        self.slope = np.where(which, self.dot(q, self.g), self.slope)
        self.t = np.where(which, 1.0, self.t)

    def _drop(self, ended: Flags) -> None:
        if not ended.any():
            return
        rows = self.retire(ended)
        stay = ~ended
        self.s, self.y, self.d, self.rho = self.s[:, rows], self.y[:, rows], self.d[rows], self.rho[:, stay]
        self.gamma, self.slope, self.t = self.gamma[stay], self.slope[stay], self.t[stay]
        self.tries = self.tries[stay]


class _Fire(_Climb):
    """Damped dynamics with unit masses; the best place of each problem counts, for values may fall on the way."""

    def __init__(
        self, problem: Problem, rows: Floats, settings: OptimiserSettings, max_iterations: int, floor: float
    ) -> None:
        super().__init__(problem, rows, settings, max_iterations, floor)
        n = len(self.ids)
        self.v = np.zeros_like(rows)
        self.dt, self.alpha = np.full(n, settings.fire_step), np.full(n, FIRE_ALPHA)
        self.uphill = np.zeros(n, np.int64)
        self.best_x, self.best_f = self.x.copy(), self.f.copy()
        self._drop(self.flat())

    def step(self) -> bool:
        if not len(self.ids):
            return False
        power = self.dot(self.v, self.g)
        self._adapt(power)
        self.v += self.dt[self.owner, None] * self.g
        move = self.dt[self.owner, None] * self.v
        with np.errstate(divide="ignore", invalid="ignore"):
            move *= np.fmin(1.0, self.settings.max_displacement / self.largest(move))[self.owner, None]
        self.x += move
        self.f, self.g = self.problem.evaluate(self.x)
        self.evaluations += 1
        self.iterations += 1
        better = self.f > self.best_f
        rows = better[self.owner]
        self.best_x[rows] = self.x[rows]
        self.best_f = np.where(better, self.f, self.best_f)
        spent = (self.iterations >= self.max_iterations) | (self.evaluations >= self.settings.max_evaluations)
        self._drop(self.flat() | spent | self.below_floor(np.ones(len(self.ids), np.bool_)))
        return bool(len(self.ids))

    def _adapt(self, power: Floats) -> None:
        forward = power > 0.0
        speed, steepness = np.sqrt(self.dot(self.v, self.v)), np.sqrt(self.dot(self.g, self.g))
        turn = self.alpha * speed / np.maximum(steepness, np.finfo(float).tiny)
        turned = (1.0 - self.alpha)[self.owner, None] * self.v + turn[self.owner, None] * self.g
        self.v = np.where(forward[self.owner, None], turned, 0.0)
        self.uphill = np.where(forward, self.uphill + 1, 0)
        late = forward & (self.uphill > FIRE_WAIT)
        limit = FIRE_LIMIT * self.settings.fire_step
        grown = np.minimum(self.dt * FIRE_GROW, limit)
        self.dt = np.where(late, grown, np.where(forward, self.dt, FIRE_CUT * self.dt))
        self.alpha = np.where(late, FIRE_FADE * self.alpha, np.where(forward, self.alpha, FIRE_ALPHA))

    def _drop(self, ended: Flags) -> None:
        if not ended.any():
            return
        rows = ended[self.owner]
        self.x[rows] = self.best_x[rows]
        self.f = np.where(ended, self.best_f, self.f)
        rows, stay = self.retire(ended), ~ended
        self.v, self.best_x, self.best_f = self.v[rows], self.best_x[rows], self.best_f[stay]
        self.dt, self.alpha, self.uphill = self.dt[stay], self.alpha[stay], self.uphill[stay]
