"""Partial radial distribution functions, bond lengths and coordination numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from grace_md.analysis.pairs import pairs_within

__all__ = ["LAVA_PAIRS", "PartialRdf", "bond_cutoff", "partial_rdfs"]

# Pairs that show the oxide network (cation-O) and the metal (Fe-Si, Fe-Fe) of the lava run.
LAVA_PAIRS = (
    ("Si", "O"),
    ("Al", "O"),
    ("Mg", "O"),
    ("Ca", "O"),
    ("Na", "O"),
    ("K", "O"),
    ("Ti", "O"),
    ("Fe", "O"),
    ("Fe", "Si"),
    ("Fe", "Fe"),
    ("Si", "Si"),
    ("O", "O"),
)

# Bond length without a usable peak: this multiple of the sum of covalent radii.
_FALLBACK_RATIO = 1.3
# Multiples of that sum between which the first peak is searched, and, for atoms that do not bond (O-O), the second try.
_PEAK_WINDOWS = ((0.7, 1.35), (1.35, 2.8))
# The minimum behind the peak is searched up to the larger of these multiples of the sum and of the peak position.
_MINIMUM_LIMITS = (1.35, 1.3)
# Fewer counted bonds than this make no peak.
_MIN_PEAK_COUNT = 10


@dataclass
class PartialRdf:
    """One partial radial distribution function, averaged over frames.

    Attributes
    ----------
    pair : tuple of str
        Centre and neighbour element.
    r : ndarray, shape (n_bins,)
        Centres of the bins in A.
    g : ndarray, shape (n_bins,)
        g(r), 1 for an ideal gas.
    counts : ndarray, shape (n_bins,)
        Neighbours per centre in each bin; their running sum is the coordination number.
    n_pairs : ndarray, shape (n_bins,)
        Directed pairs that were counted, over all frames (the statistics behind g).
    """

    pair: tuple[str, str]
    r: NDArray[np.float64]
    g: NDArray[np.float64]
    counts: NDArray[np.float64]
    n_pairs: NDArray[np.float64]

    @property
    def bond_sum(self) -> float:
        """Sum of the covalent radii in A."""
        return float(sum(covalent_radii[atomic_numbers[element]] for element in self.pair))

    def smooth_g(self) -> NDArray[np.float64]:
        """g(r) for drawing and for finding peaks: the fewer pairs were counted per bin, the wider the average."""
        counted = self.n_pairs[self.n_pairs > 0]
        typical = float(np.median(counted)) if len(counted) else 0.0
        return _smooth(self.g, passes=2 if typical >= 100.0 else 5 if typical >= 20.0 else 12)

    def first_peak(self) -> tuple[float, float] | None:
        """Position in A and height of the first peak; None if too few pairs were counted to tell.

        The peak is the largest value of the smoothed g(r) within 0.7 to 1.35 of the sum of covalent radii, or within
        1.35 to 2.8 of it if the atoms do not bond (O-O); the parabola through three bins refines its position.
        """
        for low, high in _PEAK_WINDOWS:
            window = (self.r >= low * self.bond_sum) & (self.r <= high * self.bond_sum)
            if window.any() and self.n_pairs[window].sum() >= _MIN_PEAK_COUNT:
                break
        else:
            return None
        smooth = self.smooth_g()
        k = int(np.flatnonzero(window)[np.argmax(smooth[window])])
        if not 0 < k < len(smooth) - 1:
            return None
        left, middle, right = smooth[k - 1 : k + 2]
        curvature = left - 2.0 * middle + right
        shift = 0.5 * (left - right) / curvature if curvature < 0.0 else 0.0
        return float(self.r[k] + np.clip(shift, -0.5, 0.5) * (self.r[1] - self.r[0])), float(self.g[k])

    def first_minimum(self) -> float:
        """Position in A of the minimum behind the first peak: the bond length beyond which two atoms are not bonded.

        Searched up to 1.35 of the sum of covalent radii, so that few counted pairs do not give absurd bonds; 1.3 of
        that sum if there is no peak.
        """
        peak = self.first_peak()
        if peak is None:
            return _FALLBACK_RATIO * self.bond_sum
        limit = max(_MINIMUM_LIMITS[0] * self.bond_sum, _MINIMUM_LIMITS[1] * peak[0])
        window = (self.r > peak[0]) & (self.r <= limit)
        if not window.any():
            return _FALLBACK_RATIO * self.bond_sum
        smooth = _smooth(self.smooth_g())[window]
        # A gap of zeros has its minimum everywhere: take the middle of the lowest stretch.
        lowest = np.flatnonzero(smooth <= smooth.min() + 1e-9)
        run = lowest[: 1 + int(np.argmax(np.append(np.diff(lowest) > 1, True)))]
        return float(self.r[window][run].mean())

    def coordination(self, cutoff: float) -> float:
        """Mean number of neighbours within `cutoff` (A)."""
        width = self.r[1] - self.r[0]
        share = np.clip((cutoff - (self.r - 0.5 * width)) / width, 0.0, 1.0)
        return float(share @ self.counts)


def partial_rdfs(
    frames: Iterable[Atoms], pairs: Sequence[tuple[str, str]] | None = None, r_max: float = 8.0, n_bins: int = 320
) -> dict[tuple[str, str], PartialRdf]:
    """Partial radial distribution functions averaged over frames of the same atoms.

    g_AB(r) = n_AB(r) V / (N_A N_B 4 pi r^2 dr) with n_AB the number of directed pairs in the bin; every periodic image
    counts, so `r_max` may exceed half of the cell or the whole of it.

    Parameters
    ----------
    frames : iterable of ase.Atoms
        Fully periodic structures with the same atoms in the same order.
    pairs : sequence of (str, str), optional
        Pairs of elements; pairs whose elements are absent are left out. Default: all pairs of elements present.
    r_max : float
        Largest distance in A.
    n_bins : int
        Number of bins.

    Returns
    -------
    dict of (str, str) to PartialRdf
        In the order of `pairs`.

    Raises
    ------
    ValueError
        If there is no frame.
    """
    edges = np.linspace(0.0, r_max, n_bins + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    numbers: NDArray[np.int64] | None = None
    histogram = np.empty(0)
    density_sum, n_frames = 0.0, 0
    for atoms in frames:
        if numbers is None:
            numbers = atoms.numbers
            present, kind = np.unique(numbers, return_inverse=True)
            histogram = np.zeros(len(present) ** 2 * n_bins)
        elif not np.array_equal(numbers, atoms.numbers):
            raise ValueError("`frames` must hold the same atoms in the same order.")
        i, j, distance = pairs_within(atoms.positions, atoms.cell.array, r_max)
        bins = np.minimum((distance * (n_bins / r_max)).astype(np.int64), n_bins - 1)
        flat = (kind[i] * len(present) + kind[j]) * n_bins + bins
        histogram += np.bincount(flat, minlength=len(histogram))
        density_sum += 1.0 / atoms.get_volume()
        n_frames += 1
    if numbers is None:
        raise ValueError("`frames` is empty; at least one structure is needed.")
    table = histogram.reshape(len(present), len(present), n_bins)
    index = {int(number): k for k, number in enumerate(present)}
    population = np.bincount(kind)
    if pairs is None:
        symbols = [Atoms([number]).get_chemical_symbols()[0] for number in present]
        pairs = [(a, b) for k, a in enumerate(symbols) for b in symbols[k:]]
    centres = 0.5 * (edges[1:] + edges[:-1])
    result: dict[tuple[str, str], PartialRdf] = {}
    for a, b in pairs:
        ka, kb = index.get(atomic_numbers[a]), index.get(atomic_numbers[b])
        if ka is None or kb is None:
            continue
        counts = table[ka, kb] / (n_frames * population[ka])
        g = counts / (population[kb] * (density_sum / n_frames) * shells)
        result[a, b] = PartialRdf((a, b), centres, g, counts, table[ka, kb])
    return result


def bond_cutoff(rdf: PartialRdf | None, pair: tuple[str, str]) -> float:
    """Bond length limit in A: the first minimum of the RDF, or 1.3 of the sum of covalent radii without one."""
    if rdf is not None:
        return rdf.first_minimum()
    return _FALLBACK_RATIO * float(sum(covalent_radii[atomic_numbers[element]] for element in pair))


def _smooth(values: NDArray[np.float64], passes: int = 2) -> NDArray[np.float64]:
    """Values after repeated (1, 2, 1)/4 averages."""
    smooth = np.asarray(values, dtype=float)
    for _ in range(passes):
        padded = np.pad(smooth, 1, mode="edge")
        smooth = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return smooth
