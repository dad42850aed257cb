"""The benchmarks measure what they say: model sizes, operation counts, quiet repeats; and the scripts run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from benchmark_tools import BENCHMARKS, run_script  # isort: skip - before the modules of benchmarks/
import machine
import models
import operations
import peer

from grace_md import GraceCalculator, GraceModel
from grace_md import couplings as coupling_tables
from tolerances import INVARIANCE_ENERGY

_spec = importlib.util.spec_from_file_location("benchmarks_lammps_run", BENCHMARKS / "lammps" / "run.py")
assert _spec is not None
assert _spec.loader is not None
lammps_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lammps_run)

LAMMPS_OUTPUT = """
Loop time of 9.0 on 2 procs for 5 steps with 498 atoms
Pair    | 8.0        | 8.5        | 9.0        |   0.0 | 95.00
Loop time of 2.5 on 2 procs for 100 steps with 498 atoms

MPI task timing breakdown:
Section |  min time  |  avg time  |  max time  |%varavg| %total
---------------------------------------------------------------
Pair    | 2.3        | 2.4        | 2.45       |   0.0 | 96.10
Neigh   | 0.02       | 0.02       | 0.02       |   0.0 |  0.80
"""


@pytest.mark.parametrize("name", models.PRESETS)
def test_preset_models_have_the_published_sizes(name: str) -> None:
    arrays = models.build(name)  # refuses other coupling tables
    assert models.table_sizes(arrays) == models.SIZES[name]
    assert GraceModel(arrays, name).elements == models.ELEMENTS


def test_published_parameter_counts() -> None:
    """Parameters of the presets with 89 elements, in millions."""
    elements = [f"E{k}" for k in range(89)]
    published = dict(zip(models.PRESETS, (2.94, 6.94, 9.01, 13.36, 21.76, 26.39), strict=True))
    for name, millions in published.items():
        arrays = models.build(name, elements)
        weights = {key: a.size for key, a in arrays.items() if key.endswith(("_W", "_w_left", "_w_right", "_scale"))}
        networks = {key: a.size for key, a in arrays.items() if "_W" in key and key[-1].isdigit()}
        total = sum(weights.values()) + sum(networks.values()) + arrays["chem_embedding"].size
        assert abs(total / 1e6 - millions) <= 0.01 * millions, (name, total)


@pytest.mark.parametrize("name", ["1L-small", "2L-small"])
def test_pruned_tables_are_still_invariant(name: str) -> None:
    """A rotation changes nothing: every row that products and reductions need is there, in the right place."""
    calculator = GraceCalculator(GraceModel(models.build(name), name), radial="exact", threads=1)
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.symbols = ["O", "Si"] * 4
    atoms.pbc = False
    atoms.rattle(0.2, seed=1)
    energies = []
    for angle in (0.0, 77.0):
        atoms.rotate(angle, (1.0, 2.0, -1.0))
        energies.append(calculator.evaluate([atoms])[0]["energy"])
    assert abs(energies[0]) > 0.1
    assert abs(energies[1] - energies[0]) <= INVARIANCE_ENERGY * len(atoms) * max(1.0, abs(energies[0]))


def test_duplicate_couplings_add_no_functions() -> None:
    """AAA of one layer: 27 couplings, but only 14 linearly independent functions of one vector, all kept."""
    basis = coupling_tables.harmonics(4)
    table, tensor = models.couple(basis, basis, models.natural(4))
    values = np.random.default_rng(2).normal(size=(models.N_SAMPLES, basis.n_rows))
    products = models.coupled(table, tensor, basis, basis, values, values)
    last, scalars = models.couple(tensor, basis, models.SCALARS)
    everything = models.coupled(last, scalars, tensor, basis, products, values)
    _, kept, functions = models.without_duplicates(last, scalars, everything)
    assert (everything.shape[1], kept.n_rows) == (27, 14)
    scaled = [matrix / np.linalg.norm(matrix, axis=0) for matrix in (everything, functions)]
    assert [np.linalg.matrix_rank(matrix, tol=1e-8) for matrix in scaled] == [14, 14]


def test_operations_of_the_smallest_preset_by_hand() -> None:
    """1L-small: 25 rows of A1 (merged), 50 of AA1, 141 of AA2 (two matrices each), 89 reduced rows; 1008 terms."""
    found = operations.count(models.build("1L-small"), n_neighbors=60, n_elements=1)
    mixing = 2 * (25 + 2 * 50 + 2 * 141) * 32 * 32 + 2 * 89 * 32 * 11
    products = 3 * 1008 * 32
    bonds = 60 * (160 * 7 + 2 * 32 * 25)
    assert (found.mixing, found.products, found.bonds) == (mixing, products, bonds)
    assert found.step == 2 * mixing + 3 * products + 3 * bonds
    assert found.bytes_memory == 60 * 8 + 60
    assert found.bytes_weights == 8 * ((2 * 5 + 4 * 27) * 32 * 32 + 89 * 32 * 11)


@pytest.mark.parametrize(("name", "megaflops"), [("1L-large", 7.1), ("2L-medium", 13.5), ("2L-large", 20.5)])
def test_operations_agree_with_an_independent_count(name: str, megaflops: float) -> None:
    """Counts of the minimal algorithm at 60 neighbours made before the code existed, without pruned rows of BB2."""
    assert abs(operations.count(models.build(name), 60).step / 1e6 - megaflops) <= 0.05 * megaflops


def test_only_quiet_repeats_count() -> None:
    series = machine.Series()
    for wall, others in ((1.0, 0.0), (3.0, 1.0), (2.0, 0.1), (9.0, 0.9)):
        series.add(wall, wall, others)
    found = series.summary(n_atoms=10)
    assert (found["n_repeats"], found["n_quiet"]) == (4, 2)
    assert found["us_per_atom_median"] == pytest.approx(1.5e5)
    noisy = machine.Series()
    noisy.add(3.0, 3.0, 1.0)
    assert (noisy.summary(1)["n_quiet"], noisy.summary(1)["us_per_atom_min"]) == (0, 3e6)


def test_busy_seconds_of_others() -> None:
    assert machine.others_share(busy=3.0, own=1.0, wall=2.0) == 1.0
    assert machine.others_share(busy=0.9, own=1.0, wall=2.0) == 0.0  # ticks of 10 ms
    with machine.Watch() as watch:
        sum(range(100_000))
    assert watch.wall > 0.0
    assert watch.others >= 0.0


def test_ratios_compare_equal_precision_and_threads() -> None:
    common = {"system": "bcc", "threads": 1}
    rows = [
        {"code": "grace_md", "precision": "mixed", "us_per_atom_median": 50.0, **common},
        {"code": "grace_md", "precision": "fp64", "us_per_atom_median": 100.0, **common},
        {"code": "MACE", "precision": "float64", "us_per_atom_median": 3000.0, **common},
        {"code": "MACE", "precision": "float32", "us_per_atom_median": 1000.0, **common},
    ]
    peer.add_ratios(rows)
    assert [row.get("mace_ratio") for row in rows] == [20.0, 30.0, None, None]


def test_loop_time_of_the_last_lammps_run() -> None:
    found = lammps_run.parse_output(LAMMPS_OUTPUT)
    assert (found["ranks"], found["n_atoms"], found["steps_per_second"]) == (2, 498, 40.0)
    assert found["percent"] == {"Pair": 96.1, "Neigh": 0.8}
    with pytest.raises(ValueError, match="no loop time"):
        lammps_run.parse_output("ERROR: Unrecognized pair style")


def test_evaluate_script(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = "--models 1L-small --bcc-atoms 16 --lava-atoms 20 --threads 1 --repeats 1 --seconds 0.01 --no-peer"
    output = run_script(str(BENCHMARKS / "evaluate.py"), *options.split(), "--json", str(file))
    assert "roofline" in output
    report = json.loads(file.read_text())
    assert {"commit", "processor", "compiler", "flags", "roofline_gflops"} <= set(report)
    kinds = [(row["system"], row["precision"]) for row in report["results"]]
    assert kinds == [("bcc", "fp64"), ("bcc", "mixed"), ("lava", "fp64"), ("lava", "mixed")]
    for row in report["results"]:
        assert row["gflops"] == pytest.approx(row["operations"]["step"] / row["us_per_atom_median"] / 1000)
        assert row["roofline_share"] > 0.0  # below 1 on a quiet machine
    assert 50 < report["results"][0]["neighbors"] < 66


def test_memory_script(tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    script = str(BENCHMARKS / "memory.py")
    output = run_script(script, "--model", "1L-small", "--atoms", "2000", "--threads", "1", "--json", str(file))
    assert "below the target" in output
    report = json.loads(file.read_text())
    assert report["n_atoms"] == 2000
    assert report["bytes_peak"] > report["bytes_before"] > 1e7
