"""Training on a GPU: gradients are those of the CPU, and a fit runs, stops and goes on. Without a GPU,
tests/torch/test_devices.py follows the tensors of a step."""

from __future__ import annotations

from pathlib import Path

import pytest

import tolerances as tol
from device_tools import HAS_TORCH, IS_EMULATED

if not HAS_TORCH:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from fit_tools import quiet, tiny
from grace_md.training.run import train
from tolerances import assert_close
from torch_models import batch_of, three_structures, tiny_model

pytestmark = [
    pytest.mark.skipif(IS_EMULATED, reason="needs a GPU: GRACE_TEST_DEVICE=cuda"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no GPU"),
]


def results(layers: int, backend: str, device: str) -> dict[str, torch.Tensor]:
    """Return energies, forces, stresses and gradients of a loss of all three, on the CPU."""
    model = tiny_model(layers)
    model.backend = backend
    batch = batch_of(model, three_structures()[:1] * 2)
    out = model.to(device)(batch.to(device), create_graph=True)
    loss = out.energy.square().sum() + out.forces.square().sum() + out.stress.square().sum()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()))
    found = {
        "energy": out.energy,
        "forces": out.forces,
        "stress": out.stress,
        **dict(zip(named, gradients, strict=True)),
    }
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


@pytest.mark.parametrize("backend", ["core", "torch"])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_are_those_of_the_cpu(layers: int, backend: str) -> None:
    expected, found = results(layers, backend, "cpu"), results(layers, backend, "cuda")
    for name, values in expected.items():
        scale = float(values.abs().max()) or 1.0
        assert_close(found[name].numpy(), values.numpy(), tol.TORCH_GRADIENT * scale, what=name)


def test_a_fit_learns_and_goes_on(tmp_path: Path) -> None:
    config = tiny(tmp_path, fit={"epochs": 6, "device": "cuda"})
    half = train(config, say=quiet, until=3)
    whole = train(config, say=quiet)
    assert half.status != "complete"
    assert whole.status == "complete"
    assert whole.best["valid_forces_mae_meV_per_A"] < half.best["valid_forces_mae_meV_per_A"]
