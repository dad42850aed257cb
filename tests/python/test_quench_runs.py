"""Quench runs in LAMMPS: stopping, exact resume, safety, report, quickstart."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter

import numpy as np
import pytest

import lammps_tools
from grace_md.analysis.lammps_files import read_data, read_thermo
from grace_md.analysis.report import write_report
from grace_md.data import model_path
from grace_md.weights import read_npz
from grace_md.workflows import quench, quickstart
from grace_md.workflows.quench_input import QUENCH_MARK
from grace_md.workflows.quench_run import QuenchAbortedError, load_state, prepare_quench, run_quench
from grace_md.workflows.run_lammps import LammpsError, find_lammps
from quench_tools import SMALL, arguments, stand_in

needs_lammps = pytest.mark.skipif(bool(_missing := lammps_tools.missing()), reason=_missing or "")


def finish(folder, ranks):
    """Run in as many pieces as there are segments, and return how many there were."""
    pieces = 1
    state = run_quench(folder, ranks=ranks, progress=False, max_minutes=0.0)
    while state.status != "complete":
        assert state.status == "interrupted"
        pieces += 1
        state = run_quench(folder, progress=False, max_minutes=0.0, resume=True)
    assert state.ranks == ranks  # kept without being asked for
    return pieces


def test_compressed_models_are_copied_as_lammps_reads_them(tmp_path):
    arrays = read_npz(model_path("lava9_1l"))
    compressed = tmp_path / "compressed.npz"
    np.savez_compressed(compressed, **arrays)
    prepare_quench(stand_in(), tmp_path / "run", model=compressed)
    with zipfile.ZipFile(tmp_path / "run" / "model.npz") as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    copy = read_npz(tmp_path / "run" / "model.npz")
    assert copy.keys() == arrays.keys()
    assert all(np.array_equal(copy[key], arrays[key]) for key in arrays)


@needs_lammps
@pytest.mark.parametrize("ranks", [1, 2])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, ranks):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    prepare_quench(stand_in(), whole)
    prepare_quench(stand_in(), parts)
    assert run_quench(whole, ranks=ranks, progress=False).status == "complete"
    assert finish(parts, ranks) == 7  # five segments of the ramp, two of the hold
    assert (whole / "final.data").read_bytes() == (parts / "final.data").read_bytes()
    assert (whole / "trajectory.lammpstrj").read_bytes() == (parts / "trajectory.lammpstrj").read_bytes()
    first = read_thermo([whole / "log.lava"], QUENCH_MARK)
    second = read_thermo([parts / "log.lava"], QUENCH_MARK)
    assert first["Step"][0] == 0
    assert first["Step"][-1] == 390
    assert all(np.array_equal(first[name], second[name]) for name in first)
    # The comparison can fail: another seed is another trajectory.
    other = tmp_path / "other"
    prepare_quench(stand_in(seed=2), other)
    run_quench(other, ranks=ranks, progress=False)
    assert (other / "final.data").read_bytes() != (whole / "final.data").read_bytes()


@needs_lammps
def test_killed_run_resumes_from_the_last_restart_point(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = stand_in(steps=4000, segment_steps=500, hold_steps=0, dump_steps=250)
    prepare_quench(settings, whole)
    prepare_quench(settings, killed)
    run_quench(whole, progress=False)

    def kill_lammps():
        while load_state(killed).step == 0 and load_state(killed).status != "complete":
            time.sleep(0.005)
        # Twice: the first signal asks for an orderly stop, the second one stops at once.
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=kill_lammps)
    thread.start()
    state = run_quench(killed, progress=False)
    thread.join()
    assert state.status == "interrupted"
    assert 0 < state.step < 4000
    assert run_quench(killed, progress=False, resume=True).status == "complete"
    assert (whole / "final.data").read_bytes() == (killed / "final.data").read_bytes()
    assert (whole / "trajectory.lammpstrj").read_bytes() == (killed / "trajectory.lammpstrj").read_bytes()


@needs_lammps
def test_input_runs_without_this_package(tmp_path):
    here, alone = tmp_path / "here", tmp_path / "alone"
    prepare_quench(stand_in(), here)
    prepare_quench(stand_in(), alone)
    run_quench(here, progress=False)
    done = subprocess.run([find_lammps(), "-in", "in.lava"], cwd=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (here / "final.data").read_bytes() == (alone / "final.data").read_bytes()
    (alone / "final.data").unlink()
    resumed = ["-in", "in.lava.resume", "-var", "restart", "restart.0"]
    done = subprocess.run([find_lammps(), *resumed], cwd=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (here / "final.data").read_bytes() == (alone / "final.data").read_bytes()


@needs_lammps
def test_temperature_follows_the_ramp_and_the_trajectory_is_bounded(tmp_path):
    settings = quench._with_output("lava", stand_in(steps=3000, hold_steps=1000), frames=40)
    prepare_quench(settings, tmp_path)
    state = run_quench(tmp_path, progress=False)
    assert state.status == "complete"
    thermo = read_thermo([tmp_path / "log.lava"], QUENCH_MARK)
    tail = thermo["Step"] > 3500
    assert abs(thermo["Temp"][tail].mean() - 300.0) < 200.0  # 28 atoms, still cooling
    assert thermo["v_T_target"][tail].max() == 300.0
    assert thermo["v_P_target"][0] == 10000.0
    final = read_data(tmp_path / "final.data", settings.elements)
    assert Counter(final.get_chemical_symbols()) == Counter(SMALL)
    assert final.cell.lengths()[0] == pytest.approx(thermo["Lx"][-1], abs=1e-6)
    report = write_report(tmp_path, pictures=False)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "complete"
    assert summary["composition"] == SMALL
    assert summary["last_tenth"]["temperature_K"] == pytest.approx(thermo["Temp"][tail].mean(), rel=0.2)
    assert 30 <= len((tmp_path / "trajectory.lammpstrj").read_text().split("ITEM: TIMESTEP")) - 1 <= 41
    assert {check.name for check in report.checks} >= {"run complete", "closest contact of the run"}
    assert not (tmp_path / "thermo.png").exists()


@needs_lammps
def test_fused_atoms_stop_the_run(tmp_path):
    # Attraction without a core: atoms collapse.
    lines = ["pair_style gauss 4.0", "pair_coeff * * 60.0 1.0"]
    prepare_quench(stand_in(steps=2000, pair_lines=lines, minimize_steps=0, segment_steps=50), tmp_path)
    with pytest.raises(QuenchAbortedError, match=r"atoms \d+ .* A apart at step .*fused"):
        run_quench(tmp_path, progress=False)
    assert load_state(tmp_path).status == "failed"
    assert "fused" in load_state(tmp_path).message


@needs_lammps
def test_runaway_temperature_stops_the_run(tmp_path):
    # A ramp that falls much faster than the thermostat can follow, held at 300 K by name only.
    settings = stand_in(steps=3000, hold_steps=0, temperature=(3000.0, 300.0))
    prepare_quench(settings, tmp_path)
    text = (tmp_path / "in.lava").read_text()
    hot = text.replace("npt temp 3000 300", "npt temp 9000 9000")
    assert hot != text
    (tmp_path / "in.lava").write_text(hot)
    with pytest.raises(QuenchAbortedError, match="temperature ran away"):
        run_quench(tmp_path, progress=False)


@needs_lammps
def test_error_of_lammps_is_shown(tmp_path):
    prepare_quench(stand_in(pair_lines=["pair_style no_such_style"]), tmp_path)
    with pytest.raises(LammpsError, match="Unrecognized pair style 'no_such_style'"):
        run_quench(tmp_path, progress=False)


@needs_lammps
def test_pictures_of_a_run(tmp_path):
    pytest.importorskip("matplotlib")
    prepare_quench(stand_in(), tmp_path)
    run_quench(tmp_path, progress=False)
    analysis = write_report(tmp_path)
    expected = {"thermo.png", "rdf.png", "snapshot.png", "bonds.png", "clusters.png"}
    assert set(analysis.summary["pictures"]) == expected
    for name in expected:
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5000


def test_missing_matplotlib_leaves_the_numbers(monkeypatch):
    from grace_md.analysis import plots

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RuntimeError, match=r"pip install 'grace_md\[plot\]'"):
        plots.require_matplotlib()


@needs_lammps
@pytest.mark.slow
def test_quick_quickstart_passes_its_checks(tmp_path):
    folder = tmp_path / "demo"
    words = ["--quick", "--out", folder, "--ranks", 1, "--threads", 1]
    assert quickstart.run(arguments(quickstart, *words)) == 0
    summary = json.loads((folder / "summary.json").read_text())
    checks = {check["name"]: check["passed"] for check in summary["checks"]}
    assert summary["passed"]
    assert checks["LAMMPS against ASE, final frame"] is True
    assert checks["energy drift in NVE"] is True
    assert checks["Si-O first peak"] is True
    assert len(summary["settings"]["model_sha256"]) == 64


@needs_lammps
@pytest.mark.slow
def test_exact_resume_with_grace(tmp_path):
    settings = quench.lava_settings(40, 150)
    settings.segment_steps, settings.minimize_steps, settings.dump_steps = 50, 10, 25
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    prepare_quench(settings, whole, model_path())
    prepare_quench(settings, parts, model_path())
    run_quench(whole, progress=False)
    assert finish(parts, 1) == 3
    assert (whole / "final.data").read_bytes() == (parts / "final.data").read_bytes()
