"""Descriptors on a device: the NumPy reference, the CPU, the order of threads, failures, generated sets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import grace_md.smax.devices as devices_module
from device_tools import DEVICE, EMULATED_ONLY, KIND, ORDERS
from grace_md import _core
from grace_md.cli import main
from grace_md.smax import generate, read, snap_descriptors
from grace_md.smax.config import DescriptorSettings, SmaxConfig
from grace_md.smax.descriptors import SnapDescriptor, make_descriptor
from grace_md.smax.devices import choose_device, descriptor_on, worker_device
from grace_md.smax.run_settings import RunSettings
from grace_md.strict import ConfigError
from snap_tools import random_structures, reference
from tolerances import SNAP, SNAP_INVARIANCE, assert_close

MEMORY, FAILURE, VARIABLE = "GRACE_MD_EMULATED_MEMORY", "GRACE_MD_EMULATED_FAILURE", "GRACE_MD_DEVICE"
NO_GPU = pytest.mark.skipif(_core.cuda_probe()["n_devices"] > 0, reason="this machine has a GPU")
SMALL: dict[str, Any] = {
    "descriptor": {"twojmax": 4},
    "elements": {"symbols": ["Al", "Fe"], "weights": "uniform"},
    "composition": {"n_elements": [0.5, 0.5], "max_elements": 2, "n_atoms": "uniform", "min_atoms": 2, "max_atoms": 4},
    "optimiser": {"max_iterations": 4, "max_evaluations": 6, "core_iterations": 10},
    "statistics": {"seed_items_per_feature": 2.0},
}


@pytest.fixture(autouse=True)
def sound_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MEMORY, FAILURE, VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices_module, "_kept", SimpleNamespace())


def batch_of(structures: list[tuple[Any, Any, Any]]) -> Any:
    return SimpleNamespace(
        positions=np.concatenate([x for x, _, _ in structures]),
        cells=np.array([h for _, h, _ in structures]),
        periodic=np.ones((len(structures), 3), dtype=bool),
        first_atom=np.concatenate([[0], np.cumsum([len(x) for x, _, _ in structures])]),
        cutoffs=np.concatenate([c for _, _, c in structures]),
    )


def refusal(work: Callable[[], Any]) -> str:
    """What `work` says when the memory is too small; nothing if it is not."""
    try:
        work()
    except ValueError as error:
        return str(error)
    return ""


def answer(device: str, batch: Any, rule: Any = "pair") -> tuple[Any, Any, Any]:
    """Values and the gradients of some function of them."""
    descriptor = SnapDescriptor(cutoff_rule=rule, device=device)
    values = descriptor.values(batch)
    beta = np.random.default_rng(0).normal(size=values.shape)
    return (values, *descriptor.gradients(beta))


@pytest.mark.parametrize("rule", ["centre", "pair"])
def test_values_are_those_of_the_reference(rule: Any) -> None:
    for positions, cell, cutoffs in random_structures(3, seed=4):
        atoms = Atoms(f"H{len(positions)}", positions, cell=cell, pbc=True)
        values = snap_descriptors(atoms, cutoffs, cutoff_rule=rule, device=DEVICE)
        expected = reference(positions, cell, [True] * 3, cutoffs, pair_rule=rule == "pair")
        assert_close(values, expected, SNAP)


@pytest.mark.parametrize("rule", ["centre", "pair"])
def test_values_and_gradients_are_those_of_the_cpu(rule: Any) -> None:
    batch = batch_of(random_structures(12, seed=5))
    results = [answer(device, batch, rule) for device in ORDERS]
    for value, expected in zip(results[0], answer("cpu", batch, rule), strict=True):
        assert_close(value, expected, SNAP_INVARIANCE * np.abs(expected).max())
    for result in results[1:]:  # the same bits in any order of blocks and threads
        assert all(np.array_equal(value, first) for value, first in zip(result, results[0], strict=True))


def test_a_structure_does_not_see_its_company() -> None:
    structures = random_structures(6, seed=6)
    together = answer(DEVICE, batch_of(structures))[0]
    alone = [SnapDescriptor(cutoff_rule="pair", device=DEVICE).values(batch_of([s])) for s in structures]
    assert np.array_equal(together, np.concatenate(alone))


def test_a_descriptor_names_its_device() -> None:
    assert SnapDescriptor().device == "cpu"
    name = SnapDescriptor(device=DEVICE).device
    assert name.startswith("emulated (order" if KIND == "emulated" else "cuda:")


@EMULATED_ONLY
def test_memory_that_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever does not fit, the sentence says so, and what fits is computed afterwards as if nothing had happened."""
    large, small = batch_of(random_structures(40, seed=7)), batch_of(random_structures(1, seed=8))
    expected = answer("cpu", small)[0]
    sentences = set()
    for limit in range(100_000, 8_000_000, 150_000):
        monkeypatch.setenv(MEMORY, str(limit))
        if sentence := refusal(lambda: answer(DEVICE, small)):
            assert sentence.startswith("out of GPU memory: ")
            continue
        descriptor = SnapDescriptor(cutoff_rule="pair", device=DEVICE)
        if sentence := refusal(lambda d=descriptor: d.values(large)):  # type: ignore[misc]
            sentences.add(re.sub(r"\d[\d.e-]*", "N", sentence))
        assert_close(descriptor.values(small), expected, SNAP_INVARIANCE * np.abs(expected).max())
    assert sentences == {
        "out of GPU memory: the descriptors of N atoms need N GB, emulated (order N) has N GB for them; give fewer "
        "structures at a time (run.batch of grace-md smax), or use device cpu"
    }


@EMULATED_ONLY
@pytest.mark.parametrize(
    "kernel",
    ["snap_count_pairs", "snap_store_pairs", "snap_densities", "snap_bispectrum", "snap_adjoints",
     "snap_pair_gradients", "snap_collect"],
)  # fmt: skip
def test_a_lost_device_says_so(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(random_structures(1, seed=9))
    monkeypatch.setenv(FAILURE, kernel)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^GPU failure on emulated \(order 2\) in or before kernel {kernel}: "):
            answer(DEVICE, batch)
    monkeypatch.delenv(FAILURE)
    assert np.isfinite(answer(DEVICE, batch)[0]).all()


@NO_GPU
def test_cuda_never_falls_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = _core.cuda_probe()["reason"]
    assert reason.startswith("device cuda: ")
    assert reason == _core.cuda_obstacle()
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        snap_descriptors(bulk("W"), 4.0, device="cuda")
    with pytest.raises(ConfigError, match=f"^{re.escape(reason)}"):
        generate(SmaxConfig(), tmp_path / "run", 1, run=RunSettings(device="cuda"))
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(SMALL))
    for more in ([], ["--dry-run"]):
        assert main(["smax", "generate", str(file), "-n", "1", "-o", str(tmp_path / "run"), "--device", "cuda", *more])
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_words_for_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu", "snap") == ("cpu", "")
    device, line = choose_device("auto", "snap")
    probe = _core.cuda_probe()
    assert device == ("cuda" if probe["n_devices"] else "cpu")
    assert line.startswith(f"device auto: {device} (")
    assert (probe["names"][0] if probe["n_devices"] else probe["reason"]) in line
    assert choose_device("auto", "ace")[0] == "cpu"
    monkeypatch.setenv(VARIABLE, "cpu")
    assert choose_device("auto", "snap")[0] == "cpu"
    monkeypatch.setenv(VARIABLE, "emulated:3")
    assert choose_device("auto", "snap")[0] == "emulated:3"
    monkeypatch.setenv(VARIABLE, "cuda:999")
    with pytest.raises(ConfigError, match=r"^device cuda.*\.$"):
        choose_device("auto", "snap")
    with pytest.raises(ConfigError, match=r"`descriptor.kind` = 'ace' has no kernels for GPUs"):
        choose_device(DEVICE, "ace")
    with pytest.raises(ValueError, match="'ace' has no kernels for emulated"):
        make_descriptor(SmaxConfig.of({"descriptor": {"kind": "ace"}}).descriptor, "emulated")
    for word in ("gpu", "cuda:", "cuda:-1", "cuda:0 ", "CPU"):
        with pytest.raises(ConfigError, match=r"`run.device` = '.*' must be auto, cpu, cuda or cuda:N"):
            RunSettings(device=word).check()


def test_workers_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "cuda_probe", lambda: {"n_devices": 3})
    names = ("MainProcess", "SpawnProcess-1", "SpawnProcess-2", "SpawnProcess-3", "SpawnProcess-4", "ForkProcess-12")
    taken = []
    for name in names:
        process = SimpleNamespace(name=name)
        monkeypatch.setattr(devices_module, "multiprocessing", SimpleNamespace(current_process=lambda p=process: p))
        taken.append(worker_device("cuda"))
        assert worker_device("cuda:1") == "cuda:1"
    assert taken == ["cuda:0", "cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:2"]


def test_a_thread_keeps_the_descriptor_of_its_gpu() -> None:
    settings = DescriptorSettings()
    one = descriptor_on(settings, DEVICE)
    assert descriptor_on(settings, DEVICE) is one
    other = descriptor_on(DescriptorSettings(twojmax=4), DEVICE)
    assert (one.n_features, other.n_features) == (55, 14)
    assert descriptor_on(settings, "cpu") is not descriptor_on(settings, "cpu")


def test_sets_are_generated_on_a_device(tmp_path: Path) -> None:
    """From drawing to the files: searches use the device, the manifest names it, deterministic runs keep to it."""
    config = SmaxConfig.of(SMALL)
    layout = RunSettings(batch=8, round_batches=2, device=DEVICE)
    options: dict[str, Any] = {"workers": 1, "deterministic": True, "say": lambda _: None}
    for name, n in (("a", 16), ("b", 12)):
        assert generate(config, tmp_path / name, n, run=layout, **options).status == "complete"
    generate(config, tmp_path / "b", 16, run=layout, resume=True, **options)
    first, second = list(read(tmp_path / "a")), list(read(tmp_path / "b"))
    assert len(first) == 16
    assert any(atoms.info["smax_phase"] == "entropy" for atoms in first)
    assert [a.info["smax_index"] for a in first] == [b.info["smax_index"] for b in second]
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(first, second, strict=True))
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["device"] == DEVICE
    assert manifest["run"]["device"] == DEVICE
    with pytest.raises(ConfigError, match=rf"on device {KIND}, and the bits of cpu differ"):
        generate(config, tmp_path / "a", 20, run=RunSettings(batch=8, round_batches=2), resume=True, **options)
    extended = generate(config, tmp_path / "c", 2, run=layout, extend=[tmp_path / "a"], **options)
    assert extended.accepted == 2


def test_the_command_takes_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({**SMALL, "run": {"batch": 8}}))
    words = ["smax", "generate", str(file), "-n", "6", "-o", str(tmp_path / "run"), "--workers", "1"]
    assert main([*words, "--device", DEVICE]) == 0
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["device"] == DEVICE
    assert main([*words, "--device", "auto", "--force"]) == 0
    assert capsys.readouterr().out.count("device auto: ") == 1
    assert main([*words, "--device", "gpu", "--force"]) != 0
    assert "`run.device` = 'gpu' must be" in capsys.readouterr().err
