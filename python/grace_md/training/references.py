"""Reference energies of the elements: given, of isolated atoms, or a ridge least-squares fit of the compositions.

They are subtracted from the labels in double precision, and added to the energy shift of the exported model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grace_md.strict import ConfigError

__all__ = ["References", "composition_counts", "given_references", "isolated_atoms", "ridge_references"]

RIDGE = 1e-6  # relative to the mean of the diagonal; only what the data leave open feels it
RANK_TOLERANCE = 1e-6  # of singular values, relative to the largest


@dataclass(frozen=True)
class References:
    """Energies per element and how they were found.

    Attributes
    ----------
    energies : [n_elements] in eV
    origin : a few words for records
    warning : empty, or one sentence on what the data do not determine
    """

    energies: NDArray[np.float64]
    origin: str
    warning: str = ""


def composition_counts(
    species: NDArray[np.integer], first_atom: NDArray[np.integer], n_elements: int
) -> NDArray[np.float64]:
    """Return how many atoms of each element each structure has, [n_structures, n_elements].

    Parameters
    ----------
    species : [n_atoms] element indices of all structures, one after another
    first_atom : [n_structures + 1] where each structure begins
    """
    structure = np.repeat(np.arange(len(first_atom) - 1), np.diff(first_atom))
    counts = np.zeros((len(first_atom) - 1, n_elements))
    np.add.at(counts, (structure, np.asarray(species)), 1.0)
    return counts


def given_references(energies: Mapping[str, float], elements: Sequence[str]) -> References:
    """Return energies from the run file; ConfigError for an element that is missing or unknown to the model."""
    missing = [element for element in elements if element not in energies]
    unknown = [element for element in energies if element not in elements]
    if missing:
        raise ConfigError(f"`fit.references` has no energy for {', '.join(missing)}; add it, or use `auto`.")
    if unknown:
        raise ConfigError(f"`fit.references` has {', '.join(unknown)}, which the model does not; remove it.")
    return References(np.array([float(energies[element]) for element in elements]), "given")


def isolated_atoms(
    counts: NDArray[np.float64], energies: NDArray[np.float64], n_bonds: NDArray[np.integer], elements: Sequence[str]
) -> References:
    """Return the energies of structures that are a single atom without neighbours.

    Raises ConfigError naming elements without such a structure, and those whose structures disagree by over 1 meV.
    """
    single = (counts.sum(axis=1) == 1) & (np.asarray(n_bonds) == 0) & np.isfinite(energies)
    found = np.full(len(elements), np.nan)
    for index, element in enumerate(elements):
        values = energies[single & (counts[:, index] == 1)]
        if len(values):
            if np.ptp(values) > 1e-3:
                raise ConfigError(
                    f"`fit.references: isolated`: isolated atoms of {element} have energies from {values.min():.6f} to "
                    f"{values.max():.6f} eV; keep one, or give the energies in the run file."
                )
            found[index] = values.mean()
    missing = [element for element, value in zip(elements, found, strict=True) if np.isnan(value)]
    if missing:
        raise ConfigError(
            f"`fit.references: isolated`: the training set has no isolated atom of {', '.join(missing)}; add "
            "structures of one atom without neighbours, or use `auto`."
        )
    return References(found, "isolated atoms")


def ridge_references(
    counts: NDArray[np.float64],
    energies: NDArray[np.float64],
    elements: Sequence[str],
    *,
    weights: NDArray[np.float64] | None = None,
    ridge: float = RIDGE,
    origin: str = "ridge least squares of the training set",
) -> References:
    """Fit ``E_s / n_s = sum_a x_sa e_a`` with x the shares of the elements, towards the mean energy per atom.

    Directions that the compositions leave open (elements that always come in one ratio) get what the ridge gives them,
    the mean; a warning then names the elements concerned.

    Parameters
    ----------
    counts : [n_structures, n_elements] numbers of atoms
    energies : [n_structures] in eV; NaN where there is none
    weights : [n_structures], default 1
    """
    labelled = np.isfinite(energies) & (counts.sum(axis=1) > 0)
    if not labelled.any():
        raise ConfigError("`fit.references: auto` needs structures with an energy, and the training set has none.")
    n_atoms = counts[labelled].sum(axis=1)
    shares, values = counts[labelled] / n_atoms[:, None], energies[labelled] / n_atoms
    root = np.sqrt(np.ones(len(values)) if weights is None else weights[labelled])
    mean = float(np.average(values, weights=root**2)) if root.any() else float(values.mean())
    a, b = shares * root[:, None], (values - mean) * root
    gram = a.T @ a
    strength = ridge * float(np.trace(gram)) / len(elements)
    fit = np.linalg.solve(gram + strength * np.eye(len(elements)), a.T @ b)
    _, singular, directions = np.linalg.svd(a, full_matrices=True)
    singular = np.pad(singular, (0, len(elements) - len(singular)))
    open_directions = directions[singular <= RANK_TOLERANCE * max(float(singular.max()), 1e-300)]
    warning = ""
    if len(open_directions):
        loose = [e for e, size in zip(elements, np.abs(open_directions).max(axis=0), strict=True) if size > 1e-3]
        warning = (
            f"the compositions determine {len(elements) - len(open_directions)} of {len(elements)} reference energies: "
            f"those of {', '.join(loose)} are not separate and follow the mean; give them in `fit.references` if they "
            "matter."
        )
    return References(mean + fit, origin, warning)
