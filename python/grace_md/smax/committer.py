"""The one place where structures are accepted: exact test against the statistics as they are now, then the disk."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from ase import Atoms

from grace_md.smax.acceptance import Decision, commit, decide
from grace_md.smax.folder import RunFolder, scalars
from grace_md.smax.search import Found
from grace_md.smax.shards import ShardWriter
from grace_md.smax.state import RunState
from grace_md.smax.statistics import Snapshot
from grace_md.smax.tasks import Searched
from grace_md.training.records import MetricsLog

__all__ = ["Committer", "accepted_atoms"]

RATE_SECONDS = 60.0  # memory of the rate of acceptance
LOG_SHARE = 200  # lines of metrics.jsonl in the time in which a set grows by a factor of e


def accepted_atoms(found: Found, decision: Decision, seed: int, *, seeded: bool) -> Atoms:
    """Return the structure with its provenance; numbers that the seed phase does not have are left out."""
    info = {
        "smax_index": found.candidate.index,
        "smax_seed": seed,
        "smax_mode": found.candidate.mode,
        "smax_phase": "seed" if seeded else "entropy",
        "smax_extreme": found.candidate.extreme,
        "smax_evaluations": found.evaluations,
        "smax_gain": decision.gain,
        "smax_log_det": decision.log_det_after,
        "smax_d2_mean": found.d2_mean,
        "smax_d2_max": found.d2_max,
    }
    kept = {key: value for key, value in info.items() if not isinstance(value, float) or math.isfinite(value)}
    return found.candidate.atoms(**kept)


class Committer:
    """Decides on candidates in the order in which they come, and keeps what is accepted.

    A transaction appends structures to the shards, then replaces the state: after each one, all that was accepted is
    on the disk, and before its end nothing of it counts.

    Parameters
    ----------
    folder, state : of the run
    target : accepted structures at which to stop
    """

    def __init__(self, folder: RunFolder, state: RunState, target: int) -> None:
        self.folder, self.state, self.target = folder, state, target
        self.config = folder.config
        self._writer = ShardWriter(folder.path, state.cards, folder.run.structures_per_shard)
        self._log = MetricsLog(folder.path, tensorboard=False, keep_to=state.accepted)
        self._logged = state.accepted
        self._snapshot: Snapshot | None = None
        self._fresh = False
        self._last = time.monotonic()

    @property
    def full(self) -> bool:
        """Whether there are as many structures as asked for."""
        return self.state.accepted >= self.target

    def snapshot(self) -> Snapshot | None:
        """Return what searches need of the statistics now; None in the seed phase."""
        if not self._fresh:
            self._snapshot, self._fresh = self.state.entropy.snapshot(self.config.statistics), True
        return self._snapshot

    def commit(self, results: Sequence[Searched], *, end_of_round: bool = False) -> int:
        """Decide on the candidates of finished tasks, in order; return how many were accepted.

        Candidates that are decided already are passed over. Once there are enough structures, and once a seed phase
        has begun or ended since the search, the others stay pending: they are searched again. `end_of_round`
        forgets the round under way, unless it was cut because there are enough structures.

        Raises
        ------
        OSError, CheckpointError
            If the disk is full; the folder is then as after the transaction before.
        """
        begin = time.monotonic()
        state, structures, cut = self.state, [], False
        pending = set(state.pending)
        for result in results:
            state.core_seconds += result.seconds
            for found in result.found:
                index = found.candidate.index
                if index not in pending or result.seeded != state.entropy.seeding:
                    continue
                if self.full:
                    cut = True
                    break
                pending.remove(index)
                if (atoms := self._decide(found)) is not None:
                    structures.append(atoms)
        state.pending = sorted(pending)
        state.commits += 1
        if end_of_round and not cut:
            state.round_indices = state.round_entropy = None
        self._writer.append(structures)
        state.cards = self._writer.cards
        now = time.monotonic()
        self._clock(len(structures), now, now - begin)
        self.folder.save(state)
        if state.accepted - self._logged >= max(1, state.accepted // LOG_SHARE):
            self.log()
        return len(structures)

    def _decide(self, found: Found) -> Atoms | None:
        state, seeded = self.state, self.state.entropy.seeding
        decision = decide(state.entropy, found, self.config)
        state.decided += 1
        state.evaluations += found.evaluations
        if not decision.accepted:
            reason = decision.reason or "other"
            state.rejected[reason] = state.rejected.get(reason, 0) + 1
            return None
        commit(state.entropy, found, self.config)
        state.own.add(found.features)
        self._fresh = False
        state.accepted += 1
        state.atoms += len(found.candidate)
        state.seeded += seeded
        state.since_restart += not seeded
        state.restart_if_due(self.config.statistics.restart_after)
        return accepted_atoms(found, decision, self.config.seed, seeded=seeded)

    def _clock(self, accepted: int, now: float, seconds: float) -> None:
        """Update times, and the rate with an exponential memory."""
        state, passed = self.state, max(now - self._last, 1e-9)
        self._last = now
        state.wall_seconds += passed
        state.commit_seconds += seconds
        keep = math.exp(-passed / min(RATE_SECONDS, max(state.wall_seconds, 1e-9)))
        state.rate = keep * state.rate + (1.0 - keep) * accepted / passed

    def log(self) -> None:
        """Append a line to metrics.jsonl."""
        state = self.state
        self._logged = state.accepted
        self._log.write(
            {
                "step": state.accepted,
                "atoms": state.atoms,
                **scalars(state, self.config),
                "decided": state.decided,
                "acceptance": state.accepted / max(1, state.decided),
                "evaluations": state.evaluations,
                "rate": state.rate,
                "wall_seconds": state.wall_seconds,
                "core_seconds": state.core_seconds,
            }
        )

    def close(self) -> None:
        """Log the end and update the manifest."""
        if self._logged != self.state.accepted:
            self.log()
        self.folder.save(self.state)
        self.folder.write_manifest(self.state)
