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
    from grace_md._core import ModelSpec  # noqa: PLC0415
    from grace_md.commands._files import check_output, find_model  # noqa: PLC0415
    from grace_md.weights import read_npz, select_elements, write_npz  # noqa: PLC0415

    check_output(args.output, force=args.force)
    source = find_model(args.input)
    arrays = read_npz(source)
    if args.elements:
        arrays = select_elements(arrays, args.elements)
    model = ModelSpec(arrays, str(source))  # raises before anything is written
    sha256 = write_npz(args.output, arrays, force=args.force)
    print(f"{args.output}: {model.n_layers} layer(s), {' '.join(model.elements)}")
    print(f"sha256 {sha256}")
    return 0
