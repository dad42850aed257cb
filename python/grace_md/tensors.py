"""Energies, forces and virials of tensors that lie on a GPU: no copies, in the order of torch's current stream.

    evaluator = TensorEvaluator("model.npz", device="cuda:0")
    results = evaluator(positions, species, cells, periodic)
    results["forces"]  # float64 [n_atoms, 3] on the same GPU

Any owner of device memory with the DLPack protocol will do (torch, CuPy, JAX); results are torch tensors, in memory of
torch. torch is imported when an evaluator is made. Results carry no gradients: forces are already the derivative.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grace_md._core import Evaluator, ModelSpec, resolve_device
from grace_md.model import GraceModel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TensorEvaluator"]

LEGACY_STREAM = 1  # cudaStreamLegacy; torch calls its default stream 0, which here means a stream of the evaluator


class TensorEvaluator:
    """A GRACE model for tensors in the memory of one GPU.

    Parameters
    ----------
    model : path of a weight file (`.npz`) or GraceModel
    elements : sequence of str
        Elements of the model that occur, in the order that `species` counts them; default: all, in the model's order.
    device : "auto" | "cuda" | "cuda:N"
        As for GraceCalculator, but a CPU is refused: GraceCalculator is the way there.
    precision, radial, deterministic, chunksize
        As for GraceCalculator.
    skin : float
        Angstrom added to the cutoffs of the neighbour list, which is reused until atoms moved too far.

    Attributes
    ----------
    elements : list of str
    device : str, such as "cuda:0"
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | GraceModel,
        elements: Sequence[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        radial: str = "table",
        skin: float = 0.5,
        deterministic: bool = False,
        chunksize: int = 0,
    ) -> None:
        import torch  # noqa: PLC0415 - an optional package

        self._torch: Any = torch
        self.device = resolve_device(device)
        if self.device == "cpu":
            raise ValueError(f"`device` = {device!r} is the CPU here: use GraceCalculator, or a machine with a GPU.")
        model = model if isinstance(model, GraceModel) else GraceModel.load(model)
        self._spec = ModelSpec(model.arrays, model.name, list(elements or model.elements))
        self.elements = list(self._spec.elements)
        self._skin = skin
        self._evaluator = Evaluator(
            self._spec,
            precision=precision,
            radial=radial,
            device=self.device,
            chunk=chunksize,
            deterministic=deterministic,
        )
        kind, index = self.device.split(":")
        # The emulated device (tests) computes in ordinary memory.
        self._place = torch.device("cuda", int(index)) if kind == "cuda" else torch.device("cpu")

    @property
    def description(self) -> str:
        """Device, precision and tables in words."""
        return self._evaluator.description

    def __call__(
        self,
        positions: Any,
        species: Any,
        cells: Any = None,
        periodic: Any = None,
        first_atom: Any = None,
        *,
        forces: bool = True,
        atom_virial: bool = False,
        rebuild: str = "check",
    ) -> dict[str, Any]:
        """Evaluate one structure, or many in one call.

        Parameters
        ----------
        positions : float64 [n_atoms, 3] on the device
            Angstrom, anywhere: they need not be wrapped into the cell.
        species : int32 [n_atoms] on the device
            Index into `elements`; -1: not an atom of this model, its bonds are skipped.
        cells : float64 [3, 3] or [n_structures, 3, 3], on the device or not
            Rows are lattice vectors, Angstrom; None: no cell. A tensor on the GPU is copied to the host, which waits.
        periodic : bool [3] or [n_structures, 3], on the device or not
            None: periodic in all directions if there are cells.
        first_atom : int [n_structures + 1], on the device or not
            Number of the first atom of each structure, then the number of atoms; None: one structure.
        forces : bool
            False: energies only.
        atom_virial : bool
            Also virials of single atoms.
        rebuild : "check" | "rebuild" | "keep"
            The neighbour list: new if it could miss a pair, always new, or kept as the caller knows it to be complete.

        Returns
        -------
        dict of float64 tensors on the device, in eV and Angstrom
            energies [n_atoms]; with forces: forces [n_atoms, 3], virial [n_structures, 3, 3] (sum of r_a f_b; stress =
            -virial / volume); with atom_virial: atom_virial and centroid_virial [n_atoms, 3, 3].

        Raises
        ------
        ValueError
            In one sentence: wrong dtype, shape, device or memory layout, or positions that are not finite.
        """
        torch = self._torch
        positions = self._on_device("positions", positions, torch.float64, (None, 3))
        n_atoms = int(positions.shape[0])
        species = self._on_device("species", species, torch.int32, (n_atoms,))
        starts = _on_host(torch, "first_atom", [0, n_atoms] if first_atom is None else first_atom, np.int64).reshape(-1)
        n_structures = len(starts) - 1
        if periodic is None:
            periodic = np.full((n_structures, 3), cells is not None)
        cells = np.zeros((n_structures, 3, 3)) if cells is None else cells
        cells = _on_host(torch, "cells", cells, np.float64, (n_structures, 3, 3))
        periodic = _on_host(torch, "periodic", periodic, np.bool_, (n_structures, 3))

        def new(*shape: int) -> Any:
            return torch.zeros(shape, dtype=torch.float64, device=self._place)

        results = {"energies": new(n_atoms)}
        if forces:
            results |= {"forces": new(n_atoms, 3), "virial": new(n_structures, 3, 3)}
            if atom_virial:
                results |= {"atom_virial": new(n_atoms, 3, 3), "centroid_virial": new(n_atoms, 3, 3)}
        self._evaluator.compute_pointers(
            _memory(positions),
            _memory(species),
            cells,
            periodic,
            starts,
            **{name: _memory(tensor) for name, tensor in results.items()},
            stream=self._stream(),
            skin=self._skin,
            rebuild=rebuild,
        )
        return results

    def _stream(self) -> int:
        """Handle of torch's current stream; results are ready for what is put on it afterwards."""
        if self._place.type == "cpu":
            return 0
        return int(self._torch.cuda.current_stream(self._place).cuda_stream) or LEGACY_STREAM

    def _on_device(self, name: str, value: Any, dtype: Any, shape: tuple[int | None, ...]) -> Any:
        """`value` as a tensor over the same memory, after every check that a pointer cannot do."""
        torch = self._torch
        tensor = value if isinstance(value, torch.Tensor) else torch.from_dlpack(value)
        if tensor.device != self._place:
            raise ValueError(f"`{name}` lies on {tensor.device}, this evaluator on {self._place}; move it there first.")
        if tensor.dtype != dtype:
            raise ValueError(f"`{name}` must be {dtype}, got {tensor.dtype}; convert it with `.to({dtype})`.")
        if tensor.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, tensor.shape, strict=True)):
            wanted = ", ".join("n_atoms" if n is None else str(n) for n in shape)
            raise ValueError(f"`{name}` must have shape [{wanted}], got {list(tensor.shape)}.")
        if not tensor.is_contiguous():
            raise ValueError(f"`{name}` is not contiguous in memory; pass `{name}.contiguous()`.")
        return tensor.detach()


def _on_host(torch: Any, name: str, value: Any, dtype: Any, shape: tuple[int, ...] = ()) -> NDArray[Any]:
    """Return a small array in host memory; a leading axis of length one may be left out."""
    if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        tensor = value if isinstance(value, torch.Tensor) else torch.from_dlpack(value)
        value = tensor.detach().cpu().numpy()
    array = np.array(value, dtype=dtype)
    if not shape:
        return array
    if array.shape == shape[1:]:
        array = np.broadcast_to(array, shape)
    if array.shape != shape:
        raise ValueError(
            f"`{name}` must have shape {list(shape)} (the structures of `first_atom`), got {list(array.shape)}."
        )
    return np.ascontiguousarray(array)


def _memory(tensor: Any) -> tuple[int, int]:
    return int(tensor.data_ptr()), int(tensor.numel())
