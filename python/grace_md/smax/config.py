"""Settings of the generation of entropy-maximised structures; every constant of the method is one of them.

Each setting carries a help text and where its default comes from: ``paper`` (Exploring the extremes, arXiv 2602.23489,
section IV.1), ``lammps`` (defaults of the SNAP descriptor there) or ``ours``, a choice of this project. `describe`
lists them; files with comments are made from that list.
"""
# ruff: noqa: RUF009 - `_setting` returns a field

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, NamedTuple

from grace_md.smax.config_checks import check
from grace_md.strict import parse, to_plain

__all__ = [
    "CellSettings",
    "CheckSettings",
    "CompositionSettings",
    "DensitySettings",
    "DescriptorSettings",
    "ElementSettings",
    "ObjectiveSettings",
    "OptimiserSettings",
    "RadiusSettings",
    "Setting",
    "SmaxConfig",
    "StatisticsSettings",
    "describe",
]

Source = Literal["paper", "lammps", "ours"]


def _setting(default: Any, source: Source, text: str) -> Any:
    metadata = {"source": source, "help": text}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ElementSettings:
    """Section `elements`: which elements occur and how often."""

    symbols: Literal["all"] | list[str] = _setting(
        "all", "paper", "elements to draw from; all: the 88 of the paper, H to Ra"
    )
    weights: Literal["rows", "uniform"] | dict[str, float] = _setting(
        "rows",
        "paper",
        "relative frequencies; rows: the first three rows of the periodic table count light_weight, all others 1; or a "
        "mapping, where elements that are not named count 1",
    )
    light_weight: float = _setting(2.0, "ours", "weight of H to Ar with weights: rows")


@dataclass(frozen=True)
class RadiusSettings:
    """Section `radii`: effective radii r of atoms, and what follows from them."""

    table: dict[str, float] = _setting(
        {}, "ours", "covalent radii (A) that replace those of ase.data (Cordero 2008) or fill gaps, {symbol: radius}"
    )
    beta_a: float = _setting(4.0, "ours", "first exponent of the Beta law (the paper names the law, not its shape)")
    beta_b: float = _setting(4.0, "ours", "second exponent of the Beta law; equal exponents centre it")
    width_lo: float = _setting(0.7, "ours", "smallest r over the covalent radius; 0.85 with 1.15 is the other reading")
    width_hi: float = _setting(1.3, "ours", "largest r over the covalent radius ('a range of 30 %' of the paper)")
    cutoff_factor: float = _setting(4.0, "ours", "cutoff of the descriptor of an atom over r")
    core_factor: float = _setting(1.5, "ours", "core radius of an atom over r; a pair has the mean of two")
    core_factor_extreme: float = _setting(1.2, "ours", "the same for extreme candidates")
    extreme_fraction: float = _setting(0.1, "ours", "share of candidates with the extreme core factor")


@dataclass(frozen=True)
class CompositionSettings:
    """Section `composition`: numbers of elements and atoms, and how atoms are dealt out."""

    n_elements: list[float] = _setting(
        [0.20, 0.35, 0.25], "ours", "probabilities of 1, 2, 3, ... distinct elements; what is left is the tail"
    )
    tail_ratio: float = _setting(
        3.0 / 7.0, "ours", "ratio of successive probabilities in the geometric tail; 3/7 makes the mean 2.6"
    )
    max_elements: int = _setting(15, "ours", "end of the tail")
    n_atoms: Literal["power", "uniform", "log-uniform"] | dict[str, float] = _setting(
        "power", "ours", "law of the number of atoms; power: p(n) ~ n^-a with a from mean_atoms; or {'4': weight, ...}"
    )
    min_atoms: int = _setting(1, "ours", "fewest atoms of a structure")
    max_atoms: int = _setting(32, "ours", "most atoms of a structure")
    mean_atoms: float = _setting(13.6, "paper", "mean number of atoms with n_atoms: power")
    dirichlet: float = _setting(
        1.0, "ours", "parameter alpha of the Dirichlet law of concentrations; 1: all mixtures are equally likely"
    )
    rule: Literal["free", "neutral", "formulas"] = _setting(
        "free", "ours", "free; neutral: charges add up to zero; formulas: multiples of the formulas given"
    )
    charges: dict[str, list[int]] = _setting({}, "ours", "oxidation states per element for rule: neutral")
    formulas: dict[str, float] = _setting({}, "ours", "weights of formulas such as Al2O3 for rule: formulas")


@dataclass(frozen=True)
class DensitySettings:
    """Section `density`: packing number phi = sum of (4/3) pi r^3 over the volume of the cell, log-uniform."""

    phi_min: float = _setting(0.2, "ours", "smallest phi of ordinary candidates")
    phi_max: float = _setting(1.6, "ours", "largest phi of ordinary candidates; most metals lie between 0.4 and 1.2")
    high_fraction: float = _setting(0.03, "ours", "share of candidates between phi_max and phi_highest; all extreme")
    phi_highest: float = _setting(2.5, "ours", "largest phi of all")
    low_fraction: float = _setting(0.02, "ours", "share of candidates between phi_lowest and phi_min")
    phi_lowest: float = _setting(0.1, "ours", "smallest phi of all; below, fragments no longer interact")


@dataclass(frozen=True)
class CellSettings:
    """Section `cell`: shapes, F = I + U(-strain, strain)."""

    strain: float = _setting(0.35, "ours", "largest entry of F - I")
    min_determinant: float = _setting(0.5, "ours", "smallest det F before the volume is set")
    max_aspect: float = _setting(3.0, "ours", "largest height of the cell over the smallest")
    min_height: float = _setting(2.0, "ours", "smallest distance of two opposite faces of a cell (A)")
    max_draws: int = _setting(5000, "ours", "sets of atoms, radii and density tried for elements until a cell fits")
    shape_draws: int = _setting(16, "ours", "shapes tried for each of them")
    niggli: bool = _setting(True, "ours", "store the Niggli-reduced cell")


@dataclass(frozen=True)
class DescriptorSettings:
    """Section `descriptor`: the features whose entropy grows."""

    kind: str = _setting("snap", "paper", "snap: bispectrum components; ace: power spectrum")
    twojmax: int = _setting(8, "paper", "twice the largest angular momentum of snap; 8: the 55 components of the paper")
    rfac0: float = _setting(0.99363, "lammps", "rfac0 of snap")
    rmin0: float = _setting(0.0, "lammps", "rmin0 of snap (A)")
    cutoff_rule: Literal["centre", "pair"] = _setting(
        "centre", "ours", "cutoff of a bond: that of the centre, or the mean of both atoms"
    )
    power: float = _setting(
        1.0,
        "ours",
        "p: large features become |b|^p; 1: as they are; 1/6: fluctuations that do not grow with density",
    )


@dataclass(frozen=True)
class StatisticsSettings:
    """Section `statistics`: of which items the entropy is, and how it starts."""

    mode: Literal["atom", "config", "mixed"] = _setting(
        "atom", "paper", "items: atoms, means over configurations, or one of the two at random per candidate (mixed)"
    )
    atom_fraction: float = _setting(0.5, "ours", "share of candidates with mode atom in mixed")
    seed_items_per_feature: float = _setting(
        8.0,
        "ours",
        "random structures are accepted as they are until there are this many items per feature; with more, later ones "
        "pass more often and gain less each",
    )
    restart_after: int = _setting(
        0, "ours", "structures with an entropy gain after which the statistics begin anew, with another seed phase: "
        "acceptance falls while a set grows, so that large ones are made of many; 0: never"
    )  # fmt: skip
    ridge: float = _setting(1e-8, "ours", "of the variances after the seed phase, added while cond(Sigma) is large")
    ridge_condition: float = _setting(1e8, "ours", "condition number below which the ridge is dropped for good")


@dataclass(frozen=True)
class ObjectiveSettings:
    """Section `objective`: Phi = (M' / n_new) [S(D + c) - S(D)] - K V_core / N."""

    core_strength: float = _setting(
        1e4, "ours", "K, the weight of the repulsion of cores; overlaps that it leaves are relaxed away afterwards"
    )


@dataclass(frozen=True)
class OptimiserSettings:
    """Section `optimiser`: local maximisation of Phi."""

    method: Literal["lbfgs", "fire"] = _setting("lbfgs", "ours", "lbfgs with backtracking, or fire without line search")
    history: int = _setting(10, "ours", "pairs that L-BFGS keeps")
    max_iterations: int = _setting(60, "ours", "accepted steps at most")
    max_evaluations: int = _setting(80, "ours", "evaluations of Phi at most")
    max_displacement: float = _setting(0.15, "ours", "longest move of an atom in a step (A)")
    first_displacement: float = _setting(0.05, "ours", "longest move of an atom in the first step (A)")
    gradient_tolerance: float = _setting(1e-2, "ours", "stop when no component of grad Phi is larger (1/A)")
    objective_tolerance: float = _setting(1e-4, "ours", "stop when a step gains less Phi than this times max(1, |Phi|)")
    armijo: float = _setting(1e-4, "ours", "share of the linear gain that a step must reach")
    max_backtracks: int = _setting(8, "ours", "shorter steps tried in a row")
    give_up_after: int = _setting(
        4, "ours", "steps over which the rise of Phi is measured; a candidate is left if at that rate its entropy gain "
        "stays negative; 0: all are maximised to the end"
    )  # fmt: skip
    give_up_horizon: float = _setting(60.0, "ours", "steps over which that rate is taken to last; it only ever falls")
    fire_step: float = _setting(0.02, "ours", "first time step of fire, in A per square root of 1/A")
    core_iterations: int = _setting(
        40, "ours", "steps of the relaxation of cores alone, before Phi is maximised and, for what is left, after it"
    )
    core_gradient_tolerance: float = _setting(1e-3, "ours", "gradient_tolerance of that relaxation (1/A)")
    core_objective_tolerance: float = _setting(1e-6, "ours", "objective_tolerance of that relaxation")
    relax_cell: bool = _setting(False, "paper", "maximise over the cell too; the paper moves positions only")


@dataclass(frozen=True)
class CheckSettings:
    """Section `checks`: what every stored structure fulfils."""

    core_tolerance: float = _setting(0.02, "ours", "share by which two cores may overlap")


@dataclass(frozen=True)
class SmaxConfig:
    """All settings that decide which structures are generated; with `seed`, they do so completely.

    What a run adds (folders, workers, times) is not part of it.
    """

    seed: int = _setting(1, "ours", "candidate k draws from the generator PCG64(SeedSequence([seed, k]))")
    elements: ElementSettings = field(default_factory=ElementSettings)
    radii: RadiusSettings = field(default_factory=RadiusSettings)
    composition: CompositionSettings = field(default_factory=CompositionSettings)
    density: DensitySettings = field(default_factory=DensitySettings)
    cell: CellSettings = field(default_factory=CellSettings)
    descriptor: DescriptorSettings = field(default_factory=DescriptorSettings)
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    checks: CheckSettings = field(default_factory=CheckSettings)

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> SmaxConfig:
        """Return checked settings; what `mapping` does not name has its default.

        Raises
        ------
        ConfigError
            Unknown keys, wrong types, values out of range and settings that contradict each other, by name.
        """
        config = parse(cls, mapping)
        config.check()
        return config

    def check(self) -> None:
        """Raise ConfigError for values out of range and settings that contradict each other."""
        check(self)

    def plain(self) -> dict[str, Any]:
        """Return nested dictionaries, ready for JSON."""
        result: dict[str, Any] = to_plain(self)
        return result


class Setting(NamedTuple):
    """One setting: dotted name, value, source of the default and help text."""

    name: str
    value: Any
    source: str
    help: str


def describe(config: Any = None, prefix: str = "") -> Iterator[Setting]:
    """Yield all settings of `config` (of the defaults without one), in order, sections unfolded."""
    config = SmaxConfig() if config is None else config
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from describe(value, f"{prefix}{item.name}.")
        else:
            yield Setting(f"{prefix}{item.name}", value, item.metadata["source"], item.metadata["help"])
