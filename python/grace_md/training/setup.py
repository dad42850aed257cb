"""The model of a run and its constants from the data: fresh or from a weight file, scale, neighbours, references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from grace_md.data import find_model
from grace_md.strict import ConfigError
from grace_md.torch import GracePotential
from grace_md.training.config import RunConfig
from grace_md.training.cutoffs import element_cutoffs, pair_cutoffs
from grace_md.training.dataset import RunData, present_elements
from grace_md.training.finetune import StartModel, start_arrays
from grace_md.training.references import References, given_references, isolated_atoms, ridge_references
from grace_md.weights import Arrays, element_names, read_npz

__all__ = ["candidate_elements", "data_constants", "find_references", "make_model", "read_start", "set_references"]

MOST_FITTED = 200_000  # structures of a fit of reference energies
MOST_ALIGNED = 2_000  # structures that the start model is evaluated on


def read_start(config: RunConfig) -> Arrays | None:
    """Return the arrays of `model.start`, None without one."""
    return None if config.model.start is None else read_npz(find_model(config.model.start))


def candidate_elements(config: RunConfig, start: Arrays | None) -> tuple[list[str], NDArray[np.float64]]:
    """Return every element that structures may have and their pair cutoffs in A: lists come before the model.

    Raises ConfigError for cutoffs that are not usable and for elements that do not exist.
    """
    wanted = config.model.elements
    if start is not None:
        assert config.finetune is not None
        known = element_names(start)
        new = [element for element in config.finetune.new_elements if element not in known]
        begun = start_arrays(start, [*known, *new], config.finetune.new_elements, config.fit.seed)
        names = element_names(begun.arrays)
        if wanted != "auto":
            _known(wanted, names)
        return names, _cutoffs_of(begun.arrays)
    cutoffs = config.model.cutoffs if config.model.cutoffs is not None else "table9"
    if wanted != "auto":
        _known(wanted, chemical_symbols[1:])
        names = list(wanted)
    elif isinstance(cutoffs, dict) and "default" not in cutoffs:
        names = list(cutoffs)
    else:
        names = chemical_symbols[1:]
    return names, pair_cutoffs(element_cutoffs(cutoffs, names), names)


def _known(wanted: Sequence[str], names: Sequence[str]) -> None:
    for element in wanted:
        if element not in names:
            raise ConfigError(f"`model.elements` has {element!r}, which is not one of {', '.join(names[:20])} ...")
    if not wanted or len(set(wanted)) != len(wanted):
        raise ConfigError(f"`model.elements` = {list(wanted)} must name at least one element, each one once.")


def _cutoffs_of(arrays: Arrays) -> NDArray[np.float64]:
    from grace_md.torch.wiring import pair_cutoffs as of_file  # noqa: PLC0415

    return np.asarray(of_file(arrays), dtype=np.float64)


def data_constants(config: RunConfig, data: RunData) -> tuple[float, float]:
    """Return the average number of neighbours and the output scale (eV): given, or of the training set.

    The scale is the rms of the force components; without forces, the deviation of the energies per atom.
    """
    train, model = data.train, config.model
    neighbors = (
        train.shards.average_neighbors(train.rows) if model.average_neighbors == "auto" else model.average_neighbors
    )
    scale = train.shards.force_rms(train.rows) if model.output_scale == "auto" else model.output_scale
    if not np.isfinite(scale):
        per_atom = train.shards.energy[train.rows] / train.shards.n_atoms[train.rows]
        scale = float(np.nanstd(per_atom))
    # A set of isolated atoms has neither neighbours nor forces.
    return max(float(neighbors), 1e-3) if neighbors > 0 else 1.0, float(scale) if scale > 1e-6 else 1.0


def make_model(
    config: RunConfig, data: RunData, start: Arrays | None, constants: tuple[float, float]
) -> tuple[GracePotential, StartModel | None]:
    """Return the model for the elements of the data, and how a start file was changed.

    Raises ConfigError or ValueError for sizes that do not fit together and for elements that a start file lacks.
    """
    dtype = torch.float32 if config.fit.precision == "mixed" else torch.float64
    wanted = config.model.elements
    elements = present_elements(data) if wanted == "auto" else list(wanted)
    absent = [element for element in present_elements(data) if element not in elements]
    if absent:
        raise ConfigError(f"the data have {', '.join(absent)}, which `model.elements` lacks; add the element.")
    if start is not None:
        assert config.finetune is not None
        begun = start_arrays(start, elements, config.finetune.new_elements, config.fit.seed)
        model = GracePotential.from_arrays(begun.arrays, dtype)
    else:
        begun = None
        cutoffs = config.model.cutoffs if config.model.cutoffs is not None else "table9"
        model = GracePotential.from_preset(
            config.model.sizes(),
            elements=elements,
            cutoffs=pair_cutoffs(element_cutoffs(cutoffs, elements), elements),
            seed=config.fit.seed,
            dtype=dtype,
            average_neighbors=constants[0],
            output_scale=constants[1],
        )
    if config.fit.backend != "auto":
        model.backend = config.fit.backend
    for part in data.parts():
        part.shards.for_model(model.elements, model.pair_cutoffs.numpy())
    return model, begun


def find_references(config: RunConfig, data: RunData, model: GracePotential, begun: StartModel | None) -> References:
    """Return the reference energies of the run's own structures; one process is enough to find them.

    A fine-tuned model keeps the shifts of its start for the replay, and aligns those of the new labels: the residual of
    the start model is fitted by element, so that training begins without a jump of the energy scale.
    """
    shards, rows = data.train.shards, data.own_rows
    elements = model.elements
    if len(rows) > MOST_FITTED:
        rows = np.sort(np.random.default_rng([config.fit.seed, 2]).permutation(rows)[:MOST_FITTED])
    setting = config.fit.references
    if begun is not None:
        found = _aligned(config, data, model, begun)
    elif setting == "none":
        found = References(np.zeros(len(elements)), "none")
    elif isinstance(setting, dict):
        found = given_references(setting, elements)
    else:
        counts = shards.composition_counts(rows, elements)
        if setting == "isolated":
            found = isolated_atoms(counts, shards.energy[rows], shards.n_bonds[rows], elements)
        else:
            weights = shards.column("weights")[rows, 0] * shards.source_weights[shards.source_of[rows]]
            found = ridge_references(counts, shards.energy[rows], elements, weights=weights)
    return found


def set_references(data: RunData, references: References, begun: StartModel | None) -> None:
    """Give the parts of the data their reference energies: those of the start model to the replay."""
    start = np.zeros_like(references.energies) if begun is None else begun.shifts
    for part in data.parts():
        part.set_references(start)
    data.train.set_references(references.energies, data.replay_sources)
    data.valid.set_references(references.energies)


def _aligned(config: RunConfig, data: RunData, model: GracePotential, begun: StartModel) -> References:
    """Shifts of the start model plus the least-squares residual of its energies."""
    assert config.finetune is not None
    if config.fit.references == "none" or not config.finetune.align_shifts:
        return References(begun.shifts, "shifts of the start model")
    rows = data.own_rows
    labelled = rows[np.isfinite(data.train.shards.energy[rows])]
    if not len(labelled):
        return References(begun.shifts, "shifts of the start model", "no energies to align the shifts with")
    if len(labelled) > MOST_ALIGNED:
        labelled = np.sort(np.random.default_rng([config.fit.seed, 3]).permutation(labelled)[:MOST_ALIGNED])
    data.train.set_references(begun.shifts)
    device = next(model.parameters()).device
    residual = np.empty(len(labelled))
    for begin in range(0, len(labelled), config.fit.batch):
        chosen = slice(begin, begin + config.fit.batch)
        batch, labels = data.train.batch(labelled[chosen])
        with torch.no_grad():
            output: Any = model(batch.to(device), forces=False, stress=False)
        residual[chosen] = (labels.energy - output.energy.cpu()).numpy()
    counts = data.train.shards.composition_counts(labelled, model.elements)
    fit = ridge_references(counts, residual, model.elements, origin="shifts of the start model, aligned to the labels")
    energies = begun.shifts + fit.energies
    unseen = counts.sum(axis=0) == 0
    energies[unseen] = begun.shifts[unseen]
    return References(energies, fit.origin, fit.warning)
