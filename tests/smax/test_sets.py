"""Sets as a whole: their union, adding to what exists, and how a run is doing."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

import smax_stand_in as stand_in
from grace_md import cli
from grace_md.smax.config import SmaxConfig
from grace_md.smax.executors import WorkerPool
from grace_md.smax.export import export
from grace_md.smax.extension import extend_state
from grace_md.smax.folder import read
from grace_md.smax.generation import generate
from grace_md.smax.outlook import outlook
from grace_md.smax.run_settings import RunSettings
from grace_md.smax.statistics import EntropyState
from grace_md.smax.status import status, status_lines
from grace_md.smax.stopping import Stop
from grace_md.smax.union import merge
from grace_md.strict import ConfigError
from smax_runs import assert_same_structures, short, state_of
from tolerances import SMAX_MERGED


def assert_same_statistics(first: EntropyState, second: EntropyState) -> None:
    """Fail unless both are of the same items, up to rounding."""
    for mode in ("atom", "config"):
        a, b = first.of(mode), second.of(mode)
        assert a.count == b.count
        scale = np.sqrt(np.diagonal(a.covariance()))
        assert np.all(np.abs(a.mean - b.mean) <= SMAX_MERGED * scale)
        assert np.all(np.abs(a.scatter - b.scatter) <= SMAX_MERGED * a.count * np.outer(scale, scale))


# Union ----------------------------------------------------------------------------------------------------------------


def three(folder: Path) -> list[Path]:
    """Return three runs of different seeds and sizes."""
    for seed, n in ((1, 40), (2, 55), (3, 30)):
        short(folder / f"s{seed}", n, stand_in.settings(seed=seed))
    return [folder / f"s{seed}" for seed in (1, 2, 3)]


def test_union_is_exact_and_associative(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = three(tmp_path)
    assert cli.main(["smax", "merge", str(a), str(b), "-o", str(tmp_path / "ab")]) == 0
    assert "95 structures" in capsys.readouterr().out
    merge([tmp_path / "ab", c], tmp_path / "ab_c")
    merge([b, c], tmp_path / "bc")
    merge([a, tmp_path / "bc"], tmp_path / "a_bc")
    merge([a, b, c], tmp_path / "abc")
    whole = EntropyState.empty(stand_in.N_FEATURES)
    for folder in (a, b, c):
        whole = whole.merged(state_of(folder).own)
    for name in ("ab_c", "a_bc", "abc"):
        state = state_of(tmp_path / name)
        assert_same_structures(list(read(a, b, c)), list(read(tmp_path / name)))
        assert_same_statistics(whole, state.own)
        assert_same_statistics(whole, state.entropy)
        assert not state.entropy.seeding
        assert (state.accepted, state.decided) == (125, sum(state_of(folder).decided for folder in (a, b, c)))
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert [run["seed"] for run in manifest["merged"]] == [1, 2, 3]
        assert sum(manifest["rejected"].values()) == manifest["decided"] - 125


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    a, b, _ = three(tmp_path)
    with pytest.raises(ConfigError, match=r"have the same settings and the same seed 1.*merge sets of different seeds"):
        merge([a, a], tmp_path / "out")
    merge([a, b], tmp_path / "ab")
    with pytest.raises(ConfigError, match="the same seed 1"):
        merge([tmp_path / "ab", a], tmp_path / "out")
    short(tmp_path / "other", 20, stand_in.settings(seed=9, descriptor={"cutoff_rule": "pair"}))
    with pytest.raises(ConfigError, match=r"another `descriptor.cutoff_rule` \(pair\) than .* \(centre\)"):
        merge([a, tmp_path / "other"], tmp_path / "out")
    short(tmp_path / "wide", 20, stand_in.settings(seed=9, radii={"cutoff_factor": 3.5}))
    with pytest.raises(ConfigError, match=r"another `radii\.cutoff_factor`"):
        merge([a, tmp_path / "wide"], tmp_path / "out")
    with pytest.raises(FileExistsError, match="holds 40 accepted structures"):
        merge([b, tmp_path / "wide"], a)
    with pytest.raises(ValueError, match="is one of the folders to merge"):
        merge([a, b], a, force=True)
    with pytest.raises(ValueError, match="at least two folders"):
        merge([a], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is no folder of `grace-md smax`"):
        merge([a, tmp_path / "nothing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="is a merged set; begin a new folder with `--extend"):
        short(tmp_path / "ab", 200, stand_in.settings(), resume=True)


# Extension ------------------------------------------------------------------------------------------------------------


def real(**sections: Any) -> SmaxConfig:
    """Return settings for which the real search takes milliseconds."""
    small = {"min_atoms": 2, "max_atoms": 4, "mean_atoms": 3.0, "n_elements": [1.0], "max_elements": 1}
    fast = {"max_iterations": 4, "core_iterations": 5}
    return stand_in.settings(composition=small, optimiser=fast, elements={"symbols": ["Al"]}, **sections)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with the real search."""
    folder = tmp_path_factory.mktemp("some") / "run"
    generate(real(), folder, 24, run=RunSettings(8, 2, 10), workers=1, say=stand_in.quiet)
    return folder


def statistics(config: SmaxConfig, *paths: Path, pool: WorkerPool | None = None) -> EntropyState:
    return extend_state(config, paths, pool or WorkerPool(1), stand_in.quiet, Stop())[0]


def test_one_pass_gives_the_statistics_of_the_run(some: Path, tmp_path: Path) -> None:
    own = state_of(some).own
    assert_same_statistics(own, statistics(real(), some))
    for name in ("all.extxyz", "all.extxyz.gz", "all.db"):
        export(read(some), tmp_path / name)
        assert_same_statistics(own, statistics(real(), tmp_path / name))
    ase.io.write(tmp_path / "a.extxyz", list(read(some))[:9])  # eight decimals only
    export(list(read(some))[9:], tmp_path / "b.extxyz")
    parts = statistics(real(), tmp_path / "a.extxyz", tmp_path / "b.extxyz")
    assert parts.atom.count == own.atom.count
    assert parts.log_det("atom") == pytest.approx(state_of(some).entropy.log_det("atom"), rel=1e-5)
    with ThreadPoolExecutor(3) as threads:  # many small tasks, the same bits
        import grace_md.smax.extension as module

        kept, module.ATOMS_PER_TASK = module.ATOMS_PER_TASK, 20
        try:
            pool = WorkerPool(3, threads)
            many, again = (statistics(real(), tmp_path / "all.extxyz", pool=p) for p in (pool, WorkerPool(1)))
        finally:
            module.ATOMS_PER_TASK = kept
    assert_same_statistics(own, many)
    assert np.array_equal(many.atom.scatter, again.atom.scatter)


def test_extending_adds_what_a_set_lacks(some: Path, tmp_path: Path) -> None:
    export(read(some), tmp_path / "all.extxyz")
    lines: list[str] = []
    config = real(seed=5)
    options: dict[str, Any] = {"run": RunSettings(8, 2, 10), "workers": 1, "deterministic": True}
    generate(config, tmp_path / "more", 12, extend=[tmp_path / "all.extxyz"], say=lines.append, **options)
    before, after = state_of(some), state_of(tmp_path / "more")
    assert f"extending 24 structures ({before.atoms} atoms)" in lines[0]
    assert after.seeded == 0  # the set stands for the seed phase
    assert after.own.config.count == 12
    assert after.entropy.config.count == 36
    assert after.entropy.log_det("atom") > before.entropy.log_det("atom")
    assert_same_statistics(before.own.merged(after.own), after.entropy)
    record = json.loads((tmp_path / "more/manifest.json").read_text())["extended"]
    assert [(r["path"], r["structures"]) for r in record] == [(str(tmp_path / "all.extxyz"), 24)]
    # in two parts, the second without another pass; and by the command
    generate(config, tmp_path / "parts", 5, extend=[tmp_path / "all.extxyz"], say=stand_in.quiet, **options)
    generate(config, tmp_path / "parts", 12, resume=True, say=stand_in.quiet, **options)
    assert_same_structures(list(read(tmp_path / "more")), list(read(tmp_path / "parts")))
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**config.plain(), "run": {"batch": 8, "round_batches": 2}}))
    words = [str(file), "-n", "12", "--workers", "1", "--deterministic", "-o"]
    assert cli.main(["smax", "extend", *words, str(tmp_path / "cli"), "--from", str(tmp_path / "all.extxyz")]) == 0
    assert_same_structures(list(read(tmp_path / "more")), list(read(tmp_path / "cli")))


def test_sets_that_extend_the_same_count_it_once(some: Path, tmp_path: Path) -> None:
    for seed in (5, 6):
        generate(real(seed=seed), tmp_path / f"s{seed}", 6, extend=[some], run=RunSettings(8, 2, 10), workers=1,
                 say=stand_in.quiet)  # fmt: skip
    generate(real(seed=7), tmp_path / "s7", 6, run=RunSettings(8, 2, 10), workers=1, say=stand_in.quiet)
    state = merge([tmp_path / "s5", tmp_path / "s6"], tmp_path / "both")
    parts = [state_of(tmp_path / name).own for name in ("s5", "s6")]
    assert state.entropy.config.count == 24 + 12
    assert_same_statistics(state_of(some).own.merged(parts[0]).merged(parts[1]), state.entropy)
    with pytest.raises(ConfigError, match="extend different sets"):
        merge([tmp_path / "s5", tmp_path / "s7"], tmp_path / "out")


def test_structures_of_others(tmp_path: Path) -> None:
    """Without radii: the tabulated ones; molecules without a cell; what cannot be used says why."""
    copies = []
    for factor in (0.95, 1.0, 1.1):
        atoms = bulk("Al", cubic=True)
        atoms.set_cell(factor * atoms.cell[:], scale_atoms=True)
        copies.append(atoms)
    ase.io.write(tmp_path / "other.extxyz", [*copies, molecule("AlF3"), molecule("H2O")])
    state = statistics(stand_in.settings(), tmp_path / "other.extxyz")
    assert (state.config.count, state.atom.count) == (5, 19)
    radii = bulk("Al", cubic=True)
    radii.set_array("effective_radius", np.full(4, 1.21))  # that of ase.data
    ase.io.write(tmp_path / "named.extxyz", radii)
    ase.io.write(tmp_path / "plain.extxyz", bulk("Al", cubic=True))
    named, plain = (statistics(stand_in.settings(), tmp_path / f"{name}.extxyz") for name in ("named", "plain"))
    assert np.array_equal(named.atom.mean, plain.atom.mean)
    with pytest.raises(FileNotFoundError, match="There is no data file"):
        short(tmp_path / "run", extend=[tmp_path / "nothing.extxyz"])
    ase.io.write(tmp_path / "heavy.extxyz", Atoms("Bk", cell=[5, 5, 5], pbc=True))
    with pytest.raises(ConfigError, match="Bk, for which no covalent radius is tabulated"):
        short(tmp_path / "run", extend=[tmp_path / "heavy.extxyz"])
    assert not (tmp_path / "run").exists()


# How it is doing ------------------------------------------------------------------------------------------------------


def test_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short(tmp_path / "run", 60)
    found = status(tmp_path / "run")
    state = state_of(tmp_path / "run")
    assert (found["accepted"], found["target"], found["status"]) == (60, 60, "complete")
    assert found["acceptance"] == 60 / state.decided
    assert found["rejected"] == state.rejected
    assert found["atom_log_det"] == state.entropy.log_det("atom")
    assert 1.0 < found["atom_dimension"] <= stand_in.N_FEATURES
    assert found["seconds_left"] is None
    short(tmp_path / "long", 5_000, time_limit=0.3, search=stand_in.slow_search)
    left = status(tmp_path / "long")
    assert left["seconds_left"] == pytest.approx((5_000 - left["accepted"]) / left["rate"])
    assert any("left" in line for line in status_lines(left))
    assert cli.main(["smax", "status", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert cli.main(["smax", "status", str(tmp_path / "run"), "--watch"]) == 0  # ends with the run
    text = capsys.readouterr().out
    assert "accepted    60 of 60 structures" in text
    assert "ln det" in text
    assert cli.main(["smax", "status", str(tmp_path)]) == 1
    assert "is no folder of `grace-md smax`" in capsys.readouterr().err


def test_status_in_the_seed_phase(tmp_path: Path) -> None:
    short(tmp_path / "run", 3)
    found = status(tmp_path / "run")
    assert found["seed_phase"]
    assert status_lines(found)[0].endswith("complete, seed phase")


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(real().plain()))
    words = ["smax", "generate", str(file), "-n", "1000", "-o", str(tmp_path / "run"), "--workers", "4", "--dry-run"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "dry run: nothing was written" in text
    assert "Al 100 % of candidates" in text
    assert "1000 structures take about" in text
    assert "with 4 workers" in text
    assert not (tmp_path / "run").exists()
    endless = real(statistics={"seed_items_per_feature": 1e6})
    assert "unknown: the seed phase takes more than" in outlook(endless, 10)[-1]


def test_importing_a_run_imports_no_torch() -> None:
    import subprocess

    code = "import sys, grace_md.smax.generation, grace_md.smax.union, grace_md.smax.export, grace_md.commands.smax; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_of_the_package() -> None:
    import grace_md.smax

    assert grace_md.smax.generate is generate
    assert grace_md.smax.read is read
    with pytest.raises(AttributeError, match="has no attribute 'generates'"):
        _ = grace_md.smax.generates
