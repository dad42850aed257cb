"""Energy of long dynamics on a GPU: a melt of the shipped model. tests/physics has short runs on the CPU."""

from __future__ import annotations

import pytest

import tolerances as tol
from device_tools import DEVICE, IS_EMULATED
from grace_md import GraceCalculator
from grace_md.data import model_path
from nve_tools import equilibrated_melt, run_nve

STEPS = 10_000


@pytest.mark.skipif(IS_EMULATED, reason="needs a GPU: GRACE_TEST_DEVICE=cuda")
@pytest.mark.parametrize("precision", ["fp64", "mixed"])
def test_energy_does_not_drift(precision: str) -> None:
    calc = GraceCalculator(model_path(), device=DEVICE, precision=precision)
    atoms = equilibrated_melt(99, 2000.0, 2000, calc)
    result = run_nve(atoms, STEPS)
    print(calc.description, result)
    assert 1000.0 < result.temperature < 4000.0, "this is not the melt that the bound is meant for"
    assert abs(result.drift) < tol.DRIFT
    assert 0.0 < result.fluctuation < tol.NVE_FLUCTUATION
