"""Energy conservation of a long run with the starter model: python tests/physics/nve_drift.py [--steps 20000].

Melts a random cell of lava composition (Langevin, 2 ps), then integrates Newton's equations with velocity Verlet and
prints the slope of a straight line through the total energy: the drift, in eV per atom and ps. A few minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tolerances as tol
from grace_md import GraceCalculator
from grace_md.data import model_path
from nve_tools import equilibrated_melt, run_nve


def main() -> int:
    parser = argparse.ArgumentParser(description="Energy drift of NVE dynamics with the starter model.")
    parser.add_argument("--atoms", type=int, default=99)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--temperature", type=float, default=2000.0)
    parser.add_argument("--precision", default="fp64")
    parser.add_argument("--radial", default="table")
    options = parser.parse_args()
    calc = GraceCalculator(model_path(), precision=options.precision, radial=options.radial)
    print(calc.description, flush=True)
    atoms = equilibrated_melt(options.atoms, options.temperature, 2000, calc)
    result = run_nve(atoms, options.steps)
    good = abs(result.drift) < tol.DRIFT
    print(
        f"{options.atoms} atoms, {options.steps} fs at {result.temperature:.0f} K: "
        f"drift {result.drift:+.2e} eV/atom/ps, fluctuation {result.fluctuation:.2e} eV/atom "
        f"({'below' if good else 'ABOVE'} {tol.DRIFT:.0e} eV/atom/ps)"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
