"""Gradients of losses with respect to weights: both backends, finite differences along the tangent, gradcheck."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tolerances as tol
from grace_md.torch import AtomsBatch, GracePotential, ModelOutput
from tolerances import assert_close
from torch_models import batch_of, five_atoms, three_structures, tiny_model

WEIGHTS = (16.0, 32.0, 128.0)  # of energies, forces, stresses
DELTA = 0.01
STEP = 1e-4  # A, and dimensionless for strains: along the tangent of order one


def huber(residual: Tensor) -> Tensor:
    return torch.nn.functional.huber_loss(residual, torch.zeros_like(residual), delta=DELTA)


def loss_of(output: ModelOutput, targets: list[Tensor], periodic: Tensor, n_atoms: Tensor) -> Tensor:
    """Huber loss of energies per atom, forces and stresses, as training has it."""
    energy, forces, stress = targets
    assert output.forces is not None
    assert output.stress is not None
    return (
        WEIGHTS[0] * huber((output.energy - energy) / n_atoms)
        + WEIGHTS[1] * huber(output.forces - forces)
        + WEIGHTS[2] * huber((output.stress - stress)[periodic])
    )


def targets_near(output: ModelOutput) -> list[Tensor]:
    """Labels that leave residuals on both sides of the threshold of the loss."""
    random = torch.Generator().manual_seed(5)
    return [
        value.detach() + 2 * DELTA * torch.randn(value.shape, generator=random, dtype=torch.float64)
        for value in (output.energy, output.forces, output.stress)
        if value is not None
    ]


def weight_gradients(model: GracePotential, batch: AtomsBatch, targets: list[Tensor]) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    output = model(batch, create_graph=True)
    n_atoms = torch.bincount(batch.structure).to(torch.float64)
    loss_of(output, targets, batch.has_volume, n_atoms).backward()
    return {key: weight.grad.clone() for key, weight in model.weights.items() if weight.grad is not None}


def along_the_tangent(model: GracePotential, batch: AtomsBatch, targets: list[Tensor]) -> dict[str, Tensor]:
    """dL/dtheta = grad_theta [g_E . E + D_v E], D_v by central differences of gradients of energies alone.

    v moves positions by -g_F and strains cells by g_S / V, where g are the derivatives of the loss.
    """
    model.zero_grad(set_to_none=True)
    output = model(batch)
    leaves = [value.detach().requires_grad_() for value in (output.energy, output.forces, output.stress)]
    n_atoms = torch.bincount(batch.structure).to(torch.float64)
    loss = loss_of(ModelOutput(leaves[0], output.atomic_energies, *leaves[1:]), targets, batch.has_volume, n_atoms)
    by_energy, by_forces, by_stress = torch.autograd.grad(loss, leaves)
    strain = torch.zeros(batch.n_structures, 3, 3, dtype=torch.float64)
    per_volume = torch.where(batch.has_volume, 1.0 / batch.volumes, 0.0)
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        for row, column in ((a, b), (b, a)):
            strain[:, row, column] += 0.5 * torch.nan_to_num(by_stress[:, k]) * per_volume

    def gradients(step: float, weights: Tensor) -> dict[str, Tensor]:
        growth = torch.eye(3, dtype=torch.float64) + step * strain
        positions = torch.einsum("ax,axy->ay", batch.positions, growth[batch.structure]) - step * by_forces
        moved = batch.with_positions(positions, batch.cells @ growth)
        model.zero_grad(set_to_none=True)
        (weights * model(moved, forces=False, stress=False).energy).sum().backward()
        return {key: weight.grad.clone() for key, weight in model.weights.items() if weight.grad is not None}

    ones = torch.ones(batch.n_structures, dtype=torch.float64)
    total = gradients(0.0, by_energy)
    for step, factor in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):  # five-point formula
        for key, value in gradients(step * STEP, ones).items():
            total[key] = total[key] + factor / (12 * STEP) * value
    return total


@pytest.mark.parametrize("layers", [1, 2])
def test_loss_gradients_of_both_backends_and_of_differences_agree(layers: int) -> None:
    model = tiny_model(layers)
    batch = batch_of(model, three_structures())
    targets = targets_near(model(batch))
    found = {}
    for backend in ("torch", "core"):
        model.backend = backend  # type: ignore[assignment]
        found[backend] = weight_gradients(model, batch, targets)
    differences = along_the_tangent(model, batch, targets)
    assert set(found["torch"]) == set(found["core"]) == set(model.weights)
    for key, expected in found["torch"].items():
        scale = float(expected.abs().max())
        assert scale > 1e-6, f"{key} has no gradient, so nothing is tested"
        assert_close(found["core"][key], expected, tol.TORCH_GRADIENT * scale, what=key)
        assert_close(differences[key], expected, tol.TORCH_GRADIENT_DIFFERENCE * scale, what=key)


@pytest.mark.parametrize("layers", [1, 2])
def test_loss_gradients_in_single_precision(layers: int) -> None:
    gradients = []
    for dtype in (torch.float64, torch.float32):
        model = tiny_model(layers, dtype=dtype)
        batch = batch_of(model, [five_atoms()])
        if dtype == torch.float64:
            targets = targets_near(model(batch))
        gradients.append(torch.cat([g.double().reshape(-1) for g in weight_gradients(model, batch, targets).values()]))
    error = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert 1e-9 < error <= tol.TORCH_GRADIENT_FLOAT, error


@pytest.mark.parametrize("layers", [1, 2])
def test_gradcheck_of_energies_in_positions(layers: int) -> None:
    """First and second derivatives of the energy as a function of positions (backend "torch": one graph)."""
    model = tiny_model(layers)
    batch = batch_of(model, [five_atoms()])
    model.backend = "torch"

    def energy(positions: Tensor) -> Tensor:
        return model(batch.with_positions(positions), forces=False, stress=False).energy

    positions = batch.positions.clone().requires_grad_()
    assert torch.autograd.gradcheck(energy, [positions], eps=1e-5, atol=1e-6, rtol=1e-5)
    assert torch.autograd.gradgradcheck(energy, [positions], eps=1e-5, atol=1e-5, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("backend", ["torch", "core"])
def test_gradcheck_of_forces_in_weights(backend: str) -> None:
    model = tiny_model(2)
    model.backend = backend  # type: ignore[assignment]
    batch = batch_of(model, [five_atoms()])
    names = ["mlp_rad_R_W1", "A_lin_transform_W", "fc_AA1_w_right", "I1_reduce_AAA_W", "fc_BB1_w_left", "I2_reduce_B_W"]

    def results(*values: Tensor) -> tuple[Tensor, ...]:
        replaced = {f"weights.{name}": value for name, value in zip(names, values, strict=True)}
        output = torch.func.functional_call(model, replaced, (batch,), {"create_graph": True})
        return output.energy, output.forces, output.stress

    inputs = [model.weights[name].detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(results, inputs, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_a_step_of_gradient_descent_lowers_the_loss() -> None:
    model = tiny_model(1)
    batch = batch_of(model, three_structures())
    n_atoms = torch.bincount(batch.structure).to(torch.float64)
    targets = [torch.zeros_like(value) for value in targets_near(model(batch))]
    before = loss_of(model(batch), targets, batch.has_volume, n_atoms)
    gradients = weight_gradients(model, batch, targets)
    square = sum(float((g**2).sum()) for g in gradients.values())
    with torch.no_grad():
        for key, g in gradients.items():
            model.weights[key] -= 1e-4 * g * float(before) / square
    after = loss_of(model(batch), targets, batch.has_volume, n_atoms)
    assert_close((before - after) / (1e-4 * before), 1.0, 0.05)
