"""GRACE interatomic potentials for stock LAMMPS, ASE and Python.

Everything here is imported on first use: LAMMPS imports this package at every start to find its plugin, and must not
wait for numpy, ase or the compiled core.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grace_md.ase import GraceCalculator
    from grace_md.model import GraceModel
    from grace_md.neighbors import neighbor_list

__version__: str

__all__ = ["GraceCalculator", "GraceModel", "__version__", "neighbor_list"]

_HOME = {"GraceCalculator": "grace_md.ase", "GraceModel": "grace_md.model", "neighbor_list": "grace_md.neighbors"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - 20 ms that LAMMPS need not pay

        try:
            return version("grace_md")
        except PackageNotFoundError:  # used from the source tree
            return "unknown"
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'grace_md' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
