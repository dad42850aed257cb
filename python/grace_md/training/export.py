"""From a trained model to a weight file that the core, ASE and LAMMPS read; the check that they agree with torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from grace_md.model import METADATA_PREFIX
from grace_md.weights import write_npz

if TYPE_CHECKING:
    from ase import Atoms

    from grace_md.training.trainable import Trainable

__all__ = ["ExportError", "check_against_ase", "export_arrays", "export_model", "peer_limits"]

ENERGY_TOLERANCE = 1e-9  # eV/atom, torch in double precision against the core with radial="exact"
MIXED_TOLERANCE = 1e-3  # of the output scale per atom: single against double precision

Arrays = dict[str, NDArray[Any]]


class ExportError(RuntimeError):
    """An exported file does not give the energies of the model it was made from."""


def export_arrays(trainable: Trainable, references: NDArray[np.float64]) -> Arrays:
    """Return the arrays of a weight file with the present parameters, low-rank changes merged.

    Parameters
    ----------
    references : [n_elements] eV, added to the shifts, so that the file predicts total energies like the labels
    """
    model: Any = trainable.model
    with trainable.merged():
        arrays: Arrays = model.arrays()
    shifts = np.asarray(arrays["shift_values"], dtype=np.float64) if "shift_values" in arrays else 0.0
    arrays["shift_values"] = shifts + np.asarray(references, dtype=np.float64)
    return arrays


def export_model(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str | float]) -> str:
    """Write a weight file in the place of an earlier one and return its SHA-256; complete or not at all.

    Metadata keys get the prefix that other programs ignore.
    """
    extra = {
        METADATA_PREFIX + key: np.array(value.encode() if isinstance(value, str) else value)
        for key, value in metadata.items()
    }
    return write_npz(path, {**arrays, **extra}, force=True)


def check_against_ase(path: Path, structures: Sequence[Atoms], trained: NDArray[np.float64] | None = None) -> float:
    """Compare energies of torch and of the ASE calculator; return the largest difference in eV/atom.

    Parameters
    ----------
    path : exported weight file
    structures : a few small ones
    trained : [n_structures] energies in eV of the model in training, whose weights may be single precision

    Raises
    ------
    ExportError
        A difference above 1e-9 eV/atom in double precision, or one from `trained` that rounding does not explain.
    """
    from grace_md.ase import GraceCalculator  # noqa: PLC0415 - opens the compiled core
    from grace_md.torch import GracePotential, batch_from_atoms  # noqa: PLC0415

    model = GracePotential.from_file(path)
    batch = batch_from_atoms(structures, model.elements, model.pair_cutoffs.numpy())
    with torch.no_grad():
        torch_energies = model(batch, forces=False, stress=False).energy.numpy()
    calculator = GraceCalculator(path, device="cpu", precision="fp64", radial="exact")
    ase_energies = np.array([results["energy"] for results in calculator.evaluate(list(structures))])
    n_atoms = np.array([len(atoms) for atoms in structures])
    worst = float(np.abs((torch_energies - ase_energies) / n_atoms).max())
    if not worst <= ENERGY_TOLERANCE:
        raise ExportError(
            f"{path}: ASE and torch differ by {worst:.1e} eV/atom, more than {ENERGY_TOLERANCE:g}; do not "
            "trust the file, and please report this."
        )
    if trained is not None:
        scale = float(model.output_scale)
        rounding = float(np.abs((trained - ase_energies) / n_atoms).max())
        if not rounding <= MIXED_TOLERANCE * max(1.0, scale):
            raise ExportError(
                f"{path}: energies in double precision differ by {rounding:.1e} eV/atom from those in training; use "
                "`fit.precision: fp64`, or a smaller `fit.lr`: the weights have become too large for single precision."
            )
    return worst


# Compile-time limits of the published LAMMPS kernels (docs/weight_file.md); ours have none.
_LIMITS: dict[int, dict[str, int]] = {
    1: {"radial hidden layer": 64, "radial channels": 32},
    2: {"radial hidden layer": 210, "radial channels": 42, "slots of I": 16, "slots of YI": 200, "lmax": 4},
}


def peer_limits(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Return sentences on what of a model exceeds the fixed sizes of the published kernels; empty if nothing does."""
    layers = 2 if "YI_lr_inds" in arrays else 1
    hidden = [v.shape[1] for k, v in arrays.items() if k.startswith("mlp_rad") and "_W" in k and v.ndim == 2]
    lmax = max(int(v.reshape(-1)[0]) for k, v in arrays.items() if k.startswith("mlp_rad") and k.endswith("_lmax"))
    channels = [int(v.reshape(-1)[0]) for k, v in arrays.items() if k.startswith("mlp_rad") and k.endswith("n_rad_max")]
    widths = [width for width in hidden if width != max(channels) * (lmax + 1)]
    sizes = {"radial hidden layer": max(widths, default=0), "radial channels": max(channels), "lmax": lmax}
    if layers == 2:
        sizes["slots of YI"] = int(arrays["YI_n_output_funcs"].reshape(-1)[0])
        sizes["slots of I"] = int(np.max(arrays["YI_lr_inds"][:, 1])) + 1
    return [
        f"{name} of {sizes[name]} exceeds the {limit} of the published {layers}L kernels"
        for name, limit in _LIMITS[layers].items()
        if sizes.get(name, 0) > limit
    ]
