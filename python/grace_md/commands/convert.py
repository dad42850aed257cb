"""`grace-md convert`: a weight file that the core and LAMMPS read, with all or some of its elements."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md convert`."""
    parser.add_argument("input", help="weight file (.npz, stored or compressed), or the name of a shipped model")
    parser.add_argument("output", type=Path, help="weight file to write (.npz, stored)")
    parser.add_argument("--elements", nargs="+", metavar="El", help="keep these elements, in this order")
    parser.add_argument("--force", action="store_true", help="overwrite the output")


def run(args: argparse.Namespace) -> int:
    """Read, check, reduce to the elements and write."""
    from grace_md import GraceModel  # noqa: PLC0415
    from grace_md.commands._files import check_output  # noqa: PLC0415
    from grace_md.data import find_model  # noqa: PLC0415

    check_output(args.output, force=args.force)
    model = GraceModel.load(find_model(args.input))
    if args.elements:
        model = model.select(args.elements)
    sha256 = model.save(args.output, force=args.force)
    print(f"{args.output}: {model.n_layers} layer(s), {' '.join(model.elements)}")
    print(f"sha256 {sha256}")
    return 0
