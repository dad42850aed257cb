"""Statistics of structures that exist already, by one pass over them, so that a run adds what they lack."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from grace_md.progress import ProgressBar
from grace_md.smax.candidate import Batch
from grace_md.smax.config import SmaxConfig
from grace_md.smax.descriptors import make_descriptor
from grace_md.smax.devices import descriptor_on
from grace_md.smax.executors import WorkerPool
from grace_md.smax.frames import RADII
from grace_md.smax.radii import radius_table
from grace_md.smax.shards import ShardCard, read_shard
from grace_md.smax.state import STATE_FILE, load_state
from grace_md.smax.statistics import EntropyState
from grace_md.smax.stopping import Stop
from grace_md.smax.tasks import Tasks
from grace_md.training.data.labels import Frame
from grace_md.training.data.readers import Part, Source, expand, frame_from_atoms, read_part, scan
from grace_md.training.records import data_hash

__all__ = ["add_frames", "extend_state"]

ATOMS_PER_TASK = 20_000
ATOMS_PER_CALL = 2_000  # of the descriptor: bounds its memory
POLL_SECONDS = 0.2


def _batch(frames: Sequence[Frame], config: SmaxConfig) -> Batch:
    """Structures side by side; radii are those of the file, or else the tabulated covalent ones."""
    counts = np.array([len(frame.numbers) for frame in frames], dtype=np.int64)
    numbers = np.concatenate([frame.numbers for frame in frames])
    radii = np.concatenate(
        [
            np.asarray(frame.values[RADII], dtype=float)
            if RADII in frame.values
            else radius_table(frame.numbers, config.radii)
            for frame in frames
        ]
    )
    return Batch(
        positions=np.concatenate([frame.positions for frame in frames]),
        cells=np.array([complete_cell(frame.cell) for frame in frames]),
        periodic=np.array([frame.pbc for frame in frames], dtype=np.bool_),
        first_atom=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        numbers=numbers,
        cutoffs=config.radii.cutoff_factor * radii,
        core_radii=config.radii.core_factor * radii,
        owner=np.repeat(np.arange(len(frames), dtype=np.int64), counts),
        config=np.zeros(len(frames), dtype=np.bool_),
    )


def _groups(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    atoms = 0
    for frame in frames:
        if not len(frame.numbers):
            raise ValueError(f"{frame.where} has no atoms; remove it from the set that is extended.")
        group.append(frame)
        atoms += len(frame.numbers)
        if atoms >= ATOMS_PER_CALL:
            yield group
            group, atoms = [], 0
    if group:
        yield group


def add_frames(
    state: EntropyState, frames: Iterable[Frame], config: SmaxConfig, device: str = "cpu"
) -> tuple[int, int]:
    """Add structures to statistics; return how many structures and atoms there were.

    Raises ValueError for structures without atoms and features that are not finite, ConfigError for an element without
    a radius.
    """
    descriptor = descriptor_on(config.descriptor, device)
    n_structures = n_atoms = 0
    for group in _groups(frames):
        batch = _batch(group, config)
        features = descriptor.values(batch)
        for frame, begin, end in zip(group, batch.first_atom, batch.first_atom[1:], strict=False):
            try:
                state.add(features[begin:end])
            except ValueError:
                raise ValueError(
                    f"The features of {frame.where} are not finite; two of its atoms are probably at one place: remove "
                    "it from the set that is extended."
                ) from None
        n_structures += len(group)
        n_atoms += len(features)
    return n_structures, n_atoms


def _of_frames(config: SmaxConfig, frames: Iterable[Frame], device: str) -> tuple[EntropyState, int, int]:
    state = EntropyState.empty(make_descriptor(config.descriptor).n_features)
    return (state, *add_frames(state, frames, config, device))


def _of_part(config: SmaxConfig, device: str, source: Source, part: Part) -> tuple[EntropyState, int, int]:
    return _of_frames(config, read_part(source, part), device)


def _of_shard(config: SmaxConfig, device: str, folder: Path, card: ShardCard) -> tuple[EntropyState, int, int]:
    def frames() -> Iterator[Frame]:
        atoms: Atoms
        for row, atoms in enumerate(read_shard(folder, card)):
            yield frame_from_atoms(atoms, row, str(folder / card.file))

    return _of_frames(config, frames(), device)


def _plan(path: str | Path) -> tuple[list[tuple[Any, ...]], str]:
    """Tasks that read a set, functions and their arguments after settings and device, and the checksum of the set."""
    folder = Path(path)
    if (folder / STATE_FILE).is_file():
        state, _ = load_state(folder)
        joined = "".join(card.sha256 for card in state.cards)
        return [(_of_shard, folder, card) for card in state.cards], hashlib.sha256(joined.encode()).hexdigest()
    sources = expand(Source(str(path)))
    tasks = [(_of_part, source, part) for source in sources for part in scan(source, ATOMS_PER_TASK)]
    return tasks, data_hash([source.file for source in sources])


def extend_state(
    config: SmaxConfig,
    paths: Sequence[str | Path],
    pool: WorkerPool,
    tell: Callable[[str], None],
    stop: Stop,
    device: str = "cpu",
) -> tuple[EntropyState, list[dict[str, Any]]]:
    """Return the statistics of sets and a record of each; tasks are joined in their order, so that bits do not vary.

    Parameters
    ----------
    config : settings of descriptors and radii
    paths : files, directories, patterns, ASE databases, folders of `grace-md smax`
    pool : where the passes run
    tell, stop : lines for people; whether to stop
    device : where descriptors are computed

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, or one that cannot be read.
    KeyboardInterrupt
        If the run is to stop meanwhile: there is nothing yet that could be kept.
    """
    total = EntropyState.empty(make_descriptor(config.descriptor).n_features)
    records = []
    for path in paths:
        plan, checksum = _plan(path)
        n_structures = n_atoms = 0
        for state, structures, atoms in _in_order(config, device, plan, pool, stop, f"statistics of {path}"):
            total.atom, total.config = total.atom.merged(state.atom), total.config.merged(state.config)
            n_structures += structures
            n_atoms += atoms
        tell(f"extending {n_structures} structures ({n_atoms} atoms) of {path}")
        records.append({"path": str(path), "sha256": checksum, "structures": n_structures, "atoms": n_atoms})
    if paths:
        total.update_phase(config.statistics)
    return total, records


def _in_order(
    config: SmaxConfig, device: str, plan: Sequence[tuple[Any, ...]], pool: WorkerPool, stop: Stop, label: str
) -> Iterator[tuple[EntropyState, int, int]]:
    tasks = Tasks(pool)
    arrived: dict[Any, Any] = {}
    submitted = 0
    with ProgressBar(len(plan), label) as bar:
        for position in range(len(plan)):
            while position not in arrived:
                while submitted < len(plan) and len(tasks) < pool.limit:
                    function, *rest = plan[submitted]
                    tasks.submit(submitted, function, config, device, *rest)
                    submitted += 1
                arrived |= dict(tasks.finished(POLL_SECONDS))
                if stop.asked():
                    raise KeyboardInterrupt
            bar.update()
            yield arrived.pop(position)
