"""Results of the reference implementation: where they lie and how to read them (tests/data/fixtures/README.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from grace_md.weights import read_npz

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
SHARED = ROOT.parent / "shared"  # the full set, larger than a repository should hold; not needed to pass

BUNDLED = {
    name: tuple(TESTS / "data" / "fixtures" / name / n for n in ("model.npz", "reference.json"))
    for name in ("lava9_1l", "2L_large_elemcut")
}
LAVA = BUNDLED["lava9_1l"][0]  # a plain published file
FULL_SET = (
    "1L_large_allel",
    "1L_medium_elemcut",
    "1L_small_4el",
    "1L_small_4el_uq",
    "2L_large_elemcut",
    "2L_medium_elemcut",
    "2L_small",
    "2L_small_uq",  # the arrays of 2L_small and those of the uncertainty
)


@dataclass(frozen=True)
class ReferenceSet:
    """A model and what the reference implementation says about some structures."""

    name: str
    model: Path
    arrays: dict[str, np.ndarray]
    structures: list[dict[str, Any]]

    def atoms(self, structure: dict[str, Any]) -> Atoms:
        keys = ("symbols", "positions", "cell", "pbc")
        return Atoms(**{key: structure[key] for key in keys})


@lru_cache(maxsize=2)  # the largest is 70 MB
def load_reference(name: str) -> ReferenceSet:
    """Return a bundled set, or one of the full set as "full/<name>"; skip where that is absent."""
    folder = SHARED / "fixtures" / name.removeprefix("full/")
    model, results = BUNDLED[name] if name in BUNDLED else (folder / "model.npz", folder / "reference.json")
    separate = not model.is_file() and (folder / "uq_keys.npz").is_file()
    if separate:
        model = folder.with_name(folder.name.removesuffix("_uq")) / "model.npz"
    if name not in BUNDLED and not model.is_file():
        pytest.skip(f"the full set of reference results is not at {SHARED / 'fixtures'} (optional)")
    extra = read_npz(folder / "uq_keys.npz") if separate else {}
    structures = json.loads(results.read_text(encoding="utf-8"))["structures"]
    return ReferenceSet(name, model, {**read_npz(model), **extra}, structures)


REFERENCE_NAMES = [*BUNDLED, *(f"full/{name}" for name in FULL_SET)]
