"""`GraceCalculator` on a device evaluator (GRACE_TEST_DEVICE, default emulated), and the choice of device."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

import systems
import tolerances as tol
from device_tools import DEVICE, IS_EMULATED, KIND
from evaluator_tools import MODELS as FOLDER
from evaluator_tools import SYMBOLS, small_cell, thermal_momenta, tiny
from grace_md import GraceCalculator, GraceModel, cli, doctor
from grace_md._core import cuda_probe, resolve_device
from tolerances import assert_close

MODELS = ("tiny_1l", "tiny_1l_pairs", "tiny_2l")
ON_DEVICE = {"device": DEVICE, "precision": "fp64"}
KEYS = ("energy", "free_energy", "energies", "forces", "stress", "stresses")


def calculator(name: str, **options: Any) -> GraceCalculator:
    return GraceCalculator(GraceModel(tiny(name)), **{"threads": 1, **options})


def results(calc: GraceCalculator, atoms: Atoms) -> dict[str, Any]:
    wanted = KEYS if atoms.cell.rank == 3 else KEYS[:4]
    calc.calculate(atoms, list(wanted))
    return {name: calc.results[name] for name in wanted}


def compare(actual: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    assert set(actual) == set(expected)
    size = max(1.0, np.abs(expected["forces"]).max(initial=0.0))
    for name, value in expected.items():
        assert_close(actual[name], value, 10 * tol.SUMMATION * size, what=f"{what} {name}")


@pytest.mark.parametrize("name", MODELS)
def test_one_calculator_for_one_structure_after_another(name: str) -> None:
    symbols = SYMBOLS[name]
    device, cpu = calculator(name, **ON_DEVICE), calculator(name)
    edge = Atoms(symbols[:1], positions=[[9.0, 0.0, 0.0]], cell=[3.0, 0.0, 0.0], pbc=[True, False, False])
    moved = small_cell(name)
    moved.positions[0] += 0.01
    for k, atoms in enumerate(
        (small_cell(name), moved, Atoms(), systems.cluster(symbols, 5), systems.isolated(symbols[0]), edge, moved)
    ):
        compare(results(device, atoms), results(cpu, atoms), f"structure {k}")


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_one_call(name: str) -> None:
    symbols = SYMBOLS[name]
    structures = [small_cell(name), Atoms(), systems.cluster(symbols, 5), small_cell(name, 4)]
    device, cpu = calculator(name, **ON_DEVICE), calculator(name)
    before = results(device, structures[0])
    for k, (a, b) in enumerate(zip(device.evaluate(structures), cpu.evaluate(structures), strict=True)):
        compare(a, b, f"structure {k}")
    compare(results(device, structures[0]), before, "after the batch")  # the list of the batch is not taken for its own


def test_a_trajectory_uses_the_list_of_the_device() -> None:
    def run(calc: GraceCalculator) -> tuple[np.ndarray, np.ndarray]:
        atoms = small_cell("tiny_2l", 6)
        atoms.calc = calc
        atoms.set_momenta(thermal_momenta(atoms, 2000.0))
        VelocityVerlet(atoms, timestep=1.0 * units.fs).run(10)
        return atoms.positions, atoms.get_forces()

    device = calculator("tiny_2l", skin=0.2, **ON_DEVICE)
    (x, f), (y, g) = run(device), run(calculator("tiny_2l", skin=0.2))
    assert_close(x, y, tol.TRAJECTORY)
    assert_close(f, g, tol.TRAJECTORY)
    assert device._lists is not None
    assert device._lists.n_updates == 0, "the CPU has listed neighbours that the device lists itself"


@pytest.mark.parametrize("name", MODELS)
def test_some_atoms(name: str) -> None:
    atoms = systems.thin_slab(SYMBOLS[name], n_atoms=16)
    device, cpu = calculator(name, **ON_DEVICE), calculator(name)
    for forces in (True, False):
        a, b = (calc.compute_atoms(atoms, [3, 11], forces=forces) for calc in (device, cpu))
        assert set(a) == set(b)
        for key in a:
            assert_close(a[key], b[key], 100 * tol.SUMMATION, what=key)


@pytest.mark.parametrize("options", [{}, ON_DEVICE], ids=["cpu", "device"])
@pytest.mark.parametrize("name", MODELS)
def test_an_energy_alone_does_without_forces(name: str, options: dict[str, Any]) -> None:
    atoms = small_cell(name)
    atoms.calc = calculator(name, **options)
    energy = atoms.get_potential_energy()
    assert set(atoms.calc.results) == {"energy", "free_energy", "energies"}
    forces = atoms.get_forces()
    assert atoms.get_potential_energy() == atoms.calc.results["energy"]
    assert_close(energy, atoms.get_potential_energy(), tol.SUMMATION * max(1.0, np.abs(forces).max()))
    assert np.abs(forces).max() > 0.0
    assert "stress" in atoms.calc.results
    atoms.positions[0] += 0.1
    assert atoms.get_potential_energy() != energy
    assert "forces" not in atoms.calc.results, "forces of before the move"


def test_precision_follows_the_device() -> None:
    auto = "fp64" if IS_EMULATED else "mixed"
    assert ", fp64" in calculator("tiny_1l").description
    assert ", mixed" in calculator("tiny_1l", precision="mixed").description
    assert f", {auto}" in calculator("tiny_1l", device=DEVICE).description  # emulated: for comparisons, not for speed


def test_single_precision() -> None:
    single, double = calculator("tiny_2l", device=DEVICE, precision="mixed"), calculator("tiny_2l")
    a, b = (results(calc, small_cell("tiny_2l")) for calc in (single, double))
    largest = np.abs(b["forces"]).max()
    assert_close(a["forces"], b["forces"], tol.MIXED_FORCE_RELATIVE * largest)
    assert np.abs(a["forces"] - b["forces"]).max() > tol.FORCE * largest


def test_deterministic() -> None:
    """Sums in fixed point do not depend on the order; without, they do: the emulated device shuffles it."""
    runs = {
        deterministic: [
            results(calculator("tiny_1l", device=f"emulated:{seed}", precision="fp64", deterministic=deterministic),
                    small_cell("tiny_1l"))["forces"]
            for seed in (1, 2)
        ]
        for deterministic in (False, True)
    }  # fmt: skip
    assert np.array_equal(*runs[True])
    assert not np.array_equal(*runs[False])
    assert_close(runs[True][0], runs[False][0], 1e3 * tol.SUMMATION)


def test_auto_says_what_it_chose(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRACE_MD_DEVICE", "emulated:7")
    with caplog.at_level(logging.INFO, logger="grace_md"):
        calc = calculator("tiny_1l")
        calc.calculate(small_cell("tiny_1l"))
    assert [record.getMessage() for record in caplog.records if "device auto" in record.getMessage()] == [
        f"device auto: {calc.description}"
    ]
    assert "emulated" in calc.description
    assert resolve_device() == "emulated:7"
    assert resolve_device("cpu") == "cpu"
    monkeypatch.setenv("GRACE_MD_DEVICE", "gpu")
    with pytest.raises(ValueError, match="environment variable GRACE_MD_DEVICE: `device` must be auto, cpu, cuda"):
        calculator("tiny_1l")


@pytest.mark.skipif(cuda_probe()["n_devices"] > 0, reason="there is a GPU: device cuda works")
def test_no_gpu(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match="device cuda: "):
            calculator("tiny_1l", device=word)
    monkeypatch.delenv("GRACE_MD_DEVICE", raising=False)
    assert resolve_device() == "cpu"
    with caplog.at_level(logging.INFO, logger="grace_md"):
        calc = calculator("tiny_1l")
    assert caplog.records[-1].getMessage() == f"device auto: {calc.description} ({cuda_probe()['reason']})"


@pytest.mark.parametrize("device", ["cpu", DEVICE])
def test_bad_input(device: str) -> None:
    calc = calculator("tiny_1l", device=device)
    atoms = small_cell("tiny_1l")
    atoms.positions[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"3.*not finite"):
        calc.calculate(atoms)
    flat = small_cell("tiny_1l")
    flat.cell[2] = flat.cell[1]
    with pytest.raises(ValueError, match="volume"):
        calc.calculate(flat)
    compare(results(calc, small_cell("tiny_1l")), results(calculator("tiny_1l"), small_cell("tiny_1l")), "afterwards")


def test_the_command_takes_the_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write(tmp_path / "in.extxyz", [small_cell("tiny_1l", n) for n in (4, 5)])
    frames = {}
    runs = [
        ("cpu", "cpu", "fp64"),
        ("double", DEVICE, "fp64"),
        ("single", DEVICE, "auto" if KIND == "cuda" else "mixed"),
    ]
    for name, device, precision in runs:
        output = tmp_path / f"{name}.extxyz"
        arguments = ["eval", str(FOLDER / "tiny_1l.npz"), str(tmp_path / "in.extxyz"), "-o", str(output)]
        assert cli.main([*arguments, "--device", device, "--precision", precision]) == 0
        assert f"runs on: {device.split(':')[0]}" in capsys.readouterr().out
        assert json.loads(Path(f"{output}.summary.json").read_text())["device"] == device.split(":")[0]
        frames[name] = ase.io.read(output, index=":")
    for k in range(2):
        cpu, double, single = (frames[name][k].get_forces() for name in ("cpu", "double", "single"))
        assert_close(double, cpu, tol.EXTXYZ_DIGITS)
        assert_close(single, cpu, tol.MIXED_FORCE_RELATIVE * np.abs(cpu).max())
    assert cli.main([*arguments, "--force", "--device", "cuda:99"]) == 1
    assert "grace-md eval: device cuda" in capsys.readouterr().err


PROBE = {"built": True, "n_devices": 0, "reason": "", "architectures": [80, 90, 120], "names": []}


@pytest.mark.parametrize(
    ("probe", "driver", "ok", "text"),
    [
        (
            {"n_devices": 2, "names": ["NVIDIA H200"] * 2},
            True,
            True,
            "2 usable (NVIDIA H200, NVIDIA H200); built for comp",
        ),
        ({"reason": "device cuda: too old"}, True, False, "not used: device cuda: too old"),
        ({"reason": "device cuda: no driver"}, False, None, "not used: device cuda: no driver"),
        ({"built": False, "reason": "device cuda: built without"}, True, None, "not used: device cuda: built without"),
    ],
)
def test_doctor_on_gpus(
    probe: dict[str, Any], driver: bool, ok: bool | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({**PROBE, **probe})
    monkeypatch.setattr(doctor, "run_python", lambda _code: (0, f"a line of a library\n{answer}\n"))
    monkeypatch.setattr(doctor, "driver_is_loaded", lambda: driver)
    (finding,) = doctor.check_gpu()
    assert finding.ok is ok
    assert finding.text.startswith(text)
    monkeypatch.undo()
    (real,) = doctor.check_gpu()
    assert real.subject == "gpu"
    assert real.text
