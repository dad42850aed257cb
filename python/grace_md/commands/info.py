"""`grace-md info`: the model card of a weight file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grace_md.model import GraceModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `grace-md info`."""
    parser.add_argument("model", help="weight file (.npz), or the name of a shipped model such as lava9_1l")
    parser.add_argument("--json", action="store_true", help="print JSON for other programs")


def card(model: GraceModel, name: str) -> dict[str, Any]:
    """Return what is known about a model, with plain Python values."""
    from grace_md._core import Evaluator  # noqa: PLC0415

    spec = model.spec
    cutoffs = model.pair_cutoffs
    evaluator = Evaluator(spec)
    return {
        "file": name,
        "sha256": model.sha256,
        "n_layers": model.n_layers,
        "n_parameters": model.n_parameters,
        "elements": list(model.elements),
        "element_cutoffs_A": {element: float(cutoffs[i, i]) for i, element in enumerate(model.elements)},
        "pair_cutoffs_A": cutoffs.tolist(),
        "output_scale_eV": spec.output_scale,
        "shift_eV": dict(zip(model.elements, spec.shift.tolist(), strict=True)),
        "radial": spec.radial,
        "stages": [list(stage) for stage in spec.stages],
        "message_width": evaluator.message_width,
        "radial_table": evaluator.radial_report,
        "evaluator": evaluator.description,
        "not_evaluated": list(spec.unused_keys),
    }


def text(card: dict[str, Any]) -> str:
    """Return the card for people."""
    from grace_md.periodic_table import draw  # noqa: PLC0415

    pairs = [value for row in card["pair_cutoffs_A"] for value in row]
    span = f"{min(pairs):g} to {max(pairs):g} A" if min(pairs) < max(pairs) else f"{max(pairs):g} A"
    lines = [
        card["file"],
        f"  sha256      {card['sha256']}",
        f"  layers      {card['n_layers']}"
        + (f", message of {card['message_width']} numbers per atom" if card["n_layers"] > 1 else ""),
        f"  parameters  {card['n_parameters']:,}",
    ]
    for radial in card["radial"]:
        widths = "-".join(str(width) for width in [radial["n_basis"], *radial["layers"]])
        lines.append(
            f"  radial {radial['name']:<4} {radial['n_basis']} Chebyshev functions (envelope of order "
            f"{radial['envelope_order']}), network {widths}, {radial['n_channels']} channels, l <= {radial['lmax']}"
        )
    lines += [
        f"  tensors     {' '.join(name for _, name in card['stages'])}",
        f"  runs as     {card['evaluator']}",
        f"  scale       {card['output_scale_eV']:g} eV",
        f"  cutoffs     {span} between pairs; of an element with itself:",
        "",
        draw(card["element_cutoffs_A"]),
        "",
        f"{len(card['elements'])} elements, in the order of the file: {' '.join(card['elements'])}",
    ]
    if card["not_evaluated"]:
        lines.append(f"Kept but not evaluated: {len(card['not_evaluated'])} arrays (uq_*, extrapolation grade)")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Print the card."""
    from grace_md import GraceModel  # noqa: PLC0415
    from grace_md.data import find_model  # noqa: PLC0415

    path = find_model(args.model)
    found = card(GraceModel.load(path), str(path))
    print(json.dumps(found, indent=2) if args.json else text(found))
    return 0
