"""Statistics that begin anew: many sets of high entropy, one after another, in one folder."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

import smax_stand_in as stand_in
from grace_md.smax.folder import read
from grace_md.smax.status import status
from smax_runs import short, state_of
from tolerances import assert_close

RESTART_AFTER = 9
SUMS = 1e-12  # relative, of the same sums in another order


@pytest.mark.parametrize("deterministic", [True, False])
def test_sets_follow_one_another(tmp_path: Path, deterministic: bool) -> None:
    config = stand_in.settings(statistics={"restart_after": RESTART_AFTER})
    short(tmp_path / "run", 100, config, deterministic=deterministic)
    info = [atoms.info for atoms in read(tmp_path / "run")]
    phases = [(phase, list(group)) for phase, group in groupby(info, lambda entry: entry["smax_phase"])]
    assert [phase for phase, _ in phases[:6]] == ["seed", "entropy"] * 3
    seeds = [group for phase, group in phases if phase == "seed"]
    grown = [group for phase, group in phases if phase == "entropy"]
    for group in grown[:-1]:
        assert len(group) == RESTART_AFTER
    for group in grown:
        assert np.all(np.diff([entry["smax_log_det"] for entry in group]) > 0.0)
        assert all(entry["smax_gain"] > 0.0 for entry in group)
    for entry in (entry for group in seeds for entry in group):
        assert "smax_d2_mean" not in entry, "maximised against the statistics before the restart"
    indices = [entry["smax_index"] for entry in info]
    assert len(set(indices)) == len(indices)
    state = state_of(tmp_path / "run")
    assert state.seeded == sum(map(len, seeds))
    assert state.since_restart == len(grown[-1]) % RESTART_AFTER


def test_the_status_is_that_of_all_structures(tmp_path: Path) -> None:
    short(tmp_path / "run", 70, stand_in.settings(statistics={"restart_after": RESTART_AFTER}))
    found, state = status(tmp_path / "run"), state_of(tmp_path / "run")
    assert state.entropy.config.count < 70
    assert found["atom_items"] == state.atoms
    assert_close(found["atom_log_det"], state.own.log_det("atom"), SUMS)


def test_sets_that_extend_another_begin_with_it(tmp_path: Path) -> None:
    short(tmp_path / "base", 40)
    config = stand_in.settings(statistics={"restart_after": RESTART_AFTER})
    short(tmp_path / "run", 30, config, extend=[tmp_path / "base"], workers=1)
    info = [atoms.info for atoms in read(tmp_path / "run")]
    assert {entry["smax_phase"] for entry in info} == {"entropy"}
    falls = np.flatnonzero(np.diff([entry["smax_log_det"] for entry in info]) < 0.0) + 1
    assert falls.tolist() == [9, 18, 27]
    base, state = state_of(tmp_path / "base"), state_of(tmp_path / "run")
    assert state.entropy.config.count == base.entropy.config.count + 3
