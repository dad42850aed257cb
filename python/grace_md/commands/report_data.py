"""`grace-md report data`: what is in data sets, and which part of the space of features each of them covers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grace_md.analysis.dataset_features import Features
    from grace_md.analysis.dataset_sets import DataSet
    from grace_md.analysis.dataset_statistics import SetStatistics

EPILOG = """A set is a file, a folder, a pattern or a run of the generator; FILE@0:1000 takes a range, FILE#random_* the
structures whose config_type matches. Coverage needs features: of a GRACE model (--model) or, without one, the
bispectrum components of the generator (--features snap). Nothing is kept in memory but counts, the covariance of the
features and a sample of projected atoms."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md report data`."""
    from grace_md.analysis.dataset_coverage import CoverageSettings  # noqa: PLC0415

    default = CoverageSettings()
    add = parser.add_argument
    add("sets", nargs="+", metavar="[NAME=]SET[@RANGE][#TYPES]", help="data sets to compare")
    add("-o", "--out", type=Path, default=Path("report_data"), help="folder (default: report_data)")
    add("--names", default="", metavar="A,B,...", help="names of the sets, in order")
    add("--model", metavar="MODEL", help="GRACE weights whose invariant features are compared")
    add("--features", choices=["auto", "grace", "snap", "none"], default="auto",
        help="auto: grace with --model, else none")  # fmt: skip
    add("--sample", type=int, default=0, metavar="N", help="read N random structures of each set only (default: all)")
    add("--fit", type=int, default=default.fit, metavar="N",
        help=f"structures of each set for the principal axes (default {default.fit})")  # fmt: skip
    add("--project", type=int, default=default.project, metavar="N",
        help=f"structures of each set that are projected; 0: all (default {default.project})")  # fmt: skip
    add("--components", type=int, default=default.components, metavar="N",
        help=f"most principal components of ellipsoids and ln det (default {default.components})")  # fmt: skip
    add("--random", type=int, default=1000, metavar="N",
        help="random structures next to the growth of a run of the generator (default 1000)")  # fmt: skip
    add("--quests", action="store_true", help="also the QUESTS entropy (needs the package quests)")
    add("--seed", type=int, default=0, help="of all samples (default 0)")
    add("--threads", type=int, default=0, help="of the features (default: all cores)")
    add("--device", default="cpu", help="of the features: cpu, cuda or cuda:N (default cpu)")
    add("--keys", nargs="+", default=[], metavar="LABEL=KEY", help="names of labels; none leaves one out")
    add("--units", nargs="+", default=[], metavar="LABEL=UNIT", help="for example stress=-kbar")
    add("--trust-pickle", action="store_true", help="unpickle anything: only for files of your own")
    add("--force", action="store_true", help="overwrite an earlier report")
    parser.epilog = EPILOG


def run(args: argparse.Namespace) -> int:
    """Measure, and write report.txt, report.json, report.html and pictures."""
    from grace_md.analysis.dataset_coverage import CoverageSettings, feature_work, measure_coverage  # noqa: PLC0415
    from grace_md.analysis.dataset_report import DatasetReport, measure_statistics  # noqa: PLC0415
    from grace_md.analysis.dataset_sets import open_sets  # noqa: PLC0415
    from grace_md.commands._files import check_output  # noqa: PLC0415
    from grace_md.commands.data import label_keys  # noqa: PLC0415
    from grace_md.progress import ProgressBar  # noqa: PLC0415

    for option, meaning in (("sample", "reads all"), ("random", "draws none")):
        if getattr(args, option) < 0:
            raise ValueError(
                f"`--{option}` = {getattr(args, option)} must be a number of structures >= 0; 0 {meaning}."
            )
    settings = CoverageSettings(fit=args.fit, project=args.project, components=args.components, seed=args.seed)
    kind = _kind(args)
    check_output(args.out / "report.json", force=args.force)
    sets = open_sets(
        args.sets, args.names.split(",") if args.names else (), label_keys(args.keys, args.units),
        trust_pickle=args.trust_pickle,
    )  # fmt: skip
    with ProgressBar(sum(one.n_bytes for one in sets), "scanning (bytes)") as bar:
        for one in sets:
            one.scan(bar.update)
    statistics = []
    for one in sets:
        n = min(args.sample, one.n_scanned) if args.sample else one.n_scanned
        with ProgressBar(n, f"{one.name} (structures)") as bar:
            statistics.append(measure_statistics(one, args.sample, args.seed, bar.update))
    report = DatasetReport(statistics, growth=_growth(sets, args.random))
    if kind != "none":
        features = _features(kind, args, statistics)
        with ProgressBar(feature_work(statistics, settings), "features (atoms)") as bar:
            report.coverage = measure_coverage(sets, statistics, features, settings, bar.update)
    else:
        report.note = "No features were compared; give a model with --model, or --features snap."
    if args.quests:
        from grace_md.analysis.dataset_quests import quests_entropies  # noqa: PLC0415

        with ProgressBar(len(sets), "QUESTS (sets)") as bar:
            report.entropies = quests_entropies(sets, statistics, args.seed, bar.update)
    page = report.write(args.out)
    print(report.text(), end="")
    print(f"report: {page}")
    return 0


def _kind(args: argparse.Namespace) -> str:
    from grace_md.data import find_model  # noqa: PLC0415

    if args.features == "grace" and not args.model:
        raise ValueError("`--features grace` needs the weights of a model: add --model MODEL.")
    if args.quests:
        from grace_md.analysis.dataset_quests import require_quests  # noqa: PLC0415

        require_quests()  # now, not after an hour of reading
    if args.model:
        find_model(args.model)
    if args.model and args.features in ("snap", "none"):
        raise ValueError(f"`--model` and `--features {args.features}` contradict each other; leave one of them out.")
    return ("grace" if args.model else "none") if args.features == "auto" else str(args.features)


def _features(kind: str, args: argparse.Namespace, statistics: Sequence[SetStatistics]) -> Features:
    from grace_md.analysis.dataset_features import GraceFeatures, SnapFeatures  # noqa: PLC0415
    from grace_md.data import find_model  # noqa: PLC0415

    if kind == "snap":
        return SnapFeatures(args.threads)
    elements = sorted({element for found in statistics for element in found.elements})
    return GraceFeatures(find_model(args.model), elements, args.threads, args.device)


def _growth(sets: Sequence[DataSet], n_random: int) -> list[dict[str, Any]]:
    """Return the curves of all runs among the sets, each with its random reference."""
    from grace_md.analysis.dataset_growth import logged_growth, random_growth  # noqa: PLC0415
    from grace_md.progress import ProgressBar  # noqa: PLC0415

    found = []
    for one in sets:
        curves = logged_growth(one)
        n = min(n_random, max((curve["accepted"][-1] for curve in curves), default=0))
        if n:
            with ProgressBar(n, f"random structures like those of {one.name}") as bar:
                curves += random_growth(one, n, bar.update)
        found += curves
    return found
