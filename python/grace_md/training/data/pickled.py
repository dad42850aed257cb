"""Tables of structures that were pickled with pandas: the columns ase_atoms, energy, forces, stress of other programs.

A pickle is a program. Unless it is trusted, only the classes that such a table needs are created, and no function of
the file's choice is called.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator

from grace_md.training.data.labels import Frame
from grace_md.training.data.readers import Part, Source, _cut, _open, _part, _rows, frame_from_atoms

ATOMS_COLUMN = "ase_atoms"
# What a table of atoms, arrays, numbers and text is made of. All are classes or functions that only build such objects.
ALLOWED = {
    "ase.atoms": {"Atoms"},
    "ase.cell": {"Cell"},
    "ase.calculators.singlepoint": {"SinglePointCalculator"},
    "ase.calculators.calculator": {"Parameters"},
    "ase.constraints": {"FixAtoms"},
    "ase.spacegroup.spacegroup": {"Spacegroup"},
    "builtins": {"slice", "set", "frozenset", "list", "dict", "tuple", "range", "complex", "bytearray", "object"},
    "collections": {"OrderedDict", "defaultdict"},
    "copyreg": {"_reconstructor"},
    "numpy": {"ndarray", "dtype", "float64", "float32", "int64", "int32", "bool_", "str_"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "pandas.arrays": {"StringArray", "ArrowStringArray"},
    "pandas": {"StringDtype", "DataFrame", "Series", "Index", "RangeIndex"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.series": {"Series"},
    "pandas.core.internals.managers": {"BlockManager", "SingleBlockManager"},
    "pandas.core.internals.blocks": {"new_block"},
    "pandas._libs.internals": {"_unpickle_block", "BlockManager"},
    "pandas._libs.arrays": {"__pyx_unpickle_NDArrayBacked"},
    "pandas._libs.missing": {"NA", "NAType"},
    "pandas.core.indexes.base": {"_new_Index", "Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.indexes.numeric": {"Int64Index", "Float64Index"},
    "pandas.core.arrays.string_": {"StringArray", "StringDtype"},
    "pandas.core.arrays.string_arrow": {"ArrowStringArray"},
}


# Bound methods that ASE's own calculators keep among their attributes: the only ones that may be looked up.
METHODS = {"_deprecated_get_spin_polarized"}


def _method(owner: Any, name: str) -> Any:
    if name in METHODS and isinstance(owner, Calculator):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f"it looks up the attribute {name!r} of {type(owner).__name__}")


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _method
        if name in ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it uses {module}.{name}")


@lru_cache(maxsize=1)  # every part of the file is read from the same table
def _table(path: str, trust: bool, stamp: float) -> Any:  # stamp: a file that changed is read again
    try:
        import pandas  # noqa: PLC0415, F401 - optional; its classes are found by the unpickler
    except ImportError:
        raise RuntimeError(f"`{path}` needs the package pandas; pip install pandas (or grace_md[data]).") from None
    with _open(path) as stream:
        content = io.BytesIO(stream.read())
    try:
        table = pickle.load(content) if trust else _Restricted(content).load()
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"`{path}` was not opened: {error}, which a table of atoms does not need; if the file is your own, set "
            "`trust_pickle` (--trust-pickle)."
        ) from None
    except (EOFError, AttributeError, ImportError, IndexError) as error:
        raise ValueError(f"`{path}` cannot be unpickled ({error}); it is damaged, or of another version.") from None
    if not hasattr(table, "columns") or ATOMS_COLUMN not in table.columns:
        raise ValueError(f"`{path}` is not a table with a column `{ATOMS_COLUMN}`; convert it to extended XYZ.")
    return table


def _load(source: Source) -> Any:
    return _table(source.file, source.trust_pickle, Path(source.file).stat().st_mtime)


def scan_table(source: Source, target_atoms: int) -> list[Part]:
    """Cut a pickled table into parts; the whole table is in memory, once per process."""
    atoms = _load(source)[ATOMS_COLUMN]
    rows = _rows(source.selection, len(atoms), source.path)
    return [_part(rows, a, b, n) for a, b, n in _cut(rows, lambda row: len(atoms.iloc[row]), target_atoms)]


def read_table(source: Source, part: Part) -> Iterator[Frame]:
    """Yield the rows of one part: the atoms, and every other column as a value."""
    table = _load(source)
    columns = [column for column in table.columns if column != ATOMS_COLUMN]
    for row in part.rows:
        entry = table.iloc[row]
        frame = frame_from_atoms(entry[ATOMS_COLUMN], row, source.label)
        for column in columns:
            value = entry[column]
            if value is None or (np.ndim(value) == 0 and value != value):  # noqa: PLR0124 - NaN: missing
                continue
            frame.values[str(column)] = value
        yield frame
