"""Loss, errors, learning rate, averages, optimiser state: formulas of a few numbers each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from grace_md.training.config import LossConfig, SwitchConfig
from grace_md.training.ema import Ema
from grace_md.training.loss import Loss, huber, label_sums, residuals
from grace_md.training.metrics import EV_PER_A3_IN_GPA, ErrorSums
from grace_md.training.optimiser import (
    clip_gradients,
    load_optimiser,
    make_optimiser,
    optimiser_arrays,
)
from grace_md.training.schedule import LearningRate

NAN = float("nan")


def batch(seed: int = 0, sizes: tuple[int, ...] = (2, 3, 1)) -> tuple[SimpleNamespace, SimpleNamespace, torch.Tensor]:
    """A made-up prediction, labels with holes, and numbers of atoms."""
    rng = np.random.default_rng(seed)
    s, n = len(sizes), sum(sizes)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape))

    output = SimpleNamespace(energy=tensor(s), forces=tensor(n, 3), stress=tensor(s, 6))
    labels = SimpleNamespace(
        energy=tensor(s),
        forces=tensor(n, 3),
        stress=tensor(s, 6),
        energy_weight=torch.from_numpy(rng.uniform(0.5, 2.0, s)),
        force_weight=torch.from_numpy(rng.uniform(0.5, 2.0, n)),
        stress_weight=torch.from_numpy(rng.uniform(0.5, 2.0, s)),
    )
    labels.energy[1] = labels.forces[3, 1] = labels.stress[0, 2] = NAN
    output.stress[0] = NAN  # a structure without volume
    return output, labels, torch.tensor(sizes)


def test_huber_is_quadratic_then_linear() -> None:
    e = torch.tensor([0.0, 0.005, -0.01, 0.02, -1.0], dtype=torch.float64)
    np.testing.assert_allclose(huber(e, 0.01), [0.0, 1.25e-5, 5e-5, 1.5e-4, 9.95e-3], rtol=1e-12)


@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_parts_are_weighted_means_over_the_labels(kind: str) -> None:
    output, labels, n_atoms = batch()
    loss = Loss(LossConfig(kind=kind, delta={"energy": 0.3, "forces": 0.5, "stress": 0.7}))
    parts = loss.parts(residuals(output, labels, n_atoms), label_sums(labels))

    def h(e: float, delta: float) -> float:
        if kind == "mse":
            return e * e
        return 0.5 * e * e if abs(e) <= delta else delta * abs(e) - 0.5 * delta * delta

    sums = np.zeros((3, 2))
    for s in range(3):
        if s != 1:
            e = float((output.energy[s] - labels.energy[s]) / n_atoms[s])
            sums[0] += float(labels.energy_weight[s]) * np.array([h(e, 0.3), 1.0])
        if s != 0:
            w = float(labels.stress_weight[s])
            sums[2] += [w * sum(h(float(x), 0.7) for x in output.stress[s] - labels.stress[s]), 6.0 * w]
    for i in range(6):
        if i != 3:
            w = float(labels.force_weight[i])
            sums[1] += [w * sum(h(float(x), 0.5) for x in output.forces[i] - labels.forces[i]), 3.0 * w]
    np.testing.assert_allclose(parts.numpy(), sums[:, 0] / sums[:, 1], rtol=1e-12)


def test_missing_labels_reach_no_gradient() -> None:
    output, labels, n_atoms = batch()
    for value in (output.energy, output.forces, output.stress):
        value.requires_grad_(True)
    loss = Loss(LossConfig())
    loss.parts(residuals(output, labels, n_atoms), label_sums(labels)).sum().backward()
    assert output.energy.grad[1] == 0.0
    assert (output.forces.grad[3] == 0.0).all()
    assert (output.stress.grad[0] == 0.0).all()
    for value in (output.energy, output.forces, output.stress):
        assert torch.isfinite(value.grad).all()
        assert (value.grad != 0.0).any()


def test_two_processes_with_common_sums_make_one_large_batch() -> None:
    first, second = batch(1), batch(2, sizes=(4, 1))
    joined = [
        SimpleNamespace(**{k: torch.cat([getattr(a, k), getattr(b, k)]) for k in vars(a)})
        for a, b in zip(first[:2], second[:2], strict=True)
    ]
    sums = label_sums(first[1]) + label_sums(second[1])
    loss = Loss(LossConfig())
    split = sum(loss.parts(residuals(*one), sums) for one in (first, second))
    whole = loss.parts(residuals(*joined, torch.cat([first[2], second[2]])), label_sums(joined[1]))
    np.testing.assert_allclose(split, whole, rtol=1e-13)


def test_a_batch_without_labels_of_a_kind_has_no_loss_of_it() -> None:
    output, labels, n_atoms = batch()
    labels.stress[:] = NAN
    parts = Loss(LossConfig()).parts(residuals(output, labels, n_atoms), label_sums(labels))
    assert parts[2] == 0.0
    assert parts[0] > 0.0
    output.forces = output.stress = None  # not computed: their weights are zero
    parts = Loss(LossConfig()).parts(residuals(output, labels, n_atoms), label_sums(labels))
    assert parts.tolist()[1:] == [0.0, 0.0]


def test_weights_switch_once() -> None:
    loss = Loss(LossConfig(switch=SwitchConfig(at=0.8, energy=128, forces=32, stress=16)))
    assert loss.weights(0.799) == (16.0, 32.0, 128.0)
    assert loss.weights(0.8) == (128, 32, 16)


def test_errors_are_plain_means_in_the_units_of_records() -> None:
    output, labels, n_atoms = batch()
    labels.energy_weight[2] = 0.0  # padding
    errors = ErrorSums()
    errors.add(residuals(output, labels, n_atoms))
    errors.add(residuals(*batch(3)))
    found = errors.summary()
    other = batch(3)
    energies = np.array([float((o.energy[s] - ref.energy[s]) / n[s]) for o, ref, n, s in
                         ((output, labels, n_atoms, 0), (*other, 0), (*other, 2))])  # fmt: skip
    assert found["energy_mae_meV_per_atom"] == pytest.approx(1e3 * np.abs(energies).mean())
    assert found["energy_rmse_meV_per_atom"] == pytest.approx(1e3 * np.sqrt((energies**2).mean()))
    stress = torch.cat([(o.stress - ref.stress)[1:] for o, ref, _ in ((output, labels, 0), other)]).numpy()
    assert found["stress_mae_GPa"] == pytest.approx(EV_PER_A3_IN_GPA * np.abs(stress).mean())
    assert ErrorSums().summary() == {}


def test_cosine_per_step() -> None:
    rate = LearningRate(8e-3, 5e-4, 101)
    assert rate(0) == pytest.approx(8e-3)
    assert rate(100) == pytest.approx(5e-4)
    assert rate(50) == pytest.approx((8e-3 + 5e-4) / 2)
    assert rate(25) == pytest.approx(8e-3 * ((1 - 0.0625) * (1 + np.cos(np.pi / 4)) / 2 + 0.0625))
    assert rate(1000) == pytest.approx(5e-4)
    assert LearningRate(1e-3, 1e-4, 1)(0) == pytest.approx(1e-4)
    assert LearningRate(1e-3, 1e-4, 50, constant=True)(49) == 1e-3


def test_warm_up_rises_to_the_full_rate() -> None:
    rate = LearningRate(1.0, 0.1, 30, warmup=9)
    rates = [rate(k) for k in range(30)]
    np.testing.assert_allclose(np.diff(rates[:10]), 0.1, rtol=1e-9)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)


def test_average_follows_and_steps_aside() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    ema = Ema({"w": parameter}, 0.9)
    with torch.no_grad():
        parameter += 1.0
    ema.update()
    np.testing.assert_allclose(ema.average["w"], [1.1, 2.1], rtol=1e-6)
    before = parameter.detach().clone()
    with ema.applied():
        np.testing.assert_allclose(parameter.detach(), [1.1, 2.1], rtol=1e-6)
    assert torch.equal(parameter.detach(), before)
    with pytest.raises(RuntimeError), ema.applied():
        raise RuntimeError
    assert torch.equal(parameter.detach(), before)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_optimiser_state_goes_through_arrays(kind: str) -> None:
    def run(parameters: dict[str, torch.Tensor], optimiser: torch.optim.Optimizer, steps: range) -> None:
        for k in steps:
            for name, p in parameters.items():
                p.grad = torch.full_like(p, 0.1 * k + len(name))
            for group in optimiser.param_groups:
                group["lr"] = 1e-2
            optimiser.step()

    def make() -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
        parameters = {
            "rho_reduce_A_W": torch.nn.Parameter(torch.ones(3)),
            "shift_values": torch.nn.Parameter(torch.ones(2, dtype=torch.float64)),
        }
        return parameters, make_optimiser(parameters, kind, weight_decay=0.01 if kind == "adamw" else 0.0)

    whole, optimiser = make()
    run(whole, optimiser, range(6))
    first, optimiser = make()
    run(first, optimiser, range(3))
    arrays = optimiser_arrays(optimiser, first)
    assert set(arrays) >= {"exp_avg/shift_values", "exp_avg_sq/rho_reduce_A_W", "step/shift_values"}
    second, again = make()
    with torch.no_grad():
        for name, p in second.items():
            p.copy_(first[name])
    load_optimiser(again, second, arrays)
    run(second, again, range(3, 6))
    for name, p in whole.items():
        assert torch.equal(p, second[name])


def test_decay_acts_on_reductions_only() -> None:
    parameters = {name: torch.nn.Parameter(torch.ones(2)) for name in ("rho_reduce_A_W", "shift_values")}
    optimiser = make_optimiser(parameters, "adamw", weight_decay=0.1)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.1, 0.0]


def test_clipping_scales_all_gradients_alike() -> None:
    parameters = {"a": torch.nn.Parameter(torch.zeros(2)), "b": torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))}
    parameters["a"].grad = torch.tensor([3.0, 0.0])
    parameters["b"].grad = torch.tensor([4.0], dtype=torch.float64)
    assert clip_gradients(parameters, 10.0) == pytest.approx(5.0)
    assert clip_gradients(parameters, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(parameters["a"].grad, [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(parameters["b"].grad, [0.8], rtol=1e-6)
    parameters["a"].grad[0] = NAN
    assert not np.isfinite(clip_gradients(parameters, 1.0))
