"""Entropy-maximised structures: the method of section IV.1 of Exploring the extremes (arXiv 2602.23489).

from grace_md.smax import generate, read
from grace_md.smax.presets import preset

generate(preset("single:Sn"), "tin", 1000, workers=16)
for atoms in read("tin"):        # plain ase.Atoms
...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grace_md.smax.descriptors import snap_descriptors
    from grace_md.smax.folder import read
    from grace_md.smax.generation import generate
    from grace_md.smax.relaxation import RelaxSettings, relax

__all__ = ["RelaxSettings", "generate", "read", "relax", "snap_descriptors"]

_MODULES = {
    "RelaxSettings": "relaxation",
    "generate": "generation",
    "read": "folder",
    "relax": "relaxation",
    "snap_descriptors": "descriptors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'grace_md.smax' has no attribute '{name}'")
    return getattr(import_module(f"grace_md.smax.{_MODULES[name]}"), name)  # kernels are loaded when needed
