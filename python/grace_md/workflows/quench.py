"""`grace-md quench lava|mendeleev`: the quench runs of the paper in LAMMPS, at any size, with report.

Also usable as ``python -m grace_md.workflows.quench lava --steps 40000 --out lava_run``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from grace_md.data import model_path
from grace_md.workflows.composition import (
    LAVA,
    MENDELEEV_PER_ELEMENT,
    equal_composition,
    parse_composition,
    scale_composition,
)
from grace_md.workflows.quench_input import QuenchSettings
from grace_md.workflows.quench_run import DEFAULT_CONTACT_LIMIT, QuenchState, load_settings, prepare_quench, run_quench

__all__ = ["add_arguments", "available_cores", "lava_settings", "mendeleev_settings", "run"]

PAPER_STEPS = 4_000_000
EXIT_INTERRUPTED = 3

# Atom-steps between restart points: about ten seconds on two cores, so that stopping does not take long.
_SEGMENT_ATOM_STEPS = 250_000
_DEFAULT_FRAMES = 200


def lava_settings(
    n_atoms: int = sum(LAVA.values()), steps: int = PAPER_STEPS, composition: dict[str, int] | None = None
) -> QuenchSettings:
    """Settings of the paper's lava run: Table 8 scaled to `n_atoms`, 5000 -> 300 K, 1 -> 0 GPa, 1 fs."""
    counts = scale_composition(LAVA, n_atoms) if composition is None else composition
    return _with_output("lava", QuenchSettings("lava", counts, steps))


def mendeleev_settings(
    elements: list[str], per_element: int = MENDELEEV_PER_ELEMENT, steps: int = PAPER_STEPS
) -> QuenchSettings:
    """Settings of the paper's Mendeleev run: equal numbers of atoms of all elements, 5000 -> 300 K, 2 -> 0 GPa."""
    settings = QuenchSettings("mendeleev", equal_composition(elements, per_element), steps, pressure=(2.0, 0.0))
    settings.packing_fraction = 0.55  # mostly metals, which fill space better than oxides
    return _with_output("mendeleev", settings)


def _with_output(
    system: str, settings: QuenchSettings, segment: int | None = None, frames: int = _DEFAULT_FRAMES
) -> QuenchSettings:
    """Choose the steps between restart points, lines of the log and frames from the size of the run."""
    settings.system = system
    total = settings.total_steps
    if segment is None:
        segment = min(max(100, 100 * round(_SEGMENT_ATOM_STEPS / settings.n_atoms / 100)), 5000)
    settings.segment_steps = min(segment, max(1, total))
    settings.dump_steps = max(1, -(-total // frames))
    settings.thermo_steps = max(1, min(100, total // 500))
    return settings


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `grace-md quench`."""
    parser.add_argument("system", choices=["lava", "mendeleev"], help="which run of the paper")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: SYSTEM_run)")
    parser.add_argument("--model", type=Path, metavar="NPZ", help="weight file (lava: the shipped model)")
    parser.add_argument("--steps", type=int, default=PAPER_STEPS, help="steps of the ramp (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder exactly where it stopped")
    parser.add_argument("--force", action="store_true", help="replace an older run in the folder")
    parser.add_argument("--write-only", action="store_true", help="write the LAMMPS input and stop")

    size = parser.add_argument_group("composition")
    size.add_argument("--atoms", type=int, help="lava: number of atoms in the proportions of the paper (default: 4983)")
    size.add_argument("--composition", metavar="O=115,Si=70", help="lava: atoms of each element, instead of --atoms")
    size.add_argument("--elements", metavar="Li,C,Fe", help="mendeleev: elements (default: all of the model)")
    size.add_argument("--per-element", type=int, default=MENDELEEV_PER_ELEMENT,
                      help="mendeleev: atoms of each element (default: %(default)s, the paper)")  # fmt: skip

    protocol = parser.add_argument_group("protocol")
    protocol.add_argument("--temperature", type=float, nargs=2, metavar=("START", "END"), help="K (default: 5000 300)")
    protocol.add_argument("--pressure", type=float, nargs=2, metavar=("START", "END"),
                          help="GPa (default: 1 0 for lava, 2 0 for mendeleev)")  # fmt: skip
    protocol.add_argument("--timestep", type=float, default=1.0, metavar="FS", help="time step in fs (default: 1)")
    protocol.add_argument("--hold", type=int, default=0, metavar="STEPS", help="steps at the end point after the ramp")
    protocol.add_argument("--density", type=float, help="density of the random start in g/cm3")
    protocol.add_argument("--min-distance", type=float, default=0.8,
                          help="smallest distance of the start in sums of covalent radii (default: 0.8)")  # fmt: skip
    protocol.add_argument("--contact-limit", type=float, default=DEFAULT_CONTACT_LIMIT,
                          help="stop if atoms come closer than this share of it (default: %(default)s)")  # fmt: skip
    protocol.add_argument("--seed", type=int, default=1, help="seed of positions and velocities (default: 1)")

    running = parser.add_argument_group("running")
    running.add_argument("--ranks", type=int, help="MPI ranks (default: 1, or as before with --resume)")
    running.add_argument("--threads", type=int, help="OpenMP threads per rank (default: cores / ranks)")
    running.add_argument("--device", default="auto", help="auto, cpu, cuda or the number of a GPU (default: auto)")
    running.add_argument("--precision", choices=["auto", "fp64", "mixed", "fp32"], default="auto",
                         help="auto (default): mixed on a GPU, fp64 on the CPU")  # fmt: skip
    running.add_argument("--frames", type=int, default=_DEFAULT_FRAMES, help="frames of the trajectory (default: 200)")
    running.add_argument("--segment", type=int, metavar="STEPS", help="steps between restart points")
    running.add_argument("--max-minutes", type=float, help="stop at a restart point after this wall time")
    running.add_argument("--lmp", metavar="PATH", help="LAMMPS executable (default: that of the lammps package)")
    running.add_argument("--no-pictures", action="store_true", help="numbers only")


def settings_from_arguments(args: argparse.Namespace) -> tuple[QuenchSettings, Path]:
    """Settings and weight file that the arguments ask for."""
    if args.system == "lava":
        model = args.model or model_path("lava9_1l")
        if args.composition is not None and args.atoms is not None:
            raise ValueError("`--composition` and `--atoms` exclude each other; give one of them.")
        composition = None if args.composition is None else parse_composition(args.composition)
        settings = lava_settings(args.atoms or sum(LAVA.values()), args.steps, composition)
    else:
        if args.model is None:
            raise ValueError("`--model` is missing; the Mendeleev run needs a weight file that holds the elements.")
        model = args.model
        elements = _model_elements(model) if args.elements is None else [e.strip() for e in args.elements.split(",")]
        settings = mendeleev_settings(elements, args.per_element, args.steps)
    missing = sorted(set(settings.composition) - set(_model_elements(model)))
    if missing:
        raise ValueError(f"`--model` {model} does not hold {', '.join(missing)}; choose another model or composition.")
    if args.temperature:
        settings.temperature = (args.temperature[0], args.temperature[1])
    if args.pressure:
        settings.pressure = (args.pressure[0], args.pressure[1])
    if args.frames < 1:
        raise ValueError(f"`--frames` = {args.frames} must be at least 1.")
    settings.timestep_fs, settings.hold_steps, settings.seed = args.timestep, args.hold, args.seed
    settings.density, settings.minimum_distance = args.density, args.min_distance
    settings.device, settings.precision = args.device, args.precision
    settings.check()
    return _with_output(args.system, settings, args.segment, args.frames), model


def run(args: argparse.Namespace) -> int:
    """Prepare or resume, run, report; 0 complete, 3 interrupted."""
    folder = args.out or Path(f"{args.system}_run")
    if args.resume:
        settings = load_settings(folder)
    else:
        settings, model = settings_from_arguments(args)
        prepare_quench(settings, folder, model, force=args.force)
    print(f"{settings.system} quench: {settings.n_atoms} atoms, {settings.total_steps} steps of "
          f"{settings.timestep_fs:g} fs, restart point every {settings.segment_steps} steps")  # fmt: skip
    print(f"model SHA-256 {settings.model_sha256[:16]}..., LAMMPS input {folder / ('in.' + settings.system)}")
    if args.write_only:
        print(f"Run it with: cd {folder} && lmp -in in.{settings.system}")
        return 0
    state = run_quench(
        folder,
        ranks=args.ranks,
        threads=args.threads or (None if args.resume else max(1, available_cores() // (args.ranks or 1))),
        resume=args.resume,
        max_minutes=args.max_minutes,
        contact_limit=args.contact_limit,
        lmp=args.lmp,
    )
    if state.status == "interrupted":
        print(interrupted_message(folder, settings, state))
        return EXIT_INTERRUPTED
    print_report(folder, pictures=not args.no_pictures)
    return 0


def interrupted_message(folder: Path, settings: QuenchSettings, state: QuenchState) -> str:
    """Say where the run stopped and how to go on."""
    return (
        f"Stopped at step {state.step} of {settings.total_steps}. Continue exactly there with:\n"
        f"  grace-md quench {settings.system} --out {folder} --resume"
    )


def print_report(folder: Path, pictures: bool = True, extra_checks: list | None = None) -> bool:  # type: ignore[type-arg]
    """Write the report of a run, print its checks and return whether none failed."""
    from grace_md.analysis.report import write_report  # noqa: PLC0415 - only needed at the end of a long run

    analysis = write_report(folder, extra_checks or (), pictures)
    print("\n".join(check.line() for check in analysis.checks))
    if "pictures_note" in analysis.summary:
        print(f"No pictures: {analysis.summary['pictures_note']}")
    files = [*analysis.summary["pictures"], "summary.json"]
    print(f"{analysis.summary['note']}\nWritten to {folder}: {', '.join(files)}")
    return bool(analysis.summary["passed"])


def _model_elements(model: Path) -> list[str]:
    from grace_md.model import GraceModel  # noqa: PLC0415 - opens the compiled core

    return list(GraceModel.load(model).elements)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(_parser)
    sys.exit(run(_parser.parse_args()))
