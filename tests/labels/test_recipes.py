"""What recipes refuse, choose and know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read

from grace_md.labels import create_farm
from grace_md.labels.collect import collect
from grace_md.labels.moments import initial_moments
from grace_md.labels.recipes import RECIPES, load_config, make_recipe
from grace_md.labels.recipes.gpaw import GpawRecipe, GpawSettings
from grace_md.labels.recipes.simple import ClassPathRecipe, ClassPathSettings
from label_tools import copper, work
from tolerances import assert_close

DATA = Path(__file__).resolve().parents[1] / "data/labels"
# CHGNet computes in float; other processors and versions of torch round otherwise.
CHGNET_FORCE = 1e-3  # eV/A
CHGNET_ENERGY = 1e-4  # eV per atom
CHGNET_STRESS = 1e-5  # eV/A^3


def test_tblite_refuses_periodic_cells_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"structure 0 \(Cu4\): tblite samples the Gamma point only"):
        create_farm(tmp_path / "farm", copper(1), load_config("tblite"))
    create_farm(tmp_path / "molecules", [molecule("H2O")], load_config("tblite"))
    with pytest.raises(ValueError, match="up to Rn"):
        create_farm(tmp_path / "heavy", [Atoms("U")], load_config("tblite"))


def test_tblite_labels_a_molecule(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    farm = create_farm(tmp_path / "farm", [molecule("H2O")], load_config("tblite"))
    assert work(farm) == 0
    assert farm.store.counts().done == 1


def test_emt_names_elements_that_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no parameters for Fe"):
        create_farm(tmp_path / "farm", [bulk("Fe")], load_config("emt"))


def test_gpaw_takes_a_high_cutoff_for_oxygen(tmp_path: Path) -> None:
    recipe = GpawRecipe()
    oxide, metal = bulk("MgO", "rocksalt", a=4.2), bulk("W")
    assert (recipe.cutoff(oxide), recipe.cutoff(metal)) == (600.0, 400.0)
    with pytest.raises(ValueError, match="too low for O, N and F"):
        create_farm(tmp_path / "farm", [oxide], load_config({"recipe": "gpaw", "settings": {"cutoff": 500}}))
    GpawRecipe(GpawSettings(cutoff=300.0)).check(metal)
    with pytest.raises(ValueError, match="three vectors"):
        recipe.check(molecule("N2"))


def test_gpaw_is_polarised_where_asked() -> None:
    iron, silicon = bulk("Fe"), bulk("Si")
    assert [GpawRecipe(GpawSettings(spin=s)).is_polarised(iron) for s in ("off", "on", "auto")] == [False, True, True]
    assert not GpawRecipe(GpawSettings(spin="auto")).is_polarised(silicon)
    for wrong in ({"kpts": [2, 2]}, {"kpts": [0, 1, 1]}, {"spin": "yes"}, {"cutoff": -1.0}, {"setups_path": "/none"}):
        with pytest.raises(ValueError, match=f"settings.{next(iter(wrong))}"):
            GpawSettings(**wrong)


def test_a_worker_without_its_code_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gpaw", None)
    monkeypatch.setitem(__import__("sys").modules, "tblite.ase", None)
    monkeypatch.setitem(__import__("sys").modules, "chgnet.model", None)
    for name, words in (("gpaw", "apt install"), ("tblite", "pip install"), ("chgnet-zbl", r"grace_md\[labels\]")):
        with pytest.raises(RuntimeError, match=words):
            make_recipe(load_config(name)).start(1)


def test_every_recipe_can_be_made_from_its_own_record() -> None:
    for name in RECIPES:
        settings = {"path": "ase.calculators.emt.EMT", "kwargs": {}} if name == "ase" else {}
        recipe = make_recipe(load_config({"recipe": name, "settings": settings}))
        again = make_recipe(load_config(recipe.to_json()))
        assert again.settings == recipe.settings
        assert again.versions()["ase"]


def test_any_calculator_by_its_path(tmp_path: Path) -> None:
    recipe = ClassPathRecipe(ClassPathSettings("ase.calculators.lj.LennardJones", {"sigma": 2.5, "rc": 6.0}))
    label = recipe.label(Atoms("Ar2", [[0, 0, 0], [0, 0, 2.8]], cell=[12, 12, 12], pbc=True), tmp_path)
    assert label.stress is not None
    never = ClassPathRecipe(ClassPathSettings("ase.calculators.lj.LennardJones", {"sigma": 2.5}, stress="never"))
    assert never.label(bulk("Ar"), tmp_path).stress is None


def test_files_of_a_calculator_go_to_the_directory_of_each_structure(tmp_path: Path) -> None:
    recipe = ClassPathRecipe(ClassPathSettings("ase.calculators.emt.EMT"))
    seen = []
    for name in ("a", "b"):
        recipe.label(bulk("Cu"), tmp_path / name)
        seen.append((recipe._calculator, Path(recipe._calculator.directory).name))
    assert [name for _, name in seen] == ["a", "b"]
    assert seen[0][0] is seen[1][0]  # one instance
    fresh = ClassPathRecipe(ClassPathSettings("ase.calculators.emt.EMT", fresh=True))
    instances = []
    for _ in range(2):
        fresh.label(bulk("Cu"), tmp_path)
        instances.append(fresh._calculator)
    assert instances[0] is not instances[1]


def test_initial_moments_are_those_of_the_table() -> None:
    assert initial_moments(["Fe", "O", "Gd", "Sm"]) == [2.5, 1.0, 7.94, 0.85]


def test_chgnet_with_core_reproduces_labels_of_the_starter_data(tmp_path: Path) -> None:
    pytest.importorskip("chgnet")
    wanted = read(DATA / "chgnet_zbl.extxyz", ":")
    assert len(wanted) == 3
    farm = create_farm(tmp_path / "farm", wanted, load_config("chgnet-zbl"))
    assert work(farm) == 0
    collect(farm, tmp_path / "out.extxyz")
    for old, new in zip(wanted, read(tmp_path / "out.extxyz", ":"), strict=True):
        assert np.abs(old.get_forces()).max() > 0.1
        assert_close(new.get_potential_energy() / len(new), old.get_potential_energy() / len(old), CHGNET_ENERGY)
        assert_close(new.get_forces(), old.get_forces(), CHGNET_FORCE)
        assert_close(new.get_stress(), old.get_stress(), CHGNET_STRESS)


def test_chgnet_refuses_molecules_and_unknown_elements() -> None:
    recipe = make_recipe(load_config("chgnet-zbl"))
    with pytest.raises(ValueError, match="three periodic directions"):
        recipe.check(molecule("H2O"))
    with pytest.raises(ValueError, match="not Cm"):
        recipe.check(Atoms("Cm", cell=[3, 3, 3], pbc=True))
