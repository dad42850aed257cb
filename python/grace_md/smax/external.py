"""Structures of others for labels of our own: crystals as they are, molecules in a box of vacuum.

Whatever the files say about energies and forces is of another method and left out; the energy, where there is one, is
kept as `external_energy` (eV, of the whole structure). Formats beside those that training reads:

Transition1x : HDF5 with ``<split>/<formula>/<reaction>`` groups, each with ``atomic_numbers`` [n], ``positions``
    [m, n, 3] in A and ``wB97x_6-31G(d).energy`` [m] in eV, and subgroups ``reactant``, ``transition_state`` and
    ``product`` of the same layout (Schreiner et al., Sci. Data 9, 779 (2022)).
QM9 : xyz files (a directory, a pattern, a tar archive, or all in one file) with a line of properties that begins with
    ``gdb``, numbers that may be written 1.5*^-6, and lines of frequencies, SMILES and InChI after the atoms
    (Ramakrishnan et al., Sci. Data 1, 140022 (2014)); or npz with padded arrays: R, Z, N or positions, charges,
    num_atoms.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ase.units
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from grace_md.merging.entries import LABEL_NAMES, atoms_of_frame
from grace_md.training.data.readers import Source, expand, read_part, scan

__all__ = ["FORMATS", "PADDING", "SPLITS", "boxed", "read_external"]

FORMATS = ("auto", "transition1x", "qm9-xyz", "qm9-npz", "structures")
SPLITS = ("data", "train", "val", "test")  # of Transition1x; "data" has all
STATES = ("reactant", "transition_state", "product")
PADDING = 10.0  # A between the outermost atoms and each face of the box
PART_ATOMS = 20_000
T1X_ENERGY = "wB97x_6-31G(d).energy"
QM9_U0 = 12  # word of the line of properties, from 0: the energy at 0 K, Hartree
NPZ_NAMES = (("R", "Z", "N"), ("positions", "charges", "num_atoms"))
PADDED = 2  # dimensions of an array of species of molecules of different sizes


def boxed(atoms: Atoms, padding: float = PADDING) -> Atoms:
    """Return a molecule in a periodic rectangular box, `padding` A away from each of its faces.

    Structures that are periodic in any direction are returned as they are.
    """
    if atoms.pbc.any():
        return atoms
    if not (np.isfinite(padding) and padding > 0.0):
        raise ValueError(f"`padding` = {padding} must be a number > 0 (A).")
    found: Atoms = atoms.copy()
    low, high = found.positions.min(axis=0), found.positions.max(axis=0)
    found.positions += padding - low
    found.set_cell(high - low + 2.0 * padding)
    found.pbc = True
    return found


def _molecule(numbers: Any, positions: Any, **info: Any) -> Atoms:
    return Atoms(np.asarray(numbers, dtype=np.int64), positions=np.asarray(positions, dtype=np.float64), info=info)


# Transition1x ---------------------------------------------------------------------------------------------------------


def _transition1x(path: str, split: str, *, final_only: bool) -> Iterator[Atoms]:
    try:
        import h5py  # noqa: PLC0415 - optional
    except ImportError:
        raise RuntimeError(f"`{path}` needs the package h5py; pip install h5py (or grace_md[smax]).") from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"`{path}` is not an HDF5 file, or it is damaged ({error}).") from None
    with file:
        if split not in file:
            raise ValueError(f"`{path}` has no split `{split}`; it has {', '.join(sorted(file))}.")
        for formula, reactions in file[split].items():
            for reaction, group in reactions.items():
                named = [(state, group[state]) for state in STATES if state in group]
                for state, one in named if final_only else [("path", group)]:
                    yield from _t1x_frames(path, f"{formula}/{reaction}", state, one)


def _t1x_frames(path: str, reaction: str, state: str, group: Any) -> Iterator[Atoms]:
    if not {"atomic_numbers", "positions"} <= set(group):
        raise ValueError(f"`{path}`: {reaction} lacks atomic_numbers or positions; it is not a Transition1x file.")
    numbers = np.asarray(group["atomic_numbers"]).reshape(-1)
    energies = np.asarray(group[T1X_ENERGY]).reshape(-1) if T1X_ENERGY in group else None
    for k, positions in enumerate(np.asarray(group["positions"]).reshape(-1, len(numbers), 3)):
        atoms = _molecule(numbers, positions, external_source="transition1x", external_id=f"{reaction}/{state}/{k}")
        if energies is not None:
            atoms.info["external_energy"] = float(energies[k])
        yield atoms


# QM9 ------------------------------------------------------------------------------------------------------------------


def _number(word: str) -> float:
    return float(word.replace("*^", "e"))


def _qm9_molecule(stream: IO[str], name: str) -> Atoms | None:
    """Read one molecule, None at the end of the file."""
    head = stream.readline()
    if not head.strip():
        return None
    try:
        n = int(head)
        words = stream.readline().split()
        lines = [stream.readline().split() for _ in range(n)]
        symbols, positions = [line[0] for line in lines], [[_number(x) for x in line[1:4]] for line in lines]
        energy = _number(words[QM9_U0]) * ase.units.Hartree
        rest = [stream.readline() for _ in range(3)]  # frequencies, SMILES, InChI
    except (ValueError, IndexError):
        raise ValueError(f"`{name}` is not a file of QM9, or it is damaged near {head.strip()[:40]!r}.") from None
    if words[0] != "gdb" or not all(line.strip() for line in rest):
        raise ValueError(f"`{name}` is not a file of QM9: it lacks `gdb` in the second line, or lines after the atoms.")
    info = {"external_source": "qm9", "external_id": f"gdb {words[1]}", "external_energy": energy}
    return Atoms(symbols, positions=positions, info=info)


def _qm9_stream(stream: IO[str], name: str) -> Iterator[Atoms]:
    while (atoms := _qm9_molecule(stream, name)) is not None:
        yield atoms


def _qm9_xyz(path: str) -> Iterator[Atoms]:
    place = Path(path)
    if place.is_file() and tarfile.is_tarfile(place):
        with tarfile.open(place) as archive:
            for member in archive:
                found = archive.extractfile(member) if member.isfile() and member.name.endswith(".xyz") else None
                if found is not None:
                    yield from _qm9_stream(io.TextIOWrapper(found, encoding="utf-8"), f"{path}:{member.name}")
        return
    files = sorted(place.rglob("*.xyz")) if place.is_dir() else [place]
    for file in files:
        with file.open(encoding="utf-8") as stream:
            yield from _qm9_stream(stream, str(file))


def _qm9_npz(path: str) -> Iterator[Atoms]:
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"`{path}` is not an npz file of plain arrays ({error}).") from None
    with archive:
        names = next((names for names in NPZ_NAMES if set(names[:2]) <= set(archive.files)), None)
        if names is None:
            raise ValueError(f"`{path}` has neither R and Z nor positions and charges, but {', '.join(archive.files)}.")
        positions, numbers = archive[names[0]], np.asarray(archive[names[1]])
        if positions.ndim != PADDED + 1 or numbers.shape != positions.shape[:PADDED]:
            raise ValueError(
                f"`{path}`: {names[0]} has shape {list(positions.shape)} and {names[1]} {list(numbers.shape)}; they "
                "must be [molecules, atoms, 3] and [molecules, atoms]."
            )
        counts: NDArray[np.int64] = (
            np.asarray(archive[names[2]]).reshape(-1) if names[2] in archive.files else (numbers > 0).sum(axis=1)
        ).astype(np.int64)
        for k, n in enumerate(counts):
            if not (numbers[k, :n] > 0).all():
                raise ValueError(f"`{path}`: molecule {k} has {n} atoms by {names[2]}, but fewer by {names[1]}.")
            yield _molecule(numbers[k, :n], positions[k, :n], external_source="qm9", external_id=f"npz {k}")


# Everything -----------------------------------------------------------------------------------------------------------


def _structures(path: str) -> Iterator[Atoms]:
    for source in expand(Source(path)):
        for part in scan(source, PART_ATOMS):
            for frame in read_part(source, part):
                atoms = atoms_of_frame(frame)
                known = {k: v for k, v in frame.values.items() if k.lower() in LABEL_NAMES and np.ndim(v) == 0}
                if "energy" in known or len(known) == 1:  # not where it is not clear which one
                    atoms.info["external_energy"] = float(known.get("energy", next(iter(known.values()))))
                atoms.info.update(external_source=source.label, external_id=str(frame.row))
                yield atoms


def _guess(path: str) -> str:
    name = path.lower()
    place = Path(path)
    if name.endswith((".h5", ".hdf5")):
        return "transition1x"
    if name.endswith(".npz"):
        return "qm9-npz"
    if place.is_file() and name.endswith((".tar", ".tar.gz", ".tar.bz2", ".tgz")):
        return "qm9-xyz"
    first = next(iter(sorted(place.glob("*.xyz"))), None) if place.is_dir() else place
    if first is not None and first.suffix == ".xyz" and first.is_file():
        with first.open(encoding="utf-8", errors="replace") as stream:
            stream.readline()
            if stream.readline().startswith("gdb"):
                return "qm9-xyz"
    return "structures"


def read_external(
    path: str | Path,
    format: str = "auto",  # noqa: A002 - as everywhere in this field
    *,
    padding: float = PADDING,
    split: str = "data",
    final_only: bool = True,
    stride: int = 1,
) -> Iterator[Atoms]:
    """Yield the structures of a file or directory without labels, molecules in boxes.

    Parameters
    ----------
    path : extended XYZ, ASE database, aselmdb, whatever `ase.io` reads; Transition1x HDF5; QM9 xyz or npz
    format : "auto" (by ending and first lines), "transition1x", "qm9-xyz", "qm9-npz" or "structures"
    padding : A, vacuum between a molecule and each face of its box
    split : of Transition1x: data (all), train, val or test
    final_only : of Transition1x: only reactants, transition states and products, not the paths
    stride : take every stride-th structure

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; a damaged file or another layout. RuntimeError where h5py or lmdb is missing.
    """
    name = str(path)
    if format not in FORMATS:
        raise ValueError(f"`format` = {format!r} is unknown; it is one of {', '.join(FORMATS)}.")
    if split not in SPLITS:
        raise ValueError(f"`split` = {split!r} is unknown; it is one of {', '.join(SPLITS)}.")
    if stride < 1:
        raise ValueError(f"`stride` = {stride} must be a whole number > 0.")
    kind = _guess(name) if format == "auto" else format
    if kind != "structures" and not Path(name).exists():
        raise FileNotFoundError(f"There is no file `{name}`; check the path.")
    if kind == "transition1x":
        found = _transition1x(name, split, final_only=final_only)
    else:
        found = {"qm9-xyz": _qm9_xyz, "qm9-npz": _qm9_npz, "structures": _structures}[kind](name)
    return (boxed(atoms, padding) for k, atoms in enumerate(found) if k % stride == 0)
