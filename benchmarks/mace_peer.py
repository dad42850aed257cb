#!/usr/bin/env python3
"""Times MACE for evaluate.py, in a Python of its own: reads requests and writes answers, one line of JSON each.

    VENV_WITH_MACE/bin/python benchmarks/mace_peer.py [cpu | cuda:N] < REQUESTS

The model has random weights and the sizes of MACE-MP-0 medium (4,688,656 parameters): 128x0e + 128x1o (128 channels,
max_L 1), correlation 3, 2 interactions (RealAgnosticResidualInteractionBlock), r_max 6 A, harmonics up to l = 3,
10 Bessel functions, polynomial cutoff of order 5, radial MLP 64-64-64, readout 16x0e, 89 elements. Nothing is
downloaded. It runs as MACE's ASE calculator runs it (not compiled by TorchScript, which did not help here), on energies
and forces; making the graph, neighbour list included, is outside the timing, which favours MACE.

On a GPU there are two kinds where cuEquivariance is installed: "e3nn" (plain torch) and "cueq", the same weights
converted by MACE's own tool. The GPU is waited for before and after the timing; the graph lies there already.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import warnings
from typing import Any

answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to stderr
os.dup2(2, 1)
warnings.filterwarnings("ignore")
os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # e3nn loads its own constants

import mace  # noqa: E402 - before e3nn, whose constants it makes readable for recent torch
import numpy as np  # noqa: E402
import torch  # noqa: E402
from ase import Atoms  # noqa: E402
from e3nn import __version__ as e3nn_version  # noqa: E402
from e3nn import o3  # noqa: E402
from mace.modules import RealAgnosticResidualInteractionBlock, ScaleShiftMACE  # noqa: E402
from matscipy.neighbours import neighbour_list  # noqa: E402

CUTOFF = 6.0
N_ELEMENTS = 89
SETTINGS: dict[str, Any] = {
    "r_max": CUTOFF,
    "num_bessel": 10,
    "num_polynomial_cutoff": 5,
    "max_ell": 3,
    "num_interactions": 2,
    "num_elements": N_ELEMENTS,
    "avg_num_neighbors": 35.0,
    "atomic_numbers": list(range(1, N_ELEMENTS + 1)),
    "correlation": 3,
    "radial_MLP": [64, 64, 64],
    "radial_type": "bessel",
    "atomic_inter_scale": 1.0,
    "atomic_inter_shift": 0.0,
}


DEVICE = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")


def kinds() -> list[str]:
    """Ways in which the model can run here."""
    needed = ("cuequivariance", "cuequivariance_torch", "mace.cli.convert_e3nn_cueq")
    found = ["e3nn"]
    if DEVICE.type == "cuda" and all(importlib.util.find_spec(name) for name in needed):
        found.append("cueq")
    return found


def model(dtype: str, kind: str = "e3nn") -> torch.nn.Module:
    """Return the model with random weights."""
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    made = ScaleShiftMACE(
        **SETTINGS,
        interaction_cls=RealAgnosticResidualInteractionBlock,
        interaction_cls_first=RealAgnosticResidualInteractionBlock,
        hidden_irreps=o3.Irreps("128x0e+128x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(N_ELEMENTS),
        gate=torch.nn.functional.silu,
    ).eval()
    made = made.to(DEVICE)
    if kind == "cueq":
        from mace.cli.convert_e3nn_cueq import run  # noqa: PLC0415 - needs cuEquivariance

        made = run(made, device=str(DEVICE)).to(DEVICE).eval()
    for parameter in made.parameters():
        parameter.requires_grad = False
    return made


def graph(atoms: Atoms, dtype: str) -> dict[str, torch.Tensor]:
    """Return the input of the model."""
    real = getattr(torch, dtype)
    i, j, images = neighbour_list("ijS", atoms, CUTOFF)
    one_hot = np.zeros((len(atoms), N_ELEMENTS))
    one_hot[np.arange(len(atoms)), atoms.numbers - 1] = 1.0
    tensors = {
        "positions": torch.tensor(atoms.positions, dtype=real),
        "edge_index": torch.tensor(np.stack([i, j]), dtype=torch.long),
        "shifts": torch.tensor(images @ atoms.cell.array, dtype=real),
        "unit_shifts": torch.tensor(images, dtype=real),
        "cell": torch.tensor(atoms.cell.array, dtype=real),
        "node_attrs": torch.tensor(one_hot, dtype=real),
        "batch": torch.zeros(len(atoms), dtype=torch.long),
        "ptr": torch.tensor([0, len(atoms)]),
        "head": torch.zeros(1, dtype=torch.long),
    }
    return {name: tensor.to(DEVICE) for name, tensor in tensors.items()}


def wait() -> None:
    """Wait for the GPU."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)


def timed_step(made: torch.nn.Module, data: dict[str, torch.Tensor], random: np.random.Generator) -> dict[str, Any]:
    """Evaluate positions that have moved a little, and say how long it took."""
    data = dict(data)
    moves = 0.005 * random.normal(size=data["positions"].shape)
    data["positions"] = data["positions"] + torch.tensor(moves, dtype=data["positions"].dtype, device=DEVICE)
    wait()
    wall, processor = time.perf_counter(), time.process_time()
    output = made(data)
    energy, force = float(output["energy"]), float(output["forces"].abs().max())
    wait()
    answer = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    answer.update(energy=energy, force=force, n_edges=int(data["edge_index"].shape[1]))
    if DEVICE.type == "cuda":
        answer["bytes_device"] = torch.cuda.max_memory_allocated(DEVICE)
    return answer


def sentence(error: Exception) -> str:
    """First line of an error."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]


def main() -> None:
    """Answer requests until the input ends."""
    models: dict[tuple[str, str], torch.nn.Module] = {}
    systems: dict[str, Atoms] = {}
    graphs: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    random = np.random.default_rng(3)

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    answer: dict[str, Any] = {
        "versions": {"mace": mace.__version__, "torch": torch.__version__, "e3nn": e3nn_version},
        "settings": {**SETTINGS, "hidden_irreps": "128x0e+128x1o", "MLP_irreps": "16x0e", "atomic_numbers": "1-89"},
        "device": str(DEVICE),
        "kinds": kinds(),
    }
    try:
        answer["n_parameters"] = sum(p.numel() for p in model("float64").parameters())
        if DEVICE.type == "cuda":
            answer["card"] = torch.cuda.get_device_name(DEVICE)
    except Exception as error:  # whatever it is, the other side shall say it and go on
        answer["error"] = sentence(error)
    say(answer)
    for line in sys.stdin:
        request = json.loads(line)
        if "positions" in request:
            systems[request["system"]] = Atoms(request["numbers"], request["positions"], cell=request["cell"], pbc=True)
            say({"n_atoms": len(request["numbers"])})
            continue
        system, dtype, kind = request["system"], request["dtype"], request.get("kind", "e3nn")
        torch.set_num_threads(request["threads"])
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            if (dtype, kind) not in models:
                models.clear()  # one at a time: each keeps memory of the GPU
                models[dtype, kind] = model(dtype, kind)
            if (system, dtype) not in graphs:
                graphs[system, dtype] = graph(systems[system], dtype)
            say(timed_step(models[dtype, kind], graphs[system, dtype], random))
        except Exception as error:
            say({"error": sentence(error)})


if __name__ == "__main__":
    main()
