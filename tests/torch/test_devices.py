"""Training steps leave no tensor behind on the CPU: checked without a GPU, on torch's device without data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ase.build import bulk

from grace_md.torch import GracePotential, batch_from_atoms

ATOMS_OF_AN_ELEMENT = [8, 8]


@pytest.fixture
def numbers_of_species(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer the questions that need data: which elements there are, how often, and whether cutoffs are symmetric."""
    unique, equal, tolist = torch.unique, torch.equal, torch.Tensor.tolist

    def unique_or_known(tensor: torch.Tensor, **options: Any) -> Any:
        if not tensor.is_meta:
            return unique(tensor, **options)
        assert len(tensor) == sum(ATOMS_OF_AN_ELEMENT)
        return torch.arange(2, device="meta"), torch.tensor(ATOMS_OF_AN_ELEMENT, device="meta")

    def tolist_or_known(tensor: torch.Tensor) -> Any:
        return ATOMS_OF_AN_ELEMENT if tensor.is_meta else tolist(tensor)

    monkeypatch.setattr(torch, "unique", unique_or_known)
    monkeypatch.setattr(torch, "equal", lambda a, b: not a.is_meta and equal(a, b))
    monkeypatch.setattr(torch.Tensor, "tolist", tolist_or_known)


@pytest.mark.usefixtures("numbers_of_species")
@pytest.mark.parametrize("backend", ["core", "torch"])
@pytest.mark.parametrize("preset", ["1L-small", "2L-small"])
def test_a_step_stays_on_its_device(preset: str, backend: str) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    model = GracePotential.from_preset(preset, elements=["Na", "Cl"], cutoffs=5.0, dtype=torch.float32)
    model.backend = backend
    batch = batch_from_atoms([atoms, atoms], model.elements, model.pair_cutoffs)
    assert batch.species.bincount().tolist() == ATOMS_OF_AN_ELEMENT
    out = model.to("meta")(batch.to("meta"), forces=True, stress=True, create_graph=True)
    loss = out.energy.square().sum() + out.forces.square().sum() + out.stress.square().sum()
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = [g for g in torch.autograd.grad(loss, trained, allow_unused=True) if g is not None]
    assert out.forces.shape == (sum(ATOMS_OF_AN_ELEMENT), 3)
    assert gradients
    assert {tensor.device.type for tensor in (out.energy, out.forces, out.stress, *gradients)} == {"meta"}
