"""What the backend "core" calls: the operators over the C++ core, or the plain formulas for those a build lacks."""

from __future__ import annotations

from grace_md import _core
from grace_md.torch import forms, ops

__all__ = ["bond_basis", "coupling_product", "message_basis"]


def _kernel(name: str) -> object:
    return getattr(ops if hasattr(_core, name) and hasattr(ops, name) else forms, name)


bond_basis = _kernel("bond_basis")
coupling_product = _kernel("coupling_product")
message_basis = _kernel("message_basis")
