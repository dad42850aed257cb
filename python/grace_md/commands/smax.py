"""`grace-md smax`: generate entropy-maximised structures, and look at, join and export what was generated."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from grace_md.commands import smax_import, smax_relax
from grace_md.commands._files import check_output

STOPPED = 75  # "try again": the run can go on
WATCH_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `grace-md smax`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = actions.add_parser("init", help="write a file of settings with every constant and its source")
    init.add_argument("--preset", required=True, metavar="P",
                      help="paper, paper-narrow, alloy:Mo,Nb,Ta,W, oxide, oxide:Fe,Al or single:Sn")  # fmt: skip
    init.add_argument("-o", "--out", type=Path, metavar="FILE", help="default: print")
    init.add_argument("--force", action="store_true", help="replace FILE")
    for name in ("generate", "extend"):
        _generate_arguments(actions, name)
    status = actions.add_parser("status", help="accepted, rejected, rate, ln det, effective dimension, time left")
    status.add_argument("folder", type=Path)
    status.add_argument("--watch", action="store_true", help=f"again every {WATCH_SECONDS:g} s until the run ends")
    status.add_argument("--json", action="store_true", help="for programs")
    merge = actions.add_parser("merge", help="join sets of different seeds: statistics and structures")
    merge.add_argument("folders", nargs="+", type=Path)
    merge.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    merge.add_argument("--force", action="store_true", help="replace a set in DIR")
    export = actions.add_parser("export", help="write accepted structures as one file")
    export.add_argument("folders", nargs="+", type=Path)
    export.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=".extxyz, .extxyz.gz or .db")
    export.add_argument("--force", action="store_true", help="replace FILE")
    smax_relax.add_arguments(actions.add_parser("relax", help="low-force structures by a preliminary model"))
    smax_import.add_arguments(actions.add_parser("import", help="molecules and crystals of other sets, without labels"))


def _generate_arguments(actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    extends = name == "extend"
    parser = actions.add_parser(
        name, help="add what a set of structures lacks: generate --extend" if extends else "generate structures"
    )
    parser.add_argument("config", type=Path, help="file of settings; `grace-md smax init` writes one")
    parser.add_argument("-n", type=int, required=True, metavar="N", help="accepted structures to end with")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--from" if extends else "--extend", dest="extend", nargs="+", default=[], required=extends,
                        metavar="FILE", help="structures that count as accepted before: extended XYZ, ASE or LMDB "
                        "databases, folders of smax")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="W", help="processes of one thread each (default: all cores)")
    parser.add_argument("--device", metavar="DEVICE",
                        help="of the descriptors: cpu, cuda, cuda:N, auto (default: that of the file)")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR, if there is one")
    parser.add_argument("--deterministic", action="store_true",
                        help="the same bits whatever the workers and interruptions; rounds cost some time")  # fmt: skip
    parser.add_argument("--time-limit", metavar="HH:MM", help="stop in time; --resume goes on")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="change a setting of the file, for example seed=7; may be repeated")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="draw some candidates, show what a run would be")
    parser.add_argument("--force", action="store_true", help="remove an earlier run in DIR")
    parser.epilog = "Exit code 75: stopped before the end (time limit, SIGTERM, Ctrl-C); everything accepted is kept."


def run(args: argparse.Namespace) -> int:
    """Do what `args.action` says."""
    actions = {
        "init": _init, "generate": _generate, "extend": _generate, "status": _status, "merge": _merge,
        "export": _export, "relax": smax_relax.run, "import": smax_import.run,
    }  # fmt: skip
    return actions[args.action](args)


def _init(args: argparse.Namespace) -> int:
    from grace_md.smax.presets import preset, settings_file  # noqa: PLC0415

    config = preset(args.preset)
    if args.out is None:
        print(settings_file(config, title=f"Preset {args.preset}."), end="")
        return 0
    check_output(args.out, force=args.force)
    if args.out.suffix == ".json":
        args.out.write_text(json.dumps(config.plain(), indent=1) + "\n", encoding="utf-8")
    else:
        args.out.write_text(settings_file(config, title=f"Preset {args.preset}."), encoding="utf-8")
    print(f"wrote {args.out}; next: grace-md smax generate {args.out} -n 1000 -o DIR")
    return 0


def _generate(args: argparse.Namespace) -> int:
    from grace_md.smax.generation import generate  # noqa: PLC0415
    from grace_md.smax.outlook import outlook  # noqa: PLC0415
    from grace_md.smax.presets import load_config  # noqa: PLC0415
    from grace_md.smax.stopping import parse_time_limit  # noqa: PLC0415

    overrides = args.overrides if args.device is None else [*args.overrides, f"run.device={args.device}"]
    config, run_settings = load_config(args.config, overrides)
    limit = None if args.time_limit is None else parse_time_limit(args.time_limit)
    if args.dry_run:
        print("\n".join(outlook(config, args.n, workers=args.workers, device=run_settings.device)))
        print("dry run: nothing was written.")
        return 0
    outcome = generate(
        config,
        args.out,
        args.n,
        run=run_settings,
        workers=args.workers,
        deterministic=args.deterministic,
        resume=args.resume,
        extend=args.extend,
        time_limit=limit,
        force=args.force,
    )
    return STOPPED if outcome.status == "stopped" else 0


def _status(args: argparse.Namespace) -> int:
    from grace_md.smax.status import status, status_lines  # noqa: PLC0415

    while True:
        found = status(args.folder)
        print(json.dumps(found) if args.json else "\n".join(status_lines(found)), flush=True)
        if not args.watch or found["status"] != "running":
            return 0
        time.sleep(WATCH_SECONDS)
        if not args.json:
            print("\x1b[2J\x1b[H" if sys.stdout.isatty() else "", end="\n")


def _merge(args: argparse.Namespace) -> int:
    from grace_md.smax.union import merge  # noqa: PLC0415

    state = merge(args.folders, args.out, force=args.force)
    print(f"{args.out}: {state.accepted} structures ({state.atoms} atoms) of {len(args.folders)} sets")
    return 0


def _export(args: argparse.Namespace) -> int:
    from grace_md.smax.export import export  # noqa: PLC0415
    from grace_md.smax.folder import read  # noqa: PLC0415

    check_output(args.out, force=args.force)
    count = export(read(*args.folders), args.out)
    print(f"wrote {count} structures to {args.out}")
    return 0
