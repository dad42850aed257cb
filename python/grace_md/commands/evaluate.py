"""`grace-md eval`: energies, forces and stresses of the structures in files."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

BATCH_ATOMS = 4000  # atoms per call: enough to fill all threads, small in memory
GPU_BATCH_ATOMS = 32000  # a few times what a GPU works on at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md eval`."""
    parser.add_argument("model", help="weight file (.npz), or the name of a shipped model")
    parser.add_argument("structures", nargs="+", help="files that ASE reads, all frames; file@0:10 selects frames")
    parser.add_argument("-o", "--output", type=Path, required=True, help="extended XYZ file with the results")
    parser.add_argument("--per-atom", action="store_true", help="add atomic energies (eV) and stresses (eV/A^3)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--precision", choices=["auto", "fp64", "mixed", "fp32"], default="auto",
                        help="auto (default): mixed on a GPU, fp64 on the CPU")  # fmt: skip
    parser.add_argument("--radial", choices=["table", "exact"], default="table")
    parser.add_argument("--threads", type=int, default=0, help="0: OMP_NUM_THREADS or all cores")
    parser.add_argument("--force", action="store_true", help="overwrite the output and forget an interrupted run")
    parser.epilog = (
        "Writes OUTPUT, OUTPUT.summary.json and, if the input carries energies or forces, OUTPUT.png. An interrupted "
        "run continues when started again."
    )


def batches(structures: Sequence[Atoms], start: int, size: int = BATCH_ATOMS) -> list[slice]:
    """Return slices of consecutive structures of at most `size` atoms (or of one structure)."""
    slices, begin, atoms = [], start, 0
    for index in range(start, len(structures)):
        n = len(structures[index])
        if index > begin and atoms + n > size:
            slices.append(slice(begin, index))
            begin, atoms = index, 0
        atoms += n
    if begin < len(structures):
        slices.append(slice(begin, len(structures)))
    return slices


def fingerprint(structures: Sequence[Atoms]) -> str:
    """Return a hash of elements, positions, cells and periodicity: whether an interrupted run had the same input."""
    digest = hashlib.sha256()
    for atoms in structures:
        for values in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(values.tobytes())
    return digest.hexdigest()


class Output:
    """The growing output: results go to OUTPUT.part, whose length after each batch is noted in OUTPUT.part.json."""

    def __init__(self, path: Path, request: Mapping[str, Any], *, force: bool) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")
        self.request = dict(request)
        self.frames = 0
        if force or not (self.part.exists() and self.note.exists()):
            self.part.write_bytes(b"")
            return
        note = json.loads(self.note.read_text(encoding="utf-8"))
        if note["request"] != self.request:
            raise FileExistsError(
                f"{self.part} is of an interrupted run with another model, input or option; add --force to start anew."
            )
        self.frames = int(note["frames"])
        with self.part.open("r+b") as file:
            file.truncate(int(note["bytes"]))  # what was written after the last complete batch

    def append(self, images: Sequence[Atoms]) -> None:
        """Add structures with their results."""
        from ase.io.extxyz import write_extxyz  # noqa: PLC0415

        with self.part.open("a", encoding="utf-8") as file:
            write_extxyz(file, list(images))
        self.frames += len(images)
        note = {"request": self.request, "frames": self.frames, "bytes": self.part.stat().st_size}
        self.note.write_text(json.dumps(note), encoding="utf-8")

    def finish(self) -> None:
        """Give the output its name."""
        self.part.replace(self.path)
        self.note.unlink(missing_ok=True)


def with_results(atoms: Atoms, results: Mapping[str, Any], *, per_atom: bool) -> Atoms:
    """Return a copy of `atoms` that carries `results` in the place of earlier ones."""
    from ase.calculators.singlepoint import SinglePointCalculator  # noqa: PLC0415

    copy: Atoms = atoms.copy()
    names = ["energy", "forces", "stress", *(["energies", "stresses"] if per_atom else [])]
    copy.calc = SinglePointCalculator(copy, **{name: results[name] for name in names if name in results})
    return copy


def run(args: argparse.Namespace) -> int:
    """Evaluate all structures and write the output and its summary."""
    from ase.io import iread, read  # noqa: PLC0415

    from grace_md import GraceCalculator, GraceModel  # noqa: PLC0415
    from grace_md._core import resolve_device  # noqa: PLC0415
    from grace_md.commands._files import check_output, write_summary  # noqa: PLC0415
    from grace_md.commands._parity import Parity  # noqa: PLC0415
    from grace_md.data import find_model  # noqa: PLC0415
    from grace_md.progress import ProgressBar  # noqa: PLC0415

    check_output(args.output, force=args.force)
    structures = [atoms for name in args.structures for atoms in read(name, index=":")]
    if not structures:
        raise ValueError(f"No structures in {', '.join(args.structures)}.")
    model = GraceModel.load(find_model(args.model))
    device = resolve_device(args.device)
    calculator = GraceCalculator(
        model, device=device, precision=args.precision, radial=args.radial, threads=args.threads
    )
    request = {
        "model_sha256": model.sha256,
        "inputs": args.structures,
        "structures_sha256": fingerprint(structures),
        "n_structures": len(structures),
        "n_atoms": sum(len(atoms) for atoms in structures),
        "device": device.split(":")[0],  # an interrupted run may go on with another GPU
        "precision": args.precision,
        "radial": args.radial,
        "per_atom": args.per_atom,
    }
    print(f"{args.model}: sha256 {model.sha256}")
    print(f"runs on: {calculator.description}")
    output = Output(args.output, request, force=args.force)
    if output.frames:
        print(f"continuing after {output.frames} structures")
    done_before = sum(len(atoms) for atoms in structures[: output.frames])
    begin = time.perf_counter()
    with ProgressBar(request["n_atoms"], "atoms", start=done_before) as bar:
        size = BATCH_ATOMS if device == "cpu" else GPU_BATCH_ATOMS
        for part in batches(structures, output.frames, size):
            chosen = structures[part]
            results = calculator.evaluate(chosen)
            output.append([with_results(a, r, per_atom=args.per_atom) for a, r in zip(chosen, results, strict=True)])
            bar.update(sum(len(atoms) for atoms in chosen))
    seconds = time.perf_counter() - begin
    output.finish()
    parity = Parity.of(structures, iread(args.output, index=":"))
    summary = {**request, "output": str(args.output), "seconds": seconds, "differences_from_input": parity.summary()}
    write_summary(args.output.with_name(args.output.name + ".summary.json"), summary)
    for name, values in parity.summary().items():
        print(f"difference from the {name} in the input: " + ", ".join(f"{k} {v:.3e}" for k, v in values.items()))
    if parity.draw(args.output.with_name(args.output.name + ".png")):
        print(f"picture: {args.output}.png")
    print(f"{len(structures)} structures, {request['n_atoms']} atoms -> {args.output}")
    return 0
