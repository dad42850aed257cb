"""Loss of a batch: energy per atom, force components and stress components, each normalised by its own labels.

``L = w_E L_E + w_F L_F + w_S L_S`` with

* ``L_E = sum_s w_s h((E_s - E_s^ref) / n_s) / sum_s w_s`` over structures with an energy, eV/atom
* ``L_F = sum_i w_i sum_a h(F_ia - F_ia^ref) / (3 sum_i w_i)`` over atoms with forces, eV/A
* ``L_S = sum_s w_s sum_v h(S_sv - S_sv^ref) / (6 sum_s w_s)`` over structures with a stress, eV/A^3

``h`` is the Huber function or the square. Missing labels are NaN and count nowhere. Among several processes the sums of
weights are those of all of them, so that the sum of the gradients is the gradient of one large batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from grace_md.training.config import LossConfig

__all__ = ["PARTS", "LabelsLike", "Loss", "OutputLike", "Residuals", "huber", "label_sums", "residuals"]

PARTS = ("energy", "forces", "stress")
COMPONENTS = (1.0, 3.0, 6.0)  # numbers per labelled structure or atom


class LabelsLike(Protocol):
    """What the loss reads of `grace_md.training.data.Labels`."""

    energy: Tensor
    forces: Tensor
    stress: Tensor
    energy_weight: Tensor
    force_weight: Tensor
    stress_weight: Tensor


class OutputLike(Protocol):
    """What the loss reads of `grace_md.torch.model.ModelOutput`."""

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None


@dataclass(frozen=True)
class Residuals:
    """Prediction minus label where there is a label, with the weights of the samples; all float64.

    Attributes
    ----------
    values : energies per atom [n, 1] in eV, forces [m, 3] in eV/A, stresses [k, 6] in eV/A^3
    weights : [n], [m] and [k]
    """

    values: tuple[Tensor, Tensor, Tensor]
    weights: tuple[Tensor, Tensor, Tensor]


def _labelled(labels: LabelsLike) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of the structures, atoms and structures that have an energy, forces and a stress."""
    return (
        torch.isfinite(labels.energy),
        torch.isfinite(labels.forces).all(dim=1),
        torch.isfinite(labels.stress).all(dim=1),
    )


def label_sums(labels: LabelsLike) -> Tensor:
    """Sums of weights of labelled structures, atoms and structures, [3] float64."""
    weights = (labels.energy_weight, labels.force_weight, labels.stress_weight)
    return torch.stack([w[mask].sum(dtype=torch.float64) for w, mask in zip(weights, _labelled(labels), strict=True)])


def residuals(output: OutputLike, labels: LabelsLike, n_atoms: Tensor) -> Residuals:
    """Return predictions minus labels; `n_atoms` [n_structures] makes energies those per atom.

    Rows without a label are taken out before the subtraction: no NaN of a label can reach a gradient.
    """
    with_energy, with_forces, with_stress = _labelled(labels)
    energy = (output.energy[with_energy] - labels.energy[with_energy]) / n_atoms[with_energy]
    empty = labels.energy.new_zeros(0)
    forces, stress = empty.reshape(0, 3), empty.reshape(0, 6)
    force_weight, stress_weight = empty, empty
    if output.forces is not None:
        forces, force_weight = output.forces[with_forces] - labels.forces[with_forces], labels.force_weight[with_forces]
    if output.stress is not None:
        stress, stress_weight = (
            output.stress[with_stress] - labels.stress[with_stress],
            labels.stress_weight[with_stress],
        )
    return Residuals(
        (energy[:, None], forces, stress), (labels.energy_weight[with_energy], force_weight, stress_weight)
    )


def huber(error: Tensor, delta: float) -> Tensor:
    """``e^2 / 2`` for ``|e| <= delta``, ``delta |e| - delta^2 / 2`` beyond."""
    size = error.abs()
    return torch.where(size <= delta, 0.5 * error * error, delta * size - 0.5 * delta * delta)


class Loss:
    """The loss of a run: kind, thresholds, and weights that may switch once.

    Parameters
    ----------
    config : section `loss` of the run file.
    """

    def __init__(self, config: LossConfig) -> None:
        self.config = config
        self._deltas = config.deltas()

    def weights(self, share: float) -> tuple[float, float, float]:
        """Return the weights of energy, forces and stress when `share` (0 to 1) of the steps are done."""
        c = self.config
        if c.switch is not None and share >= c.switch.at:
            return c.switch.energy, c.switch.forces, c.switch.stress
        return c.energy, c.forces, c.stress

    def parts(self, found: Residuals, sums: Tensor) -> Tensor:
        """Return L_E, L_F and L_S, [3] float64; `sums` are the sums of weights to divide by, of all processes."""
        parts = []
        for values, weights, delta, total, components in zip(
            found.values, found.weights, self._deltas, sums, COMPONENTS, strict=True
        ):
            each = values * values if self.config.kind == "mse" else huber(values, delta)
            # A batch without labels of a kind has a sum of zero, and so has its numerator.
            parts.append((weights[:, None] * each).sum() / (components * total.clamp(min=1e-300)))
        return torch.stack(parts)
