"""`grace-md label`: a farm that labels structures by any ASE calculator."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

EPILOG = """A farm is a directory: any number of `label run` may work on it, on several hosts, and each of them may be
killed and started again. Recipes: chgnet-zbl, emt, tblite, gpaw, vasp, or a YAML file (docs/labels.md)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md label`."""
    parser.epilog = EPILOG
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = actions.add_parser("init", help="make a farm of structures")
    init.add_argument("structures", nargs="+", help="files that ASE reads; FILE@0:100 takes a range")
    init.add_argument("--recipe", required=True, metavar="NAME|FILE", help="name of a recipe, or a YAML file")
    init.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="directory of the farm")
    init.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for example settings.cutoff=700")
    init.add_argument("--force", action="store_true", help="delete a farm that is there, with its labels")
    run_ = actions.add_parser("run", help="label what is not labelled yet")
    run_.add_argument("farm", type=Path, metavar="DIR")
    run_.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    run_.add_argument("--max-failures", type=float, default=0.2, metavar="SHARE",
                      help="stop when more than this share of structures fails (default 0.2)")  # fmt: skip
    run_.add_argument("--time-limit", metavar="H:MM", help="stop in time, exit code 75; also minutes, or H:MM:SS")
    status = actions.add_parser("status", help="how far a farm is, and why structures failed")
    status.add_argument("farm", type=Path, metavar="DIR")
    gather = actions.add_parser("collect", help="write the labels to one extended XYZ file")
    gather.add_argument("farm", type=Path, metavar="DIR")
    gather.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    gather.add_argument("--force", action="store_true", help="overwrite FILE")
    retry = actions.add_parser("retry", help="let structures that failed wait for another run")
    retry.add_argument("farm", type=Path, metavar="DIR")
    retry.add_argument("--rejected", action="store_true", help="also those outside the limits")
    write = actions.add_parser("vasp-write", help="write the VASP inputs of a farm of the recipe vasp")
    write.add_argument("farm", type=Path, metavar="DIR")
    write.add_argument("--dry-run", action="store_true", help="only estimate the cost")


def parse_time_limit(text: str) -> float:
    """Return seconds of ``"90"`` (minutes), ``"1:30"`` (hours and minutes) or ``"1:30:00"``; ValueError for others."""
    if not re.fullmatch(r"\d+(:[0-5]\d){0,2}", text):
        raise ValueError(f"`--time-limit` = {text!r} is not minutes, H:MM or H:MM:SS.")
    parts = [int(part) for part in text.split(":")]
    if len(parts) == 1:
        return 60.0 * parts[0]
    return 3600.0 * parts[0] + 60.0 * parts[1] + (parts[2] if len(parts) == 3 else 0.0)


def run(args: argparse.Namespace) -> int:
    """Carry out one action."""
    actions = {"init": _init, "run": _run, "status": _status, "collect": _collect, "retry": _retry,
               "vasp-write": _vasp_write}  # fmt: skip
    return actions[args.action](args)


def _init(args: argparse.Namespace) -> int:
    from grace_md.labels.farm import create_farm, read_structures  # noqa: PLC0415
    from grace_md.labels.recipes import load_config  # noqa: PLC0415

    config = load_config(args.recipe, args.set)
    farm = create_farm(args.output, read_structures(args.structures), config, force=args.force)
    counts = farm.store.counts()
    print(f"{counts.total} structures in {counts.waiting} jobs, recipe {farm.config.recipe} -> {args.output}")
    print(f"next: grace-md label run {args.output}")
    return 0


def _run(args: argparse.Namespace) -> int:
    from grace_md.labels.farm import Farm  # noqa: PLC0415
    from grace_md.labels.pool import failure_summary, run_farm  # noqa: PLC0415
    from grace_md.labels.worker import OVER_BUDGET, STOPPED, Limits  # noqa: PLC0415

    deadline = time.monotonic() + parse_time_limit(args.time_limit) if args.time_limit else None
    code = run_farm(args.farm, workers=args.workers, limits=Limits(args.max_failures, deadline))
    farm = Farm(args.farm)
    counts = farm.store.counts()
    print(
        f"{counts.done} of {counts.total} labelled, {counts.failed} failed, {counts.rejected} rejected; "
        f"{counts.seconds / max(1, counts.settled):.3g} s per structure and worker"
    )
    for line in failure_summary(farm):
        print(f"  {line}")
    if code == OVER_BUDGET:
        print(
            f"grace-md label: stopped, more than {args.max_failures:g} of the structures fail; remove the cause and "
            "use `grace-md label retry`, or allow more with --max-failures",
            file=sys.stderr,
        )
        return 1
    if code == STOPPED:
        print("stopped before the end; the same command goes on", file=sys.stderr)
    return code


def _status(args: argparse.Namespace) -> int:
    from grace_md.labels.farm import Farm  # noqa: PLC0415
    from grace_md.labels.pool import failure_summary  # noqa: PLC0415

    farm = Farm(args.farm)
    counts = farm.store.counts()
    print(f"recipe      {farm.config.recipe}")
    print(f"structures  {counts.total}: {counts.done} labelled, {counts.failed} failed, {counts.rejected} rejected")
    print(f"jobs        {counts.finished} finished, {counts.claimed} claimed, {counts.waiting} waiting")
    if counts.settled:
        per_structure = counts.seconds / counts.settled
        hours = per_structure * (counts.total - counts.settled) / 3600.0
        print(f"time        {per_structure:.3g} s per structure, {hours:.3g} worker hours to go")
    for job, host, process, age in farm.store.workers():
        print(f"  job {job} by process {process.split()[0]} on {host.split()[0]}, last seen {age:.0f} s ago")
    for line in failure_summary(farm):
        print(f"  {line}")
    return 0


def _collect(args: argparse.Namespace) -> int:
    from grace_md.commands._files import check_output  # noqa: PLC0415
    from grace_md.labels.collect import collect  # noqa: PLC0415
    from grace_md.labels.farm import Farm  # noqa: PLC0415

    check_output(args.output, force=args.force)
    farm = Farm(args.farm)
    if farm.config.recipe == "vasp":
        from grace_md.labels.vasp.harvest import harvest  # noqa: PLC0415

        print(f"{harvest(farm)} VASP runs read")
    summary = collect(farm, args.output)
    print(f"{summary.labelled} labelled structures -> {args.output}")
    if summary.failed or summary.rejected:
        print(f"{summary.failed} failed, {summary.rejected} rejected: {args.output}.failures.csv")
    if summary.missing:
        print(f"{summary.missing} structures are not labelled yet: grace-md label run {args.farm}")
    return 0


def _retry(args: argparse.Namespace) -> int:
    from grace_md.labels.farm import Farm  # noqa: PLC0415

    count = Farm(args.farm).store.retry(rejected=args.rejected)
    print(f"{count} structures wait again" + (f": grace-md label run {args.farm}" if count else ""))
    return 0


def _vasp_write(args: argparse.Namespace) -> int:
    from grace_md.labels.farm import Farm  # noqa: PLC0415
    from grace_md.labels.vasp.harvest import write_inputs  # noqa: PLC0415

    for line in write_inputs(Farm(args.farm), dry_run=args.dry_run):
        print(line)
    return 0
