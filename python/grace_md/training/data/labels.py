"""Labels of structures: which keys they have, their units and signs, and what is missing.

Inside the program energies are in eV (total, of a structure), forces in eV/A, stresses in eV/A^3 with the sign and the
order of ASE: stress = dE/d(strain) / V, positive under tension, as xx, yy, zz, yz, xz, xy. A missing label is NaN,
never zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ase.units
import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "LabelError", "LabelKeys", "Record", "extract", "resolve_keys"]

AUTO, NONE = "auto", "none"
LABELS = ("energy", "forces", "stress", "virial")
ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": ase.units.Hartree,
    "Ry": ase.units.Rydberg,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
}
FORCE_UNITS = {
    "eV/A": 1.0,
    "meV/A": 1e-3,
    "Ha/Bohr": ase.units.Hartree / ase.units.Bohr,
    "Ry/Bohr": ase.units.Rydberg / ase.units.Bohr,
    "kcal/mol/A": ase.units.kcal / ase.units.mol,
    "kJ/mol/A": ase.units.kJ / ase.units.mol,
}
STRESS_UNITS = {
    "eV/A^3": 1.0,
    "GPa": ase.units.GPa,
    "kbar": 0.1 * ase.units.GPa,
    "bar": ase.units.bar,
    "Ha/Bohr^3": ase.units.Hartree / ase.units.Bohr**3,
    "Ry/Bohr^3": ase.units.Rydberg / ase.units.Bohr**3,
}
SIGNED = ("stress", "virial")  # whose unit may start with a minus sign: "-kbar" is what VASP prints
PER_ATOM = "/atom"
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # ASE's order
VASP_TO_ASE = [0, 1, 2, 4, 5, 3]  # XX YY ZZ XY YZ ZX
SMALLEST_VOLUME = 1e-6  # A^3
SYMMETRY_TOLERANCE = 1e-3  # of the largest component of a 3x3 stress

_PREFIXES = ("", "ref_", "reference_", "dft_", "target_", "label_")
_NAMES = {
    "energy": ("energy", "free_energy", "total_energy", "energy_corrected", "corrected_total_energy"),
    "forces": ("forces", "force"),
    "stress": ("stress", "stresses_voigt"),
    "virial": ("virial", "virials"),
}
CANDIDATES = {label: tuple(p + name for p in _PREFIXES for name in names) for label, names in _NAMES.items()}


class LabelError(ValueError):
    """Labels that are ambiguous, of the wrong shape, or whose unit or sign looks wrong; the message has the remedy."""


@dataclass
class Frame:
    """One structure as read, before its labels are interpreted.

    Attributes
    ----------
    numbers : int64 [n]; positions : float64 [n, 3], A; cell : float64 [3, 3], A, rows; pbc : bool [3]
    values : everything else that the file says, by key: numbers, text and arrays, calculator results included
    row : number of the structure in its source
    source : name of the source, for messages
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    values: dict[str, Any]
    row: int
    source: str = ""

    @property
    def where(self) -> str:
        """Words for messages."""
        return f"structure {self.row} of {self.source}" if self.source else f"structure {self.row}"


@dataclass(frozen=True)
class LabelKeys:
    """Keys and units of the labels of a source.

    ``"auto"`` takes the one key that looks like the label and refuses to choose between two; None (or "none") does not
    read it.

    Attributes
    ----------
    energy, forces, stress, virial : str or None
        Keys. With a virial W the stress is -W / V; give `stress` or `virial`, not both.
    energy_unit : str
        eV, meV, Ha, Ry, kcal/mol or kJ/mol, of the whole structure, or with ``/atom``.
    forces_unit : str
        eV/A, meV/A, Ha/Bohr, Ry/Bohr, kcal/mol/A or kJ/mol/A.
    stress_unit, virial_unit : str
        eV/A^3, GPa, kbar, bar, Ha/Bohr^3, Ry/Bohr^3 (virial: a unit of energy); a minus sign in front where the file
        has the opposite sign of ASE: ``-kbar`` for the numbers that VASP prints.
    stress_order : "ase" | "vasp"
        Of stresses and virials with six components: xx yy zz yz xz xy, or xx yy zz xy yz zx.
    weight, energy_weight, forces_weight, stress_weight : str
        Keys of optional weights of a structure; `weight` multiplies all three.
    atom_weight : str
        Key of optional weights of the forces of each atom, [n].
    group, config_type : str
        Keys of optional text: structures of one group stay together in a split; the type is for reports.
    """

    energy: str | None = AUTO
    forces: str | None = AUTO
    stress: str | None = AUTO
    virial: str | None = AUTO
    energy_unit: str = "eV"
    forces_unit: str = "eV/A"
    stress_unit: str = "eV/A^3"
    virial_unit: str = "eV"
    stress_order: str = "ase"
    weight: str = "weight"
    energy_weight: str = "energy_weight"
    forces_weight: str = "forces_weight"
    stress_weight: str = "stress_weight"
    atom_weight: str = "atom_weight"
    group: str = "family"
    config_type: str = "config_type"

    def __post_init__(self) -> None:
        for label in LABELS:
            if getattr(self, label) == NONE:
                object.__setattr__(self, label, None)  # the dataclass is frozen
            self.factor(label)
        if self.stress_order not in ("ase", "vasp"):
            raise LabelError(f"`stress_order` = {self.stress_order!r} is unknown; it is 'ase' or 'vasp'.")

    def factor(self, label: str) -> float:
        """Return what turns a number of the file into eV, eV/A or eV/A^3 with the sign of ASE."""
        units = {"energy": ENERGY_UNITS, "virial": ENERGY_UNITS, "forces": FORCE_UNITS, "stress": STRESS_UNITS}[label]
        unit: str = getattr(self, f"{label}_unit")
        plain, sign = (unit[1:].strip(), -1.0) if label in SIGNED and unit.startswith("-") else (unit, 1.0)
        if label == "energy":
            plain = plain.removesuffix(PER_ATOM)
        if plain not in units:
            allowed = ", ".join(units)
            more = f", each also with {PER_ATOM}" if label == "energy" else ""
            more = ", each also with a minus sign in front" if label in SIGNED else more
            raise LabelError(f"`{label}_unit` = {unit!r} is unknown; it is one of {allowed}{more}.")
        return sign * units[plain]

    def to_json(self) -> dict[str, Any]:
        """Plain values for index files."""
        return dataclasses.asdict(self)


@dataclass
class Record:
    """One structure with its labels in the units of the program, NaN where missing.

    Attributes
    ----------
    energy : float, eV; forces : float64 [n, 3], eV/A; stress : float64 [6], eV/A^3, sign and order of ASE
    weights : float64 [3], of the energy, the forces and the stress; atom_weights : float64 [n] or None
    group, config_type : text, empty where the source has none
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    weights: NDArray[np.float64]
    atom_weights: NDArray[np.float64] | None
    group: str
    config_type: str
    row: int

    @property
    def volume(self) -> float:
        """Cell volume in A^3; NaN unless all three directions are periodic."""
        return abs(float(np.linalg.det(self.cell))) if self.pbc.all() else float("nan")


def _found(label: str, keys: Iterable[str]) -> list[str]:
    return sorted((key for key in keys if key.lower() in CANDIDATES[label]), key=lambda key: (len(key), key))


def _equal(frames: Sequence[Frame], first: str, second: str) -> bool:
    both = [(f.values[first], f.values[second]) for f in frames if first in f.values and second in f.values]
    return bool(both) and all(np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-12, atol=1e-9) for a, b in both)


def _resolve_one(label: str, key: str | None, frames: Sequence[Frame], present: set[str], source: str) -> str | None:
    if key is None:
        return None
    if key != AUTO:
        if key not in present:
            listed = ", ".join(sorted(present)) or "none"
            raise LabelError(f"`{label}_key` = {key!r} is not in {source}; its keys are: {listed}.")
        return key
    found = _found(label, present)
    distinct = [key for n, key in enumerate(found) if not any(_equal(frames, key, other) for other in found[:n])]
    if len(distinct) > 1:
        listed = " and ".join(f"`{key}`" for key in distinct)
        raise LabelError(f"{source} has {listed}; choose one with `{label}_key`, or 'none' to leave the label out.")
    return distinct[0] if distinct else None


def resolve_keys(keys: LabelKeys, frames: Sequence[Frame], source: str, *, needs_labels: bool = True) -> LabelKeys:
    """Replace ``"auto"`` by the keys that a sample of the structures of one source has, or by None.

    Raises
    ------
    LabelError
        A named key that no structure has; two candidates with different values; both a stress and a virial; no label
        at all, unless `needs_labels` is false.
    """
    present = {key for frame in frames for key in frame.values}
    chosen: dict[str, Any] = {
        label: _resolve_one(label, getattr(keys, label), frames, present, source) for label in LABELS
    }
    if chosen["stress"] and chosen["virial"]:
        if keys.stress == AUTO and keys.virial == AUTO:
            raise LabelError(
                f"{source} has both `{chosen['stress']}` and `{chosen['virial']}`; choose one: set `stress_key` or "
                "`virial_key`, and the other to 'none'."
            )
        if AUTO not in (keys.stress, keys.virial):
            raise LabelError("`stress_key` and `virial_key` name the same label twice; set one of them to 'none'.")
        chosen["virial" if keys.virial == AUTO else "stress"] = None
    if needs_labels and not any(chosen.values()):
        listed = ", ".join(sorted(present)) or "none"
        raise LabelError(
            f"{source} has neither energies nor forces nor stresses among its keys ({listed}); name them with "
            "`energy_key`, `forces_key` and `stress_key`."
        )
    return dataclasses.replace(keys, **chosen)


def _array(frame: Frame, key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        values = np.array(frame.values[key], dtype=np.float64)
    except (TypeError, ValueError):
        raise LabelError(f"`{key}` of {frame.where} is not an array of numbers.") from None
    if values.size != int(np.prod(shape)):
        raise LabelError(f"`{key}` of {frame.where} has shape {list(values.shape)} instead of {list(shape)}.")
    values = values.reshape(shape)
    if np.isinf(values).any():
        raise LabelError(f"`{key}` of {frame.where} is infinite; remove the label or the structure.")
    return values


def _voigt(frame: Frame, key: str, order: str) -> NDArray[np.float64]:
    """Stress or virial of 6, 9 or 3x3 components in ASE's order."""
    if np.size(frame.values[key]) == 6:
        six = _array(frame, key, (6,))
        return six[VASP_TO_ASE] if order == "vasp" else six
    if np.size(frame.values[key]) != 9:
        shape = list(np.shape(frame.values[key]))
        raise LabelError(f"`{key}` of {frame.where} has shape {shape}; it must have 6, 9 or 3x3 components.")
    full = _array(frame, key, (3, 3))
    if np.abs(full - full.T).max() > SYMMETRY_TOLERANCE * np.abs(full).max() + 1e-6:
        raise LabelError(f"`{key}` of {frame.where} is not symmetric; a stress or virial is, so check the key.")
    return np.array([0.5 * (full[a, b] + full[b, a]) for a, b in VOIGT])


def _weight(frame: Frame, key: str) -> float:
    if key not in frame.values:
        return 1.0
    value = float(_array(frame, key, ()))
    if not value >= 0.0:
        raise LabelError(f"`{key}` of {frame.where} is {value}; a weight is a number >= 0.")
    return value


def _refuse_unexpected(frame: Frame, keys: LabelKeys, wanted: Mapping[str, str | None]) -> None:
    for label, asked in wanted.items():
        if asked == AUTO and getattr(keys, label) is None:
            if label in ("stress", "virial") and (keys.stress or keys.virial):
                continue
            found = _found(label, frame.values)
            if found:
                raise LabelError(
                    f"{frame.where} has `{found[0]}`, which a sample of the source lacked; set `{label}_key`."
                )


def _check_geometry(frame: Frame) -> None:
    if not len(frame.numbers):
        raise ValueError(f"{frame.where} has no atoms; remove it.")
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
        raise ValueError(f"{frame.where} has positions or a cell that are not finite; remove it.")
    if frame.pbc.all() and abs(float(np.linalg.det(frame.cell))) < SMALLEST_VOLUME:
        raise ValueError(f"{frame.where} is periodic, but its cell has no volume; give it a cell or set pbc to F F F.")


def extract(frame: Frame, keys: LabelKeys, asked: LabelKeys | None = None) -> Record:
    """Return one structure, checked, with its labels in the units of the program.

    Parameters
    ----------
    frame : as read
    keys : resolved by `resolve_keys`
    asked : the keys before they were resolved; a label that the sample lacked but this structure has is an error

    Raises
    ------
    LabelError
        A label of the wrong shape, infinite, or a negative weight.
    ValueError
        No atoms, positions or cell that are not finite, a periodic cell without volume.
    """
    _check_geometry(frame)
    if asked is not None:
        _refuse_unexpected(frame, keys, {label: getattr(asked, label) for label in LABELS})
    n = len(frame.numbers)
    values, periodic = frame.values, bool(frame.pbc.all())
    energy, forces, stress = float("nan"), np.full((n, 3), np.nan), np.full(6, np.nan)
    if keys.energy in values and values[keys.energy] is not None:
        energy = float(_array(frame, keys.energy, ())) * keys.factor("energy")
        energy *= n if keys.energy_unit.endswith(PER_ATOM) else 1
    if keys.forces in values and values[keys.forces] is not None:
        forces = _array(frame, keys.forces, (n, 3)) * keys.factor("forces")
        forces[np.isnan(forces).any(axis=1)] = np.nan
    if periodic and keys.stress in values and values[keys.stress] is not None:
        stress = _voigt(frame, keys.stress, keys.stress_order) * keys.factor("stress")
    elif periodic and keys.virial in values and values[keys.virial] is not None:
        volume = abs(float(np.linalg.det(frame.cell)))
        stress = -_voigt(frame, keys.virial, keys.stress_order) * keys.factor("virial") / volume
    if np.isnan(stress).any():
        stress[:] = np.nan
    common = _weight(frame, keys.weight)
    named = (keys.energy_weight, keys.forces_weight, keys.stress_weight)
    atom_weights = _array(frame, keys.atom_weight, (n,)) if keys.atom_weight in values else None
    if atom_weights is not None and not (atom_weights >= 0.0).all():
        raise LabelError(f"`{keys.atom_weight}` of {frame.where} has negative or missing weights; weights are >= 0.")
    return Record(
        numbers=frame.numbers,
        positions=frame.positions,
        cell=frame.cell,
        pbc=frame.pbc,
        energy=energy,
        forces=forces,
        stress=stress,
        weights=np.array([common * _weight(frame, key) for key in named]),
        atom_weights=atom_weights,
        group=str(values.get(keys.group, "")),
        config_type=str(values.get(keys.config_type, "")),
        row=frame.row,
    )
