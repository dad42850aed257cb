"""Fresh models: sizes of the published presets, files that others read, seeds, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grace_md import GraceModel
from grace_md.torch import PRESETS, GracePotential
from grace_md.torch.presets import preset_arrays, preset_sizes
from reference_data import load_reference
from tolerances import COUPLING

STARTER = {"preset": "1L-small", "lmax": 3, "n_rad": 16, "width": 24, "n_densities": 8, "embedding": 32}
LAVA = ["Al", "Ca", "Fe", "K", "Mg", "Na", "O", "Si", "Ti"]
# Parameters of a model for 4 elements, and of each further one: 89 elements give the published 2.94, 6.94, 9.01, 13.36,
# 21.76 and 26.39 million.
MILLIONS = {
    "1L-small": (2.94, 3.10),
    "1L-medium": (6.94, 7.31),
    "1L-large": (9.01, 9.50),
    "2L-small": (13.36, 14.10),
    "2L-medium": (21.76, 22.95),
    "2L-large": (26.39, 27.84),
}


def n_parameters(preset, n_elements: int) -> int:
    """Parameters by their number for one and two elements, which grows linearly."""
    one, two = (GracePotential.from_preset(preset, elements=["O", "Si"][:n]).n_parameters for n in (1, 2))
    return one + (two - one) * (n_elements - 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_published_presets(preset: str) -> None:
    found = tuple(round(n_parameters(preset, n) / 1e6, 2) for n in (89, 94))
    assert found == MILLIONS[preset]


def test_parameters_of_the_starter_model() -> None:
    assert GracePotential.from_preset(STARTER, elements=LAVA).n_parameters == 121_017


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("lava9_1l", STARTER),
        ("full/1L_small_4el", "1L-small"),
        ("full/1L_medium_elemcut", "1L-medium"),
        ("full/2L_medium_elemcut", "2L-medium"),
        ("2L_large_elemcut", "2L-large"),
    ],
)
def test_files_have_the_keys_and_tables_of_published_ones(name: str, preset) -> None:
    published = load_reference(name).arrays
    elements = [element.decode() for element in published["element_names"]]
    fresh = preset_arrays(
        preset,
        elements=elements,
        cutoffs=published.get("bond_cutoff_map", float(published["rcut"][0])),
        average_neighbors=1.0 / float(published["A_inv_avg_n_neigh"]),
        output_scale=float(published.get("output_scale", np.ones(1))[0]),
    )
    weights = GracePotential.from_arrays(published).weights
    assert not set(published) - set(fresh)
    if not name.startswith("2L_large"):  # stored without the second names of its readout
        assert set(fresh) - set(published) <= {"output_scale"}
        assert [key for key in fresh if key in published] == list(published)
    for key, array in published.items():
        assert fresh[key].shape == array.shape, key
        if key in weights or key.endswith(("_W", "_scale")):
            continue
        assert fresh[key].dtype == array.dtype, key
        if array.dtype.kind == "f":
            assert np.all(np.abs(fresh[key] - array) <= COUPLING), key
        else:
            assert np.array_equal(fresh[key], array), key


@pytest.mark.parametrize("preset", ["1L-small", "2L-small"])
def test_the_core_reads_fresh_models(preset: str) -> None:
    model = GracePotential.from_preset(preset, elements=["Fe", "O"], cutoffs=[[5.0, 5.5], [5.5, 6.0]], seed=4)
    if preset.startswith("2L"):
        with pytest.raises(ValueError, match="I_nl_LN_scale"):  # a flat model: norms start at zero
            GraceModel(model.arrays())
    with torch.no_grad():
        for key, weight in model.weights.items():
            if key.endswith("_scale"):
                weight.fill_(1.0)
    assert GraceModel(model.arrays()).n_parameters == model.n_parameters


def test_weights_have_unit_variance_and_depend_on_the_seed() -> None:
    first, again, other = (GracePotential.from_preset(STARTER, elements=LAVA, seed=s) for s in (1, 1, 2))
    for key, weight in first.weights.items():
        assert torch.equal(weight, again.weights[key]), key
        if key == "shift_values":
            continue
        assert not torch.equal(weight, other.weights[key]), key
        assert abs(float((weight.detach() ** 2).mean()) - 1.0) <= 5.0 * (2.0 / weight.numel()) ** 0.5, key


def test_energies_of_fresh_two_layer_models_are_linear_densities_of_layer_one() -> None:
    model = GracePotential.from_preset("2L-small", elements=["Fe"])
    assert {key for key, weight in model.weights.items() if not weight.any()} == {
        "I_nl_LN_scale",
        "I_0_LN_scale",
        "shift_values",
    }


def test_shifts_and_scale_are_written() -> None:
    arrays = preset_arrays(
        STARTER, elements=["O", "Fe"], output_scale=2.5, shifts={"Fe": -8.0, "O": -4.0}, average_neighbors=50.0
    )
    assert arrays["shift_values"].tolist() == [-4.0, -8.0]
    assert arrays["output_scale"].tolist() == [2.5]
    assert float(arrays["A_inv_avg_n_neigh"]) == 0.02


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("1L-tiny", "`preset` = '1L-tiny' does not exist; there are 1L-small"),
        ({"n_radd": 3}, "`n_radd` is not a size of a model; did you mean `n_rad`"),
        ({"layers": 3}, "`layers` = 3 is not supported"),
        ({"max_order": 5}, "`max_order` = 5 is not supported"),
        ({"n_rad": 0}, "`n_rad` = 0 must be at least 1"),
        ({"n_rad": (3, 4)}, r"`n_rad` = \[3, 4\] must have one number for each of the 1 layers"),
        ({"preset": "2L-small", "n_rad": 5}, "`n_rad` = 5 must be a pair"),
        ({"preset": "2L-small", "n_rad": (16, 32)}, "`width` of layer 1 = 32 must be its `n_rad` = 16"),
        ({"preset": "2L-small", "message_lmax": 5}, "`message_lmax` = 5 must not exceed `lmax` = 4"),
    ],
)
def test_impossible_sizes_are_named(sizes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset_sizes(sizes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"elements": []}, "`elements` = .* must name at least one element"),
        ({"elements": ["O", "O"]}, "each one once"),
        ({"elements": ["O"], "cutoffs": [[5.0, 5.0]]}, r"`cutoffs` must be one number or have shape \[1, 1\]"),
        ({"elements": ["O"], "cutoffs": -5.0}, "`cutoffs` has values that are not positive"),
        ({"elements": ["O"], "shifts": [1.0, 2.0]}, "`shifts` has 2 values for 1 elements"),
        ({"elements": ["O", "H"], "shifts": {"O": 1.0}}, "`shifts` lacks H"),
        ({"elements": ["O"], "average_neighbors": 0.0}, "`average_neighbors` = 0.0 must be a positive number"),
    ],
)
def test_wrong_arguments_are_named(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset_arrays("1L-small", **arguments)
