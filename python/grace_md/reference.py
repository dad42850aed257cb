"""Slow, readable NumPy evaluation of GRACE models in double precision: the oracle of every other implementation.

It is written from docs/theory.md ("theory: X" names a section) and shares no code with the C++ core. A model is the
dictionary of raw arrays of a weight file; `build_stages` turns it into an ordered list of stages
(`grace_md.reference_stages`), which read and write named tensors:

    per bond   r [n_bonds, 3] A, d [n_bonds] A, u [n_bonds, 3], Y [n_bonds, (lmax+1)^2],
               R and (two layers) R1 [n_bonds, lmax+1, n_channels]
    per atom   A, A1, AA, AA1, AAA, AA2, AAAA, I1, I, B0, YI, B, B1, BB, BB1, BBB, BB2, BBBB: [n_atoms, n_rows,
               n_channels], rows in the order of the weight file; the densities rho and I2, [n_atoms, 1, n_densities],
               and rho_norm and I2_norm after their norms (two layers); e [n_atoms], before output scale and shift

`gradients[name]` is dE/d(tensor), of the same shape. Units: eV, A, eV/A, eV/A^3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grace_md.reference_formulas import Array, Index, Network, real_spherical_harmonics
from grace_md.reference_stages import (
    ChannelMix,
    CouplingProduct,
    DensityNorm,
    FunctionReduce,
    Geometry,
    MessageBasis,
    Radial,
    Readout,
    ReduceInput,
    SingleParticleBasis,
    Stage,
    System,
    Tensors,
)

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "build_stages",
    "find_bonds",
    "pair_cutoffs",
    "real_spherical_harmonics",
    "reference_energies",
    "reference_evaluate",
    "reference_gradients",
]

Arrays = Mapping[str, NDArray[Any]]  # raw content of a weight file
Bonds = tuple[ArrayLike, ArrayLike, ArrayLike]  # i [n_bonds], j [n_bonds], r_j - r_i [n_bonds, 3] A

VOIGT_FROM_VIRIAL = [0, 1, 2, 5, 4, 3]  # xx,yy,zz,xy,xz,yz -> xx,yy,zz,yz,xz,xy


# ------------------------------------------------------------------------------- from arrays to stages


def _number(arrays: Arrays, key: str) -> float:
    """Return a scalar, stored 0-d or as [1]."""
    return float(arrays[key].reshape(-1)[0])


def _text(values: NDArray[Any]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _network(arrays: Arrays, prefix: str, activation: str) -> Network:
    layers = range(int(_number(arrays, f"{prefix}_n_layers")))
    weights = [arrays[f"{prefix}_W{m}"] * _number(arrays, f"{prefix}_norm{m}") for m in layers]
    return Network(weights, activation)


def _radial(arrays: Arrays, prefix: str, output: str) -> Radial:
    for flag in ("has_chem_emb", "embed_i", "embed_j"):
        if f"{prefix}_{flag}" in arrays and _number(arrays, f"{prefix}_{flag}") != 0:
            raise ValueError(f"`{prefix}_{flag}` is set: radial networks that see the elements are not implemented.")
    return Radial(
        output=output,
        network=_network(arrays, prefix, "silu"),
        order=int(_number(arrays, "radial_basis_p")),
        n_channels=int(_number(arrays, f"{prefix}_n_rad_max")),
        lmax=int(_number(arrays, f"{prefix}_lmax")),
        keep_at_cutoff=not _number(arrays, "has_bond_specific_cutoff"),
    )


def _inverse_neighbors(arrays: Arrays, key: str) -> Array:
    values = arrays[key].astype(np.float64).reshape(-1)
    return np.broadcast_to(values, (int(_number(arrays, "n_elements")),))


def _single_particle_basis(arrays: Arrays, name: str, radial: Radial) -> SingleParticleBasis:
    norm = _number(arrays, f"{name}_lin_transform_norm")
    chemical = arrays["chem_embedding"] @ arrays[f"{name}_lin_transform_W"] * norm
    inverse_neighbors = _inverse_neighbors(arrays, f"{name}_inv_avg_n_neigh")
    return SingleParticleBasis(name, radial.output, radial.lmax, chemical, inverse_neighbors)


def _message_basis(arrays: Arrays, radial: Radial, message_rows: int) -> MessageBasis:
    left, right = arrays["YI_lr_inds"].T
    coupling = np.zeros(((radial.lmax + 1) ** 2, message_rows, int(_number(arrays, "YI_n_output_funcs"))))
    np.add.at(coupling, (left, right, arrays["YI_m_sum_ind"]), arrays["YI_cg_coeff"])
    inverse_neighbors = _inverse_neighbors(arrays, "YI_inv_avg_n_neigh")
    return MessageBasis("YI", radial.output, "I", radial.lmax, coupling, inverse_neighbors)


def _mix(arrays: Arrays, output: str, left: str, right: str) -> ChannelMix:
    def key(suffix: str) -> NDArray[Any]:
        return arrays[f"fc_{output}_{suffix}"]

    q, to = key("norm_out_factor").reshape(-1), key("collect_to")
    left_weights = key("w_left").transpose(2, 1, 0)[key("w_tile_left")]  # file: [n_out, n_in, group]
    right_weights = key("w_right").transpose(2, 1, 0)[key("w_tile_right")]
    return ChannelMix(
        output=output,
        left=left,
        right=right,
        left_weights=left_weights * float(key("norm_left").reshape(-1)[0]) * q[:, None, None],
        right_weights=right_weights * float(key("norm_right").reshape(-1)[0]) * q[to, None, None],
        to=to.astype(np.int64),
        source=key("collect_from").astype(np.int64),
    )


def _product(arrays: Arrays, output: str, left: str, right: str) -> CouplingProduct:
    tables = [arrays[f"prod_{output}_{name}"].tolist() for name in ("m_sum_ind", "left_ind", "right_ind", "cg_coeff")]
    n_rows = int(_number(arrays, f"prod_{output}_n_output_funcs"))
    return CouplingProduct(output, left, right, n_rows, list(zip(*tables, strict=True)))


def _reduce(arrays: Arrays, output: str) -> FunctionReduce:
    per_element = _number(arrays, f"{output}_is_central_atom_type_dependent") != 0
    norm_map = arrays.get(f"{output}_norm_map")
    if norm_map is not None and not np.all(norm_map == 1.0):
        raise ValueError(f"`{output}_norm_map` is not 1: normalised reductions are not implemented.")
    inputs = []
    for tensor in _text(arrays[f"{output}_instruction_names"]):
        weights = arrays[f"{output}_reduce_{tensor}_W"] * _number(arrays, f"{output}_reduce_{tensor}_norm")
        weights = weights if per_element else weights[None]  # file: [n_elements,] n_out, n_in, group
        source, group, target = (
            arrays[f"{output}_{table}_{tensor}"].astype(np.int64).reshape(-1)
            for table in ("collect_ind", "w_l_tile", "total_sum_ind")
        )
        inputs.append(ReduceInput(tensor, weights.transpose(0, 3, 2, 1), source, group, target))
    n_rows = 1 + max(int(item.target.max()) for item in inputs)
    return FunctionReduce(output, n_rows, inputs)


def _norm(arrays: Arrays, prefix: str, input_name: str) -> DensityNorm:
    kind = int(_number(arrays, f"{prefix}_type"))
    if kind not in (0, 1):
        raise ValueError(f"`{prefix}_type` = {kind}: only 0 (full) and 1 (only_nonlin) are implemented.")
    return DensityNorm(f"{input_name}_norm", input_name, arrays[f"{prefix}_scale"].astype(np.float64), first=kind)


def build_stages(arrays: Arrays) -> list[Stage]:
    """Return the stages of a one- or two-layer model in the order of evaluation (theory: One layer, Two layers).

    Raises ValueError naming what is not implemented (three-layer models, radial networks that see the elements) and
    KeyError for a missing array.
    """
    if "spbf_names" in arrays:
        raise ValueError("`spbf_names` is present: three-layer models are not implemented in reference.py.")
    # Files may hold narrower floats; products with the norms must not be rounded to them.
    arrays = {key: values.astype(np.float64) if values.dtype.kind == "f" else values for key, values in arrays.items()}
    two_layers = "YI_lr_inds" in arrays
    activation = ("silu", "tanh")[int(_number(arrays, "energy_mlp_activation"))]
    readout = _network(arrays, "energy_mlp", activation)

    def layer(name: str, third: str) -> list[Stage]:
        """Mixes and products on top of the basis `name`, "A" or "B"; `third` is the right operand of AAA or BBB."""
        out: list[Stage] = []
        one, two, three, four = (name * k for k in range(1, 5))
        if f"prod_{two}_cg_coeff" in arrays:
            out += [_mix(arrays, f"{one}1", one, one), _product(arrays, two, f"{one}1", f"{one}1")]
        if f"prod_{three}_cg_coeff" in arrays:
            out += [_mix(arrays, f"{two}1", two, one), _product(arrays, three, f"{two}1", third)]
        if f"prod_{four}_cg_coeff" in arrays:
            out += [_mix(arrays, f"{two}2", two, one), _product(arrays, four, f"{two}2", f"{two}2")]
        return out

    radial = _radial(arrays, "mlp_rad_R" if two_layers else "mlp_rad", "R")
    if not two_layers:
        basis = _single_particle_basis(arrays, "A", radial)
        tail: list[Stage] = [_reduce(arrays, "rho"), Readout(["rho"], readout)]
        return [Geometry(radial.lmax), radial, basis, *layer("A", "A1"), *tail]

    radial1 = _radial(arrays, "mlp_rad_R1", "R1")
    message = _reduce(arrays, "I")
    return [
        Geometry(max(radial.lmax, radial1.lmax)),
        radial,
        _single_particle_basis(arrays, "A", radial),
        *layer("A", "A"),
        _reduce(arrays, "I1"),
        message,
        radial1,
        _single_particle_basis(arrays, "B0", radial1),
        _message_basis(arrays, radial1, message.n_rows),
        _reduce(arrays, "B"),
        *layer("B", "B"),
        _reduce(arrays, "rho"),
        _reduce(arrays, "I2"),
        _norm(arrays, "I_nl_LN", "rho"),
        _norm(arrays, "I_0_LN", "I2"),
        Readout(["rho_norm", "I2_norm"], readout),
    ]


def pair_cutoffs(arrays: Arrays) -> Array:
    """Cutoffs [n_elements, n_elements] in A, row = centre (theory: Bonds)."""
    n = int(_number(arrays, "n_elements"))
    if _number(arrays, "has_bond_specific_cutoff"):
        return np.asarray(arrays["bond_cutoff_map"], dtype=np.float64).reshape(n, n)
    return np.full((n, n), _number(arrays, "rcut"))


# ------------------------------------------------------------------------------------------- evaluation


def _species(arrays: Arrays, symbols_or_species: Sequence[str] | ArrayLike) -> Index:
    values = np.asarray(symbols_or_species)
    if values.dtype.kind != "U":
        return values.astype(np.int64)
    elements = _text(arrays["element_names"])
    unknown = sorted(set(values.tolist()) - set(elements))
    if unknown:
        raise ValueError(f"The model does not know {', '.join(unknown)}; it knows {', '.join(elements)}.")
    return np.array([elements.index(symbol) for symbol in values], dtype=np.int64)


def find_bonds(atoms: Atoms, species: Index, cutoffs: Array) -> tuple[Index, Index, Array]:
    """Return i, j [n_bonds] and r_j - r_i [n_bonds, 3] (A) of every directed pair closer than its cutoff.

    Brute force over all images that can reach: an atom meets all images of the others and of itself, with the exact
    multiplicity; positions may lie outside the cell. `cutoffs` is [n_elements, n_elements] in A.
    """
    cell, positions = atoms.cell.complete().array, atoms.positions
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # distances between opposite faces
    fractional = np.linalg.solve(cell.T, positions.T).T
    reach = np.where(atoms.pbc, cutoffs.max() / heights + np.ptp(fractional, axis=0), 0.0)
    shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in np.ceil(reach)), indexing="ij"), axis=-1)
    difference = positions[None, :, :] - positions[:, None, :]
    limit = cutoffs[species[:, None], species[None, :]]
    found = []
    for shift in shifts.reshape(-1, 3):
        vectors = difference + shift @ cell
        inside = np.linalg.norm(vectors, axis=2) < limit
        if not shift.any():
            np.fill_diagonal(inside, False)
        i, j = np.nonzero(inside)
        found.append((i, j, vectors[i, j]))
    i, j, vectors = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(i, kind="stable")
    return i[order], j[order], vectors[order]


def _system(arrays: Arrays, symbols_or_species: Sequence[str] | ArrayLike, bonds: Bonds) -> tuple[System, Array]:
    species = _species(arrays, symbols_or_species)
    i, j = (np.asarray(index, dtype=np.int64) for index in bonds[:2])
    return System(species, i, j, pair_cutoffs(arrays)[species[i], species[j]]), np.asarray(bonds[2], dtype=np.float64)


def _forward(arrays: Arrays, system: System, vectors: Array) -> tuple[Array, Tensors, list[Stage]]:
    tensors: Tensors = {"r": vectors.reshape(-1, 3)}
    stages = build_stages(arrays)
    for stage in stages:
        stage.forward(tensors, system)
    energies = tensors["e"] * _scale(arrays)
    if "shift_values" in arrays:
        energies = energies + arrays["shift_values"][system.species]
    return energies, tensors, stages


def _scale(arrays: Arrays) -> float:
    return _number(arrays, "output_scale") if "output_scale" in arrays else 1.0


def reference_energies(arrays: Arrays, symbols_or_species: Sequence[str] | ArrayLike, bonds: Bonds) -> Array:
    """Atomic energies [n_atoms] in eV.

    Parameters
    ----------
    arrays : raw arrays of a weight file.
    symbols_or_species : chemical symbols, or indices of elements in the file, [n_atoms].
    bonds : (i, j, vectors): directed bonds with vectors r_j - r_i [n_bonds, 3] in A. They are taken as given, so that
        the energy can be differentiated with respect to a single bond.
    """
    system, vectors = _system(arrays, symbols_or_species, bonds)
    return _forward(arrays, system, vectors)[0]


def reference_gradients(
    arrays: Arrays,
    symbols_or_species: Sequence[str] | ArrayLike,
    bonds: Bonds,
    atom_weights: ArrayLike | None = None,
) -> tuple[Array, Tensors, Tensors]:
    """Atomic energies [n_atoms], all tensors and the gradients of E = sum_i w_i E_i with respect to them, by name.

    The force of a bond is -gradients["r"]. `atom_weights` w [n_atoms] is 1 unless given.
    """
    system, vectors = _system(arrays, symbols_or_species, bonds)
    energies, tensors, stages = _forward(arrays, system, vectors)
    weights = np.ones(len(energies)) if atom_weights is None else np.asarray(atom_weights, dtype=np.float64)
    gradients: Tensors = {"e": _scale(arrays) * weights}
    for stage in reversed(stages):
        stage.adjoint(tensors, gradients, system)
    return energies, tensors, gradients


def reference_evaluate(arrays: Arrays, atoms: Atoms) -> dict[str, Any]:
    """Evaluate a structure.

    Returns a dictionary: energy (eV), atomic_energies [n] (eV), forces [n, 3] (eV/A), virial [6] (eV; sum over directed
    bonds of f_b x r_b, ordered xx,yy,zz,xy,xz,yz), stress [6] (eV/A^3, sign and Voigt order of ASE; only where all
    directions are periodic), bonds (i, j, vectors), bond_forces [n_bonds, 3] = -dE/dr_b, tensors and gradients by name.
    """
    species = _species(arrays, list(atoms.symbols))
    bonds = find_bonds(atoms, species, pair_cutoffs(arrays))
    energies, tensors, gradients = reference_gradients(arrays, species, bonds)
    i, j, vectors = bonds
    bond_forces = -gradients["r"]
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, j, bond_forces)
    np.add.at(forces, i, -bond_forces)
    dyad = bond_forces.T @ vectors
    virial = np.array([dyad[0, 0], dyad[1, 1], dyad[2, 2], dyad[0, 1], dyad[0, 2], dyad[1, 2]])
    result = {
        "energy": float(energies.sum()),
        "atomic_energies": energies,
        "forces": forces,
        "virial": virial,
        "bonds": bonds,
        "bond_forces": bond_forces,
        "tensors": tensors,
        "gradients": gradients,
    }
    if atoms.pbc.all():
        result["stress"] = -virial[VOIGT_FROM_VIRIAL] / atoms.cell.volume
    return result
