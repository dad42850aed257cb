"""The device evaluator behind `pair_style grace`: its own neighbour lists, ghosts, messages, fixes, refusals.

`device emulated` runs the kernels of the GPU on the CPU, so that all of this is tested without a GPU; cells are tiny.
GRACE_TEST_DEVICE=cuda runs the same tests on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import systems
from device_tools import DEVICE, EMULATED_ONLY
from grace_md._core import cuda_probe
from lammps_tools import MODELS, OUTPUT, Job, gather, lmp, open_lammps, potential, run, setup, single_point, write_data
from tolerances import FORCE, MIXED_ENERGY_PER_ATOM, MIXED_FORCE_RELATIVE, RANKS, TRAJECTORY, assert_close

WORDS = f"device {DEVICE} precision fp64"
CASES = {"tiny_1l_pairs": ("O", "Si", "Fe"), "tiny_2l": ("O", "Fe")}
ALL = ("energy", "energies", "forces", "virial", "virials", "centroid_virials", "positions")
RANKS_TRIED = pytest.mark.parametrize("ranks", [1, 2])
WITHOUT_GPU = pytest.mark.skipif(cuda_probe()["n_devices"] > 0, reason="there is a GPU: device cuda works")


@pytest.fixture(params=list(CASES))
def thin(request: pytest.FixtureRequest) -> tuple[Path, Atoms]:
    """A cell thinner than the cutoffs in every direction: all atoms have ghosts, most of them several."""
    elements = CASES[request.param]
    cell = np.array([[4.8, 0.0, 0.0], [0.8, 5.2, 0.0], [-0.4, 0.6, 6.4]])
    atoms = systems.pack([elements[n % len(elements)] for n in range(9)], cell, contact=0.6, seed=9)
    return MODELS / f"{request.param}.npz", atoms


def elements_of(atoms: Atoms) -> list[str]:
    return sorted(set(atoms.symbols))


def start(case: tuple[Path, Atoms], folder: Path, words: str, before: str = "") -> Job:
    model, atoms = case
    return setup(atoms, folder, "cell", elements_of(atoms)) + before + potential(model, elements_of(atoms), words)


def with_lammps(job: Job, *more: str) -> list[Any]:
    """Results after the lines of the job, and after each of `more`."""
    instance = open_lammps()
    results = []
    try:
        for line in job.commands:
            instance.command(line)
        results.append(gather(instance, True))
        for lines in more:
            for line in lines.splitlines():
                instance.command(line)
            results.append(gather(instance, True))
        return results
    finally:
        instance.close()


def compare(actual: dict[str, Any], expected: dict[str, Any], tolerance: float, what: str = "") -> None:
    for key in ALL:
        assert_close(actual[key], expected[key], tolerance, what=f"{what} {key}")


@RANKS_TRIED
def test_single_point(thin: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    model, atoms = thin
    [cpu] = run([single_point(atoms, tmp_path, "cell", model, "device cpu")], tmp_path)
    words = [WORDS, f"{WORDS} neighbors lammps", f"{WORDS} chunksize 4 deterministic yes", f"{WORDS} ghost2rc"]
    results = run([single_point(atoms, tmp_path, "cell", model, word) for word in words], tmp_path, ranks)
    for word, result in zip(words, results, strict=True):
        compare(result, cpu, RANKS, word)


@RANKS_TRIED
def test_dynamics(thin: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    """Twenty hot steps: lists are kept, made again, and atoms change their places in memory."""
    steps = "velocity all create 4000 7 loop all\nfix nve all nve\nneighbor 0.4 bin\nneigh_modify delay 0\nrun 20"
    cpu, device = (start(thin, tmp_path, words) + OUTPUT + steps for words in ("device cpu", WORDS))
    [expected] = run([cpu], tmp_path)
    [result] = run([device], tmp_path, ranks)
    compare(result, expected, TRAJECTORY)


def test_lammps_lists_nothing(thin: tuple[Path, Atoms], tmp_path: Path) -> None:
    steps = "velocity all create 4000 7 loop all\nfix nve all nve\nneighbor 0.4 bin\nneigh_modify delay 0\nrun 15"
    for words, listed in (("device cpu", True), (WORDS, False), (f"{WORDS} neighbors lammps", True)):
        instance = open_lammps()
        for line in (start(thin, tmp_path, words) + steps).commands:
            instance.command(line)
        assert (instance.find_pair_neighlist("grace") >= 0) == listed, words
        assert 0 < instance.get_thermo("nbuild") < 15, "the skin was not put to the test"
        instance.close()


@RANKS_TRIED
def test_null_types(thin: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    """Atoms mapped to NULL are no neighbours, and have no energy."""
    model, atoms = thin
    elements = elements_of(atoms)
    mapped = " ".join(symbol if symbol == "O" else "NULL" for symbol in elements)
    oxygen = elements.index("O")
    n = len(elements)
    others = [f"{a + 1} {b + 1}" for a in range(n) for b in range(a, n) if (a, b) != (oxygen, oxygen)]
    jobs = [
        setup(atoms, tmp_path, "cell", elements)
        + f"pair_style hybrid grace threads 1 {words} zero 4.0\npair_coeff * * grace {model} {mapped}\n"
        + "\n".join(f"pair_coeff {pair} zero" for pair in others)
        + f"\n{OUTPUT}run 0"
        for words in ("device cpu", WORDS)
    ]
    [cpu] = run(jobs[:1], tmp_path)
    [device] = run(jobs[1:], tmp_path, ranks)
    assert np.abs(cpu["forces"]).max() > FORCE
    compare(device, cpu, RANKS)


def test_pairs_of_another_style(tmp_path: Path) -> None:
    """A hybrid may take single pairs away; only a list of LAMMPS knows."""
    atoms = systems.pack(["O", "Fe"] * 4, np.diag([4.8, 5.2, 6.4]), contact=0.6, seed=9)

    def job(words: str) -> Job:
        return (
            setup(atoms, tmp_path, "cell", ["Fe", "O"])
            + f"pair_style hybrid grace threads 1 {words} zero 4.0\n"
            + f"pair_coeff * * grace {MODELS}/tiny_1l_pairs.npz Fe O\npair_coeff 1 2 zero\n{OUTPUT}run 0"
        )

    with pytest.raises(Exception, match="grace: pair_style hybrid gives pairs of the types 1 and 2 to another style"):
        with_lammps(job(WORDS))
    [cpu], [device] = with_lammps(job("device cpu")), with_lammps(job(f"{WORDS} neighbors lammps"))
    compare(device, cpu, RANKS)


def test_excluded_atoms(thin: tuple[Path, Atoms], tmp_path: Path) -> None:
    jobs = [start(thin, tmp_path, words) + OUTPUT + "run 0" for words in ("device cpu", WORDS)]
    exclude = "group some id 1:3\ngroup others subtract all some\nneigh_modify exclude group some others\nrun 0"
    by_type = "neigh_modify exclude none\nneigh_modify exclude type 1 2\nrun 0"
    cpu, device = (with_lammps(job, exclude, by_type, "neigh_modify exclude none\nrun 0") for job in jobs)
    energies = [result["energy"] for result in cpu]
    assert_close(energies[0], energies[3], RANKS)
    assert min(abs(energies[0] - energies[1]), abs(energies[0] - energies[2])) > FORCE, "nothing was excluded"
    for k in range(4):
        compare(device[k], cpu[k], RANKS, f"part {k}")


def test_exclusions_that_come_late(thin: tuple[Path, Atoms], tmp_path: Path) -> None:
    job = start(thin, tmp_path, WORDS) + OUTPUT + "fix nve all nve\nneigh_modify delay 0 every 1 check no\nrun 1"
    with pytest.raises(Exception, match=r"grace: a fix excludes atoms.*add the keyword 'neighbors lammps'"):
        with_lammps(job, "neigh_modify exclude type 1 1\nrun 2 pre no")


def test_types_change_between_two_lists(thin: tuple[Path, Atoms], tmp_path: Path) -> None:
    quiet = "fix nve all nve\ntimestep 1e-6\nneigh_modify delay 100\nrun 3"
    jobs = [start(thin, tmp_path, words) + OUTPUT + quiet for words in ("device cpu", WORDS)]
    # Without `pre` nothing is listed again and ghosts keep their types: the same for both evaluators.
    change = "set atom 1 type 2\nset atom 2 type 1\nset atom 6 type 1\nrun 2 pre no"
    cpu, device = (with_lammps(job, change) for job in jobs)
    assert abs(cpu[0]["energy"] - cpu[1]["energy"]) > FORCE, "no type has changed"
    for k in range(2):
        compare(device[k], cpu[k], RANKS, f"part {k}")


def test_swaps(thin: tuple[Path, Atoms], tmp_path: Path) -> None:
    """Many evaluations per list, with other types each; then the energy is that of the final atoms."""
    model, atoms = thin
    elements = elements_of(atoms)
    swaps = "fix mc all atom/swap 1 6 29494 50000 types 1 2\nfix nve all nve\nrun 2"
    [end] = with_lammps(start(thin, tmp_path, WORDS) + OUTPUT + swaps)
    before = [elements.index(symbol) + 1 for symbol in atoms.symbols]
    assert np.count_nonzero(end["types"] != before) > 0
    fresh = Atoms([elements[t - 1] for t in end["types"]], positions=end["positions"], cell=atoms.cell, pbc=True)
    types = [int(t) for t in end["types"]]
    job = setup(fresh, tmp_path, "end", elements, types) + potential(model, elements, "device cpu") + OUTPUT + "run 0"
    [cpu] = with_lammps(job)
    assert_close(end["energy"], cpu["energy"], RANKS)
    assert_close(end["forces"], cpu["forces"], RANKS)


def test_insertions_and_deletions(thin: tuple[Path, Atoms], tmp_path: Path) -> None:
    """fix gcmc excludes an atom from the lists to delete it on trial: LAMMPS has to make them then."""
    moves = "group oxygen type 2\nfix mc oxygen gcmc 1 8 0 2 29494 5000 -8.0 0.5 full_energy overlap_cutoff 1.0\nrun 2"
    ends = []
    for words in ("device cpu", WORDS):
        instance = open_lammps()
        for line in (start(thin, tmp_path, words) + "thermo_modify norm no lost ignore\n" + moves).commands:
            instance.command(line)
        assert instance.find_pair_neighlist("grace") >= 0
        assert instance.extract_fix("mc", 0, 1, 5) + instance.extract_fix("mc", 0, 1, 3) > 0
        ends.append((instance.get_natoms(), instance.get_thermo("pe")))
        instance.close()
    assert ends[0][0] == ends[1][0]
    assert_close(ends[1][1], ends[0][1], TRAJECTORY)


@pytest.mark.slow
def test_local_energies(tmp_path: Path) -> None:
    """fix sgcmc asks for energies of single atoms, which come from an evaluator of the CPU."""
    atoms = systems.bcc(("Mo", "Nb"), repeat=7, lattice=3.3)
    case = (MODELS / "tiny_1l.npz", atoms)
    flips = "velocity all create 600 11 loop all\nfix nve all nve\n"
    flips += "fix mc all sgcmc 2 0.1 3000 0.05 randseed 42 atomic/energy yes\nrun 2"
    cpu, device = (
        with_lammps(start(case, tmp_path, words, "comm_modify cutoff 13.0\n") + OUTPUT + flips)[0]
        for words in ("device cpu", WORDS)
    )
    before = [elements_of(atoms).index(symbol) + 1 for symbol in atoms.symbols]
    assert np.count_nonzero(cpu["types"] != before) > 0
    assert list(device["types"]) == list(cpu["types"])
    assert_close(device["forces"], cpu["forces"], TRAJECTORY)


@RANKS_TRIED
def test_single_precision(thin: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    model, atoms = thin
    [double] = run([single_point(atoms, tmp_path, "cell", model, "device cpu")], tmp_path)
    [single] = run([single_point(atoms, tmp_path, "cell", model, f"device {DEVICE} precision mixed")], tmp_path, ranks)
    assert_close(single["energy"] / len(atoms), double["energy"] / len(atoms), MIXED_ENERGY_PER_ATOM)
    assert_close(single["forces"], double["forces"], MIXED_FORCE_RELATIVE * np.abs(double["forces"]).max())
    assert np.abs(single["forces"] - double["forces"]).max() > FORCE


@RANKS_TRIED
def test_free_directions_and_empty_ranks(ranks: int, tmp_path: Path) -> None:
    for name in CASES:
        model = MODELS / f"{name}.npz"
        for atoms in (systems.cluster(("O", "Fe"), n_atoms=6), systems.isolated("Fe")):
            jobs = [single_point(atoms, tmp_path, "free", model, words) for words in ("device cpu", WORDS)]
            [cpu], [device] = run(jobs[:1], tmp_path), run(jobs[1:], tmp_path, ranks)
            compare(device, cpu, RANKS, name)


@RANKS_TRIED
def test_lost_atoms_stop_every_rank(thin: tuple[Path, Atoms], ranks: int, tmp_path: Path) -> None:
    model, atoms = thin
    write_data(atoms, elements_of(atoms), tmp_path / "cell.data")
    script = f"""
    units metal
    box tilt large
    read_data cell.data
    mass * 50
    {potential(model, elements_of(atoms), WORDS)}
    neigh_modify delay 100
    fix nve all nve
    run 0
    variable away atom "x+exp(1.0e4)-exp(1.0e4)"
    set atom 2 x v_away
    run 1 pre no
    """
    status, output = lmp(script, tmp_path, ranks=ranks)
    assert status != 0
    assert ranks > 1 or "ERROR on proc 0: grace: position of the atom with ID 2 is not finite" in output, output


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param("device cuda", "grace: device cuda", marks=WITHOUT_GPU),
        ("device 99", "grace: device cuda"),
        ("device gpu", "grace: `device` must be auto, cpu, cuda, cuda:N or the number N of a GPU, got 'gpu'"),
    ],
)
def test_devices_that_are_not_there(words: str, sentence: str, ranks: int, tmp_path: Path) -> None:
    write_data(systems.primitive("Fe"), ["Fe"], tmp_path / "cell.data")
    style = potential(MODELS / "tiny_2l.npz", ["Fe"], words)
    script = f"units metal\nbox tilt large\nread_data cell.data\nmass * 50\n{style}"
    status, output = lmp(script, tmp_path, ranks=ranks)
    assert status != 0
    assert sentence in output
    assert output.count("ERROR: grace") == 1  # said once, by all ranks together


@EMULATED_ONLY
def test_what_runs_is_said(tmp_path: Path) -> None:
    write_data(systems.primitive("Fe"), ["Fe"], tmp_path / "cell.data")
    for words, variable, said in (
        ("device auto", "cpu", "grace: cpu "),
        ("", "emulated:2", "grace: emulated"),
        ("device emulated:4", "cpu", "grace: emulated"),
    ):
        model = MODELS / "tiny_1l_pairs.npz"
        script = (
            f"units metal\nbox tilt large\nread_data cell.data\nmass * 50\n{potential(model, ['Fe'], words)}run 0\n"
        )
        status, output = lmp(script, tmp_path, ranks=2, GRACE_MD_DEVICE=variable)
        assert status == 0, output
        assert output.count(said) == 1, output
        assert "fp64" in output
    status, output = lmp(script, tmp_path, GRACE_MD_DEVICE="tpu")
    assert status == 0, output  # the script names its device
    status, output = lmp(script.replace("device emulated:4", ""), tmp_path, ranks=2, GRACE_MD_DEVICE="tpu")
    assert status != 0
    assert "grace: environment variable GRACE_MD_DEVICE: `device` must be" in output
