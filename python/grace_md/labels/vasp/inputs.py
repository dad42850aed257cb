"""INCAR, POSCAR, KPOINTS, POTCAR of a single point with the settings of the paper.

Settings: section VII.4 of "Exploring the extremes". Initial moments: its table 11. PAW data: the set that VASP
recommends, as ASE lists it.
"""

from __future__ import annotations

import gzip
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from grace_md.labels.moments import initial_moments

__all__ = ["INCAR", "KSPACING", "NELM", "incar", "kpoint_mesh", "magmom", "poscar", "potcar", "potcar_symbols",
           "species_order", "write_inputs"]  # fmt: skip

KSPACING = 0.125  # 1/A, with the factor 2 pi
NELM = 120
INCAR: Mapping[str, str] = {
    "ENCUT": "500",
    "GGA": "PE",
    "PREC": "Accurate",
    "EDIFF": "1e-06",
    "NELM": str(NELM),
    "ISMEAR": "0",
    "SIGMA": "0.1",
    "ISPIN": "2",
    "KSPACING": str(KSPACING),
    "IBRION": "-1",
    "NSW": "0",
    "EDIFFG": "-5e-03",
    "ISIF": "2",
    "ADDGRID": ".TRUE.",
    "LREAL": ".FALSE.",
    "LCHARG": ".FALSE.",
    "LWAVE": ".FALSE.",
}


def species_order(atoms: Atoms) -> tuple[list[str], NDArray[np.int64]]:
    """Return the species in the order of their first atoms, and the atoms' numbers in the order of POSCAR.

    Results come back in this order; ``forces_of_atoms[order] = forces_of_vasp`` undoes it.
    """
    symbols = atoms.get_chemical_symbols()
    species = list(dict.fromkeys(symbols))
    rank = np.array([species.index(symbol) for symbol in symbols])
    return species, np.argsort(rank, kind="stable").astype(np.int64)


def kpoint_mesh(atoms: Atoms, spacing: float = KSPACING) -> tuple[int, int, int]:
    """Return VASP's mesh for KSPACING: n_i = max(1, ceil(2 pi |b_i| / KSPACING)), b_i rows of the inverse cell."""
    lengths = np.linalg.norm(np.linalg.inv(atoms.cell.array).T, axis=1)
    a, b, c = (max(1, math.ceil(2.0 * math.pi * float(length) / spacing)) for length in lengths)
    return a, b, c


def magmom(symbols: Iterable[str]) -> str:
    """Return the value of MAGMOM for atoms in the order of POSCAR, run-length encoded: ``"2*2.5 3*1 7.94"``."""
    runs = [(value, len(list(group))) for value, group in itertools.groupby(initial_moments(symbols))]
    return " ".join(f"{value:g}" if count == 1 else f"{count}*{value:g}" for value, count in runs)


def incar(atoms: Atoms, changes: Mapping[str, Any] | None = None) -> str:
    """Return the text of INCAR; `changes` replace or add tags, None removes one."""
    symbols = atoms.get_chemical_symbols()
    _, order = species_order(atoms)
    tags: dict[str, Any] = {**INCAR, "MAGMOM": magmom([symbols[k] for k in order])}
    for key, value in (changes or {}).items():
        tags[key.upper()] = value if not isinstance(value, bool) else (".TRUE." if value else ".FALSE.")
    return "".join(f"{key} = {value}\n" for key, value in tags.items() if value is not None)


def poscar(atoms: Atoms) -> str:
    """Return the text of POSCAR: atoms grouped by species, fractional coordinates."""
    species, order = species_order(atoms)
    symbols = atoms.get_chemical_symbols()
    lines = [atoms.get_chemical_formula(), "1.0"]
    lines += [" ".join(f"{x:18.12f}" for x in row) for row in atoms.cell.array]
    lines += [" ".join(species), " ".join(str(symbols.count(name)) for name in species), "Direct"]
    fractional = atoms.get_scaled_positions(wrap=False)
    lines += [" ".join(f"{x:18.14f}" for x in fractional[k]) for k in order]
    return "\n".join(lines) + "\n"


def potcar_symbols(species: Sequence[str]) -> list[str]:
    """Return the names of the recommended PAW data, such as ``Fe`` and ``Gd_3``."""
    from ase.calculators.vasp.setups import setups_defaults  # noqa: PLC0415

    recommended = setups_defaults["recommended"]
    return [f"{name}{recommended.get(name, '')}" for name in species]


def _potcar_candidates(symbol: str) -> list[Path]:
    """Return where a POTCAR may lie, in the layouts of ASE and of pymatgen."""
    found = []
    if root := os.environ.get("VASP_PP_PATH"):
        found += [Path(root) / "potpaw_PBE" / symbol / "POTCAR", Path(root) / symbol / "POTCAR"]
    if root := os.environ.get("PMG_VASP_PSP_DIR"):
        folder = Path(root) / "POT_GGA_PAW_PBE"
        found += [folder / f"POTCAR.{symbol}.gz", folder / f"POTCAR.{symbol}", folder / symbol / "POTCAR"]
    return found


def potcar(species: Sequence[str]) -> str | None:
    """Return the text of POTCAR; None where neither VASP_PP_PATH nor PMG_VASP_PSP_DIR is set.

    Raises FileNotFoundError for an element whose file is not there.
    """
    if not (os.environ.get("VASP_PP_PATH") or os.environ.get("PMG_VASP_PSP_DIR")):
        return None
    pieces = []
    for symbol in potcar_symbols(species):
        candidates = _potcar_candidates(symbol)
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"There is no POTCAR of `{symbol}`; looked for {', '.join(map(str, candidates))}. Correct VASP_PP_PATH "
                "or PMG_VASP_PSP_DIR, or unset both to write POTCAR.spec only."
            )
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        pieces.append(data.decode("latin-1"))
    return "".join(pieces)


def write_inputs(atoms: Atoms, folder: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Write INCAR, POSCAR, POTCAR.spec, and POTCAR where PAW data are at hand.

    Molecules (no periodic direction) get a KPOINTS with the Gamma point: KSPACING alone would need boxes of 50 A.
    """
    if atoms.cell.rank < 3:
        raise ValueError("VASP needs a cell with three vectors; put molecules in a box with 10 A of vacuum.")
    species, _ = species_order(atoms)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "INCAR").write_text(incar(atoms, changes), encoding="utf-8")
    (folder / "POSCAR").write_text(poscar(atoms), encoding="utf-8")
    (folder / "POTCAR.spec").write_text("\n".join(potcar_symbols(species)) + "\n", encoding="utf-8")
    if not atoms.pbc.any():
        (folder / "KPOINTS").write_text("Gamma point\n0\nGamma\n1 1 1\n", encoding="utf-8")
    text = potcar(species)
    if text is not None:
        (folder / "POTCAR").write_text(text, encoding="latin-1")
