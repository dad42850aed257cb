"""`grace-md report data`: exact counts on known sets, every picture on the page, samples, runs, bad input."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from dataset_tools import pair, write
from grace_md import cli
from grace_md.analysis.dataset_report import measure_statistics
from grace_md.analysis.dataset_sets import open_sets
from grace_md.analysis.dataset_statistics import SetStatistics

GPA = 160.21766208
RADII = {"Cu": 1.32, "Au": 1.36, "Mo": 1.54, "Nb": 1.64}


def alloys(n: int, seed: int, scale: float, kind: str) -> list[Atoms]:
    """Rattled Mo-Nb crystals of two densities; features of a random model tell the densities apart."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        atoms = bulk("Mo", "bcc", a=3.2 * scale, cubic=True).repeat((2, 1, 1))
        atoms.symbols = rng.choice(["Mo", "Nb"], len(atoms))
        atoms.positions += 0.08 * rng.standard_normal((len(atoms), 3))
        atoms.info["config_type"] = kind
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two unlabelled sets in one file, told apart by their types."""
    folder = tmp_path_factory.mktemp("data")
    return write(folder, "both", alloys(40, 1, 1.0, "dense_a") + alloys(30, 2, 1.25, "open_b"))


@pytest.fixture(scope="module")
def written(both: Path) -> Path:
    out = both.parent / "out"
    words = ["report", "data", f"{both}#dense_*", f"loose={both}#open_*", "--threads", "1"]
    assert cli.main([*words, "--model", str(model()), "-o", str(out), "--components", "6"]) == 0
    return out


def model() -> Path:
    return Path(__file__).resolve().parents[1] / "data" / "models" / "tiny_1l.npz"


def statistics(path: Path, word: str = "") -> SetStatistics:
    (one,) = open_sets([f"{path}{word}"])
    one.scan()
    return measure_statistics(one)


def test_counts_of_a_known_set(tmp_path: Path) -> None:
    single = Atoms("Cu", cell=[30.0, 30.0, 30.0], pbc=True)
    molecule = Atoms("Au2", positions=[[0, 0, 0], [0, 0, 2.5]])
    path = write(tmp_path, "known", [pair(2.0, energy=4.0), pair(2.5, "CuCu", energy=-1.0), single, molecule])
    found = statistics(path)
    h = found.histograms
    assert (found.n_structures, found.n_atoms, found.n_periodic, found.n_lonely) == (4, 7, 3, 1)
    assert found.elements == ["Cu", "Au"]
    assert (found.structures_of[29], found.atoms_of[29]) == (3, 4)
    assert (found.structures_of[79], found.atoms_of[79]) == (2, 3)
    assert h["n_elements"].bins.tolist() == [1, 2]
    assert h["n_elements"].counts.tolist() == [3, 1]
    assert h["n_atoms"].counts.tolist() == [1, 3]
    assert (h["energy"].count, h["energy"].minimum, h["energy"].maximum) == (2, -0.5, 2.0)
    assert (h["force"].count, h["force"].maximum) == (12, 4.0)
    assert h["stress"].count == 12
    assert h["stress"].maximum == pytest.approx(0.04 * GPA, rel=1e-6)
    assert h["distance"].count == h["contact"].count == 3
    assert h["contact"].minimum == pytest.approx(2.0 / (RADII["Cu"] + RADII["Au"]), rel=1e-7)
    spheres = 4.0 / 3.0 * np.pi * (RADII["Cu"] ** 3 + RADII["Au"] ** 3)
    assert h["packing"].maximum == pytest.approx(spheres / 1000.0, rel=1e-7)
    assert h["aspect"].count == 3
    assert h["aspect"].maximum == pytest.approx(1.0)


def test_aspect_is_that_of_distances_between_faces(tmp_path: Path) -> None:
    sheared = Atoms("Cu", cell=[[3.0, 0, 0], [4.0, 3.0, 0], [0, 0, 6.0]], pbc=True)
    found = statistics(write(tmp_path, "sheared", [sheared]))
    heights = np.array([9.0 / 5.0, 3.0, 6.0])  # areas of the faces are 30, 18 and 9 A^2, the volume 54 A^3
    assert found.histograms["aspect"].maximum == pytest.approx(heights.max() / heights.min())
    assert found.histograms["distance"].maximum == pytest.approx(3.0)  # to its own image


def test_report_of_two_sets(written: Path) -> None:
    report = json.loads((written / "report.json").read_text())
    assert {name: one["structures"] for name, one in report["sets"].items()} == {"dense": 40, "loose": 30}
    assert report["sets"]["dense"]["quantities"]["energy"]["count"] == 0
    coverage = report["coverage"]
    assert (coverage["n_components"], coverage["structures_fitted_per_set"]) == (6, 30)
    assert coverage["atoms_compared_per_set"] == 120
    assert coverage["sets"]["dense"]["atoms"] == 160
    outside = coverage["outside"]
    assert outside["dense"]["dense"] == pytest.approx(1 / 160)
    assert outside["dense"]["loose"] > 0.9
    assert (written / "report.txt").read_text().count("loose") >= 10


def test_the_page_holds_every_picture(written: Path) -> None:
    page = (written / "report.html").read_text()
    pictures = {base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', page)}
    files = sorted(written.glob("*.png"))
    assert {path.read_bytes() for path in files} == pictures
    names = {path.stem for path in files}
    assert names >= {"coverage", "coverage_higher", "outside", "scalars", "mahalanobis", "labels", "composition"}
    assert names >= {"geometry", "elements_dense", "elements_loose"}
    assert page.count("<h2>") == 6 + 1
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_sample_is_random_and_repeatable(both: Path) -> None:
    (one,) = open_sets([str(both)])
    one.scan()
    first, again, other = (measure_statistics(one, 20, seed) for seed in (1, 1, 2))
    assert first.n_structures == 20
    assert first.numbers.tolist() == again.numbers.tolist() != other.numbers.tolist()
    assert [number for number, _ in one.read(np.array([3, 50]))] == [3, 50]


def test_names_and_ranges(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", "data", f"{both}@:10", f"{both}@10:15", "--names", "first,second", "-o", str(tmp_path / "out")]
    assert cli.main(words) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {name: one["structures"] for name, one in report["sets"].items()} == {"first": 10, "second": 5}
    assert report["coverage"] is None
    assert "give a model" in capsys.readouterr().out
    assert cli.main(words) == 1
    assert "--force" in capsys.readouterr().err


def test_without_matplotlib_there_is_text(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["report", "data", str(both), "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.txt"}
    assert "no pictures" in (tmp_path / "out" / "report.txt").read_text()


def test_wide_tails_and_a_single_value_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    tails = [pair(2.0 + 0.01 * k, energy=float(e)) for k, e in enumerate([*rng.standard_normal(60), 1e5, -3e4])]
    sets = [f"tails={write(tmp_path, 'tails', tails)}", f"one={write(tmp_path, 'one', [pair(2.2, energy=1.0)])}"]
    assert cli.main(["report", "data", *sets, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "labels.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.extxyz"], "There is no data file `absent.extxyz`"),
        (["{both}#crystal_*"], "has no structure of type `crystal_*`"),
        (["{both}", "{both}"], "two data sets `both`"),
        (["{both}", "--names", "a,b"], "has 2 names for 1 data sets"),
        (["a={both}@:3", "--model", "absent.npz"], "no weight file `absent.npz`"),
        (["{both}", "--features", "grace"], "add --model"),
        (["{both}", "--model", "{model}", "--features", "none"], "contradict"),
        (["{both}", "--sample", "-1"], "`--sample` = -1"),
        (["{both}", "--model", "{model}", "--components", "1"], "`components` = 1"),
        (["{both}", "--model", "{model}", "--fit", "0"], "`fit` = 0"),
        (["gold={gold}", "--model", "{model}"], "knows none of the elements"),
        (["{both}", "gold={gold}", "--model", "{model}"], "no sampled structure of gold"),
        (["{both}@:1", "--model", "{model}"], "smallest set has 4 atoms"),
        (["{broken}"], "truncated"),
        (["name="], "has no file"),
    ],
)
def test_bad_input_is_one_sentence(
    both: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = write(tmp_path, "gold", [pair(2.6, "AuAu")])
    broken = tmp_path / "broken.extxyz"
    broken.write_text(both.read_text()[:-200])
    places: dict[str, Any] = {"both": both, "gold": gold, "broken": broken, "model": model()}
    arguments = [word.format(**places) for word in words]
    assert cli.main(["report", "data", *arguments, "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not (tmp_path / "out" / "report.json").exists()
