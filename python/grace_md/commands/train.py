"""`grace-md train`: fit or fine-tune a model as a run file says."""

from __future__ import annotations

import argparse
from pathlib import Path

STOPPED = 75  # "try again": the run can go on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md train`."""
    parser.add_argument("config", type=Path, help="run file (.yaml, .json or .toml); docs/training.md explains it")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="change a setting of the file, for example fit.lr=0.004; may be repeated")  # fmt: skip
    parser.add_argument("--until", type=int, metavar="EPOCH", help="stop after this epoch; the same command goes on")
    parser.add_argument("--dry-run", action="store_true", help="convert the data, show sizes and memory, train nothing")
    parser.add_argument("--force", action="store_true", help="forget an earlier run in output.dir")
    parser.epilog = (
        "An interrupted run goes on when started again, exactly where its last checkpoint is. Several processes: "
        "torchrun --nproc-per-node N -m grace_md.cli train CONFIG. Exit code 75: stopped before the end (--until, "
        "SIGTERM, Ctrl-C)."
    )


def run(args: argparse.Namespace) -> int:
    """Train."""
    from grace_md.training.config import load_config  # noqa: PLC0415

    config = load_config(args.config, args.overrides)  # before torch is imported: mistakes show at once
    try:
        from grace_md.training.run import train  # noqa: PLC0415
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] != "torch":
            raise
        raise RuntimeError("training needs PyTorch; install it with `pip install 'grace_md[train]'`.") from None
    outcome = train(config, force=args.force, until=args.until, dry_run=args.dry_run)
    return STOPPED if outcome.status == "stopped" else 0
