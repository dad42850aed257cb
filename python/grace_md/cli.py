"""The command `grace-md`. Every command is a module with `add_arguments(parser)` and `run(args) -> exit code`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

# Command, its module and the line shown by --help. Modules are imported only when their command is called.
COMMANDS = {
    "quickstart": ("grace_md.workflows.quickstart", "quench a small lava cell with the shipped model"),
    "quench": ("grace_md.workflows.quench", "melt and quench in LAMMPS: lava, or up to 94 elements"),
    "info": ("grace_md.commands.info", "model card of a weight file"),
    "convert": ("grace_md.commands.convert", "copy a weight file so that LAMMPS reads it"),
    "eval": ("grace_md.commands.evaluate", "energies, forces, stresses of structures in files"),
    "train": ("grace_md.commands.train", "fit or fine-tune a model to labelled structures"),
    "label": ("grace_md.commands.label", "label structures by any ASE calculator, GPAW, CHGNet or VASP"),
    "report": ("grace_md.commands.report", "errors of fitted models, data sets compared: tables, pictures, HTML"),
    "data": ("grace_md.commands.data", "describe and check labelled structures, keep them as shards"),
    "merge": ("grace_md.commands.merge", "join labelled sets; drop entries by rules, with reasons"),
    "smax": ("grace_md.commands.smax", "generate entropy-maximised structures"),
    "doctor": ("grace_md.commands.doctor", "say in words what is wrong with an installation"),
}

USER_ERRORS = (ValueError, RuntimeError, OSError, KeyError)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the arguments of `command` are filled in, since that imports its module."""
    from grace_md import __version__  # noqa: PLC0415 - reads the installed metadata

    parser = argparse.ArgumentParser(prog="grace-md", description="GRACE interatomic potentials.")
    parser.add_argument("--version", action="version", version=f"grace_md {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.")
        if name == command:
            importlib.import_module(module).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `grace-md` with `argv` (default: the command line) and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    args = build_parser(command).parse_args(words)
    try:
        return int(importlib.import_module(COMMANDS[args.command][0]).run(args))
    except KeyboardInterrupt:
        print("grace-md: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `grace-md info ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except USER_ERRORS as error:
        if args.traceback:
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"grace-md {args.command}: {message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
