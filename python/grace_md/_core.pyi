"""C++ core of grace_md. Arrays are numpy arrays; shapes and units are in the docstrings of the bindings."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

class Error(ValueError):
    """An argument or file that the core refuses; the message names it and says what to do."""

class RadialTableReport(TypedDict):
    """Size of the radial tables and their largest relative errors."""

    n_intervals: int
    degree: int
    value_error: float
    derivative_error: float

class CudaProbe(TypedDict):
    """GPUs that this build can use; `reason` says why there are none."""

    built: bool
    n_devices: int
    reason: str
    architectures: list[int]
    names: list[str]

class Ceilings(TypedDict):
    """What a GPU reaches in kernels that do nothing else: bytes and operations per second."""

    device: str
    copy_bytes: float
    fma_float: float
    fma_double: float
    matrix_tf32: float
    matrix_double: float

def cuda_probe() -> CudaProbe: ...
def cuda_obstacle(index: int = 0) -> str: ...
def measure_ceilings(device: str, seconds: float = 0.05) -> Ceilings: ...
def resolve_device(device: str = "auto") -> str: ...

class ModelSpec:
    """A checked GRACE model: an ordered list of typed stages."""

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], name: str = "<arrays>", elements: Sequence[str] = ...
    ) -> None: ...
    @staticmethod
    def from_file(path: str, elements: Sequence[str] = ...) -> ModelSpec: ...
    @property
    def source(self) -> str: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def elements(self) -> list[str]: ...
    @property
    def file_elements(self) -> list[str]: ...
    @property
    def max_cutoff(self) -> float: ...
    @property
    def pair_cutoffs(self) -> NDArray[np.float64]: ...
    @property
    def output_scale(self) -> float: ...
    @property
    def shift(self) -> NDArray[np.float64]: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def unused_keys(self) -> list[str]: ...
    @property
    def radial(self) -> list[dict[str, Any]]: ...
    @property
    def stages(self) -> list[tuple[str, str]]: ...

class NeighborList:
    """Directed neighbour pairs as compressed rows, sorted by (neighbor, image); arrays are read-only views."""

    @property
    def n_atoms(self) -> int: ...
    @property
    def n_pairs(self) -> int: ...
    @property
    def first(self) -> NDArray[np.int64]: ...
    @property
    def neighbor(self) -> NDArray[np.int32]: ...
    @property
    def structure(self) -> NDArray[np.int32]: ...
    @property
    def packed_shift(self) -> NDArray[np.int32]: ...
    @property
    def wrap(self) -> NDArray[np.int32]: ...
    @property
    def shift(self) -> NDArray[np.int32]: ...
    def vectors(self, positions: ArrayLike, cells: ArrayLike) -> NDArray[np.float64]: ...

def build_neighbors(
    positions: ArrayLike,
    species: ArrayLike,
    cells: ArrayLike,
    periodic: ArrayLike,
    first_atom: ArrayLike,
    pair_cutoffs: ArrayLike,
    skin: float = 0.0,
    n_threads: int = 0,
    device: str = "cpu",
) -> NeighborList: ...
def max_displacement_exceeds(
    positions0: ArrayLike,
    cells0: ArrayLike,
    periodic: ArrayLike,
    first_atom: ArrayLike,
    positions: ArrayLike,
    cells: ArrayLike,
    smallest_cutoff: float,
    largest_cutoff: float,
    skin: float,
) -> bool: ...

class Evaluator:
    """Energies, forces and virials of a model on one device."""

    def __init__(
        self,
        model: ModelSpec,
        precision: str = "auto",
        radial: str = "table",
        device: str = "auto",
        n_threads: int = 0,
        chunk: int = 0,
        deterministic: bool = False,
    ) -> None: ...
    def compute(
        self,
        neighbors: NeighborList,
        positions: ArrayLike,
        cells: ArrayLike,
        species: ArrayLike,
        forces: bool = True,
        atom_virial: bool = False,
        selection: ArrayLike | None = None,
        stages: bool = False,
    ) -> dict[str, Any]: ...
    def compute_structures(
        self,
        positions: ArrayLike,
        cells: ArrayLike,
        periodic: ArrayLike,
        species: ArrayLike,
        first_atom: ArrayLike,
        skin: float = 0.0,
        rebuild: str = "check",
        forces: bool = True,
        atom_virial: bool = False,
        selection: ArrayLike | None = None,
        stages: bool = False,
    ) -> dict[str, Any]: ...
    def compute_pointers(
        self,
        positions: tuple[int, int],
        species: tuple[int, int],
        cells: ArrayLike,
        periodic: ArrayLike,
        first_atom: ArrayLike,
        energies: tuple[int, int],
        forces: tuple[int, int] = (0, 0),
        virial: tuple[int, int] = (0, 0),
        atom_virial: tuple[int, int] = (0, 0),
        centroid_virial: tuple[int, int] = (0, 0),
        stream: int = 0,
        skin: float = 0.0,
        rebuild: str = "check",
    ) -> dict[str, Any]: ...
    def start_profile(self) -> None: ...
    def profile(self) -> list[tuple[str, int, float]]: ...
    @property
    def lists_neighbors(self) -> bool: ...
    @property
    def device_kind(self) -> str: ...
    @property
    def radial_report(self) -> RadialTableReport: ...
    @property
    def message_width(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def description(self) -> str: ...

class SnapKernel:
    """SNAP bispectrum components of atoms with a cutoff radius each, and their adjoint; one thread at a time."""

    def __init__(self, twojmax: int = 8, rfac0: float = 0.99363, rmin0: float = 0.0, device: str = "cpu") -> None: ...
    @property
    def twojmax(self) -> int: ...
    @property
    def n_features(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def n_pairs(self) -> int: ...
    def descriptors(
        self,
        positions: ArrayLike,
        cells: ArrayLike,
        periodic: ArrayLike,
        first_atom: ArrayLike,
        cutoffs: ArrayLike,
        pair_rule: bool = False,
        n_threads: int = 0,
    ) -> NDArray[np.float64]: ...
    def gradients(self, beta: ArrayLike, n_threads: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def start_profile(self) -> None: ...
    def profile(self) -> list[tuple[str, int, float]]: ...

def cutoff_pairs(
    positions: ArrayLike,
    cells: ArrayLike,
    periodic: ArrayLike,
    first_atom: ArrayLike,
    cutoffs: ArrayLike,
    pair_rule: bool = False,
    n_threads: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]: ...

# Operators over memory of the caller: arguments are addresses of arrays (csrc/grace/operators/operators.hpp).
def bond_basis(
    slot: int,
    is_double: bool,
    atoms: int,
    radial: int,
    harmonics: int,
    chemical: int,
    out: int,
    first_bond: int,
    bond_species: int,
    n_atoms: int,
    n_bonds: int,
    n_elements: int,
    lmax: int,
    n_channels: int,
    n_threads: int,
) -> None: ...
def message_basis(
    slot: int,
    is_double: bool,
    atoms: int,
    radial: int,
    harmonics: int,
    message: int,
    out: int,
    first_bond: int,
    neighbor: int,
    terms: int,
    coefficients: int,
    n_terms: int,
    n_atoms: int,
    n_bonds: int,
    n_rows: int,
    n_message_rows: int,
    lmax: int,
    n_channels: int,
    n_threads: int,
) -> None: ...
def coupling_product(
    is_double: bool,
    first: int,
    second: int,
    out: int,
    terms: int,
    coefficients: int,
    n_terms: int,
    n_atoms: int,
    n_targets: int,
    n_first: int,
    n_second: int,
    n_channels: int,
    n_threads: int,
) -> None: ...
def bond_vectors(
    positions: int,
    cells: int,
    shift: int,
    pair_cutoffs: int,
    structure: int,
    species: int,
    center: int,
    neighbor: int,
    n_atoms: int,
    n_bonds: int,
    n_structures: int,
    n_elements: int,
    vector: int,
    distance: int,
    scaled: int,
    n_threads: int,
) -> None: ...
def bond_harmonics(
    is_double: bool, lmax: int, n_bonds: int, vector: int, harmonics: int, gradient: int, n_threads: int
) -> None: ...
def bond_radial_basis(
    is_double: bool, n_basis: int, order: int, n_bonds: int, scaled: int, basis: int, slope: int, n_threads: int
) -> None: ...
def radial_network(
    is_double: bool,
    widths: Sequence[int],
    weights: Sequence[int],
    is_tanh: bool,
    basis: int,
    slope: int,
    n_bonds: int,
    value: int,
    derivative: int,
    n_threads: int,
) -> None: ...
def radial_network_adjoint(
    is_double: bool,
    widths: Sequence[int],
    weights: Sequence[int],
    is_tanh: bool,
    basis: int,
    slope: int,
    n_bonds: int,
    value_gradient: int,
    derivative_gradient: int,
    weight_gradients: Sequence[int],
    n_threads: int,
) -> None: ...
def row_linear(
    slot: int,
    is_double: bool,
    runs: tuple[int, int, int, int],
    n_targets: int,
    n_out: int,
    parts: Sequence[tuple[int, int, int, int, int, int, int]],
    gradient: int,
    out: int,
    n_threads: int,
) -> None: ...
