"""Entropy-maximised structures: the method of section IV.1 of Exploring the extremes (arXiv 2602.23489)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grace_md.smax.descriptors import snap_descriptors

__all__ = ["snap_descriptors"]


def __getattr__(name: str) -> Any:
    if name == "snap_descriptors":
        from grace_md.smax.descriptors import snap_descriptors  # noqa: PLC0415 - kernels are loaded when needed

        return snap_descriptors
    raise AttributeError(f"module 'grace_md.smax' has no attribute '{name}'")
