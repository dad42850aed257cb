"""Quench workflow without running it: composition, packing, input, folders, arguments."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase.data import chemical_symbols, covalent_radii

from grace_md.analysis.lammps_files import read_data
from grace_md.analysis.pairs import closest_contact
from grace_md.data import available_models, model_path
from grace_md.workflows import quench, quickstart
from grace_md.workflows.composition import LAVA, equal_composition, parse_composition, scale_composition
from grace_md.workflows.packing import box_volume, random_packing
from grace_md.workflows.quench_input import QuenchSettings, write_inputs
from grace_md.workflows.quench_run import load_settings, prepare_quench, run_quench
from grace_md.workflows.run_lammps import LammpsError, find_lammps
from quench_tools import arguments, stand_in

# ---- composition ----


def test_lava_is_the_composition_of_the_paper():
    assert sum(LAVA.values()) == 4983
    assert scale_composition(LAVA, 4983) == LAVA
    assert scale_composition(LAVA, 248) == {
        "O": 115, "Si": 70, "Al": 21, "Fe": 14, "Ca": 10, "Na": 6, "Mg": 6, "K": 5, "Ti": 1,
    }  # fmt: skip


@pytest.mark.parametrize("n_atoms", [9, 10, 13, 20, 57, 100, 1000, 4982, 4984, 50_000])
def test_scaled_composition_has_the_exact_total_and_every_element(n_atoms):
    counts = scale_composition(LAVA, n_atoms)
    assert sum(counts.values()) == n_atoms
    assert min(counts.values()) >= 1
    assert list(counts) == list(LAVA)
    if n_atoms >= 500:
        assert all(abs(counts[e] - n_atoms * LAVA[e] / 4983) < 1.0 for e in LAVA)


def test_composition_errors_name_the_argument():
    with pytest.raises(ValueError, match="`n_atoms` = 8"):
        scale_composition(LAVA, 8)
    with pytest.raises(ValueError, match="'Xx'"):
        equal_composition(["Fe", "Xx"], 3)
    with pytest.raises(ValueError, match="`per_element` = 0"):
        equal_composition(["Fe"], 0)
    with pytest.raises(ValueError, match="Element=count"):
        parse_composition("O=3,Si")
    assert parse_composition("O=3, Si=2") == {"O": 3, "Si": 2}


# ---- packing ----


@pytest.mark.parametrize("composition", [scale_composition(LAVA, 60), equal_composition(chemical_symbols[1:95], 6)])
def test_packing_keeps_the_distance_and_the_composition(composition):
    atoms = random_packing(composition, minimum_distance=0.8, seed=5)
    assert Counter(atoms.get_chemical_symbols()) == Counter(composition)
    assert atoms.get_volume() == pytest.approx(box_volume(composition))
    ratio, _, _ = closest_contact(atoms.positions, atoms.cell.array, covalent_radii[atoms.numbers])
    assert 0.8 <= ratio < 0.95  # random, hence close to the limit somewhere
    again = random_packing(composition, minimum_distance=0.8, seed=5)
    other = random_packing(composition, minimum_distance=0.8, seed=6)
    assert np.array_equal(atoms.positions, again.positions)
    assert not np.array_equal(atoms.positions, other.positions)


def test_packing_density():
    atoms = random_packing({"O": 40, "Si": 20}, density=2.2)
    assert atoms.get_masses().sum() * 1.66053906660 / atoms.get_volume() == pytest.approx(2.2)


def test_packing_that_cannot_succeed_says_what_to_change():
    with pytest.raises(ValueError, match=r"only \d+ of 60 atoms fit .* lower `minimum_distance`"):
        random_packing({"O": 40, "Si": 20}, density=6.0, minimum_distance=1.1)
    with pytest.raises(ValueError, match="`density` = -1"):
        random_packing({"O": 40}, density=-1.0)
    with pytest.raises(ValueError, match="`packing_fraction` = 2"):
        random_packing({"O": 40}, packing_fraction=2.0)


# ---- input ----


def test_paper_protocol_is_in_the_input(tmp_path):
    write_inputs(tmp_path, quench.lava_settings())
    text = (tmp_path / "in.lava").read_text()
    assert "pair_style      grace\n" in text
    assert "pair_coeff      * * model.npz O Si Al Fe Ca Na Mg K Ti\n" in text
    assert "npt temp 5000 300 0.1 aniso 10000 0 1 " in text
    assert "start 0 stop 4000000" in text
    assert re.search(r"^timestep +0\.001 ", text, re.MULTILINE)
    assert text.index("minimize ") < text.index("reset_timestep  0") < text.index("velocity ") < text.index("npt temp")
    assert "4983 atoms" in text
    assert max(len(line) for line in text.splitlines()) < 130

    mendeleev = quench.mendeleev_settings(chemical_symbols[1:95])
    assert mendeleev.n_atoms == 9964
    write_inputs(tmp_path, mendeleev)
    assert "aniso 20000 0 1 " in (tmp_path / "in.mendeleev").read_text()


def test_example_input_is_what_the_command_writes(tmp_path):
    settings = quench.lava_settings(248, 40_000)
    prepare_quench(settings, tmp_path / "run", model_path())
    example = Path(__file__).parents[2] / "examples" / "lava"
    for name in ("in.lava", "in.lava.resume"):
        assert (example / name).read_text() == (tmp_path / "run" / name).read_text(), name
    shown, written = (read_data(folder / "start.data", list(LAVA)) for folder in (example, tmp_path / "run"))
    assert shown.get_chemical_symbols() == written.get_chemical_symbols()
    assert np.allclose(shown.positions, written.positions, rtol=0.0, atol=1e-10)


def test_settings_survive_json_and_bad_ones_are_named(tmp_path):
    settings = stand_in(density=2.0)
    assert QuenchSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert settings.target(150) == (2650.0, 0.5)
    assert settings.target(350) == (300.0, 0.0)
    with pytest.raises(ValueError, match="`steps` = 0"):
        prepare_quench(stand_in(steps=0), tmp_path / "run")
    with pytest.raises(ValueError, match="`temperature` = nan"):
        prepare_quench(stand_in(temperature=(float("nan"), 300.0)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folder_is_not_overwritten(tmp_path):
    folder = tmp_path / "run"
    prepare_quench(stand_in(), folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"--resume.*--force"):
        prepare_quench(stand_in(), folder)
    prepare_quench(stand_in(seed=9), folder, force=True)
    assert load_settings(folder).seed == 9
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match=r"no quench\.json"):
        run_quench(tmp_path)


def test_shipped_model():
    assert model_path("lava9_1l").is_file()
    assert "lava9_1l" in available_models()
    with pytest.raises(ValueError, match="not a shipped model; available: lava9_1l"):
        model_path("../secret")


def test_lammps_that_is_not_there_is_named():
    with pytest.raises(LammpsError, match="`lmp` = 'no-such-lammps'"):
        find_lammps("no-such-lammps")


# ---- commands ----


def test_quench_arguments_become_settings():
    pytest.importorskip("grace_md._core")
    args = arguments(quench, "lava", "--atoms", 100, "--steps", 5000, "--pressure", 3, 1, "--hold", 10, "--seed", 4)
    settings, model = quench.settings_from_arguments(args)
    assert model == model_path("lava9_1l")
    assert settings.n_atoms == 100
    assert settings.pressure == (3.0, 1.0)
    assert (settings.steps, settings.hold_steps, settings.seed) == (5000, 10, 4)
    words = ["mendeleev", "--model", model, "--per-element", 3, "--elements", "Fe,O"]
    settings, _ = quench.settings_from_arguments(arguments(quench, *words))
    assert settings.composition == {"Fe": 3, "O": 3}
    assert settings.pressure == (2.0, 0.0)
    settings, _ = quench.settings_from_arguments(arguments(quench, "mendeleev", "--model", model))
    assert sorted(settings.composition) == sorted(LAVA)
    with pytest.raises(ValueError, match="does not hold W"):
        quench.settings_from_arguments(arguments(quench, "lava", "--composition", "W=10"))
    with pytest.raises(ValueError, match="`--model` is missing"):
        quench.settings_from_arguments(arguments(quench, "mendeleev"))


def test_write_only_makes_a_complete_folder(tmp_path, capsys):
    pytest.importorskip("grace_md._core")
    args = arguments(quench, "lava", "--atoms", 40, "--steps", 100, "--out", tmp_path / "run", "--write-only")
    assert quench.run(args) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "in.lava", "in.lava.resume", "model.npz", "quench.json", "start.data", "state.json",
    }  # fmt: skip
    assert "lmp -in in.lava" in capsys.readouterr().out


def test_quickstart_fits_its_steps_to_the_time():
    args = arguments(quickstart, "--minutes", 2)
    settings = quench.lava_settings(248, 1500)
    sized = quickstart._sized(settings, args, seconds_per_step=0.01)
    assert sized.total_steps == 9600
    assert sized.hold_steps == 1440
    assert quickstart._sized(settings, args, seconds_per_step=10.0).total_steps == quickstart.MINIMUM_STEPS
    assert quickstart._sized(settings, args, seconds_per_step=1e-7).total_steps == quickstart.MAXIMUM_STEPS
