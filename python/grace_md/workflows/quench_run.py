"""A quench in a run folder: prepare it, run it, stop and resume it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.data import covalent_radii

from grace_md.analysis.lammps_files import read_frames, truncate_frames
from grace_md.analysis.pairs import closest_contact
from grace_md.analysis.report import CONTACT_LIMIT
from grace_md.progress import ProgressBar
from grace_md.weights import read_npz, write_npz
from grace_md.workflows.packing import random_packing
from grace_md.workflows.quench_input import (
    COMPLETE_MARK,
    CONTROL_FILE,
    FRAME_MARK,
    QUENCH_MARK,
    SEGMENT_MARK,
    QuenchSettings,
    control_text,
    write_inputs,
    write_start,
)
from grace_md.workflows.run_lammps import LammpsError, LammpsRun, stop_signals

__all__ = ["DEFAULT_CONTACT_LIMIT", "QuenchAbortedError", "load_settings", "prepare_quench", "run_quench"]

# Two atoms closer than this share of the sum of their covalent radii have fused.
DEFAULT_CONTACT_LIMIT = CONTACT_LIMIT

_OWN_FILES = ("in.*", "log.*", "restart.*", "restart_point.lammpstrj", "*.png", "*.csv")
_OWN_NAMES = ("start.data", "final.data", "trajectory.lammpstrj", "quench.json", "state.json", "summary.json")


class QuenchAbortedError(RuntimeError):
    """The run was stopped because its atoms fused or its temperature ran away."""


@dataclass
class QuenchState:
    """How far a run is; ``state.json`` in the run folder."""

    status: str = "prepared"  # prepared, running, interrupted, failed, complete
    step: int = 0
    restart: str = ""
    grid: str = ""  # MPI processor grid, for example "2 1 1"
    ranks: int = 0
    threads: int = 0
    resumed: int = 0
    seconds: float = 0.0
    closest_contact: float | None = None
    message: str = ""

    def save(self, folder: Path) -> None:
        """Write the file, complete or not at all."""
        _write_json(folder / "state.json", vars(self))


def load_settings(folder: Path) -> QuenchSettings:
    """Settings of the run in `folder`.

    Raises
    ------
    FileNotFoundError
        If `folder` is no run folder.
    """
    path = folder / "quench.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no run folder of grace-md quench: it has no quench.json.")
    return QuenchSettings.from_json(json.loads(path.read_text(encoding="utf-8")))


def load_state(folder: Path) -> QuenchState:
    """Progress of the run in `folder`."""
    path = folder / "state.json"
    return QuenchState(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else QuenchState()


def prepare_quench(settings: QuenchSettings, folder: Path, model: Path | None = None, force: bool = False) -> None:
    """Make a run folder: model, random start, LAMMPS input and settings.

    Parameters
    ----------
    settings : QuenchSettings
        ``model`` and ``model_sha256`` are filled in.
    folder : Path
        Run folder; must be absent or empty unless `force`.
    model : Path, optional
        Weight file, copied into the folder so that it is complete. None: ``settings.pair_lines`` are used.
    force : bool
        Remove the files of an older run in the folder. Other files stay.

    Raises
    ------
    FileExistsError
        If the folder holds files and `force` is false.
    ValueError
        If settings are wrong or the atoms do not fit.
    """
    settings.check()
    if folder.exists() and any(folder.iterdir()):
        if not force:
            raise FileExistsError(f"{folder} is not empty; continue it with --resume, or replace it with --force.")
        for name in [*_OWN_NAMES, CONTROL_FILE]:
            (folder / name).unlink(missing_ok=True)
        for pattern in _OWN_FILES:
            for path in folder.glob(pattern):
                path.unlink()
    atoms = random_packing(
        settings.composition,
        density=settings.density,
        packing_fraction=settings.packing_fraction,
        minimum_distance=settings.minimum_distance,
        seed=settings.seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        settings.model = "model.npz"
        _copy_model(model, folder / settings.model)
        settings.model_sha256 = hashlib.sha256((folder / settings.model).read_bytes()).hexdigest()
    elif not settings.pair_lines:
        raise ValueError("`model` is missing; give a weight file, for example the shipped lava9_1l.")
    write_start(folder / "start.data", atoms, settings.elements)
    write_inputs(folder, settings)
    _write_json(folder / "quench.json", settings.to_json())
    QuenchState().save(folder)


def _copy_model(model: Path, copy: Path) -> None:
    """Copy a weight file; a compressed one is written anew as LAMMPS reads it, without compression."""
    if copy.exists() and copy.samefile(model):
        return
    with zipfile.ZipFile(model) as archive:
        compressed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    if compressed:
        write_npz(copy, read_npz(model), force=True)
    else:
        shutil.copyfile(model, copy)


def run_quench(
    folder: Path,
    *,
    ranks: int | None = None,
    threads: int | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    contact_limit: float = DEFAULT_CONTACT_LIMIT,
    lmp: str | None = None,
    progress: bool = True,
) -> QuenchState:
    """Run a prepared quench, or the rest of it, and return where it ended.

    SIGINT (Ctrl-C), SIGTERM and `max_minutes` stop the run at its next restart point; a second signal stops it at
    once. Either way a resumed run repeats the uninterrupted one exactly on as many ranks and threads of a CPU; a GPU
    adds up forces in an order that changes from run to run.

    Parameters
    ----------
    folder : Path
        Run folder made by `prepare_quench`.
    ranks, threads : int
        MPI ranks and OpenMP threads of each. Default: those of the interrupted run, or 1.
    resume : bool
        Continue from the last restart point.
    max_minutes : float, optional
        Stop at the first restart point after this wall time; 0: at the next one.
    contact_limit : float
        Smallest allowed d_ij / (r_i + r_j) with covalent radii r, checked at every restart point.
    lmp : str, optional
        LAMMPS executable.
    progress : bool
        Show a progress bar.

    Raises
    ------
    QuenchAbortedError
        If atoms fused or the temperature ran away.
    LammpsError
        If LAMMPS failed.
    """
    settings, state = load_settings(folder), load_state(folder)
    if resume and state.status == "complete":
        return state
    state.ranks = ranks = ranks or (state.ranks if resume else 0) or 1
    state.threads = threads = threads or (state.threads if resume else 0) or 1
    log = folder / f"log.{settings.system}"
    arguments = ["-in", f"in.{settings.system}"]
    if resume and not state.restart:
        _restart_from_log(log, state)
    if resume and state.restart:
        state.resumed += 1
        arguments = ["-in", f"in.{settings.system}.resume", "-var", "restart", state.restart]
        grid = state.grid.split()
        if math.prod(int(count) for count in grid) == ranks:
            for name, count in zip(("px", "py", "pz"), grid, strict=False):
                arguments += ["-var", name, count]
        truncate_frames(folder / "trajectory.lammpstrj", state.step)
    elif not resume and state.status != "prepared":
        raise FileExistsError(f"{folder} holds a run that is {state.status}; continue it with --resume.")
    stop_at_once = max_minutes is not None and max_minutes <= 0.0
    _write_control(folder, settings, stop=stop_at_once)
    state.status, state.message = "running", ""
    state.save(folder)

    run = LammpsRun([*arguments, "-log", "none"], folder, ranks, threads, lmp)
    watch = _Watch(folder, settings, state, run, contact_limit, max_minutes)
    watch.asked_to_stop = stop_at_once
    with ProgressBar(settings.total_steps, "quench", start=state.step) as bar, stop_signals(watch.stop, watch.kill):
        try:
            for line in run.lines():
                watch.see(line, bar if progress else None)
        finally:
            run.kill()
            watch.finish()
    if watch.abort_message:
        raise QuenchAbortedError(watch.abort_message)
    if state.status == "failed":
        run.check(log)
        raise LammpsError(f"LAMMPS ended before the quench was complete (log: {log}):\n{run.error_text()}")
    return state


class _Watch:
    """Follows the output of a run: progress, restart points, checks."""

    def __init__(
        self,
        folder: Path,
        settings: QuenchSettings,
        state: QuenchState,
        run: LammpsRun,
        contact_limit: float,
        max_minutes: float | None,
    ) -> None:
        self.folder, self.settings, self.state, self.run = folder, settings, state, run
        self.contact_limit = contact_limit
        self.begin = time.monotonic()
        self.seconds_before = state.seconds
        self.deadline = None if max_minutes is None else self.begin + 60.0 * max_minutes
        self.abort_message = ""
        self.asked_to_stop = False
        self.complete = False
        self.ramping = False
        self.columns: list[str] = []

    def stop(self) -> None:
        """Ask LAMMPS to stop at the next restart point."""
        if not self.asked_to_stop:
            self.asked_to_stop = True
            _write_control(self.folder, self.settings, stop=True)

    def kill(self) -> None:
        """Stop at once; the steps since the last restart point will be repeated."""
        self.asked_to_stop = True
        self.run.kill()

    def see(self, line: str, bar: ProgressBar | None) -> None:
        """Digest one line of output."""
        words = line.split()
        if QUENCH_MARK in line:
            self.ramping = True
        elif line.rstrip().endswith("MPI processor grid"):
            self.state.grid = " ".join(words[0:5:2])
        elif words[:1] == ["Step"]:
            self.columns = words
        elif line.startswith(SEGMENT_MARK):
            self.state.step, self.state.restart = int(words[3]), words[4]
            self.state.seconds = self.seconds_before + time.monotonic() - self.begin
            self.state.save(self.folder)
        elif line.startswith(FRAME_MARK):
            self._check_contacts()
        elif line.startswith(COMPLETE_MARK):
            self.complete = True
        elif self.ramping and bar is not None and len(words) == len(self.columns) and words[0].isdigit():
            self._draw(bar, dict(zip(self.columns, words, strict=True)))
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.stop()

    def finish(self) -> None:
        """Record how the run ended."""
        state = self.state
        state.seconds = self.seconds_before + time.monotonic() - self.begin
        halted = next((text for text in self.run.tail if "Fix halt condition" in text), None)
        if halted is not None and not self.abort_message:
            self.abort_message = (
                f"the temperature ran away after step {state.step}: it exceeded twice its target ({halted.strip()}). "
                "Atoms have probably fused: use a potential with a repulsive core or a shorter time step."
            )
        state.message = self.abort_message
        if self.complete:
            state.status = "complete"
        elif self.asked_to_stop and not self.abort_message:
            state.status = "interrupted"
        else:
            state.status = "failed"
        state.save(self.folder)
        (self.folder / CONTROL_FILE).unlink(missing_ok=True)

    def _draw(self, bar: ProgressBar, values: dict[str, str]) -> None:
        step = float(values["Step"])
        rate = (step - bar.start) / max(1e-9, time.monotonic() - self.begin)
        stopping = "  stopping at the next restart point" if self.asked_to_stop else ""
        bar.set(
            step,
            f"{rate:.0f} steps/s  T {float(values['Temp']):.0f} K  P {float(values['Press']) / 1e4:+.1f} GPa{stopping}",
        )

    def _check_contacts(self) -> None:
        frames = read_frames(self.folder / "restart_point.lammpstrj")
        if not frames:
            return
        step, atoms = frames[-1]
        ratio, (i, j), distance = closest_contact(atoms.positions, atoms.cell, covalent_radii[atoms.numbers])
        best = self.state.closest_contact
        self.state.closest_contact = ratio if best is None else min(best, ratio)
        if not ratio >= self.contact_limit:
            self.abort_message = (
                f"atoms {i + 1} ({atoms.symbols[i]}) and {j + 1} ({atoms.symbols[j]}) are {distance:.2f} A apart at "
                f"step {step}, {ratio:.2f} of the sum of their covalent radii (limit {self.contact_limit:g}). They "
                "have fused: use a potential with a repulsive core, a lower start temperature or a shorter time step."
            )
            self.run.kill()


def _restart_from_log(log: Path, state: QuenchState) -> None:
    """Find the last restart point in the log of a run that was started without this module (`lmp -in ...`)."""
    if log.is_file():
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(SEGMENT_MARK):
                state.step, state.restart = int(line.split()[3]), line.split()[4]


def _write_control(folder: Path, settings: QuenchSettings, stop: bool) -> None:
    part = folder / (CONTROL_FILE + ".part")
    part.write_text(control_text(settings, stop), encoding="utf-8")
    os.replace(part, folder / CONTROL_FILE)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
