"""`grace-md merge`: join labelled sets, dropping entries by rules with a reason for each."""

from __future__ import annotations

import argparse
from pathlib import Path

STOPPED = 75  # "try again": the same command goes on
EPILOG = """Rules, separated by commas; the first that objects to an entry counts:
  plus-u[:Co+Cr+...]         one of Co Cr Fe Mn Mo Ni V W together with O or F (computed with +U in OMat24)
  pseudopotential[:Eu+...]   Eu, Gd or Yb: other projector sets in OMat24
  elements:O+Si+...          any other element
  max-force:F                a force longer than F eV/A
  max-stress:S               a stress component larger than S eV/A^3
  min-distance:X             two atoms closer than X times the sum of their covalent radii
  duplicates[:T]             same formula and distances within T A (default 1e-4) as an entry kept before; judged last
  stress-outlier[:S]         a component of the stress differs from --model by more than S eV/A^3 (default 0.084)
  predicate:MODULE:FUNCTION  whatever your function of an entry answers
Writes OUT, OUT.summary.json and OUT.png. A merge that was stopped goes on when the same command is given again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md merge`."""
    parser.add_argument("sets", nargs="+", help="files, directories or patterns; FILE@0:1000 takes a range")
    parser.add_argument("-o", "--output", type=Path, help=".extxyz, .db or .aselmdb")
    parser.add_argument("--rules", default="", metavar="RULE,RULE:VALUE", help="see below (default: none)")
    parser.add_argument("--model", metavar="NPZ", help="weight file or shipped model, for the rule stress-outlier")
    parser.add_argument("--dry-run", action="store_true", help="count only, write no structures")
    parser.add_argument("--drop-list", type=Path, metavar="CSV", help="every dropped entry with its rule and reason")
    parser.add_argument("--offsets", choices=["none", "fit"], default="none",
                        help="fit: bring the energies of further sets to the first one, per element")  # fmt: skip
    parser.add_argument("--split", metavar="composition:X",
                        help="share X of the entries goes to NAME.test, no composition in both parts")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the split (default 0)")
    parser.add_argument("--keys", nargs="+", default=[], metavar="LABEL=KEY", help="names of labels")
    parser.add_argument("--units", nargs="+", default=[], metavar="LABEL=UNIT",
                        help="for example energy=eV/atom stress=-kbar")  # fmt: skip
    parser.add_argument("--trust-pickle", action="store_true", help="unpickle anything: only for files of your own")
    parser.add_argument("--device", default="auto", help="of the model: auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--force", action="store_true", help="overwrite outputs and forget an interrupted merge")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG


def run(args: argparse.Namespace) -> int:
    """Merge, or count only, and print the tables."""
    from grace_md.commands.data import label_keys  # noqa: PLC0415
    from grace_md.data import find_model  # noqa: PLC0415
    from grace_md.merging import merge  # noqa: PLC0415
    from grace_md.merging.split import parse_split  # noqa: PLC0415
    from grace_md.training.data import Source  # noqa: PLC0415

    if args.output is None and not args.dry_run:
        raise ValueError("`--output` is missing: add -o FILE, or --dry-run to count only.")
    model = None
    if args.model is not None:
        from grace_md import GraceCalculator  # noqa: PLC0415

        model = GraceCalculator(find_model(args.model), device=args.device)
    keys = label_keys(args.keys, args.units)
    result = merge(
        [Source(path, keys=keys, trust_pickle=args.trust_pickle) for path in args.sets],
        None if args.dry_run else args.output,
        args.rules,
        model=model,
        drop_list=args.drop_list,
        offsets=args.offsets == "fit",
        split=parse_split(args.split, args.seed) if args.split else None,
        force=args.force,
    )
    if result.stopped:
        print("stopped; what is judged is kept: the same command goes on")
        return STOPPED
    print(result.text(), end="")
    if args.drop_list is not None:
        print(f"{sum(result.total_dropped.values())} dropped entries -> {args.drop_list}")
    return 0
