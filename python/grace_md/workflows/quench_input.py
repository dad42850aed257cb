"""The LAMMPS input of a quench: random start, minimisation, linear ramp of temperature and pressure at constant N.

The text is written for people who copy it: `lmp -in in.lava` in the run folder repeats the run without this package's
Python layer. Protocol: "Exploring the extremes", Methods (lava and Mendeleev runs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

__all__ = [
    "COMPLETE_MARK",
    "CONTROL_FILE",
    "FRAME_MARK",
    "QUENCH_MARK",
    "SEGMENT_MARK",
    "QuenchSettings",
    "control_text",
    "potential_lines",
    "write_inputs",
    "write_start",
]

CONTROL_FILE = "control.lammps"
QUENCH_MARK = "== quench begins =="
SEGMENT_MARK = "== restart point"
FRAME_MARK = "== frame written =="
COMPLETE_MARK = "== quench complete =="
_BAR_PER_GPA = 10000.0


@dataclass
class QuenchSettings:
    """Everything that defines a quench; stored as ``quench.json`` in the run folder.

    Attributes
    ----------
    system : str
        ``"lava"`` or ``"mendeleev"``; names the files.
    composition : dict of str to int
        Atoms of each element, in the order of the LAMMPS types.
    steps : int
        Length of the ramp in steps.
    hold_steps : int
        Steps at the final temperature and pressure after the ramp (none in the paper).
    temperature : tuple of float
        Start and end in K.
    pressure : tuple of float
        Start and end in GPa.
    timestep_fs : float
        Time step in fs.
    segment_steps : int
        Steps between restart points, at which a run can stop and from which it resumes exactly.
    thermo_steps, dump_steps : int
        Steps between two lines of the log and between two frames of the trajectory.
    minimize_steps : int
        Largest number of iterations of the minimisation.
    packing_fraction, density, minimum_distance, seed
        Random start, see `grace_md.workflows.packing.random_packing`.
    device, precision : str
        Where and how the potential is evaluated, keywords of ``pair_style grace``.
    model : str
        Name of the weight file inside the run folder; empty with `pair_lines`.
    model_sha256 : str
        Hash of the weight file.
    pair_lines : list of str
        Replaces ``pair_style grace`` and its ``pair_coeff`` (another potential); empty: GRACE.
    """

    system: str
    composition: dict[str, int]
    steps: int
    hold_steps: int = 0
    temperature: tuple[float, float] = (5000.0, 300.0)
    pressure: tuple[float, float] = (1.0, 0.0)
    timestep_fs: float = 1.0
    segment_steps: int = 1000
    thermo_steps: int = 10
    dump_steps: int = 1000
    minimize_steps: int = 100
    packing_fraction: float = 0.36
    density: float | None = None
    minimum_distance: float = 0.8
    seed: int = 1
    device: str = "auto"
    precision: str = "auto"
    model: str = "model.npz"
    model_sha256: str = ""
    pair_lines: list[str] = field(default_factory=list)

    @property
    def elements(self) -> list[str]:
        """Element of each LAMMPS type."""
        return list(self.composition)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return sum(self.composition.values())

    @property
    def total_steps(self) -> int:
        """Steps of the ramp and of the hold."""
        return self.steps + self.hold_steps

    def target(self, step: float) -> tuple[float, float]:
        """Target temperature in K and pressure in GPa at a step."""
        share = min(1.0, step / self.steps)
        (t0, t1), (p0, p1) = self.temperature, self.pressure
        return t0 + (t1 - t0) * share, p0 + (p1 - p0) * share

    def check(self) -> None:
        """Raise ValueError if a setting makes no sense."""
        positive = {
            "steps": self.steps,
            "segment_steps": self.segment_steps,
            "thermo_steps": self.thermo_steps,
            "dump_steps": self.dump_steps,
            "timestep_fs": self.timestep_fs,
            "temperature": min(self.temperature),
            "seed": self.seed,
        }
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` = {value} must be positive.")
        for name, count in {"hold_steps": self.hold_steps, "minimize_steps": self.minimize_steps}.items():
            if count < 0:
                raise ValueError(f"`{name}` = {count} must not be negative.")
        if not all(math.isfinite(value) for value in self.pressure):
            raise ValueError(f"`pressure` = {self.pressure} must be two finite numbers of GPa.")

    def to_json(self) -> dict[str, Any]:
        """Settings as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> QuenchSettings:
        """Settings from `to_json`."""
        return cls(**{**data, "temperature": tuple(data["temperature"]), "pressure": tuple(data["pressure"])})


def write_start(path: Path, atoms: Atoms, elements: Sequence[str]) -> None:
    """Write atoms in an orthogonal box as a LAMMPS data file; type k is element k of `elements`."""
    edges = atoms.cell.lengths()
    type_of = {element: k + 1 for k, element in enumerate(elements)}
    lines = [
        f"random start of a quench: {atoms.get_chemical_formula()}",
        "",
        f"{len(atoms)} atoms",
        f"{len(elements)} atom types",
        *(f"0.0 {edge:.16g} {axis}lo {axis}hi" for axis, edge in zip("xyz", edges, strict=True)),
        "",
        "Masses",
        "",
        *(f"{type_of[e]} {atomic_masses[atomic_numbers[e]]:.6f}  # {e}" for e in elements),
        "",
        "Atoms  # atomic",
        "",
        *(
            f"{k + 1} {type_of[symbol]} {x:.16g} {y:.16g} {z:.16g}"
            for k, (symbol, (x, y, z)) in enumerate(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True))
        ),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_inputs(folder: Path, settings: QuenchSettings) -> None:
    """Write ``in.<system>`` (a fresh run) and ``in.<system>.resume`` (the rest of an interrupted one)."""
    settings.check()
    (folder / f"in.{settings.system}").write_text(_fresh(settings), encoding="utf-8")
    (folder / f"in.{settings.system}.resume").write_text(_resume(settings), encoding="utf-8")


def potential_lines(settings: QuenchSettings) -> str:
    """Lines that choose the potential; ``settings.model`` may also be a path."""
    if settings.pair_lines:
        return "\n".join(settings.pair_lines)
    model = f'"{settings.model}"' if " " in settings.model else settings.model
    words = "".join(
        f" {keyword} {word}"
        for keyword, word in (("device", settings.device), ("precision", settings.precision))
        if word != "auto"
    )
    return f"pair_style      grace{words}\npair_coeff      * * {model} {' '.join(settings.elements)}"


def _fresh(s: QuenchSettings) -> str:
    formula = " ".join(f"{element} {count}" for element, count in s.composition.items())
    return f"""\
# Quench of {s.n_atoms} atoms: {formula}
#
# Random start, minimisation, then one linear ramp at constant number of atoms (NPT):
#   temperature {s.temperature[0]:g} -> {s.temperature[1]:g} K, pressure {s.pressure[0]:g} -> {s.pressure[1]:g} GPa, \
{s.steps} steps of {s.timestep_fs:g} fs.
# Run it with   lmp -in in.{s.system}   or   mpirun -np 4 lmp -in in.{s.system}
# Files needed: start.data{"" if s.pair_lines else f", {s.model}"}

log             log.{s.system}
units           metal                # eV, Angstrom, ps, bar, K
atom_style      atomic
atom_modify     map yes
boundary        p p p
read_data       start.data

{_common(s)}
# ---- start ----
# The atoms were placed at random, none closer than {s.minimum_distance:g} of the covalent bond length.
{_minimize(s)}\
reset_timestep  0                    # minimize counts as steps, and the ramp counts from step 0
velocity        all create {s.temperature[0]:g} {s.seed + 48271} mom yes rot no dist gaussian

{_ramp(s)}"""


def _minimize(s: QuenchSettings) -> str:
    if s.minimize_steps == 0:
        return ""
    return f"""\
thermo          10
min_modify      dmax 0.1
minimize        1.0e-6 0.1 {s.minimize_steps} {5 * s.minimize_steps}
"""


def _resume(s: QuenchSettings) -> str:
    return f"""\
# Second half of in.{s.system}: continues exactly where a restart file was written. Run it with
#   lmp -in in.{s.system}.resume -var restart restart.0      (or restart.1, whichever is newer and complete)

log             log.{s.system} append
units           metal
atom_style      atomic
atom_modify     map yes
boundary        p p p
variable        px index *           # processor grid of the first run: a box that has changed its shape since would
variable        py index *           # be divided differently, and the sums of forces would round differently
variable        pz index *
processors      ${{px}} ${{py}} ${{pz}}
read_restart    ${{restart}}          # box, atoms, velocities, step, state of thermostat and barostat

{_common(s)}
{_ramp(s, append=True)}"""


def _common(s: QuenchSettings) -> str:
    return f"""\
# ---- potential ----
{potential_lines(s)}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
timestep        {s.timestep_fs / 1000.0:g}                # ps
"""


def _ramp(s: QuenchSettings, append: bool = False) -> str:
    (t0, t1), (p0, p1) = s.temperature, [_BAR_PER_GPA * p for p in s.pressure]
    damp_t, damp_p = 0.1 * s.timestep_fs, 1.0 * s.timestep_fs
    first_ps, delay = round(1000.0 / s.timestep_fs), 500
    hold = s.hold_steps > 0
    lines = [
        "# ---- what is written down ----",
        f"variable        steps equal {s.steps}            # length of the ramp",
        f"variable        segment equal {s.segment_steps}          # steps between restart points",
        'variable        share equal "ternary(step < v_steps, step / v_steps, 1.0)"',
        f'variable        T_target equal "{t0:g} + ({t1 - t0:g}) * v_share"     # K',
        f'variable        P_target equal "{p0:g} + ({p1 - p0:g}) * v_share"     # bar',
        f"thermo          {s.thermo_steps}",
        "thermo_style    custom step time temp v_T_target press v_P_target density pe etotal vol lx ly lz",
        "thermo_modify   flush yes",
        f"dump            trajectory all custom {s.dump_steps} trajectory.lammpstrj id element x y z",
        f"dump_modify     trajectory element {' '.join(s.elements)} sort id format float %.5f flush yes"
        + (" append yes delay $(step+1)" if append else ""),
        "",
        "# Safety: stop if the temperature runs away after the first picosecond (atoms that fuse release energy).",
        "# The limit is twice the target of 5 damping times ago: the thermostat follows a fast ramp with delay.",
        f'variable        late equal "ternary(step < {delay}, 0, step - {delay})"',
        'variable        before equal "ternary(v_late < v_steps, v_late, v_steps)"',
        f'variable        T_limit equal "2.0 * ({t0:g} + ({t1 - t0:g}) * v_before / v_steps)"',
        f'variable        runaway equal "(step > {first_ps}) * (temp > v_T_limit)"',
        "fix             guard all halt 10 v_runaway > 0 error hard message yes",
        "",
        "# ---- quench ----",
    ]
    if append and hold:
        lines.append(f'if "$(step) >= {s.steps}" then "jump SELF hold"')
    lines += [
        "# Nose-Hoover thermostat (damping 100 steps) and barostat (1000 steps), every edge of the box on its own.",
        "# The default fixed point is the centre of the box at this line, which a resumed run could not know.",
        f"fix             quench all npt temp {t0:g} {t1:g} {damp_t:g} aniso {p0:g} {p1:g} {damp_p:g} fixedpoint 0 0 0",
        f'print           "{QUENCH_MARK}"',
        *_segments(s.steps, "quench", "v_steps"),
    ]
    if hold:
        lines += [
            "",
            "# ---- hold at the final temperature and pressure ----",
            "unfix           quench",
            "label           hold",
            f"variable        last equal {s.total_steps}",
            f"fix             hold all npt temp {t1:g} {t1:g} {damp_t:g} aniso {p1:g} {p1:g} {damp_p:g} "
            "fixedpoint 0 0 0",
            f'print           "{QUENCH_MARK}"',
            *_segments(s.total_steps, "hold", "v_last"),
        ]
    lines += ["", "write_data      final.data nocoeff", f'print           "{COMPLETE_MARK}"', ""]
    return "\n".join(lines)


def control_text(settings: QuenchSettings, stop: bool = False) -> str:
    """Text of the control file, which the input reads at every restart point if it exists.

    It asks for a frame on which close contacts are checked, and ends the run if `stop` is true.
    """
    frame = (
        "write_dump all custom restart_point.lammpstrj id element x y z "
        f"modify element {' '.join(settings.elements)} sort id format float %.6f\n"
        f'print "{FRAME_MARK}"\n'
    )
    return frame + (f'if "$(step) < {settings.total_steps}" then "quit 0"\n' if stop else "")


def _segments(last: int, name: str, end: str) -> list[str]:
    """Loop of runs that end at restart points.

    Every `run` rebuilds the neighbour list and computes the forces anew, and so does a resumed run. As all runs have
    these points at the same steps, a resumed run repeats the uninterrupted one bit for bit (on as many ranks).
    """
    start_stop = f"start 0 stop {last}" if name == "quench" else ""
    loop = f"{name}_segment"
    return [
        f"label           {loop}",
        f'variable        next_stop equal "ternary(step + v_segment < {end}, step + v_segment, {end})"',
        f"run             ${{next_stop}} upto {start_stop} post no".replace("  post", " post"),
        "# Two restart files in turn, so that one is always complete.",
        'variable        slot equal "floor(step / v_segment) % 2"',
        "write_restart   restart.$(v_slot:%.0f)",
        f'print           "{SEGMENT_MARK} $(step:%.0f) restart.$(v_slot:%.0f) =="',
        f'if "$(is_file({CONTROL_FILE}))" then "include {CONTROL_FILE}"   # how grace-md asks the run to stop',
        f'if "$(step) < {last}" then "jump SELF {loop}"',
    ]
