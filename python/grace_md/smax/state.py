"""The state of a run between two commits, and how it is kept.

``state.npz`` is the truth: sums of the statistics, what is decided, how far every shard is valid. It is replaced after
each commit, once the structures are on the disk, and appears complete or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grace_md.smax.shards import ShardCard
from grace_md.smax.statistics import EntropyState
from grace_md.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint

__all__ = ["FORMAT", "STATE_FILE", "RunState", "load_state", "save_state"]

FORMAT = "grace_md smax 1"  # raised when the meaning of a key changes
STATE_FILE = "state.npz"
COUNTERS = (
    "next_index", "accepted", "atoms", "decided", "seeded", "since_restart", "evaluations", "commits", "core_seconds",
    "wall_seconds", "commit_seconds", "rate",
)  # fmt: skip


@dataclass
class RunState:
    """What a run knows.

    Attributes
    ----------
    entropy : statistics that decide: of a set that is extended and of the structures accepted since the last restart
    own : statistics of the accepted structures alone, for merging
    next_index : first candidate number that was never drawn
    pending : numbers that were drawn and are not decided, in order
    accepted, atoms : structures in the shards and their atoms
    decided : candidates with a decision
    seeded : accepted structures of seed phases
    since_restart : accepted structures with an entropy gain since the statistics that decide began
    rejected : candidates by reason
    evaluations : of the descriptors, by all decided candidates
    commits : transactions so far
    core_seconds, wall_seconds, commit_seconds : processor time of searches, time of the run, time in commits
    rate : accepted structures per second, of the last minutes
    cards : of the shards
    round_indices, round_entropy : candidates of the round under way and the statistics it began with (deterministic)
    base : statistics of the sets that are extended, None if there are none
    """

    entropy: EntropyState
    own: EntropyState
    next_index: int = 0
    pending: list[int] = field(default_factory=list)
    accepted: int = 0
    atoms: int = 0
    decided: int = 0
    seeded: int = 0
    since_restart: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    evaluations: int = 0
    commits: int = 0
    core_seconds: float = 0.0
    wall_seconds: float = 0.0
    commit_seconds: float = 0.0
    rate: float = 0.0
    cards: list[ShardCard] = field(default_factory=list)
    round_indices: list[int] | None = None
    round_entropy: EntropyState | None = None
    base: EntropyState | None = None

    @classmethod
    def empty(cls, n_features: int) -> RunState:
        """Nothing yet."""
        return cls(EntropyState.empty(n_features), EntropyState.empty(n_features))

    def take(self, n: int, busy: Sequence[int] | set[int] = ()) -> list[int]:
        """Return the next `n` candidate numbers: those left over from before, then new ones; `busy` are not taken."""
        chosen = [index for index in self.pending if index not in busy][:n]
        fresh = list(range(self.next_index, self.next_index + n - len(chosen)))
        self.next_index += len(fresh)
        self.pending += fresh  # larger than all others
        return chosen + fresh

    def restart_if_due(self, restart_after: int) -> None:
        """Begin the statistics that decide anew after so many structures with an entropy gain; 0: never."""
        if restart_after and self.since_restart >= restart_after:
            base = self.base
            self.entropy = deepcopy(base) if base is not None else EntropyState.empty(self.own.atom.n_features)
            self.since_restart = 0

    def whole(self) -> EntropyState:
        """Statistics of all structures: those that decide, or after a restart the sums over all."""
        whole = self.own if self.base is None else self.base.merged(self.own)
        return self.entropy if self.entropy.config.count == whole.config.count else whole

    def plain(self) -> dict[str, Any]:
        """Return all but the arrays, ready for JSON."""
        return {
            **{name: getattr(self, name) for name in COUNTERS},
            "pending": self.pending,
            "rejected": self.rejected,
            "round_indices": self.round_indices,
            "shards": [card.plain() for card in self.cards],
        }


def save_state(folder: Path, state: RunState, record: dict[str, Any]) -> None:
    """Write ``state.npz``; `record` is what else is known of the run.

    Raises CheckpointError in one sentence if the disk is full; the earlier file is then untouched.
    """
    groups = {"entropy": state.entropy.arrays(), "own": state.own.arrays()}
    for name, part in (("round", state.round_entropy), ("base", state.base)):
        if part is not None:
            groups[name] = part.arrays()
    save_checkpoint(folder / STATE_FILE, Checkpoint(groups, {"smax": FORMAT, "state": state.plain(), **record}))


def load_state(folder: Path) -> tuple[RunState, dict[str, Any]]:
    """Read ``state.npz`` and return the state and the record that was saved with it.

    Raises
    ------
    FileNotFoundError
        If the folder has none.
    CheckpointError, ValueError
        For a file of another kind or version, and for a damaged one.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"`{folder}` is no folder of `grace-md smax`: it has no {STATE_FILE}; check the path.")
    checkpoint = load_checkpoint(path)
    meta = dict(checkpoint.meta)
    if meta.pop("smax", None) != FORMAT:
        raise CheckpointError(f"{path} is not of `grace-md smax` in the format {FORMAT!r}; use its own version.")
    meta.pop("format")  # of checkpoints
    plain = meta.pop("state")
    cards = [ShardCard(**card) for card in plain.pop("shards")]
    found = {mode: EntropyState.from_arrays(arrays) for mode, arrays in checkpoint.groups.items()}
    state = RunState(
        **plain,
        cards=cards,
        entropy=found["entropy"],
        own=found["own"],
        round_entropy=found.get("round"),
        base=found.get("base"),
    )
    return state, meta
