"""The GPU part of evaluate.py: time per atom and step from 100 to 2,000,000 atoms, beside what the card can do at best.

    python benchmarks/evaluate.py --device cuda --budget 200 --json benchmarks/results/gpu.json

* Step: `Evaluator.compute_structures` on positions in host memory that have moved by 0.005 A: energies, forces and
  virial back in host memory, the list (skin 0.5 A) checked and reused. `python` is the same through
  GraceCalculator.calculate, with what ASE adds.
* Ceilings, measured in the same run: bytes of a large copy, multiply-adds, matrix units (`measure_ceilings`).
* Kernels: times between two events around every launch (which slow small systems down), and the shares of the ceilings
  that their operations and bytes (kernel_floors.py) come to. A share of copy above one: the caches do their work.
* Errors of mixed and fp32 against fp64; fp32 is the same code as mixed, so its times are those of mixed.
* Small systems: many structures of 32 atoms in one call of GraceCalculator.evaluate, beside one call for each.

Cases run in the order of importance until `--budget` seconds are used; what is left out is printed. A case that fails
is printed and written under "errors", the others go on; the file is written after every case. More atoms: memory.py.
"""

from __future__ import annotations

import machine  # isort: skip - before numpy: sets the threads of its library

import argparse
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import models
import numpy as np
import structures
from ase import Atoms
from evaluate_tables import print_header, print_rest, print_row
from kernel_floors import floor_of, floors
from operations import Operations, count
from peer import DTYPE, Peer, add_ratios, start_peer

from grace_md import GraceCalculator, GraceModel
from grace_md._core import Evaluator, ModelSpec
from grace_md.workflows.composition import LAVA

MODELS = ["1L-small", "1L-large", "2L-medium", "2L-large"]
SIZES = [100, 1_000, 10_000, 100_000, 1_000_000, 2_000_000]
SKIN = 0.5  # A
CHECKED_ATOMS = 1_000  # of the comparison of precisions
PROFILED_ATOMS = 100_000
PYTHON_ATOMS = 100_000  # up to here GraceCalculator is timed too
LAVA_ATOMS = 100_000  # up to here the lava is timed too
FIRST_ATOMS = 100_000  # larger cells come after all cases up to here
MAKING = {"bcc": 5e-6, "lava": 2e-4}  # seconds for each atom of a new structure
SMALL_ATOMS = 32
LEAST_LAVA = 20  # atoms that hold its nine elements
TENSOR_PRODUCTS = 3  # of TF32 for one of fp32 (evaluator_cuda/row_gemm_tensor_kernels.hpp)
WARM_UP = 3  # a GPU records the launches of a small step the second time that it meets them


@dataclass
class Case:
    """One model with one precision on one structure; `positions` are those of some steps."""

    model: str
    precision: str
    system: str
    atoms: Atoms
    evaluator: Evaluator
    species: np.ndarray
    neighbors: float
    operations: Operations
    series: machine.Series = field(default_factory=machine.Series)
    list_seconds: float = 0.0  # of a step that lists the neighbours

    def __post_init__(self) -> None:
        self.positions = structures.steps(self.atoms, 2)
        self.cells, self.periodic = self.atoms.cell.array[None], self.atoms.pbc[None]

    @property
    def warm_up(self) -> int:
        """Steps before the clock; large ones record nothing."""
        return WARM_UP if len(self.atoms) <= FIRST_ATOMS else 1

    def step(self, index: int, rebuild: str = "check") -> dict[str, Any]:
        """Evaluate one step."""
        return self.evaluator.compute_structures(
            self.positions[index % 2], self.cells, self.periodic, self.species, [0, len(self.atoms)], SKIN, rebuild
        )

    def measure(self, seconds: float, repeats: int) -> None:
        """Time steps: `repeats` times as many as fit into `seconds`, at least one."""
        self.step(0)
        began = time.perf_counter()
        self.step(1, "rebuild")
        self.list_seconds = time.perf_counter() - began
        for index in range(self.warm_up):
            self.step(index)
        with machine.Watch() as watch:
            energies = self.step(0)["atomic_energies"]
        n_steps = max(1, round(seconds / watch.wall))
        for _ in range(repeats):
            with machine.Watch() as watch:
                for index in range(n_steps):
                    self.step(index)
            self.series.add(watch.wall / n_steps, watch.processor / n_steps, watch.others)
        if not np.isfinite(energies).all():
            raise RuntimeError(f"Energies of {self.model} are not finite: these times mean nothing.")

    def row(self, ceilings: dict[str, Any]) -> dict[str, Any]:
        """Return the line of the table."""
        found = self.series.summary(len(self.atoms))
        rate = self.operations.step / found["us_per_atom_median"] * 1e6
        return {
            "code": "grace_md",
            "model": self.model,
            "system": self.system,
            "n_atoms": len(self.atoms),
            "neighbors": self.neighbors,
            "precision": self.precision,
            "threads": 1,
            **found,
            "us_per_atom_with_list": 1e6 * self.list_seconds / len(self.atoms),
            "tflops": rate / 1e12,
            "multiply_add_share": rate / ceilings["fma_double" if self.precision == "fp64" else "fma_float"],
            "copy_share": self.operations.bytes_memory / found["us_per_atom_median"] * 1e6 / ceilings["copy_bytes"],
            "bytes_device": self.evaluator.workspace_bytes,
            "operations": self.operations.as_dict(),
            "evaluator": self.evaluator.description,
        }

    def profile(self, ceilings: dict[str, Any]) -> list[dict[str, Any]]:
        """Time every kernel of one step, after the other measurements: it slows the evaluator down for good."""
        n = len(self.atoms)
        self.evaluator.start_profile()
        for index in range(2):
            self.step(index)
        kernels = self.evaluator.profile()
        total = sum(seconds for _, _, seconds in kernels) or 1.0
        rate = ceilings["fma_double" if self.precision == "fp64" else "fma_float"]
        real_bytes = 8 if self.precision == "fp64" else 4
        listed = self.neighbors * (1.0 + SKIN / models.CUTOFF) ** 3
        least = floors(GENERATED[self.model].arrays, self.neighbors, real_bytes, listed)
        rows = []
        for name, launches, seconds in kernels:
            row = {
                "model": self.model,
                "precision": self.precision,
                "n_atoms": n,
                "kernel": name,
                "launches": launches / 2,
                "ns_per_atom": 1e9 * seconds / 2 / n,
                "share": seconds / total,
            }
            floor = floor_of(least, name)
            if floor is not None:
                per_second = 2 * n / seconds if seconds > 0.0 else 0.0
                row |= {
                    "operations": floor.operations,
                    "bytes": floor.bytes,
                    "multiply_add_share": floor.operations * per_second / rate,
                    "copy_share": floor.bytes * per_second / ceilings["copy_bytes"],
                }
                if name.endswith("_tensor") and ceilings["matrix_tf32"] > 0.0:
                    row["matrix_share"] = TENSOR_PRODUCTS * floor.operations * per_second / ceilings["matrix_tf32"]
            rows.append(row)
        return rows


GENERATED: dict[str, GraceModel] = {}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part to those of evaluate.py."""
    group = parser.add_argument_group("on a GPU")
    group.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="atoms; the nearest bcc cell is taken")
    group.add_argument("--budget", type=float, help="seconds that all may take; default: no limit")
    group.add_argument("--batch", type=int, default=1000, help="structures of the small-systems case; 0: without it")
    group.add_argument(
        "--chunksize", type=int, default=0, help="atoms that share the work space; 0: chosen by the core"
    )


@lru_cache(maxsize=16)
def make_atoms(system: str, element: str, n_atoms: int) -> Atoms:
    """Return a structure; the large ones take a while to make."""
    return structures.lava(max(n_atoms, LEAST_LAVA)) if system == "lava" else structures.bcc(n_atoms, element)


def make_case(options: argparse.Namespace, name: str, precision: str, system: str, n_atoms: int) -> Case:
    """Return a case; the neighbours are counted in a small cell of the same kind."""
    model = GENERATED[name]
    element = "Fe" if "Fe" in model.elements else model.elements[0]
    atoms = make_atoms(system, element, n_atoms)
    small = atoms if len(atoms) <= CHECKED_ATOMS else make_atoms(system, element, CHECKED_ATOMS)
    used = [symbol for symbol in model.elements if symbol in set(small.symbols)]
    spec = ModelSpec(model.arrays, name, used)
    evaluator = Evaluator(spec, precision=precision, device=options.device, chunk=options.chunksize)
    places = np.full(len(model.elements), -1, dtype=np.int32)
    places[[model.elements.index(symbol) for symbol in used]] = np.arange(len(used))
    neighbors = structures.count_neighbors(model, small)
    operations = count(model.arrays, neighbors, len(used), 8 if precision == "fp64" else 4)
    return Case(
        name, precision, system, atoms, evaluator, places[structures.species(model, atoms)], neighbors, operations
    )


def time_sizes(
    options: argparse.Namespace,
    budget: machine.Budget,
    errors: machine.Errors,
    sizes: list[int],
    report: dict[str, Any],
) -> None:
    """Time all models, the cases that matter most first; rows and kernels go to the report, which is kept written."""
    profiled = max((n for n in sizes if n <= PROFILED_ATOMS), default=sizes[0])
    per_atom: dict[tuple[str, str, str], float] = {}  # seconds of a step of the size before
    made: set[tuple[str, int]] = set()
    print_header()
    every = [
        (large, precision, system, name, n)
        for large in (False, True)
        for precision in options.precisions
        for system in options.systems
        for name in GENERATED
        for n in sizes
        if (n > FIRST_ATOMS) == large and (system != "lava" or n <= LAVA_ATOMS)
    ]
    for _, precision, system, name, n in every:
        what, kind = f"{name} {precision} {system} {n}", (name, precision, system)
        steps = WARM_UP + 3 + options.repeats
        predicted = 5e-6 * n + 1.2 * max(options.seconds * options.repeats, steps * per_atom.get(kind, 0.0) * n)
        predicted += 0.0 if (system, n) in made else MAKING[system] * n
        if not budget.allows(what, predicted):
            continue
        made.add((system, n))
        with errors.of(what):
            first = system == options.systems[0]
            per_atom[kind] = time_case(options, report, (name, precision, system, n), first, first and n == profiled)
        machine.write(options.json, report)


def time_case(
    options: argparse.Namespace, report: dict[str, Any], case_of: tuple[str, str, str, int], python: bool, kernels: bool
) -> float:
    """Add the row of a case, and its kernels if they are asked for, and return seconds per atom.

    Its evaluator and its memory end here. The kernels come last: an evaluator that times launches does so for good.
    """
    case = make_case(options, *case_of)
    case.measure(options.seconds, options.repeats)
    row = case.row(report["ceilings"])
    report["results"].append(row)
    if python and len(case.atoms) <= PYTHON_ATOMS:
        row["us_per_atom_python"] = python_step(options, case)
    print_row(row)
    if kernels:
        report["kernels"] += case.profile(report["ceilings"])
    return 1e-6 * float(row["us_per_atom_median"])


def python_step(options: argparse.Namespace, case: Case) -> float:
    """Microseconds per atom of GraceCalculator on the same steps."""
    calculator = GraceCalculator(
        GENERATED[case.model], options.device, case.precision, skin=SKIN, chunksize=options.chunksize
    )
    atoms = case.atoms.copy()

    def step(index: int) -> None:
        atoms.positions = case.positions[index % 2]
        calculator.calculate(atoms, ["energy", "forces"], ["positions"])

    for index in range(WARM_UP + 1):
        step(index)
    n_steps = max(
        1, round(0.5 * options.seconds * 1e6 / (len(atoms) * case.series.summary(len(atoms))["us_per_atom_min"]))
    )
    began = time.perf_counter()
    for index in range(n_steps):
        step(index)
    return 1e6 * (time.perf_counter() - began) / n_steps / len(atoms)


def compare_precisions(options: argparse.Namespace, name: str, n_atoms: int) -> list[dict[str, Any]]:
    """Largest differences of energies and forces of a model from fp64."""
    model = GENERATED[name]
    atoms = make_atoms("lava" if set(LAVA) <= set(model.elements) else "bcc", model.elements[0], n_atoms)
    found = {}
    for precision in ("fp64", "mixed", "fp32"):
        calculator = GraceCalculator(model, options.device, precision, chunksize=options.chunksize)
        found[precision] = calculator.evaluate([atoms])[0]
    exact = found["fp64"]
    rows = []
    for precision in ("mixed", "fp32"):
        energy = abs(found[precision]["energy"] - exact["energy"]) / len(atoms)
        force = np.abs(found[precision]["forces"] - exact["forces"]).max() / np.abs(exact["forces"]).max()
        rows.append(
            {
                "model": name,
                "precision": precision,
                "n_atoms": len(atoms),
                "energy_error_eV_per_atom": float(energy),
                "force_error_of_largest": float(force),
            }
        )
    return rows


def small_systems(options: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Many small structures in one call, and one after the other."""
    packed = make_atoms("lava", "", min(SMALL_ATOMS, options.sizes[-1]))
    n_atoms = len(packed)
    batch = [packed.copy() for _ in range(options.batch)]
    for index, atoms in enumerate(batch):
        atoms.rattle(0.02, seed=index)
    calculator = GraceCalculator(GENERATED[name], options.device, options.precisions[0], chunksize=options.chunksize)
    single = batch[: max(1, options.batch // 20)]
    times = {}
    for what, calls in (("batch", [batch]), ("single", [[atoms] for atoms in single])):
        for call in calls[:2]:
            calculator.evaluate(call)
        began = time.perf_counter()
        for call in calls:
            calculator.evaluate(call)
        times[what] = time.perf_counter() - began
    return [
        {
            "model": name,
            "precision": options.precisions[0],
            "n_atoms": n_atoms,
            "n_structures": len(batch),
            "structures_per_second": len(batch) / times["batch"],
            "us_per_atom": 1e6 * times["batch"] / (n_atoms * len(batch)),
            "us_per_atom_one_by_one": 1e6 * times["single"] / (n_atoms * len(single)),
        }
    ]


def time_peer(options: argparse.Namespace, budget: machine.Budget, peer: Peer) -> list[dict[str, Any]]:
    """Time MACE, every kind of it that the other Python has."""
    for precision in dict.fromkeys(DTYPE[word] for word in options.precisions):
        for system in options.systems:
            for kind in peer.kinds:
                if budget.allows(f"MACE {kind} {precision} {system}", 10.0):
                    for _ in range(options.peer_repeats):
                        peer.measure(system, precision, 1, kind)
    return peer.rows()


def run(options: argparse.Namespace) -> int:
    """Measure, print and write what evaluate.py was asked for with `--device`; 1 if a case failed."""
    budget, errors = machine.Budget(options.budget), machine.Errors()
    options.precisions = options.precisions or ["mixed", "fp64"]
    head = machine.describe_device(options.device)
    print("\n".join(f"{key}: {value}" for key, value in head.items()))
    ceilings = machine.ceilings(head["device"], errors)
    print(
        f"ceilings: copy {ceilings['copy_bytes'] / 1e12:.3g} TB/s; TFLOP/s: "
        f"multiply-add {ceilings['fma_float'] / 1e12:.3g} (float), {ceilings['fma_double'] / 1e12:.3g} (double), "
        f"matrix units {ceilings['matrix_tf32'] / 1e12:.3g} (TF32), {ceilings['matrix_double'] / 1e12:.3g} (double)"
    )
    GENERATED.clear()
    GENERATED.update(models.load(options.models or MODELS, options.models_from))
    peer_atoms = options.peer_atoms or 4000
    peer = None
    with errors.of("MACE"):
        peer = start_peer(options, peer_atoms, head["device"] if head["device"].startswith("cuda") else "cpu")
    sizes = sorted({*options.sizes, peer_atoms} if peer else set(options.sizes))
    report: dict[str, Any] = {
        **head,
        "options": machine.words(options),
        "ceilings": ceilings,
        "peer": peer.information if peer else None,
        "results": [],
        "kernels": [],
        "precisions": [],
        "small_systems": [],
        "errors": errors.found,
        "left_out": budget.left_out,
    }
    for name in GENERATED:
        if budget.allows(f"precisions of {name}", 2.0):
            with errors.of(f"precisions of {name}"):
                report["precisions"] += compare_precisions(options, name, min(CHECKED_ATOMS, sizes[-1]))
            machine.write(options.json, report)
    for name in GENERATED:
        if options.batch > 0 and budget.allows(f"small systems of {name}", 4.0):
            with errors.of(f"small systems of {name}"):
                report["small_systems"] += small_systems(options, name)
            machine.write(options.json, report)
    if peer is not None:
        with errors.of("MACE"):
            report["results"] += time_peer(options, budget, peer)
            peer.close()
    time_sizes(options, budget, errors, sizes, report)
    add_ratios(report["results"], same_size=True)
    machine.write(options.json, report)
    print_rest(report)
    budget.report()
    return errors.status
