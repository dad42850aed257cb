"""Times, operations and bytes of the operators of the core as a training step calls them."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from typing import Any

SLOTS = {
    "bond_basis": "ARYz",
    "message_basis": ("YI", "R", "Y", "I"),
}


def _bond_basis(slot: int, is_double: bool, *_: Any, **a: int) -> tuple[float, float]:
    rows, size = (a["lmax"] + 1) ** 2, 8 if is_double else 4
    per_bond = rows * a["n_channels"]
    operations = 2.0 * a["n_bonds"] * (per_bond + (a["lmax"] + 1) * a["n_channels"])
    numbers = a["n_atoms"] * per_bond + a["n_bonds"] * ((a["lmax"] + 1) * a["n_channels"] + rows)
    return operations, float(size * numbers)


def _message_basis(slot: int, is_double: bool, *_: Any, **a: int) -> tuple[float, float]:
    rows, size, nc = (a["lmax"] + 1) ** 2, 8 if is_double else 4, a["n_channels"]
    operations = 2.0 * nc * (a["n_bonds"] * rows * (a["n_message_rows"] + 1) + a["n_atoms"] * a["n_terms"])
    numbers = a["n_bonds"] * ((a["lmax"] + 1) * nc + rows) + a["n_atoms"] * nc * (a["n_rows"] + a["n_message_rows"])
    return operations, float(size * numbers)


def _coupling_product(is_double: bool, *_: Any, **a: int) -> tuple[float, float]:
    per_atom = a["n_atoms"] * a["n_channels"]
    numbers = per_atom * (a["n_targets"] + a["n_first"] + a["n_second"])
    return 3.0 * per_atom * a["n_terms"], float((8 if is_double else 4) * numbers)


def _network(factor: int, **a: Any) -> tuple[float, float]:
    """Value and derivative (factor 1); with recomputation and both gradients, but for those of the inputs: 3."""
    widths = a["widths"]
    layers = [n_in * n_out for n_in, n_out in itertools.pairwise(widths)]
    per_bond = 4.0 * sum(layers) if factor == 1 else 4.0 * (3 * sum(layers) - layers[0] - layers[-1])
    numbers = a["n_bonds"] * 2 * (widths[0] + widths[-1])
    return per_bond * a["n_bonds"], float((8 if a["is_double"] else 4) * numbers)


COUNTS = {
    "bond_basis": _bond_basis,
    "message_basis": _message_basis,
    "coupling_product": _coupling_product,
    "radial_network": lambda **a: _network(1, **a),
    "radial_network_adjoint": lambda **a: _network(3, **a),
}


class OperatorTimes:
    """Context in which every call of an operator of the core is timed and counted."""

    def __enter__(self) -> OperatorTimes:
        from grace_md import _core  # noqa: PLC0415 - not needed for the counts

        self._core, self._kept = _core, {}
        self.totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
        for name, count in COUNTS.items():
            if hasattr(_core, name):
                self._kept[name] = getattr(_core, name)
                setattr(_core, name, self._timed(name, self._kept[name], count))
        return self

    def _timed(self, name: str, function: Any, count: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **named)
            seconds = time.perf_counter() - start
            key = f"{name} {SLOTS[name][arguments[0]]}" if name in SLOTS else name
            for k, value in enumerate((seconds, *count(*arguments, **named), 1.0)):
                self.totals[key][k] += value
            return result

        return call

    def start(self) -> None:
        """Forget what was counted so far."""
        self.totals.clear()

    def rows(self, n_atoms: int, n_steps: int, flops: float, bytes_per_second: float) -> list[dict[str, Any]]:
        """Return a row for every operator, the longest first; per step and atom."""
        rows = []
        for name, (seconds, operations, numbers, calls) in self.totals.items():
            floor = max(operations / flops, numbers / bytes_per_second)
            scale = 1e6 / n_atoms / n_steps
            rows.append(
                {
                    "operator": name,
                    "calls": calls / n_steps,
                    "us_per_atom": seconds * scale,
                    "mflop_per_atom": operations * scale * 1e-12,
                    "kbytes_per_atom": numbers * scale * 1e-9,
                    "gflops": operations / seconds * 1e-9,
                    "gbytes": numbers / seconds * 1e-9,
                    "floor_us_per_atom": floor * scale,
                    "share_of_floor": floor / seconds,
                }
            )
        return sorted(rows, key=lambda row: -float(row["us_per_atom"]))

    def __exit__(self, *exception: object) -> None:
        for name, function in self._kept.items():
            setattr(self._core, name, function)
