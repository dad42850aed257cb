"""`grace-md report`: `fit`, errors of models on labelled structures, and `data` (`report_data`), data sets compared.

Both write text, JSON, pictures and one HTML page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grace_md.commands import report_data

if TYPE_CHECKING:
    from ase import Atoms

    from grace_md.analysis.fit_errors import FitErrors
    from grace_md.training.data import LabelKeys, Source
    from grace_md.training.data.labels import Record

BATCH_ATOMS = 4000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md report`."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    fit = kinds.add_parser("fit", help="errors of models on labelled structures")
    fit.add_argument("models", nargs="+", metavar="[NAME=]MODEL",
                     help="weight files, names of shipped models, or folders of training runs")  # fmt: skip
    fit.add_argument("--data", action="append", default=[], metavar="[NAME=]FILE",
                     help="test set; may be repeated (default: validation files of the first run folder)")  # fmt: skip
    fit.add_argument("-o", "--out", type=Path, help="folder of the report (default: report_fit, or RUN/report)")
    fit.add_argument("--keys", nargs="+", default=[], metavar="LABEL=KEY", help="names of labels; none leaves one out")
    fit.add_argument("--units", nargs="+", default=[], metavar="LABEL=UNIT", help="for example stress=-kbar")
    fit.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    fit.add_argument("--precision", choices=["auto", "fp64", "mixed", "fp32"], default="auto")
    fit.add_argument("--force", action="store_true", help="overwrite an earlier report")
    fit.epilog = "Every model is evaluated on every set. Errors are means over structures and atoms, without weights."
    report_data.add_arguments(kinds.add_parser("data", help="labels, elements, geometry and coverage of data sets"))


def run(args: argparse.Namespace) -> int:
    """Evaluate, and write report.txt, report.json, report.html and pictures."""
    if args.kind == "data":
        return report_data.run(args)
    from grace_md.analysis.fit_errors import cross_table, error_tables, text_report  # noqa: PLC0415
    from grace_md.commands._files import check_output, write_summary  # noqa: PLC0415

    models = [_model(word) for word in args.models]
    sources = _sources(args, [path for _, path in models])
    runs = [path for _, path in models if path.is_dir()]
    out: Path = args.out or (runs[0] / "report" if runs else Path("report_fit"))
    check_output(out / "report.json", force=args.force)
    sets = [(source, list(_records(source))) for source in sources]
    found = [_evaluate(name, path, source, records, args) for name, path in models for source, records in sets]
    tables = [error_tables(errors) for errors in found]
    text = text_report(tables)
    (out / "report.txt").write_text(text, encoding="utf-8")
    write_summary(out / "report.json", {"cross": cross_table(tables), "tables": tables})
    print(text, end="")
    pictures = _draw(out, models, found, tables)
    print(f"report: {out / ('report.html' if pictures else 'report.txt')}")
    return 0


def _named(word: str) -> tuple[str, str]:
    name, equals, rest = word.partition("=")
    return (name, rest) if equals and "/" not in name else ("", word)


def _model(word: str) -> tuple[str, Path]:
    """Return the name of a model and its weight file, or the folder of a run."""
    from grace_md.data import find_model  # noqa: PLC0415

    name, rest = _named(word)
    path = Path(rest)
    if path.is_dir():
        if not (path / "model.npz").is_file():
            raise FileNotFoundError(f"`{path}` has no model.npz; give the folder of a training run or a weight file.")
        return name or path.name, path
    return name or Path(rest).stem, find_model(rest)


def _sources(args: argparse.Namespace, paths: Sequence[Path]) -> list[Source]:
    """Return the test sets: those asked for, or the validation files of the first run."""
    from grace_md.commands.data import label_keys  # noqa: PLC0415
    from grace_md.training.data import Source  # noqa: PLC0415

    if args.data:
        keys = label_keys(args.keys, args.units)
        pairs = [_named(word) for word in args.data]
        return [Source(path, name or Path(path.partition("@")[0]).stem, keys) for name, path in pairs]
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        raise ValueError("`--data` is missing: give a file of labelled structures, or the folder of a run as model.")
    from grace_md.training.config import RunConfig, source_list  # noqa: PLC0415
    from grace_md.training.labels import label_keys_of  # noqa: PLC0415

    config = RunConfig.of(json.loads((folders[0] / "run.json").read_text(encoding="utf-8"))["config"])
    found = source_list(config.data.valid)
    if not found:
        raise ValueError(f"`--data` is missing: the run {folders[0]} validated on a part of its training files.")
    return [Source(one.path, one.name or Path(one.path).stem, label_keys_of(one, config.data)) for one in found]


def _records(source: Source) -> Iterator[Record]:
    """Read a set with its labels in the units of the program."""
    from grace_md.training.data.labels import extract, resolve_keys  # noqa: PLC0415
    from grace_md.training.data.readers import expand, read_part, sample_frames, scan  # noqa: PLC0415

    for one in expand(source):
        parts = scan(one, 10_000)
        keys: LabelKeys = resolve_keys(one.keys, sample_frames(one, parts), one.label)
        for part in parts:
            for frame in read_part(one, part):
                yield extract(frame, keys)


def _evaluate(name: str, path: Path, source: Source, records: Sequence[Record], args: argparse.Namespace) -> FitErrors:
    """Evaluate one model on one set; structures with elements that it lacks are left out."""
    import numpy as np  # noqa: PLC0415
    from ase import Atoms  # noqa: PLC0415
    from ase.data import atomic_numbers, chemical_symbols  # noqa: PLC0415

    from grace_md import GraceCalculator  # noqa: PLC0415
    from grace_md.analysis.fit_errors import FitErrors  # noqa: PLC0415
    from grace_md.progress import ProgressBar  # noqa: PLC0415

    calculator = GraceCalculator(
        path / "model.npz" if path.is_dir() else path, device=args.device, precision=args.precision
    )
    known = {atomic_numbers[element] for element in calculator.model.elements}
    kept = [record for record in records if set(record.numbers.tolist()) <= known]
    if not kept:
        lacking = sorted({chemical_symbols[z] for r in records for z in r.numbers.tolist() if z not in known})
        raise ValueError(f"{name} knows no structure of {source.label}: it lacks {', '.join(lacking)}.")
    structures = [Atoms(r.numbers, positions=r.positions, cell=r.cell, pbc=r.pbc) for r in kept]
    energy, forces, stress = [], [], []
    with ProgressBar(sum(map(len, structures)), f"{name} on {source.label} (atoms)") as bar:
        for chosen in _batches(structures):
            for record, atoms, result in zip(
                kept[chosen], structures[chosen], calculator.evaluate(structures[chosen]), strict=True
            ):
                energy.append((record.energy / len(atoms), result["energy"] / len(atoms)))
                forces.append(np.stack([record.forces, result["forces"]], axis=-1))
                stress.append(np.stack([record.stress, result.get("stress", np.full(6, np.nan))], axis=-1))
                bar.update(len(atoms))
    sizes = [len(atoms) for atoms in structures]
    return FitErrors(
        model=name,
        data=source.label,
        energy=np.array(energy),
        forces=np.concatenate(forces),
        stress=np.array(stress),
        numbers=np.concatenate([r.numbers for r in kept]),
        structure=np.repeat(np.arange(len(kept)), sizes),
        config_type=np.array([r.config_type for r in kept], dtype=str),
        where=[
            f"structure {r.row} ({a.get_chemical_formula()}, {r.config_type or 'no type'})"
            for r, a in zip(kept, structures, strict=True)
        ],
        skipped=len(records) - len(kept),
    )


def _batches(structures: Sequence[Atoms]) -> list[slice]:
    from grace_md.commands.evaluate import batches  # noqa: PLC0415

    return batches(structures, 0, BATCH_ATOMS)


def _draw(
    out: Path, models: Sequence[tuple[str, Path]], found: Sequence[FitErrors], tables: Sequence[dict[str, Any]]
) -> bool:
    """Write pictures and the HTML page; return False without matplotlib."""
    from grace_md.analysis import fit_plots  # noqa: PLC0415
    from grace_md.analysis.plots import require_matplotlib  # noqa: PLC0415

    try:
        require_matplotlib()
    except RuntimeError as error:
        print(f"no pictures: {error}")
        return False
    pictures: dict[str, list[Path]] = {}
    for name, path in models:
        log = path / "metrics.jsonl"
        if path.is_dir() and log.is_file():
            records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
            if any("epoch" in record for record in records):
                picture = out / f"learning_curve_{_file_name(name)}.png"
                fit_plots.plot_learning_curve(picture, records, name)
                pictures[f"{name}: training"] = [picture]
    for errors, table in zip(found, tables, strict=True):
        stem = f"{_file_name(errors.model)}_on_{_file_name(errors.data)}"
        parity, bars = out / f"parity_{stem}.png", out / f"errors_{stem}.png"
        fit_plots.plot_parity(parity, errors)
        fit_plots.plot_errors_by(bars, table)
        pictures[f"{errors.model} on {errors.data}"] = [parity, bars]
    fit_plots.write_html(out / "report.html", tables, pictures)
    return True


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(text).name)
