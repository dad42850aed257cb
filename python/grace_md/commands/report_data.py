"""`grace-md report data`: what is in data sets, and which part of the space of features each of them covers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    parser.add_argument("sets", nargs="+", metavar="[NAME=]SET[@RANGE][#TYPES]", help="data sets to compare")
    parser.add_argument("-o", "--out", type=Path, default=Path("report_data"), help="folder (default: report_data)")
    parser.add_argument("--names", default="", metavar="A,B,...", help="names of the sets, in order")
    parser.add_argument("--model", metavar="MODEL", help="GRACE weights whose invariant features are compared")
    parser.add_argument("--features", choices=["auto", "grace", "snap", "none"], default="auto",
                        help="auto: grace with --model, else none")  # fmt: skip
    parser.add_argument("--sample", type=int, default=0, metavar="N",
                        help="read N random structures of each set only (default: all)")  # fmt: skip
    parser.add_argument("--fit", type=int, default=default.fit, metavar="N",
                        help=f"structures of each set for the principal axes (default {default.fit})")  # fmt: skip
    parser.add_argument("--project", type=int, default=default.project, metavar="N",
                        help=f"structures of each set that are projected; 0: all (default {default.project})")  # fmt: skip
    parser.add_argument("--components", type=int, default=default.components, metavar="N",
                        help=f"most principal components of ellipsoids and ln det (default {default.components})")  # fmt: skip
    parser.add_argument("--quests", action="store_true", help="also the QUESTS entropy (needs the package quests)")
    parser.add_argument("--seed", type=int, default=0, help="of all samples (default 0)")
    parser.add_argument("--threads", type=int, default=0, help="of the features (default: all cores)")
    parser.add_argument("--device", default="cpu", help="of the features: cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--keys", nargs="+", default=[], metavar="LABEL=KEY", help="names of labels; none leaves one out")
    parser.add_argument("--units", nargs="+", default=[], metavar="LABEL=UNIT", help="for example stress=-kbar")
    parser.add_argument("--trust-pickle", action="store_true", help="unpickle anything: only for files of your own")
    parser.add_argument("--force", action="store_true", help="overwrite an earlier report")
    parser.epilog = EPILOG


def run(args: argparse.Namespace) -> int:
    """Measure, and write report.txt, report.json, report.html and pictures."""
    from grace_md.analysis.dataset_coverage import CoverageSettings, feature_work, measure_coverage  # noqa: PLC0415
    from grace_md.analysis.dataset_report import DatasetReport, measure_statistics  # noqa: PLC0415
    from grace_md.analysis.dataset_sets import open_sets  # noqa: PLC0415
    from grace_md.commands._files import check_output  # noqa: PLC0415
    from grace_md.commands.data import label_keys  # noqa: PLC0415
    from grace_md.progress import ProgressBar  # noqa: PLC0415

    if args.sample < 0:
        raise ValueError(f"`--sample` = {args.sample} must be a number of structures >= 0; 0 reads all.")
    settings = CoverageSettings(fit=args.fit, project=args.project, components=args.components, seed=args.seed)
    kind = _kind(args)
    check_output(args.out / "report.json", force=args.force)
    sets = open_sets(
        args.sets, args.names.split(",") if args.names else (), label_keys(args.keys, args.units),
        trust_pickle=args.trust_pickle,
    )  # fmt: skip
    statistics = []
    for one in sets:
        n = min(args.sample, one.n_scanned) if args.sample else one.n_scanned
        with ProgressBar(n, f"{one.name} (structures)") as bar:
            statistics.append(measure_statistics(one, args.sample, args.seed, bar.update))
    report = DatasetReport(statistics, growth=growth_curves(sets))
    if kind != "none":
        features = _features(kind, args, statistics)
        with ProgressBar(feature_work(statistics, settings), "features (atoms)") as bar:
            report.coverage = measure_coverage(sets, statistics, features, settings, bar.update)
    else:
        report.note = "No features were compared; give a model with --model, or --features snap."
    if args.quests:
        from grace_md.analysis.dataset_quests import quests_entropies  # noqa: PLC0415

        report.entropies = quests_entropies(sets, statistics, args.seed)
    page = report.write(args.out)
    print(report.text(), end="")
    print(f"report: {page}")
    return 0


def _kind(args: argparse.Namespace) -> str:
    if args.features == "grace" and not args.model:
        raise ValueError("`--features grace` needs the weights of a model: add --model MODEL.")
    if args.model and args.features in ("snap", "none"):
        raise ValueError(f"`--model` and `--features {args.features}` contradict each other; leave one of them out.")
    return ("grace" if args.model else "none") if args.features == "auto" else str(args.features)


def _features(kind: str, args: argparse.Namespace, statistics: Sequence[SetStatistics]) -> Features:
    from grace_md.analysis.dataset_features import GraceFeatures, SnapFeatures  # noqa: PLC0415
    from grace_md.commands._files import find_model  # noqa: PLC0415

    if kind == "snap":
        return SnapFeatures()
    elements = sorted({element for found in statistics for element in found.elements})
    return GraceFeatures(find_model(args.model), elements, args.threads, args.device)


def growth_curves(sets: Sequence[DataSet]) -> list[dict[str, object]]:
    """Return the growth of ln det of the sets that are runs of the generator."""
    curves: list[dict[str, object]] = []
    for one in sets:
        rows = one.growth()
        if rows:
            curves.append({
                "set": one.name, "name": one.name, "random": False,
                "accepted": [row["accepted"] for row in rows],
                "log_det": [row["log_det"] for row in rows],
                "effective_dimension": [row.get("effective_dimension") for row in rows],
            })  # fmt: skip
    return curves
