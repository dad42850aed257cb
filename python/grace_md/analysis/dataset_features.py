"""Invariant features of atoms: what a GRACE model reads its energy from, or bispectrum components without a model.

Which numbers are "the invariant features" of a GRACE model: the inputs of the reductions on the path to the energy,
that is every channel of every coupling with L = 0 of A, AA, AAA and AAAA (and of B, BB, ... in the second layer)
before the element-dependent reduction. A one-layer model with 32 radial channels, products of 64 channels and the 5,
14 and 69 couplings of lmax 4 has 32 + 64 (5 + 14 + 69) = 5,664 of them, the number of the paper. They do not depend on
the element of the centre but through its neighbourhood, and the same vector feeds the uncertainty of published models.

The evaluator streams products and does not keep them; it returns their stored operands (`stages`), and the few rows
with L = 0 are multiplied out here by the same operator that training uses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from numpy.typing import NDArray

if TYPE_CHECKING:
    from grace_md._core import Evaluator, ModelSpec
    from grace_md.model import GraceModel
    from grace_md.training.data.labels import Record

__all__ = ["Features", "GraceFeatures", "SnapFeatures"]

Floats = NDArray[np.float64]

ATOMS_PER_CALL = 256  # a large model stores about 0.3 MB per atom
SNAP_CUTOFF = 4.0  # times the covalent radius: the cutoff factor of the generator


class Features(Protocol):
    """Turns structures into one row of numbers per atom."""

    name: str
    n_features: int
    scaled: bool  # whether principal axes are those of features over their standard deviations

    def knows(self, numbers: NDArray[np.int64]) -> bool:
        """Return whether the features of a structure with these atomic numbers are defined."""

    def rows(self, records: Sequence[Record]) -> Floats:
        """Return the features, float64 [atoms of all structures, n_features]."""


@dataclass(frozen=True)
class _Block:
    """One input of a reduction: rows of a stored tensor, or a product of two of them."""

    tensor: str
    source: NDArray[np.int64]  # rows of the tensor, as the weight file numbers them
    n_channels: int
    left: str = ""
    right: str = ""
    terms: NDArray[np.int32] | None = None  # [n_terms, 3]: position in `source`, row of left, row of right; sorted
    coefficients: Floats | None = None


def _blocks(arrays: dict[str, NDArray[Any]]) -> list[_Block]:
    """Return the inputs of the reductions that the readout sees, in the order of the weight file."""
    from grace_md.reference import build_stages  # noqa: PLC0415
    from grace_md.reference_stages import CouplingProduct, DensityNorm, FunctionReduce, Readout  # noqa: PLC0415

    stages = build_stages(arrays)
    norms = {stage.output: stage.input for stage in stages if isinstance(stage, DensityNorm)}
    readout = next(stage for stage in stages if isinstance(stage, Readout))
    wanted = sorted(norms.get(name, name) for name in readout.inputs)
    reduces = {stage.output: stage for stage in stages if isinstance(stage, FunctionReduce)}
    products = {stage.output: stage for stage in stages if isinstance(stage, CouplingProduct)}
    found = []
    for item in (item for name in wanted for item in reduces[name].inputs):
        n_channels = item.weights.shape[2]
        if item.tensor not in products:
            found.append(_Block(item.tensor, item.source, n_channels))
            continue
        product = products[item.tensor]
        place = {int(row): k for k, row in enumerate(item.source)}
        terms = sorted((place[row], p, q, c) for row, p, q, c in product.terms if row in place)
        found.append(
            _Block(item.tensor, item.source, n_channels, product.left, product.right,
                   np.array([term[:3] for term in terms], dtype=np.int32), np.array([term[3] for term in terms]))
        )  # fmt: skip
    return found


class GraceFeatures:
    """Invariant features of a GRACE model of one or two layers.

    Parameters
    ----------
    model : GraceModel or path of a weight file
    elements : symbols that occur; weights of the others are not loaded. Default: all of the model
    threads, device : as for `GraceCalculator`; everything is computed in double precision

    Attributes
    ----------
    name : of the model
    n_features : int
    blocks : (tensor, number of couplings, channels) in the order of the columns; within a block the channel is slow

    Raises
    ------
    ValueError
        A model of an architecture that is not supported, or none of whose elements occur.
    """

    def __init__(
        self,
        model: GraceModel | str | os.PathLike[str],
        elements: Sequence[str] = (),
        threads: int = 0,
        device: str = "cpu",
    ) -> None:
        from grace_md._core import Evaluator, ModelSpec  # noqa: PLC0415
        from grace_md.model import GraceModel as Model  # noqa: PLC0415

        model = model if isinstance(model, Model) else Model.load(model)
        known = [element for element in model.elements if not elements or element in elements]
        if not known:
            raise ValueError(f"{model.name} knows none of the elements {' '.join(elements)}; choose another model.")
        self.name = Path(model.name).name
        self.scaled = False  # as in the paper: a model learns the scale of what it reads
        self._blocks = _blocks(model.arrays)
        self.blocks = [(block.tensor, len(block.source), block.n_channels) for block in self._blocks]
        self.n_features = sum(couplings * channels for _, couplings, channels in self.blocks)
        self._threads = threads
        self._spec: ModelSpec = ModelSpec(model.arrays, model.name, known)
        self._evaluator: Evaluator = Evaluator(
            self._spec, precision="fp64", radial="table", device=device, n_threads=threads
        )
        self._index: NDArray[np.int32] = np.full(len(chemical_symbols), -1, dtype=np.int32)
        self._index[[atomic_numbers[element] for element in self._spec.elements]] = np.arange(len(known))

    def knows(self, numbers: NDArray[np.int64]) -> bool:
        """Return whether the model has every element of a structure."""
        return bool((self._index[numbers] >= 0).all())

    def rows(self, records: Sequence[Record]) -> Floats:
        """Return the features, float64 [atoms of all structures, n_features]."""
        parts, some, n_atoms = [], [], 0
        for record in records:
            some.append(record)
            n_atoms += len(record.numbers)
            if n_atoms >= ATOMS_PER_CALL:
                parts.append(self._evaluate(some))
                some, n_atoms = [], 0
        if some:
            parts.append(self._evaluate(some))
        return np.concatenate(parts) if parts else np.zeros((0, self.n_features))

    def _evaluate(self, records: Sequence[Record]) -> Floats:
        from grace_md._core import build_neighbors  # noqa: PLC0415

        positions = np.concatenate([record.positions for record in records])
        species = self._index[np.concatenate([record.numbers for record in records])]
        cells = np.array([record.cell for record in records])
        periodic = np.array([record.pbc for record in records])
        first = np.cumsum([0, *[len(record.numbers) for record in records]], dtype=np.int64)
        neighbors = build_neighbors(
            positions, species, cells, periodic, first, self._spec.pair_cutoffs, 0.0, self._threads
        )
        stages = self._evaluator.compute(neighbors, positions, cells, species, stages=True)["stages"]
        found = [self._values(block, stages) for block in self._blocks]
        return np.concatenate([v.transpose(0, 2, 1).reshape(len(v), -1) for v in found], axis=1)

    def _values(self, block: _Block, stages: dict[str, Any]) -> Floats:
        """Return one block as [n_atoms, couplings, channels]."""
        if block.terms is None or block.coefficients is None:
            rows, values, _ = stages[block.tensor]
            return np.asarray(values[:, np.searchsorted(rows, block.source)])
        (left_rows, left, _), (right_rows, right, _) = stages[block.left], stages[block.right]
        terms = block.terms.copy()
        terms[:, 1] = np.searchsorted(left_rows, block.terms[:, 1])
        terms[:, 2] = np.searchsorted(right_rows, block.terms[:, 2])
        return _product(left, right, terms, block.coefficients, len(block.source), self._threads)


def _product(
    left: Floats, right: Floats, terms: NDArray[np.int32], coefficients: Floats, n_rows: int, threads: int
) -> Floats:
    """Return sum c left[a, p, n] right[a, q, n] -> [a, row, n] over terms (row, p, q) sorted by row."""
    from grace_md import _core  # noqa: PLC0415

    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    n_atoms, n_left, n_channels = left.shape
    out = np.zeros((n_atoms, n_rows, n_channels))
    _core.coupling_product(
        is_double=True,
        first=left.ctypes.data,
        second=right.ctypes.data,
        out=out.ctypes.data,
        terms=terms.ctypes.data,
        coefficients=coefficients.ctypes.data,
        n_terms=len(terms),
        n_atoms=n_atoms,
        n_targets=n_rows,
        n_first=n_left,
        n_second=right.shape[1],
        n_channels=n_channels,
        n_threads=threads,
    )
    return out


class SnapFeatures:
    """The 55 bispectrum components that the generator maximises the entropy of, with radii by element.

    Cutoffs are `SNAP_CUTOFF` times the covalent radius of the centre: effective radii of single atoms would give two
    sets two spaces. Elements enter by their radius alone.
    """

    def __init__(self, threads: int = 0) -> None:
        from grace_md._core import SnapKernel  # noqa: PLC0415

        self._kernel = SnapKernel()
        self.name = "bispectrum components (twojmax 8) over their standard deviations"
        self.scaled = True  # they differ by five orders of magnitude, for no physical reason
        self.n_features = int(self._kernel.n_features)
        self._threads = threads

    def knows(self, numbers: NDArray[np.int64]) -> bool:
        """Return whether all are elements."""
        return bool((numbers < len(covalent_radii)).all())

    def rows(self, records: Sequence[Record]) -> Floats:
        """Return the features, float64 [atoms of all structures, 55]."""
        if not records:
            return np.zeros((0, self.n_features))
        rows: Floats = self._kernel.descriptors(
            np.concatenate([record.positions for record in records]),
            np.array([record.cell for record in records]),
            np.array([record.pbc for record in records]),
            np.cumsum([0, *[len(record.numbers) for record in records]], dtype=np.int64),
            SNAP_CUTOFF * covalent_radii[np.concatenate([record.numbers for record in records])],
            pair_rule=False,
            n_threads=self._threads,
        )
        return rows
