"""`grace-md data`: describe and check labelled structures; keep them as shards for training."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grace_md.training.data import LabelKeys

LABELS = ("energy", "forces", "stress", "virial")
EPILOG = """Sources are files, directories or patterns: extended XYZ, ASE databases, aselmdb (OMat24), pickled tables,
and what else ASE reads; FILE@0:1000 takes a range. Labels are found by their names, in eV, eV/A, eV/A^3 with the sign
of ASE; VASP's stresses need --units stress=-kbar."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md data`."""
    parser.add_argument("sources", nargs="+", help="files, directories or patterns")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the shards here, with the report and its picture")
    parser.add_argument("--keys", nargs="+", default=[], metavar="LABEL=KEY",
                        help=f"names of labels ({', '.join(LABELS)}), or none to leave one out")  # fmt: skip
    parser.add_argument("--units", nargs="+", default=[], metavar="LABEL=UNIT",
                        help="for example energy=eV/atom forces=Ha/Bohr stress=-kbar")  # fmt: skip
    parser.add_argument("--cutoff", default="6.0", metavar="A|table9", help="of the neighbour lists (default 6.0)")
    parser.add_argument("--check", choices=["error", "warn", "off"], default="warn",
                        help="what to do about labels whose unit or sign looks wrong (default warn)")  # fmt: skip
    parser.add_argument("--workers", type=int, default=0, help="processes (default: all cores)")
    parser.add_argument("--trust-pickle", action="store_true", help="unpickle anything: only for files of your own")
    parser.add_argument("--force", action="store_true", help="replace other shards in DIR")
    parser.epilog = EPILOG


def _pairs(words: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for word in words:
        label, separator, value = word.partition("=")
        if not separator or label not in LABELS or not value:
            raise ValueError(f"`{option} {word}` is not LABEL=VALUE with a label of {', '.join(LABELS)}.")
        found[label] = value
    return found


def label_keys(keys: Sequence[str], units: Sequence[str]) -> LabelKeys:
    """Return the keys and units of words such as ``stress=-kbar``; ValueError for others."""
    from grace_md.training.data import LabelKeys  # noqa: PLC0415

    named = {f"{label}_unit": unit for label, unit in _pairs(units, "--units").items()}
    return LabelKeys(**{**_pairs(keys, "--keys"), **named})  # type: ignore[arg-type]


def run(args: argparse.Namespace) -> int:
    """Convert, into a temporary directory unless one is given, and print the report."""
    from ase.data import chemical_symbols  # noqa: PLC0415

    from grace_md.training.cutoffs import element_cutoffs, pair_cutoffs  # noqa: PLC0415
    from grace_md.training.data import Source, convert, data_report  # noqa: PLC0415

    keys = label_keys(args.keys, args.units)
    sources = [Source(path, keys=keys, trust_pickle=args.trust_pickle) for path in args.sources]
    elements = chemical_symbols[1:]
    try:
        setting = args.cutoff if args.cutoff == "table9" else float(args.cutoff)
    except ValueError:
        raise ValueError(f"`--cutoff` = {args.cutoff!r} must be a number in A or table9.") from None
    cutoffs = pair_cutoffs(element_cutoffs(setting, elements), elements)
    with tempfile.TemporaryDirectory(prefix="grace_md_data_") as scratch:
        folder = args.out or Path(scratch) / "shards"
        shards = convert(
            sources,
            folder,
            elements,
            cutoffs,
            workers=args.workers,
            check=args.check,
            force=args.force,
            report=args.out is not None,
        )
        print(data_report(shards).text(), end="")
        if args.out is not None:
            print(f"\nshards and report in {args.out}")
    return 0
