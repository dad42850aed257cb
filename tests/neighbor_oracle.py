"""Brute-force neighbour pairs, and the golden cases made from them.

Slow and obvious on purpose; shares nothing with the core. `python tests/neighbor_oracle.py` writes the golden cases.
"""

import json
from pathlib import Path

import numpy as np

RULE = (
    "Pairs are rows [i, j, Sx, Sy, Sz]: atom j displaced by S @ cell is a neighbour of i if "
    "|r_j - r_i + S @ cell| < cutoff(i, j), strictly, with positions as given (atoms may lie outside the cell). "
    "S is zero in non-periodic directions. All images count; both directions are listed; [i, i, 0, 0, 0] is not. "
    "Two lists are equal if their rows are equal as multisets, for example after a lexicographic sort. "
    "No distance is within 1e-6 A of a cutoff."
)
GOLDEN = Path(__file__).parent / "data" / "neighbors"
RIM = 1e-6  # A: golden cases have no pair this close to a cutoff, where rounding would decide


def completed_cell(cell, pbc):
    """Rows of non-periodic directions replaced by an orthonormal complement of the periodic ones."""
    full = np.where(np.asarray(pbc)[:, None], np.asarray(cell, dtype=float), 0.0)
    periodic = [k for k in range(3) if pbc[k]]
    complement = np.linalg.svd(full[periodic])[2][len(periodic) :] if periodic else np.eye(3)
    full[[k for k in range(3) if not pbc[k]]] = complement
    return full


def brute_force(positions, cell, pbc, cutoffs, species):
    """Sorted rows (i, j, Sx, Sy, Sz) [n, 5] and distances [n]; cutoffs [n_species, n_species]."""
    r, rc, pbc = np.asarray(positions, float).reshape(-1, 3), np.asarray(cutoffs, float), np.asarray(pbc, bool)
    full = completed_cell(cell, pbc)
    inverse = np.linalg.inv(full)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    n_images = np.where(pbc, np.ceil(rc.max(initial=0.0) / heights) + 1, 0).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in n_images), indexing="ij"), axis=-1).reshape(-1, 3)
    rows, distances = [], []
    for i in range(len(r)):
        for j in range(len(r)):
            difference = r[j] - r[i]
            nearest = np.where(pbc, -np.round(difference @ inverse), 0.0).astype(int)
            shifts = images + nearest
            distance = np.linalg.norm(difference + shifts @ np.where(pbc[:, None], full, 0.0), axis=1)
            keep = distance < rc[species[i], species[j]]
            if i == j:
                keep &= shifts.any(axis=1)
            rows += [(i, j, *s) for s in shifts[keep]]
            distances += list(distance[keep])
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return np.array(rows, dtype=int).reshape(-1, 5)[order], np.array(distances)[order]


def golden_cases():
    """Name -> (symbols, positions, cell, pbc, cutoffs by pair of symbols)."""
    rng = np.random.default_rng(11)
    slab = np.diag([8.0, 5.2, 9.0])
    skewed = [[4.0, 0.0, 0.0], [9.3, 3.6, 0.0], [-6.1, 5.2, 4.4]]
    return {
        "one_atom_tiny_cell": (["Cu"], [[0.3, 0.1, 0.2]], np.eye(3) * 1.9, [1, 1, 1], {("Cu", "Cu"): 4.05}),
        "thin_cell_self_images": (
            ["O", "Si", "O", "Fe"],
            rng.random((4, 3)) @ slab,
            slab,
            [1, 1, 1],
            {("O", "O"): 5.0, ("Si", "O"): 6.0, ("Si", "Si"): 7.0, ("Fe", "O"): 5.5, ("Fe", "Fe"): 6.0},
        ),
        "strongly_skewed_outside": (
            ["Nb", "W", "W"],
            (rng.random((3, 3)) * 6 - 3) @ skewed,
            skewed,
            [1, 1, 1],
            {("Nb", "Nb"): 3.5, ("Nb", "W"): 4.5, ("W", "W"): 5.0},
        ),
        "left_handed": (
            ["Mg", "O"],
            [[0.1, 0.2, 0.3], [2.0, 2.2, 1.9]],
            [[0.0, 4.2, 0.1], [4.0, 0.0, 0.0], [0.3, 0.0, 4.4]],
            [1, 1, 1],
            {("Mg", "O"): 5.0},
        ),
        "slab_zero_row": (
            ["Pt"] * 5,
            rng.random((5, 3)) * [5.0, 4.0, 12.0] - [9.0, 0.0, 6.0],
            [[5.0, 0.0, 0.0], [1.5, 4.0, 0.0], [0.0, 0.0, 0.0]],
            [1, 1, 0],
            {("Pt", "Pt"): 5.1},
        ),
        "wire": (
            ["C"] * 3,
            rng.random((3, 3)) * 4,
            [[0, 0, 0], [0.4, 3.0, 0.2], [0, 0, 0]],
            [0, 1, 0],
            {("C", "C"): 6.2},
        ),
        "cluster": (["Au"] * 7, rng.random((7, 3)) * 7, np.zeros((3, 3)), [0, 0, 0], {("Au", "Au"): 4.0}),
        "empty": ([], np.zeros((0, 3)), np.eye(3) * 4, [1, 1, 1], {("H", "H"): 3.0}),
    }


def write_golden():
    for name, (symbols, positions, cell, pbc, cutoffs) in golden_cases().items():
        elements = sorted(set(symbols))
        matrix = np.array([[cutoffs.get((a, b), cutoffs.get((b, a), 0.0)) for b in elements] for a in elements])
        rounded = np.round(np.asarray(positions, float), 6)
        species = [elements.index(s) for s in symbols]
        pairs, _ = brute_force(rounded, cell, pbc, matrix.reshape(len(elements), len(elements)), species)
        for change in (-RIM, RIM):
            moved = np.where(matrix > 0, matrix + change, 0.0).reshape(len(elements), len(elements))
            same = np.array_equal(brute_force(rounded, cell, pbc, moved, species)[0], pairs)
            assert same, f"{name}: a distance is at the cutoff"
        fields = {
            "rule": RULE,
            "units": "Angstrom",
            "symbols": symbols,
            "positions": rounded.tolist(),
            "cell": np.asarray(cell, float).tolist(),
            "pbc": [bool(p) for p in pbc],
            "pair_cutoffs": [[a, b, r] for (a, b), r in cutoffs.items()],
            "pairs": pairs.tolist(),
        }
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items())
        (GOLDEN / f"{name}.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    write_golden()
