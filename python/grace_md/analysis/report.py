"""Report of a quench: numbers in ``summary.json``, pictures as PNG, and the list of checks.

Checks: quickstart pass/fail list of the project's validation plan; every limit is a named constant here.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from grace_md.analysis.clusters import BondCounts, bond_counts, bonded_clusters, communities, modularity
from grace_md.analysis.lammps_files import Thermo, read_data, read_frames, read_thermo
from grace_md.analysis.pairs import closest_contact
from grace_md.analysis.rdf import LAVA_PAIRS, PartialRdf, bond_cutoff, partial_rdfs

__all__ = ["Check", "analyse_quench", "draw_pictures", "write_report"]

# Smallest d_ij / (r_i + r_j) over the run. Sound melts near 5000 K reach 0.57 to 0.65 for a moment (starter model, 248
# atoms: Na-Na 0.59); learned cores may turn over below 0.5, and then atoms fuse.
CONTACT_LIMIT = 0.5
TEMPERATURE_LIMIT = 50.0  # K, mean difference from the target over the last tenth
PRESSURE_LIMIT = 0.5  # GPa, the same
CATION_OXYGEN_ENRICHMENT = 1.15
OXYGEN_OXYGEN_ENRICHMENT = 0.6
SILICON_OXYGEN_PEAK = (1.55, 1.75)  # A

_LAST_SHARE = 0.1
_AVERAGED_ATOMS = 50_000  # atoms summed over averaged frames; bounds the time of the report
_BAR_PER_GPA = 1.0e4
_DISCLAIMER = "The protocol of the paper, not its numbers: another model, usually a smaller cell and a faster quench."


@dataclass
class Check:
    """One line of the pass/fail list; ``passed`` is None where the check does not apply."""

    name: str
    passed: bool | None
    value: str
    limit: str

    def line(self) -> str:
        """Text for the terminal."""
        mark = {True: "pass", False: "FAIL", None: " -- "}[self.passed]
        return f"[{mark}] {self.name}: {self.value} ({self.limit})"


@dataclass
class Analysis:
    """What was computed from a run folder; the pictures are drawn from it."""

    settings: Any
    state: Any
    thermo: Thermo
    first: Atoms
    last: Atoms
    last_step: int
    rdf_final: dict[tuple[str, str], PartialRdf]
    rdf_hot: dict[tuple[str, str], PartialRdf]
    hot_step: int
    bonds: BondCounts
    labels: Any
    clusters: list[Any]
    summary: dict[str, Any]
    checks: list[Check]


def analyse_quench(folder: Path, extra_checks: Sequence[Check] = ()) -> Analysis:
    """Analyse a complete or interrupted quench.

    Parameters
    ----------
    folder : Path
        Run folder of `grace_md.workflows.quench`.
    extra_checks : sequence of Check
        Added to the list, for example by the quickstart.

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError
        If the folder holds no frames or no thermo lines yet.
    """
    # Plain JSON, not the classes of workflows: analysis lies below workflows.
    settings = json.loads((folder / "quench.json").read_text(encoding="utf-8"))
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    thermo = read_thermo([folder / f"log.{settings['system']}"], start_mark="== quench begins ==")
    frames = read_frames(folder / "trajectory.lammpstrj") if (folder / "trajectory.lammpstrj").is_file() else []
    if not frames or not len(thermo.get("Step", ())):
        raise ValueError(f"{folder} holds no trajectory and no thermo lines yet; run the quench first.")
    elements = list(settings["composition"])
    n_atoms = len(frames[0][1])
    if state["status"] == "complete" and frames[-1][0] < state["step"]:
        frames.append((state["step"], read_data(folder / "final.data", elements)))
    end = frames[-1][0]

    # As many frames as the time allows, from the last tenth of the run and from the hot tenth after the first.
    most = max(1, _AVERAGED_ATOMS // n_atoms)
    final = _spread([atoms for step, atoms in frames if step >= (1.0 - _LAST_SHARE) * end], most)
    hot = _spread([atoms for step, atoms in frames if _LAST_SHARE * end <= step <= 2 * _LAST_SHARE * end], most)
    pairs = _pairs_to_show(elements)
    r_max = 8.0
    rdf_final = partial_rdfs(final, pairs, r_max)
    rdf_hot = partial_rdfs(hot, pairs, r_max) if hot else {}
    last = frames[-1][1]
    bonds = bond_counts(final, elements)
    labels = communities(bonds.weights)
    clusters = _metal_clusters(last, rdf_final)
    ratio, (i, j), distance = _closest_of_run(frames)
    recorded = state.get("closest_contact")
    if recorded is not None and recorded < ratio:
        ratio, distance, i, j = recorded, float("nan"), -1, -1

    tail = thermo["Step"] >= (1.0 - _LAST_SHARE) * thermo["Step"][-1]
    summary: dict[str, Any] = {
        "what": f"{settings['system']} quench of {n_atoms} atoms, {settings['temperature'][0]:g} \u2192 "
        f"{settings['temperature'][1]:g} K",
        "note": _DISCLAIMER,
        "status": state["status"],
        "settings": settings,
        "composition": settings["composition"],
        "n_atoms": n_atoms,
        "steps": int(thermo["Step"][-1]),
        "wall_seconds": round(state["seconds"], 1),
        "resumed": state["resumed"],
        "last_tenth": {
            "temperature_K": _mean(thermo["Temp"][tail]),
            "target_temperature_K": _mean(thermo["v_T_target"][tail]),
            "pressure_GPa": _mean(thermo["Press"][tail]) / _BAR_PER_GPA,
            "target_pressure_GPa": _mean(thermo["v_P_target"][tail]) / _BAR_PER_GPA,
            "density_g_cm3": _mean(thermo["Density"][tail]),
            "potential_energy_eV_per_atom": _mean(thermo["PotEng"][tail]) / n_atoms,
        },
        "final_cell_A": [float(thermo[axis][-1]) for axis in ("Lx", "Ly", "Lz")],
        "closest_contact": {
            "ratio_to_covalent_radii": ratio,
            "distance_A": None if not np.isfinite(distance) else distance,
            "pair": None if i < 0 else [last.symbols[i], last.symbols[j]],
        },
        "rdf": {"-".join(pair): _rdf_summary(rdf) for pair, rdf in rdf_final.items()},
        "fe_si_clusters": {
            "sizes": [len(cluster) for cluster in clusters if len(cluster) > 1],
            "single_atoms": sum(len(cluster) == 1 for cluster in clusters),
            "cutoffs_A": {"-".join(pair): cutoff for pair, cutoff in _metal_cutoffs(rdf_final).items()},
        },
        "bonds": {
            "elements": elements,
            "counts": np.round(bonds.counts, 3).tolist(),
            "enrichment": [[_number(value) for value in row] for row in bonds.enrichment()],
            "communities": [
                [e for e, label in zip(elements, labels, strict=True) if label == k] for k in range(labels.max() + 1)
            ],
            "modularity": _number(modularity(bonds.weights, labels)) if bonds.counts.sum() > 0 else None,
        },
        "versions": _versions(),
    }
    checks = [*_checks(settings, state, summary, bonds, rdf_final), *extra_checks]
    summary["checks"] = [asdict(check) for check in checks]
    summary["passed"] = all(check.passed is not False for check in checks)
    return Analysis(
        settings=settings,
        state=state,
        thermo=thermo,
        first=frames[0][1],
        last=last,
        last_step=end,
        rdf_final=rdf_final,
        rdf_hot=rdf_hot,
        hot_step=round(1.5 * _LAST_SHARE * end),
        bonds=bonds,
        labels=labels,
        clusters=clusters,
        summary=summary,
        checks=checks,
    )


def draw_pictures(analysis: Analysis, folder: Path) -> list[Path]:
    """Draw all pictures of a run into its folder and return their paths.

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    from grace_md.analysis import plots  # noqa: PLC0415 - keeps text-only reports free of the optional extra

    s, a = analysis.settings, analysis
    elements = list(s["composition"])
    ps = s["timestep_fs"] / 1000.0
    hot_t, end_t = (_temperature(a.thermo, step) for step in (a.hot_step, a.last_step))
    n_atoms = len(a.last)
    paths = [folder / f"{name}.png" for name in ("thermo", "rdf", "snapshot", "bonds")]
    plots.plot_thermo(paths[0], a.thermo, n_atoms, a.summary["what"])
    plots.plot_rdfs(paths[1], a.rdf_final, a.rdf_hot or None, (f"{hot_t:.0f} K", f"{end_t:.0f} K"))
    plots.plot_snapshots(
        paths[2],
        [
            ("start: random packing, minimised", a.first),
            (f"after {a.last_step * ps:.4g} ps: {end_t:.0f} K", a.last),
        ],
        elements,
    )
    plots.plot_bonds(paths[3], a.bonds, a.labels)
    if a.clusters:
        paths.append(folder / "clusters.png")
        shown = [e for e in ("Fe", "Si") if e in elements]
        plots.plot_clusters(paths[-1], a.last, a.clusters, shown, "clusters bonded by Fe-Si and Fe-Fe")
    if s["system"] == "mendeleev" and a.labels.max() > 0:
        paths.append(folder / "communities.png")
        plots.plot_communities(paths[-1], a.last, a.summary["bonds"]["communities"][:4])
    return [path for path in paths if path.exists()]


def write_report(folder: Path, extra_checks: Sequence[Check] = (), pictures: bool = True) -> Analysis:
    """Analyse a run, draw the pictures and write ``summary.json``.

    Without matplotlib the numbers are still written, and ``summary["pictures_note"]`` says what is missing.
    """
    analysis = analyse_quench(folder, extra_checks)
    drawn: list[Path] = []
    if pictures:
        try:
            drawn = draw_pictures(analysis, folder)
        except RuntimeError as error:
            analysis.summary["pictures_note"] = str(error)
    analysis.summary["pictures"] = [path.name for path in drawn]
    part = folder / "summary.json.part"
    part.write_text(json.dumps(analysis.summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(folder / "summary.json")
    return analysis


def _checks(
    settings: dict[str, Any],
    state: dict[str, Any],
    summary: dict[str, Any],
    bonds: BondCounts,
    rdf: dict[tuple[str, str], PartialRdf],
) -> list[Check]:
    total = settings["steps"] + settings["hold_steps"]
    tail, contact = summary["last_tenth"], summary["closest_contact"]["ratio_to_covalent_radii"]
    dt = tail["temperature_K"] - tail["target_temperature_K"]
    dp = tail["pressure_GPa"] - tail["target_pressure_GPa"]
    atoms = sum(settings["composition"].values())
    checks = [
        Check("run complete", state["status"] == "complete", f"{summary['steps']} of {total} steps", "all steps"),
        Check("atoms kept", summary["n_atoms"] == atoms, f"{summary['n_atoms']} of {atoms}", "all atoms"),
        Check(
            "closest contact of the run",
            bool(contact > CONTACT_LIMIT),
            f"{contact:.3f} of the covalent radii",
            f"> {CONTACT_LIMIT}",
        ),
        Check(
            "temperature, last tenth",
            bool(abs(dt) <= TEMPERATURE_LIMIT),
            f"{tail['temperature_K']:.0f} K, target {tail['target_temperature_K']:.0f} K",
            f"within {TEMPERATURE_LIMIT:g} K",
        ),
        Check(
            "pressure, last tenth",
            bool(abs(dp) <= PRESSURE_LIMIT),
            f"{tail['pressure_GPa']:+.2f} GPa, target {tail['target_pressure_GPa']:+.2f} GPa",
            f"within {PRESSURE_LIMIT:g} GPa",
        ),
    ]
    cations = [element for element in bonds.elements if element != "O"]
    if settings["system"] == "lava" and "O" in bonds.elements and cations:
        mixed, like = bonds.group_enrichment(["O"], cations), bonds.group_enrichment(["O"], ["O"])
        checks += [
            Check(
                "O-cation bonds over random",
                bool(mixed > CATION_OXYGEN_ENRICHMENT),
                f"{mixed:.2f}",
                f"> {CATION_OXYGEN_ENRICHMENT}",
            ),
            Check(
                "O-O bonds over random",
                bool(like < OXYGEN_OXYGEN_ENRICHMENT),
                f"{like:.2f}",
                f"< {OXYGEN_OXYGEN_ENRICHMENT}",
            ),
        ]
        low, high = SILICON_OXYGEN_PEAK
        peak = rdf["Si", "O"].first_peak() if ("Si", "O") in rdf else None
        checks.append(
            Check(
                "Si-O first peak",
                None if peak is None else bool(low <= peak[0] <= high),
                "too few pairs" if peak is None else f"{peak[0]:.3f} A",
                f"{low} to {high} A",
            )
        )
    return checks


def _pairs_to_show(elements: Sequence[str]) -> list[tuple[str, str]] | None:
    pairs = [pair for pair in LAVA_PAIRS if set(pair) <= set(elements)]
    return pairs or [(a, b) for k, a in enumerate(elements) for b in elements[k:]][:12]


def _metal_cutoffs(rdf: dict[tuple[str, str], PartialRdf]) -> dict[tuple[str, str], float]:
    """Bond lengths that make a metallic cluster. Si-Si is left out: it would chain the whole silicate network."""
    return {pair: bond_cutoff(rdf[pair], pair) for pair in (("Fe", "Si"), ("Fe", "Fe")) if pair in rdf}


def _metal_clusters(atoms: Atoms, rdf: dict[tuple[str, str], PartialRdf]) -> list[Any]:
    """Clusters with at least one Fe atom."""
    cutoffs = _metal_cutoffs(rdf)
    if not cutoffs:
        return []
    symbols = np.array(atoms.get_chemical_symbols())
    return [cluster for cluster in bonded_clusters(atoms, cutoffs) if (symbols[cluster] == "Fe").any()]


def _closest_of_run(frames: Sequence[tuple[int, Atoms]]) -> tuple[float, tuple[int, int], float]:
    radii = covalent_radii[frames[0][1].numbers]
    return min(closest_contact(atoms.positions, atoms.cell.array, radii) for _, atoms in frames)


def _spread(frames: list[Atoms], most: int) -> list[Atoms]:
    if len(frames) <= most:
        return frames
    return [frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))]


def _temperature(thermo: Thermo, step: float) -> float:
    """Mean temperature in K of the log around a step (5 % of the run)."""
    near = np.abs(thermo["Step"] - step) <= 0.025 * thermo["Step"][-1]
    return _mean(thermo["Temp"][near]) if near.any() else float(thermo["Temp"][-1])


def _rdf_summary(rdf: PartialRdf) -> dict[str, Any]:
    peak, cutoff = rdf.first_peak(), rdf.first_minimum()
    return {
        "first_peak_A": None if peak is None else peak[0],
        "first_peak_height": None if peak is None else peak[1],
        "first_minimum_A": cutoff,
        "coordination": rdf.coordination(cutoff),
    }


def _mean(values: Any) -> float:
    return float(np.mean(values))


def _number(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("grace_md", "numpy", "ase", "lammps", "mpich", "matplotlib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
