"""Checks of units and signs: labels of one structure must agree with each other.

Between two close configurations the energy changes by the work of forces and stresses,

    dE = - sum_i F_i . dr_i + V sigma : strain        (mean of both ends, displacements at fixed cell)

whatever made the labels. Frames of one structure at several volumes or strains, and successive frames of a trajectory,
are such pairs. The slope of dE against the work is 1; a sign or a unit that is wrong shows at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import ase.units
import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from grace_md.training.data.labels import FORCE_UNITS, STRESS_UNITS, VOIGT, LabelError, LabelKeys, Record

if TYPE_CHECKING:
    from grace_md.training.data.shards import ShardSet

__all__ = ["Check", "check_records", "raise_if_suspicious", "records_of", "sample_of"]

OK, SUSPICIOUS, INCONCLUSIVE = "ok", "suspicious", "inconclusive"
SAME_PLACE = 2e-3  # fractional coordinates of a scaled copy
LARGEST_STRAIN = 0.15
LARGEST_STEP = 0.25  # A, root mean square; beyond, the mean of the forces at both ends says little
FRAMES_PER_GROUP = 100  # of a trajectory whose order may be lost, in which nearest frames are searched
LARGEST_ROTATION = 1e-3
SHAPES_PER_FORMULA = 20  # distinct arrangements that are searched for scaled copies
FEWEST_PAIRS = {"stress": 3, "forces": 8}
AGREE = 0.8  # share of the work whose sign must agree, or disagree, for a verdict
SLOPES = (0.5, 2.0)  # that pass
FEWEST_FOR_RANKS, RANK_CORRELATION = 30, 0.3
HUGE_STRESS = 2.0  # eV/A^3 = 320 GPa, as a median
FEWEST_ENERGIES = 20
UNIT_GUESS = 0.3  # relative distance from a known factor


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes
    ----------
    name : what was compared
    verdict : "ok", "suspicious" or "inconclusive"
    n : pairs or structures that it is based on
    value : slope or correlation, None without data
    message : one sentence; with the remedy where it is suspicious
    """

    name: str
    verdict: str
    n: int
    value: float | None
    message: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Pair:
    """Change of energy between two configurations, and the work that labels give for it; eV."""

    energy: float
    force_work: float
    stress_work: float


def _rms(vectors: NDArray[np.float64]) -> float:
    return float(np.sqrt((vectors**2).sum() / len(vectors)))


def _matrix(stress: NDArray[np.float64]) -> NDArray[np.float64]:
    full = np.zeros((3, 3))
    for value, (a, b) in zip(stress, VOIGT, strict=True):
        full[a, b] = full[b, a] = value
    return full


def _compare(first: Record, second: Record) -> _Pair | None:
    """Return the works between two configurations of the same atoms, None if they are too far apart or lack labels."""
    if np.isnan(first.energy) or np.isnan(second.energy) or not np.array_equal(first.pbc, second.pbc):
        return None
    same_cell = np.allclose(first.cell, second.cell, atol=1e-6)
    periodic = bool(first.pbc.all())
    if not periodic and not (same_cell and (not first.pbc.any())):
        return None
    stress_work = 0.0
    if periodic:
        steps = (
            np.linalg.solve(second.cell.T, second.positions.T).T - np.linalg.solve(first.cell.T, first.positions.T).T
        )
        steps -= np.round(steps)
        moved = steps @ (0.5 * (first.cell + second.cell))
    else:
        steps = moved = second.positions - first.positions
    if not same_cell:
        gradient = np.linalg.solve(first.cell, second.cell)  # r' = r @ gradient
        if np.abs(gradient - gradient.T).max() > LARGEST_ROTATION:
            return None
        strain = gradient - np.eye(3)
        if np.abs(strain).max() > LARGEST_STRAIN or np.isnan(first.stress).any() or np.isnan(second.stress).any():
            return None
        middle = np.linalg.solve((np.eye(3) + 0.5 * strain).T, strain.T).T  # per length of the middle: symmetric rule
        virial = 0.5 * (first.volume * _matrix(first.stress) + second.volume * _matrix(second.stress))
        stress_work = float(np.sum(virial * middle))
    if periodic and np.abs(steps).max() < SAME_PLACE:
        return _Pair(second.energy - first.energy, 0.0, stress_work) if not same_cell else None
    if np.isnan(first.forces).any() or np.isnan(second.forces).any():
        return None
    if not 1e-5 < _rms(moved) < LARGEST_STEP:
        return None
    force_work = -0.5 * float(np.sum((first.forces + second.forces) * moved))
    return _Pair(second.energy - first.energy, force_work, stress_work)


def _scaled_copies(records: Sequence[Record]) -> Iterator[_Pair]:
    """Pairs of structures with the same atoms at the same fractional coordinates, neighbours in volume."""
    formulas: dict[bytes, list[Record]] = {}
    for record in records:
        if record.pbc.all() and not np.isnan(record.energy) and not np.isnan(record.stress).any():
            formulas.setdefault(record.numbers.tobytes(), []).append(record)
    for same in formulas.values():
        shapes: list[tuple[NDArray[np.float64], list[Record]]] = []
        for record in same if len(same) > 1 else []:
            places = np.linalg.solve(record.cell.T, record.positions.T).T
            for reference, members in shapes:
                away = places - reference
                if np.abs(away - np.round(away)).max() < SAME_PLACE:
                    members.append(record)
                    break
            else:
                if len(shapes) < SHAPES_PER_FORMULA:
                    shapes.append((places, [record]))
        for _, members in shapes:
            for first, second in pairwise(sorted(members, key=lambda r: r.volume)):
                pair = _compare(first, second)
                if pair is not None and pair.stress_work != 0.0:
                    yield pair


def _steps(records: Sequence[Record]) -> Iterator[_Pair]:
    """Pairs of structures of a group, each one with the one that is nearest: files may be shuffled."""
    groups: dict[tuple[str, bytes], list[Record]] = {}
    for record in records:
        if not np.isnan(record.energy):
            some = groups.setdefault((record.group, record.numbers.tobytes()), [])
            if len(some) < FRAMES_PER_GROUP:
                some.append(record)
    for same in groups.values():
        points = np.array([r.positions for r in same])
        for k in range(len(same) - 1):
            away = points[k + 1 :] - points[k]
            if same[k].pbc.all():  # images of a shape that changes little
                places = away @ np.linalg.inv(same[k].cell)
                away = (places - np.round(places)) @ same[k].cell
            nearest = k + 1 + int(np.argmin((away**2).sum(axis=(1, 2))))
            pair = _compare(same[k], same[nearest])
            if pair is not None and pair.force_work != 0.0:
                yield pair


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def _guess(label: str, factor: float, keys: LabelKeys) -> str:
    """Words on a label that is `factor` times (with sign) too large after its conversion."""
    if label == "stress" and keys.stress is None and keys.virial is not None:
        return "check `virial_unit`, `virial_key` and `energy_unit`"
    true = keys.factor(label) / factor
    for unit, known in (STRESS_UNITS if label == "stress" else FORCE_UNITS).items():
        if abs(abs(true) / known - 1.0) < UNIT_GUESS:
            sign = "-" if true < 0.0 else ""
            return f"they look like {sign}{unit}: set `{label}_unit`"
    return f"check `{label}_unit`, `{label}_key` and `energy_unit`"


def _judge(label: str, work: NDArray[np.float64], energy: NDArray[np.float64], keys: LabelKeys) -> Check:
    name = f"{label} against energy"
    keep = work != 0.0
    work, energy = work[keep], energy[keep]
    n = len(work)
    if n < FEWEST_PAIRS[label]:
        return Check(name, INCONCLUSIVE, n, None, f"Too few pairs of close configurations ({n}) to check {label}.")
    ratio, weights = energy / work, np.abs(work)
    slope = _weighted_median(ratio, weights)
    agreement = float(weights[ratio > 0].sum() / weights.sum())
    if 1.0 - AGREE < agreement < AGREE:
        text = f"Energies do not follow {label} clearly over {n} pairs ({100 * agreement:.0f} % agree in sign)."
        return Check(name, INCONCLUSIVE, n, slope, text)
    if agreement <= 1.0 - AGREE:
        text = (
            f"The signs of {label} and energies contradict each other over {n} pairs of close configurations (slope "
            f"{slope:.3g} instead of 1): "
        )
        text += _guess(label, 1 / slope, keys) if label == "stress" else "the forces seem to be gradients; negate them"
        return Check(name, SUSPICIOUS, n, slope, f"{text}.")
    if SLOPES[0] <= slope <= SLOPES[1]:
        return Check(name, OK, n, slope, f"Energies follow the {label} over {n} pairs (slope {slope:.3g}, expected 1).")
    text = (
        f"The labels of {label} are {1 / slope:.3g} times what the energies of {n} pairs of close configurations say: "
        f"{_guess(label, 1 / slope, keys)}."
    )
    return Check(name, SUSPICIOUS, n, slope, text)


def _works(records: Sequence[Record], keys: LabelKeys) -> tuple[Check, Check]:
    pairs = [*_scaled_copies(records), *_steps(records)]
    table = np.array([(p.energy, p.force_work, p.stress_work) for p in pairs]).reshape(-1, 3)
    energy, force, stress = table.T
    share = np.abs(stress) / np.maximum(np.abs(stress) + np.abs(force), 1e-300)
    by_stress, by_force = share > 0.5, (share < 0.2) & (force != 0.0)
    return (
        _judge("stress", stress[by_stress], (energy - force)[by_stress], keys),
        _judge("forces", force[by_force], (energy - stress)[by_force], keys),
    )


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)


def _pressure_and_density(records: Sequence[Record]) -> Check:
    name = "pressure against density"
    known = [r for r in records if r.pbc.all() and not np.isnan(r.stress).any()]
    if len(known) < FEWEST_FOR_RANKS:
        return Check(
            name, INCONCLUSIVE, len(known), None, f"Too few stresses ({len(known)}) to compare with densities."
        )
    pressure = np.array([-r.stress[:3].mean() for r in known])
    packing = np.array([(covalent_radii[r.numbers] ** 3).sum() / r.volume for r in known])
    if np.ptp(pressure) == 0.0 or np.ptp(packing) == 0.0:
        return Check(name, INCONCLUSIVE, len(known), None, "All structures have the same density or pressure.")
    value = float(np.corrcoef(_ranks(pressure), _ranks(packing))[0, 1])
    if value > RANK_CORRELATION:
        text = f"Dense structures have higher pressures (rank correlation {value:.2f} of {len(known)})."
        return Check(name, OK, len(known), value, text)
    if value > -RANK_CORRELATION:
        text = f"Pressures hardly depend on the density (rank correlation {value:.2f} of {len(known)})."
        return Check(name, INCONCLUSIVE, len(known), value, text)
    text = (
        f"Dense structures have lower pressures (rank correlation {value:.2f} of {len(known)}): the stress seems to "
        "have the opposite sign; put a minus sign in front of `stress_unit` (VASP prints `-kbar`)."
    )
    return Check(name, SUSPICIOUS, len(known), value, text)


def _stress_size(records: Sequence[Record]) -> Check:
    name = "size of stresses"
    sizes = np.array([np.abs(r.stress).max() for r in records if not np.isnan(r.stress).any()])
    if not len(sizes):
        return Check(name, INCONCLUSIVE, 0, None, "There are no stresses.")
    middle = float(np.median(sizes))
    if middle <= HUGE_STRESS:
        return Check(name, OK, len(sizes), middle, f"The largest components have the median {middle:.3g} eV/A^3.")
    text = (
        f"The median of the largest stress components is {middle:.3g} eV/A^3 = {middle / ase.units.GPa:.3g} GPa: they "
        "look like GPa or kbar; set `stress_unit`."
    )
    return Check(name, SUSPICIOUS, len(sizes), middle, text)


def _energy_per_atom(records: Sequence[Record]) -> Check:
    """Whether total energies are energies per atom: those do not grow with the number of atoms."""
    name = "energies against numbers of atoms"
    known = [r for r in records if not np.isnan(r.energy)]
    sizes = np.array([len(r.numbers) for r in known], dtype=np.float64)
    if len(known) < FEWEST_ENERGIES or sizes.max() < 1.5 * sizes.min():
        return Check(name, INCONCLUSIVE, len(known), None, "Too few energies or sizes to tell totals from others.")
    energies = np.array([r.energy for r in known])
    elements = np.unique(np.concatenate([r.numbers for r in known]))
    shares = np.array([[np.mean(r.numbers == z) for z in elements] for r in known])

    def misfit(target: NDArray[np.float64]) -> float:
        found = np.linalg.lstsq(shares, target, rcond=None)[0]
        return float(np.sqrt(np.mean((shares @ found - target) ** 2)))

    as_it_is, divided = misfit(energies), misfit(energies / sizes) * float(sizes.mean())
    value = as_it_is / divided if divided > 0.0 else np.inf
    flat = abs(float(np.corrcoef(energies, sizes)[0, 1])) < 0.5 if np.ptp(energies) > 0.0 else False
    if value > 0.25 or not flat:
        return Check(name, OK, len(known), None, "Energies grow with the number of atoms, as totals do.")
    text = "The energies do not grow with the number of atoms, as energies per atom do: set `energy_unit` to eV/atom."
    return Check(name, SUSPICIOUS, len(known), value, text)


def check_records(records: Sequence[Record], keys: LabelKeys | None = None) -> list[Check]:
    """Compare the labels of some structures with each other; runs of successive structures tell most.

    `keys` are those that the labels were read with; they make advice on units precise. Weak checks (the correlation of
    pressure with density, the size of stresses) count only where the comparison of stresses with energies says nothing.
    """
    if not records:
        return []
    stress, forces = _works(records, keys or LabelKeys())
    checks = [_energy_per_atom(records), stress, forces]
    if stress.verdict == INCONCLUSIVE:
        checks += [_pressure_and_density(records), _stress_size(records)]
    return checks


def raise_if_suspicious(checks: Sequence[Check], source: str) -> None:
    """Raise LabelError with the first suspicious check and how to go on regardless."""
    for check in checks:
        if check.verdict == SUSPICIOUS:
            raise LabelError(f"{source}: {check.message} If the labels are right, set `check` to 'warn'.")


def records_of(shards: ShardSet, indices: Sequence[int] | NDArray[np.int64]) -> list[Record]:
    """Return structures of a set as records; structures without a group share one."""
    rows = np.asarray(indices, dtype=np.int64)
    found = []
    for (shard, arrays, k), row in zip(shards.gather(rows), rows.tolist(), strict=True):
        a, b = shard.first_atom[k : k + 2]
        found.append(
            Record(
                numbers=arrays["numbers"][a:b].astype(np.int64),
                positions=np.array(arrays["positions"][a:b]),
                cell=np.array(arrays["cell"][k]),
                pbc=np.array(arrays["pbc"][k]),
                energy=float(arrays["energy"][k]),
                forces=np.array(arrays["forces"][a:b]),
                stress=np.array(arrays["stress"][k]),
                weights=np.array(arrays["weights"][k]),
                atom_weights=None,
                group="" if arrays["group"][k] == arrays["geometry"][k] else str(arrays["group"][k]),
                config_type="",
                row=row,
            )
        )
    return found


def sample_of(shards: ShardSet, source: int, n_places: int = 20, n_each: int = 250) -> list[Record]:
    """Return up to `n_places` runs of `n_each` successive structures of one source."""
    mine = np.flatnonzero(shards.source_of == source)
    if len(mine) <= n_places * n_each:
        return records_of(shards, mine)
    starts = np.linspace(0, len(mine) - n_each, n_places).astype(np.int64)
    return records_of(shards, np.concatenate([mine[k : k + n_each] for k in starts]))
