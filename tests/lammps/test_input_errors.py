"""What the style says when something is wrong."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from lammps_tools import MODELS, Job, lmp, open_lammps, potential, run, run_here, setup, single_point, write_data

PAIRS = MODELS / "tiny_1l_pairs.npz"
ELEMENTS = ["Fe", "O", "Si"]


def message_of(job: Job) -> str:
    with pytest.raises(Exception, match="grace:") as caught:
        run_here(job)
    return str(caught.value)


@pytest.fixture
def cell(one_layer: tuple[Path, Atoms], tmp_path: Path) -> Job:
    return setup(one_layer[1], tmp_path, "cell", ELEMENTS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("padding 0.1 padd", "grace: unknown keyword 'padd'; known keywords: precision auto|fp64|mixed|fp32"),
        ('""', "grace: unknown keyword ''; known keywords:"),
        ("precision double", "`precision` must be auto, fp64, mixed or fp32, got 'double'"),
        ("radial spline", "`radial` must be table or exact, got 'spline'"),
        ("device gpu", "`device` must be auto, cpu, cuda"),
        ("chunksize 0", "`chunksize` must be a positive integer, got '0'"),
        ("chunksize many", "`chunksize` must be a positive integer, got 'many'"),
        ("threads -2", "`threads` must be a positive integer, got '-2'"),
        ("deterministic maybe", "`deterministic` must be 'yes' or 'no', got 'maybe'"),
        ("neighbors mine", "`neighbors` must be 'lammps' or 'auto', got 'mine'"),
        ("listcut trimmed", "`listcut` must be 'uniform', got 'trimmed'"),
        ("precision", "keyword 'precision' needs a value"),
    ],
)
def test_words_of_the_style(cell: Job, words: str, expected: str) -> None:
    assert expected in message_of(cell + f"pair_style grace {words}")


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ("Fe O Xx", "grace: element 'Xx' of type 3 is not in {model}; the model knows: O Si Fe"),
        ("Fe O", "grace: pair_coeff gives 2 elements for 3 atom types"),
        ("Fe O Si Si", "grace: pair_coeff gives 4 elements for 3 atom types"),
        ("", "grace: pair_coeff needs '* *', a model file and one element (or NULL) per atom type"),
    ],
)
def test_elements(cell: Job, elements: str, expected: str) -> None:
    text = message_of(cell + f"pair_style grace\npair_coeff * * {PAIRS} {elements}")
    assert expected.format(model=PAIRS) in text


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("units real", "", "grace: units metal is required, found real"),
        ("newton off", "", "grace: newton on is required (add 'newton on' before the box is defined)"),
        ("atom_modify id no", "", "grace: atom IDs are required"),
        ("", "run_style respa 2 2 pair 2", "grace: run_style respa is not supported with pair_style grace"),
        (
            "",
            "group some id 1:5\natom_modify first some\nneigh_modify include some",
            "grace: neigh_modify include is not supported",
        ),
    ],
)
def test_settings_of_lammps(before: str, after: str, expected: str) -> None:
    first = ["units metal"] if "units" not in before else []
    lines = f"""
    {before}
    lattice bcc 3.2
    region box block 0 3 0 3 0 3
    create_box 1 box
    create_atoms 1 box
    mass * 50
    {potential(PAIRS, ["Fe"])}
    {after}
    run 0"""
    job = Job(first, peratom=False) + "\n".join(line.strip() for line in lines.splitlines() if line.strip())
    assert expected in message_of(job)


def test_special_bonds() -> None:
    lines = f"""
    units metal
    atom_style bond
    region box block 0 10 0 10 0 10
    create_box 1 box bond/types 1 extra/bond/per/atom 1 extra/special/per/atom 1
    create_atoms 1 single 1 1 1
    create_atoms 1 single 3 1 1
    mass * 50
    bond_style zero
    bond_coeff *
    create_bonds single/bond 1 1 2
    {potential(PAIRS, ["Fe"])}"""
    job = Job([], peratom=False) + "\n".join(line.strip() for line in lines.splitlines() if line.strip())
    assert "grace: special_bonds other than 'lj/coul 1 1 1' is not supported" in message_of(job + "run 0")
    run_here(job + "special_bonds lj/coul 1 1 1\nrun 0")


def damaged(source: Path, target: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    arrays = dict(np.load(source))
    change(arrays)
    np.savez(target, **arrays)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("absent", "does not exist"),
        ("truncated", "is not a readable npz file"),
        ("compressed", "is compressed"),
        ("key", "mlp_rad"),
        ("nan", "finite"),
    ],
)
def test_model_files(one_layer: tuple[Path, Atoms], kind: str, expected: str, ranks: int, tmp_path: Path) -> None:
    model = tmp_path / f"{kind}.npz"
    key = next(k for k in np.load(PAIRS).files if k.startswith("mlp_rad") and np.load(PAIRS)[k].size > 8)
    if kind == "truncated":
        model.write_bytes(PAIRS.read_bytes()[:-1000])
    elif kind == "compressed":
        np.savez_compressed(model, **np.load(PAIRS))
    elif kind == "key":
        damaged(PAIRS, model, lambda arrays: arrays.pop(key))
    elif kind == "nan":
        damaged(PAIRS, model, lambda arrays: arrays[key].__setitem__((0,) * arrays[key].ndim, np.nan))
    write_data(one_layer[1], ELEMENTS, tmp_path / "cell.data")
    script = f"units metal\nread_data cell.data\nmass * 50\n{potential(model, ELEMENTS)}run 0\n"
    status, output = lmp(script, tmp_path, ranks=ranks)
    assert status != 0
    assert "ERROR: grace: " in output
    assert expected in output
    assert output.count("ERROR: grace") == 1  # said once, by all ranks together
    assert zipfile.is_zipfile(PAIRS)


def test_keywords_of_other_builds(one_layer: tuple[Path, Atoms], tmp_path: Path) -> None:
    model, atoms = one_layer
    log = tmp_path / "log"
    run_here(
        single_point(atoms, tmp_path, "cell", model, "padding 0.05 pad_verbose pair_forces chunksize 64"), str(log)
    )
    for keyword in ("padding", "pad_verbose", "pair_forces"):
        assert f"grace: keyword '{keyword}' is accepted without effect" in log.read_text()


def test_model_is_stated(one_layer: tuple[Path, Atoms], tmp_path: Path) -> None:
    import hashlib

    model, atoms = one_layer
    log = tmp_path / "log"
    run_here(single_point(atoms, tmp_path, "cell", model, "precision mixed"), str(log))
    text = log.read_text()
    assert hashlib.sha256(model.read_bytes()).hexdigest() in text
    for piece in (
        str(model),
        "1 layer,",
        "1=Fe 2=O 3=Si",
        "pair cutoffs 4 to 5.2 A",
        "mixed",
        "radial table",
        "1 thread",
    ):
        assert piece in text, piece


def test_device_that_is_not_there(cell: Job) -> None:
    """Never a silent fallback to another device."""
    assert "cuda" in message_of(cell + potential(PAIRS, ELEMENTS, "device 99")).lower()
    run_here(Job([*cell.commands, *potential(PAIRS, ELEMENTS, "device auto").splitlines(), "run 0"], peratom=False))


def test_same_style_again(one_layer: tuple[Path, Atoms], tmp_path: Path) -> None:
    """A second pair_style with other words reaches the same object, which must not keep the old evaluator."""
    model, atoms = one_layer
    job = single_point(atoms, tmp_path, "cell", model)
    with pytest.raises(Exception, match="pair coeffs are not set"):
        run_here(job + "pair_style grace precision mixed\nrun 0")
    run_here(job + potential(model, ELEMENTS, "precision mixed") + "run 0")


def test_close_contact(tmp_path: Path) -> None:
    """Said once with the ids; the run goes on with finite numbers."""
    atoms = Atoms("Fe4", positions=[[1, 1, 1], [3, 1, 1], [3.1, 1.2, 1], [1, 4, 1]], cell=[8, 8, 8], pbc=True)
    log = tmp_path / "log"
    [result] = [run_here(single_point(atoms, tmp_path, "close", PAIRS) + "run 2", str(log))]
    warnings = [line for line in log.read_text().splitlines() if "WARNING: grace: atoms" in line]
    assert len(warnings) == 1
    assert "2 and 3" in warnings[0] or "3 and 2" in warnings[0]
    assert "0.22" in warnings[0]
    assert np.all(np.isfinite(result["forces"]))


def test_positions_that_are_not_numbers(one_layer: tuple[Path, Atoms], tmp_path: Path) -> None:
    """LAMMPS itself notices them only when it builds neighbour lists."""
    model, atoms = one_layer
    job = single_point(atoms, tmp_path, "cell", model)
    instance = open_lammps()
    for line in [*job.commands, "fix nve all nve", "neigh_modify every 1000 delay 1000 check no", "run 0"]:
        instance.command(line)
    row = list(instance.numpy.extract_atom("id")[: len(atoms)]).index(3)
    instance.numpy.extract_atom("x")[row, 1] = np.nan
    with pytest.raises(Exception, match="grace: position of the atom with ID 3 is not finite"):
        instance.command("run 1 pre no post no")
    instance.close()


def test_empty_box_and_lone_atom(tmp_path: Path) -> None:
    box = f"units metal\nregion box block 0 10 0 10 0 10\ncreate_box 3 box\nmass * 50\n{potential(PAIRS, ELEMENTS)}"
    [lone] = run([Job([], peratom=False) + box + "create_atoms 1 single 5 5 5\nrun 0"], tmp_path)
    assert np.all(lone["forces"] == 0.0)
    assert np.isfinite(lone["energy"])
    lmp_instance = open_lammps()
    for line in [*box.splitlines(), "run 0"]:
        lmp_instance.command(line)
    assert lmp_instance.get_thermo("pe") == 0.0
    lmp_instance.close()
