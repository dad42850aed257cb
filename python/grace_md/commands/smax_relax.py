"""`grace-md smax relax`: low-force structures by a preliminary model."""

from __future__ import annotations

import argparse
from pathlib import Path

STOPPED = 75  # "try again": the same command goes on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md smax relax`."""
    parser.add_argument("inputs", nargs="+", help="structures: files, directories or patterns")
    parser.add_argument("--model", required=True, metavar="NPZ", help="weight file, or the name of a shipped model")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".extxyz, .db or .aselmdb")
    parser.add_argument("--cell", default="fixed", metavar="fixed|variable|mix:P",
                        help="mix: variable with the probability P (default fixed)")  # fmt: skip
    parser.add_argument("--fmax", type=float, default=0.05, help="eV/A (default 0.05)")
    parser.add_argument("--steps", type=int, default=200, help="at most (default 200)")
    parser.add_argument("--keep", default="last", metavar="last|log:N",
                        help="log: up to N frames of each path, evenly spaced in log(step)")  # fmt: skip
    parser.add_argument("--core-factor", type=float, default=1.5, help="of the generator (default 1.5)")
    parser.add_argument("--closest", type=float, default=0.7, metavar="X",
                        help="end below X times the core distance (default 0.7)")  # fmt: skip
    parser.add_argument("--volume-factor", type=float, default=3.0, help="end beyond this change (default 3)")
    parser.add_argument("--energy-jump", type=float, default=1.0, metavar="E",
                        help="end if a step gains E eV/atom more or less than its work (default 1)")  # fmt: skip
    parser.add_argument("--descriptor", default="snap", help="for copies: snap or distances (default snap)")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of copies; 0 keeps them (default 1e-3)")
    parser.add_argument("--batch-atoms", type=int, help="at a time (default 4000, on a GPU 32000)")
    parser.add_argument("--seed", type=int, default=0, help="of mix (default 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="0: OMP_NUM_THREADS or all cores")
    parser.add_argument("--force", action="store_true", help="overwrite the output and forget an interrupted run")
    parser.epilog = (
        "Writes OUTPUT, OUTPUT.outcomes.csv, OUTPUT.summary.json and OUTPUT.png. A run that was stopped goes on when "
        "the same command is given again. The energies of the model are kept as smax_relax_energy: they are no labels."
    )


def run(args: argparse.Namespace) -> int:
    """Relax and print how it went."""
    from grace_md import GraceCalculator  # noqa: PLC0415
    from grace_md._core import resolve_device  # noqa: PLC0415
    from grace_md.commands.evaluate import BATCH_ATOMS, GPU_BATCH_ATOMS  # noqa: PLC0415
    from grace_md.data import find_model  # noqa: PLC0415
    from grace_md.smax.relax_run import relax_files  # noqa: PLC0415
    from grace_md.smax.relaxation import RelaxSettings  # noqa: PLC0415

    device = resolve_device(args.device)
    names = ("cell", "fmax", "steps", "keep", "core_factor", "closest", "volume_factor", "energy_jump", "seed")
    batch = args.batch_atoms or (BATCH_ATOMS if device == "cpu" else GPU_BATCH_ATOMS)
    settings = RelaxSettings(**{name: getattr(args, name) for name in names}, batch_atoms=batch)
    calculator = GraceCalculator(find_model(args.model), device=device, threads=args.threads)
    print(f"runs on: {calculator.description}")
    summary = relax_files(
        args.inputs,
        args.output,
        calculator,
        settings,
        tolerance=args.tolerance,
        descriptor=args.descriptor,
        force=args.force,
    )
    if summary.stopped:
        print("stopped; finished structures are kept: the same command goes on")
        return STOPPED
    print(summary.text(), end="")
    return 0
