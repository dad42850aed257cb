"""MACE beside this code, in a Python process of its own (mace_peer.py); times come from inside that process."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import structures
from ase import Atoms
from machine import Series, Watch, others_share

DTYPE = {"fp64": "float64", "mixed": "float32", "fp32": "float32"}
MODEL = "MACE-MP-0 medium sizes, random weights"


class Peer:
    """The process. Systems are sent once; a failure there (memory, a missing library) leaves that series out."""

    def __init__(self, python: str, device: str = "cpu") -> None:
        script = Path(__file__).with_name("mace_peer.py")
        self._process = subprocess.Popen(
            [python, str(script), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.device = device
        self.information = self._answer()
        self.kinds: list[str] = self.information.get("kinds", ["e3nn"])
        self.series: dict[tuple[str, str, int, str], Series] = {}
        self.failures: dict[tuple[str, str, int, str], str] = {}
        self.n_atoms: dict[str, int] = {}
        self.neighbors: dict[str, float] = {}

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"MACE did not answer; run {self._process.args} by hand to see why.")
        return dict(json.loads(line))

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def add_system(self, name: str, atoms: Atoms) -> None:
        """Send a structure."""
        self.n_atoms[name] = len(atoms)
        self.ask(
            system=name,
            numbers=atoms.numbers.tolist(),
            positions=atoms.positions.tolist(),
            cell=atoms.cell.array.tolist(),
        )

    def measure(self, system: str, dtype: str, threads: int, kind: str = "e3nn") -> None:
        """Add one repeat; the first of a series comes after warm-ups (on a GPU kernels are compiled and chosen)."""
        key = (system, dtype, threads, kind)
        if key in self.failures:
            return
        warm_ups = 0 if key in self.series else 1 if self.device == "cpu" else 3
        for _ in range(1 + warm_ups):
            with Watch() as watch:
                answer = self.ask(system=system, dtype=dtype, threads=threads, kind=kind)
            if "error" in answer:
                self.failures[key] = answer["error"]
                print(f"MACE ({kind}, {dtype}, {self.n_atoms[system]} atoms) is left out: {answer['error']}")
                return
        if not np.isfinite(answer["energy"]):
            raise RuntimeError("The energy of MACE is not finite: these times mean nothing.")
        self.neighbors[system] = answer["n_edges"] / self.n_atoms[system]
        own = answer["processor"] + watch.processor
        busy = watch.others * watch.wall + watch.processor
        series = self.series.setdefault(key, Series())
        series.add(answer["wall"], answer["processor"], others_share(busy, own, watch.wall))

    def rows(self) -> list[dict[str, Any]]:
        """Return the lines of the table."""
        return [
            {
                "code": "MACE" if kind == "e3nn" else f"MACE {kind}",
                "model": MODEL,
                "system": system,
                "n_atoms": self.n_atoms[system],
                "neighbors": self.neighbors[system],
                "precision": dtype,
                "threads": threads,
                **series.summary(self.n_atoms[system]),
            }
            for (system, dtype, threads, kind), series in self.series.items()
        ]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def start_peer(options: argparse.Namespace, n_atoms: int, device: str = "cpu") -> Peer | None:
    """Start MACE, if there is one, with cells of about `n_atoms` atoms."""
    python = options.peer_python or (sys.executable if importlib.util.find_spec("mace") else None)
    if options.no_peer or python is None:
        print("MACE is left out; give `--peer-python PATH`, a Python with mace-torch and matscipy, to time it.")
        return None
    peer = Peer(python, device)
    if "error" in peer.information:
        print(f"MACE is left out: {peer.information['error']}")
        peer.close()
        return None
    for system in options.systems:
        peer.add_system(system, structures.bcc(n_atoms) if system == "bcc" else structures.lava(n_atoms))
    versions = ", ".join(f"{name} {version}" for name, version in peer.information["versions"].items())
    print(f"peer: {versions}; {peer.information['n_parameters']} parameters, random weights; {', '.join(peer.kinds)}")
    return peer


def add_ratios(rows: list[dict[str, Any]], *, same_size: bool = False) -> None:
    """Add the time of MACE over that of this code, medians, at equal system, threads and storage precision.

    Of several kinds of MACE the fastest counts. With `same_size` only rows with as many atoms are compared.
    """
    mace: dict[tuple[Any, ...], float] = {}

    def kind(row: dict[str, Any], dtype: str) -> tuple[Any, ...]:
        return (row["system"], dtype, row["threads"], row["n_atoms"] if same_size else 0)

    for row in rows:
        if row["code"].startswith("MACE"):
            key = kind(row, row["precision"])
            mace[key] = min(mace.get(key, np.inf), row["us_per_atom_median"])
    for row in rows:
        other = mace.get(kind(row, DTYPE.get(row["precision"], "")))
        if row["code"] == "grace_md" and other is not None:
            row["mace_ratio"] = other / row["us_per_atom_median"]
