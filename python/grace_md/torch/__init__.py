"""Differentiable GRACE models: `GracePotential` and what it reads, `AtomsBatch`."""

from grace_md.torch.batch import AtomsBatch, batch_from_atoms
from grace_md.torch.model import GracePotential, ModelOutput
from grace_md.torch.presets import PRESETS, Sizes

__all__ = ["PRESETS", "AtomsBatch", "GracePotential", "ModelOutput", "Sizes", "batch_from_atoms"]
