"""`grace-md smax import`: crystals and molecules of others, ready to be labelled."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

STOPPED = 75  # "try again": the same command goes on
NOTE_EVERY = 1000  # structures between two notes of the progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md smax import`."""
    parser.add_argument("inputs", nargs="+", help="XYZ, ASE databases, aselmdb, Transition1x, QM9")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".extxyz, .db or .aselmdb")
    formats = ["auto", "transition1x", "qm9-xyz", "qm9-npz", "structures"]
    parser.add_argument("--format", default="auto", choices=formats)
    parser.add_argument("--padding", type=float, default=10.0, metavar="A",
                        help="vacuum between a molecule and each face of its box (default 10)")  # fmt: skip
    parser.add_argument("--split", default="data", help="of Transition1x: data (all), train, val, test")
    parser.add_argument("--paths", action="store_true", help="of Transition1x: all frames, not the three final states")
    parser.add_argument("--stride", type=int, default=1, help="take every so many-th structure of each input")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    parser.epilog = "Labels of the files are left out; their energy is kept as external_energy (eV)."


def run(args: argparse.Namespace) -> int:
    """Read, box and write."""
    from grace_md.commands._files import check_output, write_summary  # noqa: PLC0415
    from grace_md.interrupt import StopRequest  # noqa: PLC0415
    from grace_md.merging.writers import check_writer, open_writer  # noqa: PLC0415
    from grace_md.progress import ProgressBar  # noqa: PLC0415
    from grace_md.smax.external import read_external  # noqa: PLC0415

    check_writer(args.output)
    check_output(args.output, force=args.force)
    counts: Counter[str] = Counter()
    atoms_in_all = 0
    writer = open_writer(args.output)
    try:
        with StopRequest() as stop, ProgressBar(len(args.inputs), "inputs") as bar:
            for name in args.inputs:
                found = read_external(
                    name, args.format, padding=args.padding, split=args.split, final_only=not args.paths,
                    stride=args.stride,
                )  # fmt: skip
                for atoms in found:
                    writer.write(atoms)
                    counts[name] += 1
                    atoms_in_all += len(atoms)
                    if counts[name] % NOTE_EVERY == 0:
                        bar.set(bar.done, f"{sum(counts.values())} structures")
                    if stop.asked:
                        writer.abort()
                        print("stopped; nothing was written")
                        return STOPPED
                bar.update()
        if not counts:
            raise ValueError(f"No structure in {', '.join(args.inputs)}.")
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    summary = {"output": str(args.output), "structures": dict(counts), "atoms": atoms_in_all, "padding_A": args.padding}
    write_summary(args.output.with_name(args.output.name + ".summary.json"), summary)
    for name, n in counts.items():
        print(f"{n:>9} structures  {name}")
    print(f"{sum(counts.values())} structures, {atoms_in_all} atoms -> {args.output}")
    return 0
