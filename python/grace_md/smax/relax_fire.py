"""FIRE for many structures at once, with fixed or variable cells; every structure moves as it would alone.

Coordinates of a structure of n atoms are n rows of positions in its first cell, and three rows of the logarithm L of
its deformation, times n. With F = exp(L):

    cell = cell_0 F^T,   positions = x F^T,   force on x = f F,   force on L = D^T[ -V sigma F^-T ] / n,

where D is the derivative of the matrix exponential at L, whose adjoint is the derivative at L^T. These are the
coordinates of `ase.filters.FrechetCellFilter`, and with the defaults the steps are those of `ase.optimize.FIRE`.
References: Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006) for FIRE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

__all__ = ["FireBatch", "FireSettings", "expm_frechet"]

Array = NDArray[np.float64]
SQUARINGS, TERMS = 5, 12  # exact to 1e-16 for norms up to 16, far beyond what the guards let through
VOIGT_3X3 = [[0, 5, 4], [5, 1, 3], [4, 3, 2]]


@dataclass(frozen=True)
class FireSettings:
    """Constants of FIRE, named as in ASE.

    Attributes
    ----------
    dt, dt_max : first and largest time step
    max_step : A, longest step of all coordinates of a structure together
    n_min, f_inc, f_dec, a_start, f_a : delay, growth and fall of the time step, first mixing and its decay
    """

    dt: float = 0.1
    dt_max: float = 1.0
    max_step: float = 0.2
    n_min: int = 5
    f_inc: float = 1.1
    f_dec: float = 0.5
    a_start: float = 0.1
    f_a: float = 0.99


def expm_frechet(a: Array, e: Array) -> tuple[Array, Array]:
    """Return exp(A) and the derivative of exp at A in the direction E, both [..., n, n].

    Taylor series of the dual number A + epsilon E after scaling, then repeated squaring (Al-Mohy and Higham, SIAM J.
    Matrix Anal. Appl. 30, 1639 (2009), describe the principle).
    """
    scale = 0.5**SQUARINGS
    a, e = a * scale, e * scale
    value = np.broadcast_to(np.eye(a.shape[-1]), a.shape).copy()
    slope = np.zeros_like(e)
    for k in range(TERMS, 0, -1):
        slope = (a @ slope + e @ value) / k
        value = np.eye(a.shape[-1]) + a @ value / k
    for _ in range(SQUARINGS):
        slope = value @ slope + slope @ value
        value = value @ value
    return value, slope


class FireBatch:
    """Coordinates and velocities of structures, one after the other.

    Attributes
    ----------
    sizes : int [s], atoms of each structure; first : int [s + 1], their first atoms
    positions : [n, 3], A; cells : [s, 3, 3], A, rows; as of the last step
    """

    def __init__(self, settings: FireSettings | None = None) -> None:
        self.settings = settings or FireSettings()
        self.sizes: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._x = self._v = np.empty((0, 3))  # positions in the first cell; one row per atom
        self._l = self._w = np.empty((0, 3, 3))  # n times the logarithm of the deformation, and its velocity
        self._dx, self._dl = self._x, self._l  # the last step
        self._cells0 = np.empty((0, 3, 3))
        self._variable: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        self._dt = self._a = np.empty(0)
        self._uphill_age: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._moved: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)
        self._place()

    def __len__(self) -> int:
        return len(self.sizes)

    def _place(self) -> None:
        """Positions and cells of the coordinates."""
        self.first = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self._owner = np.repeat(np.arange(len(self)), self.sizes)
        log = self._l / np.maximum(self.sizes, 1)[:, None, None]
        self._deform = expm_frechet(log, np.zeros_like(log))[0]
        transposed = self._deform.transpose(0, 2, 1)
        self.cells = self._cells0 @ transposed
        self.positions = np.einsum("ni,nij->nj", self._x, transposed[self._owner])
        self._place_fixed()

    def _place_fixed(self) -> None:
        fixed = ~self._variable
        self.cells[fixed] = self._cells0[fixed]  # not even rounding moves them
        atoms = fixed[self._owner]
        self.positions[atoms] = self._x[atoms]

    def add(self, structures: Sequence[Atoms], variable: Sequence[bool]) -> None:
        """Put structures at the end, at rest."""
        n, s = sum(map(len, structures)), len(structures)
        if not s:
            return
        self.sizes = np.concatenate([self.sizes, [len(atoms) for atoms in structures]]).astype(np.int64)
        self._x = np.concatenate([self._x, *[atoms.positions for atoms in structures]])
        self._v = np.concatenate([self._v, np.zeros((n, 3))])
        self._dx = np.concatenate([self._dx, np.zeros((n, 3))])
        self._cells0 = np.concatenate([self._cells0, np.array([atoms.cell.array for atoms in structures])])
        self._l = np.concatenate([self._l, np.zeros((s, 3, 3))])
        self._w = np.concatenate([self._w, np.zeros((s, 3, 3))])
        self._dl = np.concatenate([self._dl, np.zeros((s, 3, 3))])
        self._variable = np.concatenate([self._variable, np.asarray(variable, dtype=np.bool_)])
        self._dt = np.concatenate([self._dt, np.full(s, self.settings.dt)])
        self._a = np.concatenate([self._a, np.full(s, self.settings.a_start)])
        self._uphill_age = np.concatenate([self._uphill_age, np.zeros(s, dtype=np.int64)])
        self._moved = np.concatenate([self._moved, np.zeros(s, dtype=np.bool_)])
        self._place()

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Remove the structures that are not chosen."""
        atoms = chosen[self._owner]
        self._x, self._v, self._dx = self._x[atoms], self._v[atoms], self._dx[atoms]
        for name in ("sizes", "_cells0", "_l", "_w", "_dl", "_variable", "_dt", "_a", "_uphill_age", "_moved"):
            setattr(self, name, getattr(self, name)[chosen])
        self._place()

    def _sum(self, rows: Array) -> Array:
        """Sum over the atoms of each structure."""
        return np.asarray(np.add.reduceat(rows, self.first[:-1]))

    def generalised(self, forces: Array, stresses: Array) -> tuple[Array, Array]:
        """Return the forces on the coordinates: [n, 3] of the atoms and [s, 3, 3] of the cells, both in eV/A.

        Parameters
        ----------
        forces : [n, 3], eV/A; stresses : [s, 6], eV/A^3 in ASE's order (ignored where the cell is fixed)
        """
        rows = forces.copy()
        cells = np.zeros((len(self), 3, 3))
        some = np.flatnonzero(self._variable)
        if len(some):
            deform = self._deform[some]
            volume = np.abs(np.linalg.det(self.cells[some]))
            virial = -volume[:, None, None] * stresses[some][:, VOIGT_3X3]
            gradient = virial @ np.linalg.inv(deform.transpose(0, 2, 1))
            log = self._l[some] / self.sizes[some][:, None, None]
            cells[some] = expm_frechet(log.transpose(0, 2, 1), gradient)[1] / self.sizes[some][:, None, None]
            moving = self._variable[self._owner]
            rows[moving] = np.einsum("ni,nij->nj", forces[moving], self._deform[self._owner[moving]])
        return rows, cells

    def largest(self, rows: Array, cells: Array) -> Array:
        """Return the longest force vector of each structure, [s], those of the cell included: what is converged."""
        atoms = np.maximum.reduceat(np.linalg.norm(rows, axis=1), self.first[:-1])
        return np.asarray(np.maximum(atoms, np.linalg.norm(cells, axis=2).max(axis=1)))

    def step(self, rows: Array, cells: Array) -> Array:
        """Move all structures by one step along generalised forces; return the step's work force . dx, [s], in eV."""
        s = self.settings

        def dot(a: Array, b: Array, c: Array, d: Array) -> Array:
            return np.asarray(self._sum((a * b).sum(axis=1)) + (c * d).sum(axis=(1, 2)))

        power = dot(rows, self._v, cells, self._w)
        downhill = power > 0.0
        size_f, size_v = np.sqrt(dot(rows, rows, cells, cells)), np.sqrt(dot(self._v, self._v, self._w, self._w))
        mix = self._a * np.divide(size_v, size_f, out=np.zeros_like(size_f), where=size_f > 0.0)
        keep = np.where(downhill, 1.0 - self._a, 0.0)
        mix = np.where(downhill, mix, 0.0)
        self._v = keep[self._owner, None] * self._v + mix[self._owner, None] * rows
        self._w = keep[:, None, None] * self._w + mix[:, None, None] * cells
        late = downhill & (self._uphill_age > s.n_min)
        stopped = self._moved & ~downhill  # at the first step there is no velocity that could point uphill
        self._dt = np.where(late, np.minimum(self._dt * s.f_inc, s.dt_max), self._dt)
        self._a = np.where(late, self._a * s.f_a, self._a)
        self._dt = np.where(stopped, self._dt * s.f_dec, self._dt)
        self._a = np.where(stopped, s.a_start, self._a)
        self._uphill_age = np.where(downhill, self._uphill_age + 1, 0)
        self._moved[:] = True
        self._v += self._dt[self._owner, None] * rows
        self._w += self._dt[:, None, None] * cells
        length = self._dt * np.sqrt(dot(self._v, self._v, self._w, self._w))
        shrink = np.divide(s.max_step, length, out=np.ones_like(length), where=length > s.max_step)
        self._dx = (self._dt * shrink)[self._owner, None] * self._v
        self._dl = (self._dt * shrink)[:, None, None] * self._w
        self._x = self._x + self._dx
        self._l = self._l + self._dl
        self._place()
        return self.work(rows, cells)

    def work(self, rows: Array, cells: Array) -> Array:
        """Return force . dx of the last step, [s], in eV, for the generalised forces at its beginning or end."""
        return np.asarray(self._sum((rows * self._dx).sum(axis=1)) + (cells * self._dl).sum(axis=(1, 2)))
