"""`GracePotential`: a GRACE model whose energies, forces and stresses are differentiable in its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from grace_md.torch import forms, ops
from grace_md.torch.batch import AtomsBatch
from grace_md.torch.bonds import BondConstants, bond_constants
from grace_md.torch.geometry import bond_vectors, harmonics, lengths_and_directions
from grace_md.torch.layout import WeightLayout
from grace_md.torch.network_op import radial_network
from grace_md.torch.pairs import to_bonds
from grace_md.torch.presets import preset_arrays
from grace_md.torch.radial import chebyshev_basis, network
from grace_md.torch.stages import BatchView
from grace_md.torch.wiring import build_network, number, pair_cutoffs, text
from grace_md.weights import read_npz, write_npz

__all__ = ["GracePotential", "ModelOutput"]

Backend = Literal["torch", "core"]
VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])  # xx, yy, zz, yz, xz, xy


@dataclass
class ModelOutput:
    """Results for a batch; all float64.

    Attributes
    ----------
    energy : [n_structures], eV
    atomic_energies : [n_atoms], eV
    forces : [n_atoms, 3], eV/A, or None
    stress : [n_structures, 6], eV/A^3, sign and Voigt order of ASE, or None; NaN for structures without volume
    """

    energy: Tensor
    atomic_energies: Tensor
    forces: Tensor | None = None
    stress: Tensor | None = None


class GracePotential(nn.Module):
    """A GRACE model of one or two layers in torch.

    Make one with `from_file`, `from_arrays` or `from_preset`. Positions, bond geometry, sums over atoms, forces and
    stresses are double precision; the network runs in the dtype of the weights.

    Attributes
    ----------
    weights : nn.ParameterDict, by key of the weight file; raw values of unit variance, whose norms are applied at run
        time (needed for the transfer of learning rates between sizes). `shift_values` (eV) stays double.
    elements : list of str, chemical symbols
    pair_cutoffs : float64 [n_elements, n_elements], A, row = centre
    backend : "torch" differentiates plain formulas from positions and strain; "core" calls the kernels of the core and
        needs no graph through the geometry. Both give the same results.
    """

    pair_cutoffs: Tensor
    output_scale: Tensor

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], dtype: torch.dtype = torch.float64, backend: Backend = "core"
    ) -> None:
        super().__init__()
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"`dtype` = {dtype} is not supported; give torch.float64 or torch.float32.")
        self.dtype = dtype
        self._layout = WeightLayout(arrays)
        self.weights = nn.ParameterDict(self._layout.parameters(dtype))
        self.elements = text(arrays["element_names"])
        self._network = build_network(arrays, dtype)
        self.stages = self._network.stages
        scale = number(arrays, "output_scale") if "output_scale" in arrays else 1.0
        self.register_buffer("pair_cutoffs", torch.from_numpy(pair_cutoffs(arrays)), persistent=False)
        self.register_buffer("output_scale", torch.tensor(scale, dtype=torch.float64), persistent=False)
        self.backend: Backend = backend

    # ------------------------------------------------------------------------------------------- construction

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], dtype: torch.dtype = torch.float64) -> GracePotential:
        """Read a weight file (.npz); errors as `grace_md.GraceModel.load`."""
        return cls(read_npz(path), dtype)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], dtype: torch.dtype = torch.float64) -> GracePotential:
        """Make a model of the arrays of a weight file."""
        return cls(arrays, dtype)

    @classmethod
    def from_preset(
        cls,
        preset: str | Mapping[str, Any],
        *,
        elements: Sequence[str],
        cutoffs: float | ArrayLike = 6.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        average_neighbors: float = 1.0,
        output_scale: float = 1.0,
        shifts: ArrayLike | Mapping[str, float] | None = None,
    ) -> GracePotential:
        """Return a fresh model with random weights.

        Parameters
        ----------
        preset : "1L-small", ..., "2L-large", or sizes (`grace_md.torch.presets.Sizes`), of which `preset` may name the
            base: ``{"preset": "1L-small", "lmax": 3, "n_rad": 16}``.
        elements : chemical symbols, in the order of all arrays by element.
        cutoffs : A; one number, or [n_elements, n_elements] with the centre as row.
        seed : of the random weights.
        average_neighbors : mean number of neighbours in the training data.
        output_scale : eV; atomic energies are network * output_scale + shift.
        shifts : eV by element (array, or symbol -> eV); zero unless given.
        """
        arrays = preset_arrays(
            preset,
            elements=elements,
            cutoffs=cutoffs,
            seed=seed,
            average_neighbors=average_neighbors,
            output_scale=output_scale,
            shifts=shifts,
        )
        return cls(arrays, dtype)

    # ------------------------------------------------------------------------------------------- export

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.weights.values())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the weight file: keys, order and shapes as loaded, unchanged arrays bit by bit.

        Uncertainty arrays (uq_*) describe the features of the weights they came with: they are left out, with a
        warning, once any weight has changed.
        """
        return self._layout.export(dict(self.weights.items()))

    def save(self, path: str | os.PathLike[str], force: bool = False) -> str:
        """Write a weight file that the core, ASE and LAMMPS read, and return its SHA-256.

        Raises FileExistsError where it exists, unless `force`.
        """
        return write_npz(path, self.arrays(), force=force)

    # ------------------------------------------------------------------------------------------- evaluation

    def forward(
        self, batch: AtomsBatch, forces: bool = True, stress: bool = True, create_graph: bool = False
    ) -> ModelOutput:
        """Evaluate a batch.

        Parameters
        ----------
        forces, stress : whether to compute them.
        create_graph : keep what a loss of forces or stresses needs for its gradient with respect to the weights.
        """
        evaluate = {"torch": self._from_positions, "core": self._from_pairs}.get(self.backend)
        if evaluate is None:
            raise ValueError(f"`backend` = {self.backend!r} is unknown; use 'torch' or 'core'.")
        wanted = forces or stress
        weights = dict(self.weights.items())
        if wanted and not create_graph:  # gradients of weights will not be asked for
            weights = {key: weight.detach() for key, weight in weights.items()}
        with torch.set_grad_enabled(torch.is_grad_enabled() or wanted):
            output = evaluate(batch, weights, forces, stress, create_graph)
        if wanted and not create_graph:
            output.energy, output.atomic_energies = output.energy.detach(), output.atomic_energies.detach()
        return output

    def _view(self, batch: AtomsBatch, kernels: Any) -> BatchView:
        key = ("view", kernels.__name__)
        if key not in batch.cache:
            species = batch.species
            order = torch.argsort(species, stable=True)
            rank = torch.empty_like(order)
            rank[order] = torch.arange(len(order), device=order.device)
            present, counts = torch.unique(species, return_counts=True)
            batch.cache[key] = BatchView(
                species=species,
                first_bond=batch.first_bond,
                neighbor=batch.neighbor,
                bond_species=species[batch.neighbor],
                order=order,
                rank=rank,
                present=present,
                counts=tuple(counts.tolist()),
                run_first=torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
                row_maps=kernels is ops and species.device.type == "cpu",
                kernels=kernels,
            )
        view: BatchView = batch.cache[key]
        return view

    def _energies(self, weights: dict[str, Tensor], tensors: dict[str, Tensor], view: BatchView) -> Tensor:
        """Return atomic energies [n_atoms], float64 eV, of the radial functions and harmonics in `tensors`."""
        for stage in self.stages:
            stage(weights, tensors, view)
        energies = tensors["e"].to(torch.float64) * self.output_scale
        if "shift_values" in weights:
            energies = energies + weights["shift_values"].to(torch.float64)[view.species]
        return energies

    def _from_positions(
        self, batch: AtomsBatch, weights: dict[str, Tensor], forces: bool, stress: bool, create_graph: bool
    ) -> ModelOutput:
        """Backend "torch": automatic differentiation from positions and a symmetric strain of every structure."""
        view, network_ = self._view(batch, forms), self._network
        inputs: list[Tensor] = []
        if forces or stress:
            positions = batch.positions.detach().requires_grad_()
            strain = positions.new_zeros(batch.n_structures, 3, 3).requires_grad_()
            inputs = [positions, strain]
            vectors = bond_vectors(batch.with_positions(positions))
            symmetric = 0.5 * (strain + strain.transpose(1, 2))
            vectors = vectors + torch.einsum("bx,bxy->by", vectors, symmetric[batch.structure[batch.center]])
        else:
            vectors = bond_vectors(batch)
        d, u = lengths_and_directions(vectors)
        scaled = d / self.pair_cutoffs[batch.species[batch.center], view.bond_species]
        basis = chebyshev_basis(scaled, network_.n_basis, network_.order).to(self.dtype)
        tensors = {"Y": harmonics(u, network_.lmax).to(self.dtype)}
        for radial in network_.radials:
            tensors[radial.output] = radial(weights, basis)
        atomic = self._energies(weights, tensors, view)
        output = ModelOutput(sum_by_structure(atomic, batch), atomic)
        if inputs:
            by_position, by_strain = gradient(atomic.sum(), inputs, create_graph)
            output.forces = -by_position if forces else None
            output.stress = voigt_stress(by_strain, batch) if stress else None
        return output

    def _constants(self, batch: AtomsBatch) -> BondConstants:
        network_ = self._network
        sizes = (network_.n_basis, network_.order, network_.lmax)
        key = ("bonds", *sizes, self.dtype, self.pair_cutoffs.data_ptr())
        if key not in batch.cache:
            batch.cache[key] = bond_constants(batch, self.pair_cutoffs, *sizes, self.dtype)
        constants: BondConstants = batch.cache[key]
        return constants

    def _from_pairs(
        self, batch: AtomsBatch, weights: dict[str, Tensor], forces: bool, stress: bool, create_graph: bool
    ) -> ModelOutput:
        """Backend "core": dE/dr of every pair of bonds from dE/dR, dR/dx and dE/dY; no graph through the geometry."""
        view, bonds = self._view(batch, ops), self._constants(batch)
        wanted = forces or stress
        inputs, slopes = [bonds.harmonics.detach().requires_grad_(wanted)], []
        tensors = {"Y": to_bonds(inputs[0], bonds.pairs, bonds.signs)}
        for radial in self._network.radials:
            matrices = radial.weights(weights)
            if wanted:
                values, slope = radial_network(bonds.basis, bonds.slope, matrices)
                inputs.append(values if values.requires_grad else values.requires_grad_())
                slopes.append(slope)
            else:
                values = network(bonds.basis, matrices, "silu")
            tensors[radial.output] = radial.shape(to_bonds(values, bonds.pairs))
        atomic = self._energies(weights, tensors, view)
        output = ModelOutput(sum_by_structure(atomic, batch), atomic)
        if not wanted:
            return output
        by_harmonics, *by_radial = gradient(atomic.sum(), inputs, create_graph)
        along = torch.stack([(g * slope).sum(1) for g, slope in zip(by_radial, slopes, strict=True)]).sum(0)
        angular = (by_harmonics[:, :, None] * bonds.gradient).sum(1)
        by_vector = along[:, None].to(torch.float64) * bonds.directions + angular.to(torch.float64)
        if forces:
            zero = torch.zeros_like(batch.positions)
            output.forces = zero.index_add(0, bonds.center, by_vector).index_add(0, bonds.neighbor, -by_vector)
        if stress:
            dyad = by_vector[:, :, None] * bonds.vectors[:, None, :]
            total = sum_by_structure(dyad, batch, bonds.center)
            output.stress = voigt_stress(0.5 * (total + total.transpose(1, 2)), batch)
        return output


def gradient(energy: Tensor, inputs: list[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """Return dE/dinput; zeros where the energy does not depend on it."""
    return torch.autograd.grad(energy, inputs, create_graph=create_graph, allow_unused=True, materialize_grads=True)


def sum_by_structure(values: Tensor, batch: AtomsBatch, atoms: Tensor | None = None) -> Tensor:
    """Return sums [n_structures, ...] of values [n_atoms, ...], or of values of which `atoms` tells the atom."""
    structure = batch.structure if atoms is None else batch.structure[atoms]
    return values.new_zeros(batch.n_structures, *values.shape[1:]).index_add(0, structure, values)


def voigt_stress(strain_gradient: Tensor, batch: AtomsBatch) -> Tensor:
    """Return the stress [n_structures, 6], eV/A^3, of dE/dstrain [n_structures, 3, 3]; NaN where there is no volume."""
    volumes = batch.volumes
    periodic = volumes > 0.0
    safe = torch.where(periodic, volumes, torch.ones_like(volumes))
    stress = strain_gradient[:, VOIGT[0], VOIGT[1]] / safe[:, None]
    return torch.where(periodic[:, None], stress, torch.full_like(stress, float("nan")))
