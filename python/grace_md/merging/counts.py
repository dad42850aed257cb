"""What a merge did, in numbers: counts per set and rule, as a table, JSON and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grace_md.merging.offsets import Offsets

__all__ = ["MergeResult", "draw_counts"]


@dataclass
class MergeResult:
    """Counts and fits of a merge.

    Attributes
    ----------
    sets : names of the sets, in the order given
    rules : names of the rules, in the order in which they are applied
    read : entries by set; dropped : entries by set and rule, each entry at the first rule that objects
    atoms_kept : atoms of the kept entries
    offsets : of the sets after the first one, where they were fitted
    outputs : entries by output file; empty for a dry run
    stopped : whether the work was interrupted; the same call goes on
    """

    sets: list[str]
    rules: list[str]
    read: list[int] = field(default_factory=list)
    dropped: list[dict[str, int]] = field(default_factory=list)
    atoms_kept: int = 0
    n_compositions: int = 0
    offsets: dict[str, Offsets] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    unchecked: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def __post_init__(self) -> None:
        self.read = self.read or [0] * len(self.sets)
        self.dropped = self.dropped or [dict.fromkeys(self.rules, 0) for _ in self.sets]

    @property
    def kept(self) -> list[int]:
        """Entries that are kept, by set."""
        return [n - sum(counts.values()) for n, counts in zip(self.read, self.dropped, strict=True)]

    @property
    def total_dropped(self) -> dict[str, int]:
        """Dropped entries by rule."""
        return {rule: sum(counts[rule] for counts in self.dropped) for rule in self.rules}

    def text(self) -> str:
        """Return the tables for people."""
        header = ["set", "read", *self.rules, "kept"]
        rows = [
            [name, str(n), *(str(counts[rule]) for rule in self.rules), str(kept)]
            for name, n, counts, kept in zip(self.sets, self.read, self.dropped, self.kept, strict=True)
        ]
        total = self.total_dropped
        rows.append(["all", str(sum(self.read)), *(str(total[rule]) for rule in self.rules), str(sum(self.kept))])
        widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in [header, *rows]
        ]
        if self.unchecked:
            lines.append(f"{self.unchecked} entries have no stress, or elements that the model lacks: not judged by it")
        for name, offsets in self.offsets.items():
            lines += ["", *_offset_lines(name, self.sets[0], offsets)]
        for path, n in self.outputs.items():
            lines.append(f"{n} entries -> {path}")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Plain values for the summary file."""
        return {
            "sets": [
                {"name": name, "read": n, "dropped": counts, "kept": kept}
                for name, n, counts, kept in zip(self.sets, self.read, self.dropped, self.kept, strict=True)
            ],
            "rules": self.rules,
            "read": sum(self.read),
            "dropped": self.total_dropped,
            "kept": sum(self.kept),
            "atoms_kept": self.atoms_kept,
            "compositions_kept": self.n_compositions,
            "not_judged_by_model": self.unchecked,
            "offsets": {name: offsets.to_json() for name, offsets in self.offsets.items()},
            "outputs": self.outputs,
            "seconds": round(self.seconds, 3),
        }


def _offset_lines(name: str, reference: str, offsets: Offsets) -> list[str]:
    from ase.data import chemical_symbols  # noqa: PLC0415

    values = "  ".join(f"{chemical_symbols[z]} {value:+.4f}" for z, value in sorted(offsets.values.items()))
    lines = [f"energy offsets of {name} against {reference} (eV per atom of the element): {values}"]
    if offsets.n_compositions:
        lines.append(
            f"from {offsets.n_compositions} shared compositions, rank {offsets.rank} of {offsets.n_fitted}; difference "
            f"of lowest energies, rms: {offsets.rms_before:.4f} eV/atom before, {offsets.rms_after:.4f} after"
        )
    return [*lines, *(f"warning: {text}" for text in offsets.warnings())]


def draw_counts(path: Path, sets: Sequence[str], kept: Sequence[int], dropped: Sequence[Mapping[str, int]]) -> bool:
    """Draw kept and dropped entries of each set as stacked bars; False where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional
    except ImportError:
        return False
    figure = Figure(figsize=(8.0, 1.6 + 0.5 * len(sets)), layout="constrained")
    axes = figure.subplots()
    labels = [Path(name).name or name for name in sets]
    left = [0.0] * len(sets)
    pieces: list[tuple[str, list[int]]] = [("kept", list(kept))]
    pieces += [(rule, [counts[rule] for counts in dropped]) for rule in (dropped[0] if dropped else {})]
    shares = [max(1, n + sum(counts.values())) for n, counts in zip(kept, dropped, strict=True)]
    for name, numbers in pieces:
        if not any(numbers):
            continue
        widths = [100.0 * n / share for n, share in zip(numbers, shares, strict=True)]
        colour = "0.75" if name == "kept" else None
        axes.barh(range(len(sets)), widths, left=left, label=f"{name} ({sum(numbers)})", color=colour, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(sets)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0.0, 100.0)
    axes.set_xlabel("share of the entries (%)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35 / max(1.0, 0.5 * len(sets))), ncols=3, frameon=False)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, dpi=150, format="png")
    part.replace(path)
    return True
