"""`grace-md quickstart`: the lava quench of the paper at a size that ends within minutes, with the shipped model."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from grace_md.analysis.report import Check
from grace_md.data import model_path
from grace_md.workflows.checks import NVE_PICOSECONDS, lammps_against_ase, nve_drift
from grace_md.workflows.packing import random_packing
from grace_md.workflows.quench import (
    EXIT_INTERRUPTED,
    available_cores,
    interrupted_message,
    lava_settings,
    print_report,
)
from grace_md.workflows.quench_input import QuenchSettings, potential_lines, write_start
from grace_md.workflows.quench_run import load_settings, load_state, prepare_quench, run_quench
from grace_md.workflows.run_lammps import LammpsError, run_to_end

__all__ = ["add_arguments", "run"]

MINIMUM_STEPS = 1500
MAXIMUM_STEPS = 40_000
QUICK_STEPS = 2500
# Share of all steps, but at least so many, at 300 K and 0 GPa: the end point of a short ramp can then be judged.
_HOLD_SHARE, _HOLD_STEPS = 0.15, 1000
_TRIAL_STEPS = 40
_MOST_PROCESSES = 8  # more do not help a few hundred atoms


@dataclass
class Layout:
    """How LAMMPS is started, and the seconds per step it needs that way."""

    ranks: int
    threads: int
    seconds_per_step: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `grace-md quickstart`."""
    parser.add_argument("--out", type=Path, default=Path("lava_demo"), metavar="DIR", help="run folder (%(default)s)")
    parser.add_argument("--atoms", type=int, help="atoms in the proportions of the paper (default: 248)")
    parser.add_argument("--minutes", type=float, default=3.0, help="wall time aimed at (default: 3)")
    parser.add_argument("--steps", type=int, help="steps in all, instead of --minutes")
    parser.add_argument("--quick", action="store_true", help="120 atoms and 2500 steps, for tests: below one minute")
    parser.add_argument("--model", type=Path, metavar="NPZ", help="weight file (default: the shipped starter model)")
    parser.add_argument("--ranks", type=int, help="MPI ranks (default: what is faster in a trial)")
    parser.add_argument("--threads", type=int, help="OpenMP threads per rank (default: what is faster in a trial)")
    parser.add_argument("--seed", type=int, default=1, help="seed of positions and velocities (default: 1)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run in the folder")
    parser.add_argument("--force", action="store_true", help="replace an older run in the folder")
    parser.add_argument("--no-pictures", action="store_true", help="numbers only")


def run(args: argparse.Namespace) -> int:
    """Run the quickstart; 0 if all checks pass, 1 if one fails, 3 if interrupted."""
    folder: Path = args.out
    model = args.model or model_path("lava9_1l")
    if args.resume:
        settings = load_settings(folder)
        state = load_state(folder)
        layout = Layout(args.ranks or state.ranks or 1, args.threads or state.threads or 1, 0.0)
        print(f"Lava quench in {folder}: resumed at step {state.step} of {settings.total_steps}")
    else:
        if folder.exists() and any(folder.iterdir()) and not args.force:
            raise FileExistsError(f"{folder} is not empty; continue it with --resume, or replace it with --force.")
        settings = lava_settings(args.atoms or (120 if args.quick else 248), MINIMUM_STEPS)
        settings.seed = args.seed
        layout = _layout(args, settings, model)
        settings = _sized(settings, args, layout.seconds_per_step)
        prepare_quench(settings, folder, model, force=args.force)
        print(
            f"Lava quench with {model.name}: {settings.n_atoms} atoms, {settings.total_steps} steps, "
            f"{layout.ranks} rank(s) x {layout.threads} thread(s), "
            f"{1e6 * layout.seconds_per_step / settings.n_atoms:.0f} us/atom/step, input in {folder / 'in.lava'}"
        )
    state = run_quench(folder, ranks=layout.ranks, threads=layout.threads, resume=args.resume)
    if state.status == "interrupted":
        print(interrupted_message(folder, settings, state).replace("quench lava", "quickstart"))
        return EXIT_INTERRUPTED
    checks: list[Check] = [lammps_against_ase(folder, settings)]
    picoseconds = NVE_PICOSECONDS / 4 if args.quick else NVE_PICOSECONDS
    checks.append(nve_drift(folder, settings, picoseconds, layout.ranks, layout.threads))
    return 0 if print_report(folder, not args.no_pictures, checks) else 1


def _sized(settings: QuenchSettings, args: argparse.Namespace, seconds_per_step: float) -> QuenchSettings:
    """Settings with as many steps as fit into the time asked for."""
    total = args.steps
    if total is None:
        # A fifth of the time is left for the minimisation, the checks and the pictures.
        fitting = 0.8 * 60.0 * args.minutes / seconds_per_step
        total = QUICK_STEPS if args.quick else round(min(max(fitting, MINIMUM_STEPS), MAXIMUM_STEPS), -2)
    hold = round(max(_HOLD_SHARE * total, min(_HOLD_STEPS, 0.4 * total)))
    sized = lava_settings(settings.n_atoms, int(total) - hold)
    sized.hold_steps, sized.seed = hold, settings.seed
    return sized


def _layout(args: argparse.Namespace, settings: QuenchSettings, model: Path) -> Layout:
    """Ranks and threads given by the user, or the faster of all ranks and all threads in a short trial."""
    cores = min(available_cores(), _MOST_PROCESSES)
    if args.ranks or args.threads:
        ranks = args.ranks or 1
        candidates = [(ranks, args.threads or max(1, cores // ranks))]
    else:
        candidates = [(1, cores)] if cores == 1 else [(1, cores), (cores, 1)]
    trials: list[Layout] = []
    failure: LammpsError | None = None
    for ranks, threads in candidates:
        try:
            trials.append(Layout(ranks, threads, _seconds_per_step(settings, model, ranks, threads)))
        except LammpsError as error:  # a machine whose mpirun does not work still has threads
            failure = error
    if not trials:
        raise failure or LammpsError("no trial of LAMMPS was possible.")
    return min(trials, key=lambda layout: layout.seconds_per_step)


def _seconds_per_step(settings: QuenchSettings, model: Path, ranks: int, threads: int) -> float:
    """Time of one step of a random start, measured with LAMMPS."""
    atoms = random_packing(settings.composition, seed=settings.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_start(folder / "start.data", atoms, settings.elements)
        potential = potential_lines(replace(settings, model=str(model.resolve())))
        (folder / "in.trial").write_text(
            "units metal\natom_style atomic\natom_modify map yes\nread_data start.data\n"
            f"{potential}\nneighbor 1.0 bin\ntimestep 1.0e-5\nfix nve all nve\nrun 5\nrun {_TRIAL_STEPS}\n",
            encoding="utf-8",
        )
        output = run_to_end(["-in", "in.trial", "-log", "none"], folder, ranks, threads)
    times = [float(match[1]) for line in output if (match := re.match(r"Loop time of (\S+) on", line))]
    if not times:
        raise LammpsError("LAMMPS printed no loop time in the trial run; see `grace-md doctor`.")
    return times[-1] / _TRIAL_STEPS


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(_parser)
    sys.exit(run(_parser.parse_args()))
