"""Weight files: numpy zip archives (`.npz`) in the layout of the published Kokkos files (docs/weight_file).

Reading takes stored and compressed archives and never unpickles. Writing gives stored archives, which the C++ core and
LAMMPS read without a decompressor; the same arrays always give the same bytes, so a hash identifies a model.
Whether the arrays form a valid model is decided in one place, the C++ loader (`grace_md.model.GraceModel.load`).
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = [
    "WeightFileError",
    "element_names",
    "file_sha256",
    "pack_npz",
    "read_npz",
    "select_elements",
    "take_elements",
    "write_npz",
]

Arrays = dict[str, NDArray[Any]]


class WeightFileError(ValueError):
    """A weight file that cannot be read; the message says which one and why."""


def read_npz(path: str | os.PathLike[str]) -> Arrays:
    """Return every array of a stored or compressed `.npz`, in the order of the file.

    Raises FileNotFoundError for a missing file and WeightFileError for anything that is not a complete archive of plain
    arrays: truncated or corrupted files, pickled objects, repeated names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file `{path}`; give the path of an existing .npz file.")
    if path.suffix in (".yaml", ".yml"):
        raise WeightFileError(
            f"`{path}` is a YAML file: GRACE/FS models are not supported; give the .npz of a one- or two-layer model."
        )
    arrays: Arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                key = member.filename.removesuffix(".npy")
                if key == member.filename:
                    raise WeightFileError(f"`{path}`: member `{key}` is not a numpy array; this is not a weight file.")
                if key in arrays:
                    raise WeightFileError(f"`{path}`: array `{key}` appears twice; write the file again.")
                arrays[key] = _parse_npy(archive.read(member), f"`{path}`: array `{key}`")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise WeightFileError(
            f"`{path}` is not a complete .npz archive ({reason}); copy or download the file again."
        ) from error
    if not arrays:
        raise WeightFileError(f"`{path}` is an archive without arrays; it is not a weight file.")
    return arrays


def _parse_npy(content: bytes, what: str) -> NDArray[Any]:
    """Parse one array. The size is checked before memory is taken, since a damaged header may ask for any amount."""
    stream = io.BytesIO(content)
    try:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise WeightFileError(f"{what} has a damaged header ({error}); copy or download the file again.") from error
    if dtype.hasobject:
        raise WeightFileError(
            f"{what} holds pickled objects, which are never loaded; save it as numbers or text of fixed width."
        )
    count = 1
    for extent in shape:
        count *= extent
    data = content[stream.tell() :]
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(data):
        raise WeightFileError(
            f"{what} has {len(data)} bytes where its shape {shape} of {dtype} needs {count * dtype.itemsize}; "
            "copy or download the file again."
        )
    # Through uint8, since frombuffer refuses both empty buffers and items of zero width.
    flat = np.array(np.frombuffer(data, dtype=np.uint8) if data else [], dtype=np.uint8)
    values = flat.view(dtype) if dtype.itemsize and count else np.empty(count, dtype=dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")


def pack_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a stored `.npz`: every key, dtype and shape is kept, in the order of the mapping.

    Arrays are written in C order and little-endian, what the C++ reader takes. Raises ValueError for object arrays.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for key, values in arrays.items():
            plain = np.asarray(values, order="C")
            if plain.dtype.hasobject:
                raise ValueError(f"array `{key}` holds Python objects; give numbers or text of fixed width.")
            plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
            member = io.BytesIO()
            npy.write_array(member, plain, allow_pickle=False)
            # A fixed date, so that equal arrays give equal files.
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0)), member.getvalue())
    return stream.getvalue()


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], *, force: bool = False) -> str:
    """Write a stored `.npz` and return the SHA-256 of its bytes. The file appears complete or not at all.

    Raises FileExistsError where the file exists and `force` is false.
    """
    path = Path(path)
    if path.exists() and not force:
        raise FileExistsError(f"`{path}` exists; choose another name or pass force=True to replace it.")
    content = pack_npz(arrays)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the bytes of a file, hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def element_names(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Return the chemical symbols of the file, in the order of its per-element arrays."""
    if "element_names" not in arrays:
        raise WeightFileError("array `element_names` is missing; this is not a GRACE weight file.")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in arrays["element_names"].reshape(-1)]


# Arrays whose first axis runs over the elements of the model, besides the reductions and neighbour normalisers.
_PER_ELEMENT = (
    "element_names",
    "chem_embedding",
    "shift_values",
    "uq_centroids",
    "uq_inv_cov",
    "uq_n_clusters",
    "uq_interp_thresholds",
)


def select_elements(arrays: Mapping[str, NDArray[Any]], elements: Sequence[str]) -> Arrays:
    """Return the arrays of the same model restricted to `elements`, in the order given.

    Energies and forces of structures made of these elements do not change; the maximum cutoff `rcut` may shrink.
    Reductions stored under two names (the densities of two-layer models) are sliced alike, uncertainty arrays too.

    Raises ValueError for an empty or repeated selection and for an element the file does not have.
    """
    known = element_names(arrays)
    unknown = [element for element in elements if element not in known]
    if unknown:
        raise ValueError(f"`elements` has {', '.join(unknown)}, unknown to the model; it knows {', '.join(known)}.")
    if not elements or len(set(elements)) != len(elements):
        raise ValueError(f"`elements` = {list(elements)} must name at least one element, each one once.")
    return take_elements(arrays, [known.index(element) for element in elements])


def take_elements(arrays: Mapping[str, NDArray[Any]], indices: Sequence[int]) -> Arrays:
    """Return the arrays with the elements of these indices, in this order; an index may come more than once.

    A repeated element keeps its symbol: the caller renames it (`element_names`), which makes a new element that behaves
    like another one.
    """
    n_elements = len(element_names(arrays))
    keep = np.array(indices, dtype=np.int64)
    return {key: _select(arrays, key, keep, n_elements) for key in arrays}


def _select(arrays: Mapping[str, NDArray[Any]], key: str, keep: NDArray[np.int64], n_elements: int) -> NDArray[Any]:
    values = arrays[key]
    if key in ("n_elements", "uq_n_elements") or key.endswith("_number_of_atom_types"):
        return np.full_like(values, len(keep))
    if key == "bond_cutoff_map":
        return values.reshape(n_elements, n_elements)[np.ix_(keep, keep)]
    if key == "rcut" and "bond_cutoff_map" in arrays and _flag(arrays, "has_bond_specific_cutoff"):
        return np.full_like(values, _select(arrays, "bond_cutoff_map", keep, n_elements).max())
    if key in _PER_ELEMENT or (key.endswith("_inv_avg_n_neigh") and values.size == n_elements and values.ndim > 0):
        return values[keep]
    reduction, separator, tail = key.partition("_reduce_")
    if separator and tail.endswith("_W") and _flag(arrays, f"{reduction}_is_central_atom_type_dependent"):
        return values[keep]
    return values


def _flag(arrays: Mapping[str, NDArray[Any]], key: str) -> bool:
    return key in arrays and bool(np.any(arrays[key] != 0))
