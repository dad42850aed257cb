"""`data.type_weights`: factors of the training loss by configuration type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from grace_md.strict import ConfigError
from grace_md.training.data import ShardSet
from grace_md.training.dataset import Part, type_weights

TYPES = ["dimer", "md_flat", "md_lava"]


def test_the_last_pattern_that_fits_decides() -> None:
    factors = type_weights({"*": 2, "md_*": {"energy": 3, "stress": 0}, "md_lava": 5}, TYPES)
    assert factors is not None
    np.testing.assert_array_equal(factors.numpy(), [[2, 2, 2], [3, 2, 0], [5, 5, 5]])
    assert type_weights(None, TYPES) is None
    assert type_weights({}, TYPES) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"slab": 2.0}, "'slab' fits none of the configuration types dimer, md_flat, md_lava"),
        ({"md_*": {"force": 2.0}}, "`data.type_weights.md_*` has `force`; use energy, forces, stress"),
        ({"dimer": -1.0}, "`data.type_weights.dimer` = -1 must be a number of zero or more"),
        ({"dimer": float("nan")}, "`data.type_weights.dimer` = nan"),
    ],
)
def test_what_cannot_be(settings: dict[str, float | dict[str, float]], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        type_weights(settings, TYPES)
    assert words in str(caught.value)


def test_batches_carry_the_factors() -> None:
    structures = []
    for name in ("md_lava", "dimer"):
        atoms = Atoms("Cu2", [[0.0, 0.0, 0.0], [2.3, 0.0, 0.0]], cell=[9.0] * 3, pbc=True, info={"config_type": name})
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((2, 3)), stress=np.zeros(6))
        structures.append(atoms)
    shards = ShardSet.from_atoms(structures, ["Cu"], [[4.0]])
    part = Part("train", shards, np.arange(2), torch.zeros(1, 1, dtype=torch.float64))
    part.type_weights = type_weights({"dimer": {"energy": 0.25, "forces": 0.5, "stress": 3.0}}, shards.config_types)
    _, labels = part.batch([0, 1, -2])  # -2: structure 1 as padding, which counts nowhere
    assert labels.energy_weight.tolist() == [1.0, 0.25, 0.0]
    assert labels.stress_weight.tolist() == [1.0, 3.0, 0.0]
    assert labels.force_weight.tolist() == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]
