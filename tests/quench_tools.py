"""A quench of 28 atoms with a Lennard-Jones stand-in, for tests of the workflow; and arguments of its commands."""

import argparse

from ase.data import atomic_numbers, covalent_radii

from grace_md.workflows.quench_input import QuenchSettings

SMALL = {"O": 14, "Si": 8, "Fe": 6}


def pair_lines(elements):
    """Lennard-Jones stand-in with bond lengths from covalent radii: the mechanics need no GRACE model."""
    radius = [covalent_radii[atomic_numbers[element]] for element in elements]
    lines = ["pair_style lj/cut 5.0"]
    for a in range(len(elements)):
        for b in range(a, len(elements)):
            sigma = 0.9 * (radius[a] + radius[b]) / 2 ** (1 / 6)
            lines.append(f"pair_coeff {a + 1} {b + 1} 0.15 {sigma:.6f}")
    return lines


def stand_in(steps=300, **changes):
    values = {
        "hold_steps": 90,
        "segment_steps": 70,
        "dump_steps": 35,
        "minimize_steps": 20,
        "pair_lines": pair_lines(list(SMALL)),
    }
    return QuenchSettings("lava", dict(SMALL), steps, **{**values, **changes})


def arguments(module, *words):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])
