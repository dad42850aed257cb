"""Merging of labelled sets: rules with reasons, energies on one scale, splits by composition, files.

`merge(["omat24/train", "smax.extxyz"], "merged.aselmdb", "plus-u,pseudopotential,duplicates", split=Split(0.02))`
"""

from __future__ import annotations

from grace_md.merging.counts import MergeResult
from grace_md.merging.duplicates import Duplicates
from grace_md.merging.engine import merge
from grace_md.merging.entries import Entry
from grace_md.merging.offsets import Offsets, fit_offsets
from grace_md.merging.parse import parse_rules
from grace_md.merging.rules import (
    Elements,
    MaxForce,
    MaxStress,
    MinDistance,
    PlusU,
    Predicate,
    Pseudopotential,
    Rule,
)
from grace_md.merging.split import Split
from grace_md.merging.stress import StressOutlier
from grace_md.merging.writers import AselmdbWriter, open_writer

__all__ = [
    "AselmdbWriter",
    "Duplicates",
    "Elements",
    "Entry",
    "MaxForce",
    "MaxStress",
    "MergeResult",
    "MinDistance",
    "Offsets",
    "PlusU",
    "Predicate",
    "Pseudopotential",
    "Rule",
    "Split",
    "StressOutlier",
    "fit_offsets",
    "merge",
    "open_writer",
    "parse_rules",
]
