"""Conversion into shards: content, resume after a kill, full disks, damage, other options, workers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest

from grace_md.neighbors import neighbor_list
from grace_md.training.data import (
    CorruptShardError,
    LabelError,
    LabelKeys,
    ShardSet,
    Source,
    convert,
    data_report,
    storage,
)
from labelled_sets import CUTOFF, ELEMENTS, alloys, lone_atom, mixed_set, volume_scan
from tolerances import EXTXYZ_DIGITS, assert_close


@pytest.fixture(scope="module")
def xyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sources") / "set.extxyz"
    ase.io.write(path, mixed_set())
    return path


def make(xyz: Path | Source, out: Path, **options: Any) -> ShardSet:
    return convert(xyz if isinstance(xyz, Source) else str(xyz), out, ELEMENTS, CUTOFF,
                   **{"workers": 1, "shard_atoms": 30, "progress": False, "report": False, **options})  # fmt: skip


def test_content(xyz: Path, tmp_path: Path) -> None:
    structures = ase.io.read(xyz, ":")
    shards = make(xyz, tmp_path / "s")
    assert len(shards) == len(structures)
    assert len(list((tmp_path / "s").glob("shard-*.bin"))) > 4
    assert not list((tmp_path / "s").glob("*.part"))
    assert shards.present == ELEMENTS
    np.testing.assert_array_equal(shards.n_atoms, [len(a) for a in structures])
    lists = [neighbor_list(a, CUTOFF) for a in structures]
    np.testing.assert_array_equal(shards.n_bonds, [len(pairs) for pairs in lists])
    assert_close(shards.energy, [a.calc.results["energy"] for a in structures], EXTXYZ_DIGITS)
    for index in (0, 13, len(structures) - 1):
        atoms = shards.atoms(index)
        assert_close(atoms.positions, structures[index].positions, 0.0)
        assert_close(atoms.calc.results["forces"], structures[index].calc.results["forces"], 0.0)
        assert ("stress" in atoms.calc.results) == ("stress" in structures[index].calc.results)
    assert shards.describe(0) == f"structure 0 of {xyz} ({structures[0].get_chemical_formula()})"
    closest = [pairs.distance.min(initial=np.inf) for pairs in lists]
    assert_close(shards.column("closest")[:20], closest[:20], 1e-12)
    forces = np.concatenate([a.calc.results["forces"] for a in structures])
    assert shards.force_rms() == pytest.approx(np.sqrt(np.mean(forces**2)))
    assert shards.average_neighbors() == pytest.approx(sum(map(len, lists)) / len(forces))
    counts = shards.composition_counts()
    np.testing.assert_array_equal(counts, [[a.symbols.count(e) for e in ELEMENTS] for a in structures])
    np.testing.assert_array_equal(shards.composition_counts([5, 2], ["Cu"]), counts[[5, 2]][:, [2]])


def test_an_index_knows_where_the_data_came_from(xyz: Path, tmp_path: Path) -> None:
    shards = make(Source(str(xyz), name="mix", weight=2.0), tmp_path / "s")
    index = json.loads((tmp_path / "s" / "index.json").read_text())
    assert index["sources"][0]["sha256"] == hashlib.sha256(xyz.read_bytes()).hexdigest()
    assert shards.source_names == ["mix"]
    assert shards.source_weights[0] == 2.0
    assert make(Source(str(xyz), name="other", weight=3.0), tmp_path / "s").source_weights[0] == 3.0
    assert ShardSet(tmp_path / "s").source_names == ["other"]


def test_the_number_of_shards_changes_nothing(xyz: Path, tmp_path: Path) -> None:
    one, many = make(xyz, tmp_path / "one", shard_atoms=10**6), make(xyz, tmp_path / "many", shard_atoms=1)
    for name in storage_columns():
        np.testing.assert_array_equal(one.column(name), many.column(name), err_msg=name)


def storage_columns() -> list[str]:
    return ["n_atoms", "n_bonds", "energy", "stress", "geometry", "group", "row", "force_max", "config_type", "pbc"]


def test_a_second_call_does_nothing(xyz: Path, tmp_path: Path) -> None:
    make(xyz, tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir() if p.name != ".lock"}
    make(xyz, tmp_path / "s")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_processes_that_open_a_finished_set_wait_for_each_other(xyz: Path, tmp_path: Path) -> None:
    expected = make(xyz, tmp_path / "s").sha256
    with ThreadPoolExecutor(6) as pool:  # locks of files exclude threads just as processes
        found = list(pool.map(lambda _: make(xyz, tmp_path / "s").sha256, range(12)))
    assert found == [expected] * 12


def test_other_options_are_refused_without_force(xyz: Path, tmp_path: Path) -> None:
    make(xyz, tmp_path / "s")
    with pytest.raises(FileExistsError, match=r"made with other pair_cutoffs.*`force`"):
        convert(str(xyz), tmp_path / "s", ELEMENTS, 4.0, progress=False)
    with pytest.raises(FileExistsError, match="made with other sources"):
        make(Source(f"{xyz}@0:5"), tmp_path / "s")
    shards = convert(str(xyz), tmp_path / "s", ELEMENTS, 4.0, progress=False, report=False, force=True)
    assert shards.pair_cutoffs.max() == 4.0


def test_foreign_directories_are_refused(xyz: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="has other files"):
        make(xyz, tmp_path, force=True)
    assert (tmp_path / "thesis.tex").exists()


def test_elements_outside_the_model(xyz: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"workers": 1, "shard_atoms": 30, "progress": False, "report": False}
    with pytest.raises(
        ValueError, match=r"set.extxyz: structure \d+ has Ag, outside the elements of the model \(Cu Au\)"
    ):
        convert(str(xyz), tmp_path / "s", ["Cu", "Au"], CUTOFF, **options)
    shards = convert(str(xyz), tmp_path / "t", ["Cu", "Au"], CUTOFF, unknown_elements="skip", **options)
    structures = [a for a in ase.io.read(xyz, ":") if "Ag" not in a.symbols]
    assert len(shards) == len(structures)
    with pytest.raises(ValueError, match="No structure is left"):
        convert(str(xyz), tmp_path / "u", ["Ni"], CUTOFF, unknown_elements="skip", **options)


def test_a_model_with_other_elements_or_cutoffs(xyz: Path, tmp_path: Path) -> None:
    shards = make(xyz, tmp_path / "s")
    wide = ["H", "Cu", "Ag", "Au"]
    assert shards.for_model(wide, np.full((4, 4), CUTOFF)).elements == wide
    with pytest.raises(ValueError, match=r"The data have Ag, outside the elements of the model \(Cu Au\), for example"):
        shards.for_model(["Cu", "Au"], np.full((2, 2), CUTOFF))
    other = np.full((4, 4), CUTOFF)
    other[1, 2] = other[2, 1] = 5.0
    with pytest.raises(ValueError, match=r"cutoff 4.5 A for Ag-Cu, the model has 5 A"):
        shards.for_model(wide, other)


def test_structures_without_neighbours_are_kept(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "atoms.extxyz", [lone_atom("Cu"), lone_atom("Au")])
    shards = make(tmp_path / "atoms.extxyz", tmp_path / "s")
    np.testing.assert_array_equal(shards.n_bonds, [0, 0])
    batch, labels = shards.batch([0, 1])
    assert batch.n_bonds == 0
    assert labels.energy.isfinite().all()
    assert "2  structures without any neighbour" in data_report(shards).text()


# Interruptions --------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
from grace_md.training.data import convert as call, LabelKeys
import grace_md.training.data.convert
module = sys.modules["grace_md.training.data.convert"]
module.SMALL = 0
make = module._make_shard
def slow(job):
    card = make(job)
    time.sleep(0.3)
    return card
if __name__ == "__main__":
    path, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if workers == 1:
        module._make_shard = slow
    call(path, out, ["Ag", "Au", "Cu"], 4.5, workers=workers, shard_atoms=30 if workers == 1 else 1, report=False)
"""


def start(script: Path, xyz: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, str(script), str(xyz), str(out), str(workers)], env=environment,
                            stderr=subprocess.PIPE)  # fmt: skip


def wait_for_shards(process: subprocess.Popen[bytes], out: Path, n: int) -> None:
    for _ in range(600):
        if len(list(out.glob("shard-*.json"))) >= n:
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"the conversion did not get to {n} shards: {process.communicate()[1]!r}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_conversion_goes_on(xyz: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "s"
    process = start(tmp_path / "run.py", xyz, out, workers=1)
    wait_for_shards(process, out, 2)
    with pytest.raises(RuntimeError, match="Another process is converting"):
        make(xyz, out)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    with pytest.raises(FileNotFoundError, match="its conversion was not finished"):
        ShardSet(out)
    (out / "shard-00099.bin.part").write_bytes(b"half a shard")
    done = {p: p.stat().st_mtime_ns for p in out.glob("shard-*.json")}
    shards = make(xyz, out)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert len(list(out.glob("shard-*.json"))) > len(done)
    assert not list(out.glob("*.part"))
    assert shards.sha256 == make(xyz, tmp_path / "fresh").sha256


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_workers_share_the_work_and_end_with_their_parent(xyz: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    process = start(tmp_path / "run.py", xyz, out, workers=2)
    wait_for_shards(process, out, 3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("worker processes outlive the conversion")
    process = start(tmp_path / "run.py", xyz, out, workers=2)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert b"100 %" in errors
    assert ShardSet(out).sha256 == make(xyz, tmp_path / "one", shard_atoms=1).sha256


def test_a_full_disk_is_one_sentence_and_resumable(xyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"The disk of `.*` is full; complete shards are kept: free some space"):
            make(xyz, tmp_path / "s")
    assert not list((tmp_path / "s").glob("*.part"))
    assert 2 <= len(list((tmp_path / "s").glob("shard-*.json"))) <= 3
    assert make(xyz, tmp_path / "s").sha256 == make(xyz, tmp_path / "fresh").sha256


# Damage ---------------------------------------------------------------------------------------------------------------


def test_a_truncated_shard_is_found_and_replaced(xyz: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    good = make(xyz, out).sha256
    path = out / "shard-00002.bin"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptShardError, match=r"shard-00002.bin` has \d+ bytes instead of \d+: it is truncated; run"):
        ShardSet(out)
    assert make(xyz, out).sha256 == good
    path.unlink()
    with pytest.raises(CorruptShardError, match="is missing"):
        ShardSet(out)
    assert make(xyz, out).sha256 == good


def test_a_changed_byte_is_found_by_the_full_check(xyz: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    make(xyz, out).verify()
    path = out / "shard-00001.bin"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptShardError, match=r"checksum of `.*shard-00001.bin` is wrong"):
        ShardSet(out).verify(progress=False)
    make(xyz, out, verify=True).verify()


def test_a_damaged_or_foreign_index(xyz: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    make(xyz, out)
    index = out / "index.json"
    text = index.read_text()
    index.write_text(text.replace(storage.FORMAT, "grace_md shards 99"))
    with pytest.raises(ValueError, match="has the format 'grace_md shards 99'"):
        ShardSet(out)
    index.write_text(text[:100])
    with pytest.raises(CorruptShardError, match="is damaged"):
        ShardSet(out)
    with pytest.raises(FileNotFoundError, match="is not a set of shards"):
        ShardSet(tmp_path / "nowhere")


def test_a_source_that_changed_is_another_set(xyz: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(xyz, tmp_path / "set.extxyz"))
    make(path, tmp_path / "s")
    path.write_text(path.read_text().replace("config_type=alloy", "config_type=metal"))
    with pytest.raises(FileExistsError, match="made with other sources"):
        make(path, tmp_path / "s")


# Several sets ---------------------------------------------------------------------------------------------------------


def test_several_sources_and_sets(xyz: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "more.extxyz", alloys(5, seed=3))
    both = convert([str(xyz), Source(str(tmp_path / "more.extxyz"), name="more", weight=0.5)], tmp_path / "both",
                   ELEMENTS, CUTOFF, progress=False, report=False)  # fmt: skip
    joined = ShardSet([make(xyz, tmp_path / "a")._shards[0].folder, convert(
        Source(str(tmp_path / "more.extxyz"), name="more", weight=0.5), tmp_path / "b", ELEMENTS, CUTOFF,
        progress=False, report=False)._shards[0].folder])  # fmt: skip
    for shards in (both, joined):
        np.testing.assert_array_equal(np.bincount(shards.source_of), [len(both) - 5, 5])
        assert shards.source_weights.tolist() == [1.0, 0.5]
        assert shards.describe(len(shards) - 1).startswith("structure 4 of more")
    np.testing.assert_array_equal(both.energy, joined.energy)
    make(Source(str(tmp_path / "more.extxyz")), tmp_path / "c")
    wider = convert(str(xyz), tmp_path / "d", ELEMENTS, 5.0, progress=False, report=False)
    with pytest.raises(ValueError, match="neighbour lists of different cutoffs"):
        ShardSet([tmp_path / "c", wider._shards[0].folder])


def test_checks_stop_a_conversion_before_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "scan.extxyz"
    ase.io.write(path, volume_scan())
    with pytest.raises(LabelError, match=r"scan.extxyz: .*stress.*set `stress_unit`.*set `check` to 'warn'"):
        make(Source(str(path), keys=LabelKeys(stress_unit="kbar")), tmp_path / "s")
    assert not list((tmp_path / "s").glob("shard-*"))
    shards = make(Source(str(path), keys=LabelKeys(stress_unit="kbar")), tmp_path / "s", check="warn")
    assert [c["verdict"] for c in shards.checks].count("suspicious") == 1
    make(path, tmp_path / "t")


def test_converting_needs_no_torch() -> None:
    code = "import sys, grace_md.training.data; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
