"""Short dynamics with the starter model: energy and momentum are conserved. nve_drift.py is the long run."""

from __future__ import annotations

import numpy as np
import pytest

import tolerances as tol
from grace_md import GraceCalculator
from grace_md.data import model_path
from nve_tools import equilibrated_melt, run_nve
from tolerances import assert_close

STEPS = 500


@pytest.mark.parametrize(("precision", "radial"), [("fp64", "table"), ("mixed", "table")])
def test_energy_of_a_hot_melt_is_conserved(precision: str, radial: str) -> None:
    """60 atoms at 2000 K for 0.5 ps. In so short a run the slope of the fit is mostly the fluctuation, not a drift."""
    calc = GraceCalculator(model_path(), precision=precision, radial=radial, threads=1)
    atoms = equilibrated_melt(60, 2000.0, 200, calc)
    result = run_nve(atoms, STEPS, every=2)
    print(result)
    assert 1000.0 < result.temperature < 4000.0, "this is not the melt that the bound is meant for"
    assert 0.0 < result.fluctuation < tol.NVE_FLUCTUATION
    assert abs(result.drift) < tol.NVE_DRIFT_SHORT
    assert_close(atoms.get_momenta().sum(axis=0), np.zeros(3), tol.NVE_MOMENTUM)


def test_fluctuation_falls_with_the_square_of_the_time_step() -> None:
    """The signature of forces that are the derivative of the energy: a wrong force gives an error of first order."""
    calc = GraceCalculator(model_path(), threads=1)
    start = equilibrated_melt(40, 2000.0, 200, calc)
    fluctuations = []
    for timestep in (2.0, 1.0, 0.5):
        atoms = start.copy()
        atoms.calc = calc
        fluctuations.append(run_nve(atoms, int(60 / timestep), timestep, every=int(2 / timestep)).fluctuation)
    print(fluctuations)
    ratios = np.divide(fluctuations[:-1], fluctuations[1:])
    assert np.all(ratios > 3.0), fluctuations
    assert np.all(ratios < 5.5), fluctuations
