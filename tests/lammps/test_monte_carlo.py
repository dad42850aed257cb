"""Monte Carlo fixes of stock LAMMPS: they change types and delete atoms between two neighbour lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import systems
from lammps_tools import MODELS, OUTPUT, Job, gather, open_lammps, potential, run_here, setup, single_point
from tolerances import RANKS, TRAJECTORY, assert_close

METALS = MODELS / "tiny_1l.npz"  # Mo Nb, one cutoff
PAIRS = MODELS / "tiny_1l_pairs.npz"  # O Si Fe, cutoffs by pair


def alloy(symbols: tuple[str, ...], repeat: int = 3) -> Atoms:
    return systems.bcc(symbols, repeat=repeat, lattice=3.3)


def large_alloy(symbols: tuple[str, ...]) -> Atoms:
    """fix sgcmc wants cells of at least four cutoffs."""
    return alloy(symbols, repeat=7)


def run_and_keep(job: Job) -> tuple[dict, list[float]]:
    """Result after the run, and the counters of fix mc."""
    instance = open_lammps(job.arguments)
    try:
        for line in job.commands:
            instance.command(line)
        counters = [instance.extract_fix("mc", 0, 1, k) for k in range(2)]
        return gather(instance, job.peratom), counters
    finally:
        instance.close()


def evaluated_afresh(
    atoms: Atoms, elements: list[str], types: np.ndarray, positions: np.ndarray, model: Path, folder: Path
) -> dict:
    end = Atoms(symbols=[elements[t - 1] for t in types], positions=positions, cell=atoms.cell, pbc=True)
    job = setup(end, folder, "end", elements, [int(t) for t in types]) + potential(model, elements) + OUTPUT + "run 0"
    return run_here(job)


def semi_grand(atoms: Atoms, elements: list[str], model: Path, folder: Path, local: str, before: str = "") -> Job:
    return (
        setup(atoms, folder, "alloy", elements)
        + before
        + potential(model, elements)
        + OUTPUT
        + "velocity all create 600 11 loop all\nfix nve all nve\n"
        + f"fix mc all sgcmc 5 0.1 3000 0.05 randseed 42 atomic/energy {local}\nrun 10"
    )


def test_local_energies(tmp_path: Path) -> None:
    """The same decisions from energies of single atoms as from the energy of all."""
    atoms, elements = large_alloy(("Mo", "Nb")), ["Mo", "Nb"]
    wide = "comm_modify cutoff 13.0\n"
    local, local_counts = run_and_keep(semi_grand(atoms, elements, METALS, tmp_path, "yes", wide))
    naive, naive_counts = run_and_keep(semi_grand(atoms, elements, METALS, tmp_path, "no"))
    assert local_counts == naive_counts
    assert min(naive_counts) > 0
    assert list(local["types"]) == list(naive["types"])
    # Positions agree less well: with local energies the fix lets the forces of before the flips act for one more step.
    assert np.abs(local["positions"] - naive["positions"]).max() < 0.01


def test_local_energies_with_unequal_cutoffs(tmp_path: Path) -> None:
    """Lists are then not trimmed by types: an atom that becomes Fe must find the neighbours of Fe."""
    atoms, elements = large_alloy(("O", "Fe")), ["O", "Fe"]
    small_skin = "neighbor 0.1 bin\ncomm_modify cutoff 13.0\n"
    local, local_counts = run_and_keep(semi_grand(atoms, elements, PAIRS, tmp_path, "yes", small_skin))
    naive, naive_counts = run_and_keep(semi_grand(atoms, elements, PAIRS, tmp_path, "no", small_skin))
    assert local_counts == naive_counts
    assert list(local["types"]) == list(naive["types"])


def test_local_energies_need_ghosts(tmp_path: Path) -> None:
    job = semi_grand(large_alloy(("Mo", "Nb")), ["Mo", "Nb"], METALS, tmp_path, "yes")
    with pytest.raises(Exception, match=r"grace: local MC energies need a communication cutoff of 12\.\d+ A, found 7"):
        run_here(job)


def test_local_energies_of_two_layers(tmp_path: Path) -> None:
    """The fix adds up the energies of direct neighbours, but a two-layer model changes also theirs."""
    job = semi_grand(
        large_alloy(("O", "Fe")), ["O", "Fe"], MODELS / "tiny_2l.npz", tmp_path, "yes", "comm_modify cutoff 13\n"
    )
    with pytest.raises(Exception, match="atomic"):
        run_here(job)


@pytest.mark.parametrize(
    ("name", "elements"), [("tiny_1l_pairs", ["O", "Fe"]), ("tiny_2l", ["O", "Fe"]), ("tiny_1l", ["Mo", "Nb"])]
)
def test_swaps(name: str, elements: list[str], tmp_path: Path) -> None:
    """Energy and forces after swaps are those of the final atoms: no type may be remembered from before."""
    atoms, model = alloy((elements[0], elements[1])), MODELS / f"{name}.npz"
    job = (
        setup(atoms, tmp_path, "alloy", elements)
        + potential(model, elements)
        + OUTPUT
        + "fix mc all atom/swap 1 10 29494 5000 types 1 2\nfix nve all nve\nrun 3"
    )
    result, counters = run_and_keep(job)
    assert counters[0] >= counters[1] > 0
    before = np.array([elements.index(symbol) + 1 for symbol in atoms.symbols])
    assert np.count_nonzero(result["types"] != before) > 0
    fresh = evaluated_afresh(atoms, elements, result["types"], result["positions"], model, tmp_path)
    assert_close(result["energy"], fresh["energy"], RANKS)
    assert_close(result["forces"], fresh["forces"], RANKS)


@pytest.mark.parametrize("name", ["tiny_1l_pairs", "tiny_2l"])
def test_insertions_and_deletions(name: str, tmp_path: Path) -> None:
    """fix gcmc deletes an atom on trial by excluding it from all neighbour lists."""
    atoms, elements, model = alloy(("O", "Fe")), ["O", "Fe"], MODELS / f"{name}.npz"
    job = (
        setup(atoms, tmp_path, "alloy", elements)
        + potential(model, elements)
        + "compute e all pe/atom\nthermo_modify norm no lost ignore\n"
        + "group oxygen type 1\nfix mc oxygen gcmc 1 30 0 1 29494 5000 -8.0 0.5 full_energy\nrun 3"
    )
    job.peratom = False
    instance = open_lammps()
    for line in job.commands:
        instance.command(line)
    tried, done = [instance.extract_fix("mc", 0, 1, k) for k in (2, 3)]
    removed = instance.extract_fix("mc", 0, 1, 5)
    assert tried > 0
    assert done + removed > 0
    energy, n = instance.get_thermo("pe"), instance.get_natoms()
    instance.command(f"write_data {tmp_path}/end.data nocoeff")
    instance.close()
    fresh = Job(
        ["units metal", f"read_data {tmp_path}/end.data", *potential(model, elements).splitlines(), "run 0"],
        peratom=False,
    )
    reader = open_lammps()
    for line in fresh.commands:
        reader.command(line)
    assert reader.get_natoms() == n
    assert_close(reader.get_thermo("pe"), energy, TRAJECTORY)
    reader.close()


def test_uniform_lists_only_with_monte_carlo(tmp_path: Path) -> None:
    """Without such fixes the lists are trimmed by the cutoffs of the type pairs."""
    atoms = alloy(("O", "Fe"))
    counts = {}
    for words, extra in (("", ""), ("listcut uniform", ""), ("", "fix mc all atom/swap 10 1 29494 300 types 1 2\n")):
        log = tmp_path / "log"
        job = single_point(atoms, tmp_path, "alloy", PAIRS, words)
        job.commands.insert(-1, extra or "timestep 0.001")
        run_here(job, str(log))
        [line] = [text for text in log.read_text().splitlines() if text.startswith("Total # of neighbors")]
        counts[words, bool(extra)] = int(line.split()[-1])
    assert counts["", False] < counts["listcut uniform", False] == counts["", True]
