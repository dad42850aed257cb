"""Low-force structures: many relaxations at once with a preliminary model, and guards against its holes.

Every step is one call of `GraceCalculator.evaluate` for all structures of a batch. Structures leave it when they
converge, reach the last step or meet a guard, and new ones take their places. No structure knows of the others: the
same structure ends in the same place in every batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from grace_md.interrupt import StopRequest
from grace_md.merging.rules import contacts
from grace_md.progress import ProgressBar
from grace_md.smax.relax_fire import FireBatch, FireSettings

__all__ = ["KEPT", "REASONS", "RelaxSettings", "Relaxed", "relax", "relax_stream"]

KEPT = ("converged", "steps")
REASONS = (*KEPT, "close contact", "volume", "energy jump", "not finite", "unknown element", "invalid")
SMALLEST_VOLUME = 1e-6  # A^3
LOG_POINTS = 24  # steps, evenly spaced in their logarithm, at which frames are held ready for keep = log:N
RADII_KEY = "effective_radius"


class Evaluates(Protocol):
    """What `GraceCalculator` offers here."""

    model: Any

    def evaluate(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Return energy (eV), forces (eV/A) and stress (eV/A^3) of each structure."""


@dataclass(frozen=True)
class RelaxSettings:
    """How structures are relaxed. Where the publication gives no number, the default is ours.

    Attributes
    ----------
    cell : "fixed", "variable", or "mix:P": variable with the probability P, drawn for each structure
    fmax : eV/A, the longest force (of cells: as ASE's FrechetCellFilter has them) of a converged structure
    steps : of a structure at most; it is then kept as it is
    keep : "last", or "log:N" for up to N frames of each path, evenly spaced in the logarithm of the step
    core_factor, closest : atoms closer than closest * core_factor * (r_i + r_j) / 2 end a relaxation, r being the
        array `effective_radius` of a structure, or covalent radii
    volume_factor : largest growth or shrinkage of the cell
    energy_jump : eV per atom, largest difference between the energy gained in a step and the work of the forces
    batch_atoms : atoms that are relaxed at a time; changes speed and memory only
    seed : of the draws of "mix"
    fire : constants of the optimiser
    """

    cell: str = "fixed"
    fmax: float = 0.05
    steps: int = 200
    keep: str = "last"
    core_factor: float = 1.5
    closest: float = 0.7
    volume_factor: float = 3.0
    energy_jump: float = 1.0
    batch_atoms: int = 4000
    seed: int = 0
    fire: FireSettings = field(default_factory=FireSettings)

    def __post_init__(self) -> None:
        for name in ("fmax", "steps", "core_factor", "closest", "energy_jump", "batch_atoms"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"`{name}` = {getattr(self, name)} must be a number > 0.")
        if not (np.isfinite(self.volume_factor) and self.volume_factor > 1.0):
            raise ValueError(f"`volume_factor` = {self.volume_factor} must be a number > 1.")
        self.variable_share, self.n_frames  # noqa: B018 - they check what they read

    @property
    def variable_share(self) -> float:
        """Probability of a variable cell."""
        plain = {"fixed": 0.0, "variable": 1.0}
        if self.cell in plain:
            return plain[self.cell]
        try:
            share = float(self.cell.removeprefix("mix:")) if self.cell.startswith("mix:") else float("nan")
        except ValueError:
            share = float("nan")
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"`cell` = {self.cell!r} must be fixed, variable or mix:P, as mix:0.5.")
        return share

    @property
    def n_frames(self) -> int:
        """Frames of each path at most."""
        if self.keep == "last":
            return 1
        number = self.keep.removeprefix("log:")
        if not (self.keep.startswith("log:") and number.isdigit() and int(number) > 0):
            raise ValueError(f"`keep` = {self.keep!r} must be last or log:N with a number of frames N, as log:4.")
        return int(number)

    def is_variable(self, index: int) -> bool:
        """Return whether the cell of structure `index` moves; independent of all other structures."""
        share = self.variable_share
        draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, index]))).random()
        return bool(draw < share)


@dataclass
class Relaxed:
    """How the relaxation of one structure ended.

    Attributes
    ----------
    index : number of the structure
    reason : one of REASONS
    variable : whether the cell could move
    steps : taken
    fmax_first, fmax : eV/A, at the beginning and the end; NaN where it was not evaluated
    energy_first, energy : eV per atom of the model
    volume_ratio : last cell / first cell
    frames : what is kept, in order; empty if a guard was met. The energies of the model are in `info`, not among the
        results: they are no labels.
    """

    index: int
    reason: str
    variable: bool = False
    steps: int = 0
    fmax_first: float = float("nan")
    fmax: float = float("nan")
    energy_first: float = float("nan")
    energy: float = float("nan")
    volume_ratio: float = 1.0
    frames: list[Atoms] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether no guard was met."""
        return self.reason in KEPT


class _Path:
    """One structure on its way."""

    def __init__(self, index: int, atoms: Atoms, settings: RelaxSettings) -> None:
        self.settings = settings
        self.source = atoms
        self.atoms = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        self.result = Relaxed(index, "", variable=settings.is_variable(index) and bool(atoms.pbc.all()))
        radii = np.asarray(atoms.arrays.get(RADII_KEY, covalent_radii[atoms.numbers]), dtype=np.float64)
        self.contact_radii = 0.5 * settings.closest * settings.core_factor * radii
        self.volume = abs(float(np.linalg.det(atoms.cell.array)))
        self.work = 0.0
        self.frames: dict[int, Atoms] = {}

    def frame(self) -> Atoms:
        """Return the structure as it is now, with what its file said and where it is on its path."""
        atoms = self.source.copy()
        atoms.calc = None
        atoms.set_cell(self.atoms.cell)
        atoms.positions = self.atoms.positions
        atoms.wrap()
        r = self.result
        atoms.info.update(
            smax_relax_index=r.index, smax_relax_cell="variable" if r.variable else "fixed", smax_relax_step=r.steps,
            smax_relax_fmax=r.fmax, smax_relax_energy=r.energy * len(atoms),
        )  # fmt: skip
        return atoms  # type: ignore[no-any-return]  # ASE does not say what copy() returns

    def finish(self, reason: str) -> Relaxed:
        """Return the result with the frames that are kept."""
        self.result.reason = reason
        if self.result.kept:
            self.frames[self.result.steps] = self.frame()
            self.result.frames = [self.frames[k] for k in _log_spaced(sorted(self.frames), self.settings.n_frames)]
        return self.result


def _log_spaced(steps: Sequence[int], n: int) -> list[int]:
    """Return up to `n` of the steps, the last one included, evenly spaced in the logarithm."""
    logs = np.log(np.maximum(steps, 1))
    wanted = np.geomspace(max(1, steps[-1]), 1, n)
    return sorted({steps[int(np.argmin(np.abs(logs - np.log(target))))] for target in wanted} | {steps[-1]})


def _problem(atoms: Atoms, known: frozenset[str]) -> str:
    """Reason not to begin with a structure, empty if there is none."""
    if not len(atoms) or not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "invalid"
    if atoms.pbc.any() and abs(float(np.linalg.det(atoms.cell.complete().array))) < SMALLEST_VOLUME:
        return "invalid"
    return "" if set(atoms.get_chemical_symbols()) <= known else "unknown element"


class _Batch:
    """Paths and their coordinates."""

    def __init__(self, calculator: Evaluates, settings: RelaxSettings) -> None:
        self.calculator, self.settings = calculator, settings
        self.paths: list[_Path] = []
        self.fire = FireBatch(settings.fire)
        self.known = frozenset(calculator.model.elements)
        points: Any = np.geomspace(1, settings.steps, LOG_POINTS) if settings.n_frames > 1 else []
        self.noted = {round(float(k)) for k in points}

    @property
    def n_atoms(self) -> int:
        return int(self.fire.first[-1])

    def fill(self, structures: Iterator[tuple[int, Atoms]]) -> list[Relaxed]:
        """Take structures until the batch is full; return those that cannot be relaxed."""
        refused: list[Relaxed] = []
        fresh: list[_Path] = []
        n = self.n_atoms
        while n < self.settings.batch_atoms:
            following = next(structures, None)
            if following is None:
                break
            index, atoms = following
            problem = _problem(atoms, self.known)
            if problem:
                refused.append(Relaxed(index, problem))
                continue
            fresh.append(_Path(index, atoms, self.settings))
            n += len(atoms)
        self.paths += fresh
        self.fire.add([path.atoms for path in fresh], [path.result.variable for path in fresh])
        return refused

    def _leave(self, reasons: Sequence[str]) -> list[Relaxed]:
        """Take out the paths that have a reason."""
        done = [path.finish(reason) for path, reason in zip(self.paths, reasons, strict=True) if reason]
        stay = np.array([not reason for reason in reasons])
        self.paths = [path for path, here in zip(self.paths, stay, strict=True) if here]
        if done:
            self.fire.keep(stay)
        return done

    def check_geometry(self) -> list[Relaxed]:
        """Move the structures to where the optimiser has them; end paths whose geometry is out of bounds."""
        first = self.fire.first
        for k, path in enumerate(self.paths):
            path.atoms.set_cell(self.fire.cells[k])
            path.atoms.positions = self.fire.positions[first[k] : first[k + 1]]
            if path.volume > 0.0:
                path.result.volume_ratio = abs(float(np.linalg.det(self.fire.cells[k]))) / path.volume
        limit = self.settings.volume_factor
        reasons = ["" if 1.0 / limit <= path.result.volume_ratio <= limit else "volume" for path in self.paths]
        done = self._leave(reasons)
        if self.paths:
            periodic = np.array([path.atoms.pbc for path in self.paths])
            radii = np.concatenate([path.contact_radii for path in self.paths])
            ratio = contacts(self.fire.positions, self.fire.cells, periodic, self.fire.first, radii)
            done += self._leave(["close contact" if np.isfinite(x) else "" for x in ratio])
        return done

    def advance(self) -> list[Relaxed]:
        """Evaluate, judge and move; return the paths that ended."""
        results = self.calculator.evaluate([path.atoms for path in self.paths])
        forces = np.concatenate([result["forces"] for result in results])
        stresses = np.array([result.get("stress", np.zeros(6)) for result in results])
        rows, cells = self.fire.generalised(forces, stresses)
        largest, work = self.fire.largest(rows, cells), self.fire.work(rows, cells)
        reasons = [
            self._judge(path, results[k]["energy"], float(largest[k]), float(work[k]))
            for k, path in enumerate(self.paths)
        ]
        stay = np.array([not reason for reason in reasons])
        rows = rows[np.repeat(stay, self.fire.sizes)]
        done = self._leave(reasons)
        if self.paths:
            for path, gained in zip(self.paths, self.fire.step(rows, cells[stay]), strict=True):
                path.work = float(gained)
                path.result.steps += 1
        return done

    def _judge(self, path: _Path, energy: float, fmax: float, work: float) -> str:
        r, s = path.result, self.settings
        before, r.energy, r.fmax = r.energy, energy / len(path.atoms), fmax
        if not (np.isfinite(energy) and np.isfinite(fmax)):
            return "not finite"
        if r.steps == 0:
            r.energy_first, r.fmax_first = r.energy, fmax
        elif abs(r.energy - before + 0.5 * (path.work + work) / len(path.atoms)) > s.energy_jump:
            return "energy jump"
        if fmax < s.fmax:
            return "converged"
        if r.steps >= s.steps:
            return "steps"
        if r.steps in self.noted:
            path.frames[r.steps] = path.frame()
        return ""


def relax_stream(
    structures: Iterable[tuple[int, Atoms]],
    calculator: Evaluates,
    settings: RelaxSettings | None = None,
    stop: StopRequest | None = None,
) -> Iterator[Relaxed]:
    """Yield results in the order in which relaxations end.

    Parameters
    ----------
    structures : (index, structure); taken one by one as places in the batch become free
    stop : asked after every step; relaxations under way are then given up
    """
    batch = _Batch(calculator, settings or RelaxSettings())
    source = iter(structures)
    while True:
        yield from batch.fill(source)
        if not batch.paths or (stop is not None and stop.asked):
            return
        yield from batch.check_geometry()
        if batch.paths:
            yield from batch.advance()


def relax(
    structures: Sequence[Atoms],
    model: Evaluates | str | Path,
    settings: RelaxSettings | None = None,
    *,
    progress: bool = False,
    **changes: Any,
) -> list[Relaxed]:
    """Relax structures and return one result each, in their order.

    Parameters
    ----------
    structures : what to relax; they are not changed
    model : GraceCalculator, or path of a weight file
    settings : RelaxSettings; or give its attributes by name, such as ``cell="variable"``

    Raises ValueError for settings that make no sense.
    """
    if settings is not None and changes:
        raise ValueError("give either `settings` or its attributes by name, not both.")
    if isinstance(model, (str, Path)):
        from grace_md.ase import GraceCalculator  # noqa: PLC0415

        model = GraceCalculator(model)
    chosen = settings or RelaxSettings(**changes)
    found: list[Relaxed] = []
    bar = ProgressBar(len(structures), "relaxed") if progress else None
    for result in relax_stream(enumerate(structures), model, chosen):
        found.append(result)
        if bar is not None:
            bar.update()
    if bar is not None:
        bar.close()
    return sorted(found, key=lambda result: result.index)
