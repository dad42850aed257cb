"""Settings of a training run: what the sections of the run file mean, their defaults and what does not go together.

A run file is YAML, JSON or TOML. Unknown keys, wrong types and contradictions are errors before anything is computed.
docs/training.md explains every setting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from grace_md.strict import ConfigError, apply_overrides, parse, read_mapping, to_plain

__all__ = [
    "DataConfig",
    "FinetuneConfig",
    "FitConfig",
    "LabelSettings",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OutputConfig",
    "ReplayConfig",
    "RunConfig",
    "SourceConfig",
    "SwitchConfig",
    "load_config",
]

LR, MIN_LR = 8e-3, 5e-4
FINETUNE_LR, FINETUNE_MIN_LR = 1e-3, 1e-4


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Keys and units of labels; None leaves the choice to what encloses it (`grace_md.training.data.LabelKeys`).

    ``auto`` takes the one key that looks like the label, ``none`` leaves the label out.
    """

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    energy_unit: str | None = None
    forces_unit: str | None = None
    stress_unit: str | None = None
    virial_unit: str | None = None
    stress_order: Literal["ase", "vasp"] | None = None
    group_key: str | None = None
    config_type_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceConfig(LabelSettings):
    """One file of structures: where it is, how much it counts, what its labels are called and in which units."""

    path: str
    name: str = ""
    weight: float = 1.0
    trust_pickle: bool = False


Sources = str | SourceConfig | list[str | SourceConfig]


@dataclass(frozen=True, kw_only=True)
class DataConfig(LabelSettings):
    """Section `data`. Keys and units here are those of every source that does not give its own."""

    train: Sources
    valid: Sources | None = None
    split: float | None = None
    type_weights: dict[str, float | dict[str, float]] | None = None
    folder: str | None = None
    workers: int = 0
    check: Literal["error", "warn", "off"] = "error"


@dataclass(frozen=True)
class ModelConfig:
    """Section `model`: a preset and sizes that differ from it, or a weight file to start from."""

    start: str | None = None
    preset: str | None = None
    elements: Literal["auto"] | list[str] = "auto"
    cutoffs: Literal["table9"] | float | dict[str, float] | None = None
    average_neighbors: Literal["auto"] | float = "auto"
    output_scale: Literal["auto"] | float = "auto"
    layers: int | None = None
    n_rad: int | list[int] | None = None
    width: int | list[int] | None = None
    lmax: int | list[int] | None = None
    n_basis: int | None = None
    n_densities: int | None = None
    message_lmax: int | None = None
    message_inner: int | None = None
    max_order: int | None = None
    embedding: int | None = None
    envelope: int | None = None
    hidden: int | list[int] | None = None
    readout: int | None = None

    def sizes(self) -> dict[str, Any]:
        """Return what the section says of the sizes, as `GracePotential.from_preset` takes it."""
        others = ("start", "elements", "cutoffs", "average_neighbors", "output_scale")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in others}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class SwitchConfig:
    """Weights of the loss from a share of the steps on."""

    at: float
    energy: float
    forces: float
    stress: float


@dataclass(frozen=True)
class LossConfig:
    """Section `loss`."""

    energy: float = 16.0
    forces: float = 32.0
    stress: float = 128.0
    kind: Literal["huber", "mse"] = "huber"
    delta: float | dict[str, float] = 0.01
    switch: SwitchConfig | None = None

    def deltas(self) -> tuple[float, float, float]:
        """Return the thresholds of energy (eV/atom), forces (eV/A) and stress (eV/A^3)."""
        if isinstance(self.delta, dict):
            return self.delta["energy"], self.delta["forces"], self.delta["stress"]
        return self.delta, self.delta, self.delta


@dataclass(frozen=True)
class FitConfig:
    """Section `fit`."""

    epochs: int = 100
    batch: int = 32
    max_bonds: int | None = None
    max_atoms: int | None = None
    buckets: int = 1
    lr: float | None = None
    min_lr: float | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 0
    optimiser: Literal["adam", "adamw"] = "adam"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    ema: float = 0.99
    clip_norm: float | None = 1.0
    seed: int = 1
    precision: Literal["mixed", "fp64"] = "mixed"
    references: Literal["auto", "isolated", "none"] | dict[str, float] = "auto"
    patience: int | None = None
    validate_every: int = 1
    device: str = "auto"
    threads: int = 0
    backend: Literal["auto", "torch", "core"] = "auto"
    deterministic: bool = False
    memory_probe: bool = True


@dataclass(frozen=True)
class OutputConfig:
    """Section `output`."""

    dir: str = "run"
    checkpoint_minutes: float = 10.0
    tensorboard: bool = False
    log_steps: int = 0


@dataclass(frozen=True)
class ReplayConfig:
    """Structures of earlier training that are mixed in: a source and its share of each batch of the loss."""

    train: Sources
    valid: Sources | None = None
    share: float = 0.5


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank changes of the channel mixes in the place of all other training of them."""

    rank: int = 4
    alpha: float | None = None
    patterns: list[str] = field(default_factory=lambda: ["fc_*_w_left", "fc_*_w_right"])


@dataclass(frozen=True)
class FinetuneConfig:
    """Section `finetune`; only with `model.start`."""

    new_elements: dict[str, str] = field(default_factory=dict)
    freeze: list[str] = field(default_factory=list)
    align_shifts: bool = True
    replay: ReplayConfig | None = None
    lora: LoraConfig | None = None


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run; make one with `load_config` or `RunConfig.of`."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    finetune: FinetuneConfig | None = None

    @classmethod
    def of(cls, mapping: dict[str, Any]) -> RunConfig:
        """Return checked settings with the defaults that depend on others filled in."""
        config = parse(cls, mapping)
        start = config.model.start is not None
        lr = config.fit.lr if config.fit.lr is not None else (FINETUNE_LR if start else LR)
        default = min(FINETUNE_MIN_LR if start else MIN_LR, lr)
        min_lr = config.fit.min_lr if config.fit.min_lr is not None else default
        fit = replace(config.fit, lr=lr, min_lr=min_lr)
        finetune = config.finetune if config.finetune is not None or not start else FinetuneConfig()
        config = _with_source_lists(replace(config, fit=fit, finetune=finetune))
        check(config)
        return config

    def plain(self) -> dict[str, Any]:
        """Return nested dictionaries, ready for JSON."""
        result: dict[str, Any] = to_plain(self)
        return result


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file, apply ``section.key=value`` overrides and check the result.

    Paths in the file are relative to the folder of the file if they exist there, else to the working directory.

    Raises
    ------
    FileNotFoundError, ConfigError
        In one sentence that names the setting.
    """
    config = RunConfig.of(apply_overrides(read_mapping(path), overrides))
    return _resolve_paths(config, Path(path).parent)


def check(config: RunConfig) -> None:
    """Raise ConfigError for values out of range and settings that contradict each other."""
    _check_fit(config.fit)
    _check_loss(config.loss)
    _check_model(config)
    data = config.data
    if data.split is not None and not 0.0 < data.split < 1.0:
        raise ConfigError(
            f"`data.split` = {data.split:g} must lie between 0 and 1: the share of structures to validate."
        )
    if data.split is not None and data.valid is not None:
        raise ConfigError("`data.split` and `data.valid` are both given; a split is for runs without validation files.")
    for source in all_sources(config):
        if source.weight <= 0.0:
            raise ConfigError(f"`weight` = {source.weight:g} of `{source.path}` must be positive.")
        if source.stress_key and source.virial_key:
            raise ConfigError(f"`stress_key` and `virial_key` of `{source.path}` are both given; keep one.")
    if config.output.checkpoint_minutes < 0.0:
        raise ConfigError(f"`output.checkpoint_minutes` = {config.output.checkpoint_minutes:g} must not be negative.")


def _check_fit(fit: FitConfig) -> None:
    assert fit.lr is not None
    assert fit.min_lr is not None
    positive = {"epochs": fit.epochs, "batch": fit.batch, "lr": fit.lr, "validate_every": fit.validate_every}
    optional = {
        "buckets": fit.buckets,
        "max_bonds": fit.max_bonds,
        "max_atoms": fit.max_atoms,
        "clip_norm": fit.clip_norm,
        "patience": fit.patience,
    }
    positive.update({name: value for name, value in optional.items() if value is not None})
    for name, value in positive.items():
        if value <= 0:
            raise ConfigError(f"`fit.{name}` = {value:g} must be positive.")
    for name, value in {
        "min_lr": fit.min_lr,
        "warmup_steps": fit.warmup_steps,
        "weight_decay": fit.weight_decay,
    }.items():
        if value < 0:
            raise ConfigError(f"`fit.{name}` = {value:g} must not be negative.")
    if fit.min_lr > fit.lr:
        raise ConfigError(
            f"`fit.min_lr` = {fit.min_lr:g} is larger than `fit.lr` = {fit.lr:g}: the rate would rise; lower min_lr."
        )
    if not 0.0 <= fit.ema < 1.0:
        raise ConfigError(f"`fit.ema` = {fit.ema:g} must lie in [0, 1); 0 switches the average off.")
    if len(fit.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in fit.betas):
        raise ConfigError(f"`fit.betas` = {fit.betas} must be two numbers in [0, 1), for example [0.9, 0.999].")
    if fit.weight_decay and fit.optimiser == "adam":
        raise ConfigError("`fit.weight_decay` with adam couples to the gradient scale; use `fit.optimiser: adamw`.")


def _check_loss(loss: LossConfig) -> None:
    for prefix, part in (("loss", loss), ("loss.switch", loss.switch)):
        if part is None:
            continue
        weights = {"energy": part.energy, "forces": part.forces, "stress": part.stress}
        for name, value in weights.items():
            if value < 0.0:
                raise ConfigError(f"`{prefix}.{name}` = {value:g} must not be negative.")
        if not any(weights.values()):
            raise ConfigError(f"all weights of `{prefix}` are zero; there is nothing to fit.")
    if isinstance(loss.delta, dict) and set(loss.delta) != {"energy", "forces", "stress"}:
        raise ConfigError("`loss.delta` must be one number, or a section with energy, forces and stress.")
    if min(loss.deltas()) <= 0.0:
        raise ConfigError(f"`loss.delta` = {loss.delta} must be positive; for squares use `loss.kind: mse`.")
    if loss.switch is not None and not 0.0 < loss.switch.at < 1.0:
        raise ConfigError(f"`loss.switch.at` = {loss.switch.at:g} must lie between 0 and 1: a share of the steps.")


def _check_model(config: RunConfig) -> None:
    model = config.model
    if model.start is None:
        if config.finetune is not None:
            raise ConfigError("`finetune` needs `model.start`, the weight file to start from.")
        return
    given = [*model.sizes(), *(["cutoffs"] if model.cutoffs is not None else [])]
    if given:
        raise ConfigError(f"`model.{given[0]}` contradicts `model.start`: the weight file decides the architecture.")
    for name in ("average_neighbors", "output_scale"):
        if getattr(model, name) != "auto":
            raise ConfigError(
                f"`model.{name}` cannot change in fine-tuning: it belongs to the weights of `model.start`."
            )
    tune = config.finetune
    assert tune is not None
    if tune.replay is not None and not 0.0 < tune.replay.share < 1.0:
        raise ConfigError(f"`finetune.replay.share` = {tune.replay.share:g} must lie between 0 and 1.")
    if tune.lora is not None and tune.lora.rank <= 0:
        raise ConfigError(f"`finetune.lora.rank` = {tune.lora.rank} must be positive.")


def source_list(sources: Sources | None) -> list[SourceConfig]:
    """Return sources as a list of sections."""
    if sources is None:
        return []
    items = sources if isinstance(sources, list) else [sources]
    return [SourceConfig(path=item) if isinstance(item, str) else item for item in items]


def all_sources(config: RunConfig) -> list[SourceConfig]:
    """Return every source of the run."""
    replay = config.finetune.replay if config.finetune is not None else None
    groups: list[Sources | None] = [config.data.train, config.data.valid]
    if replay is not None:
        groups += [replay.train, replay.valid]
    return [source for group in groups for source in source_list(group)]


def _with_source_lists(config: RunConfig) -> RunConfig:
    """Give every group of sources the form of a list, so that equal settings compare equal."""
    return _map_sources(config, lambda source: source)


def _map_sources(config: RunConfig, change: Callable[[SourceConfig], SourceConfig]) -> RunConfig:
    """Return the settings with every source changed."""

    def each(found: Sources | None) -> Any:
        return None if found is None else [change(source) for source in source_list(found)]

    data = replace(config.data, train=each(config.data.train), valid=each(config.data.valid))
    tune = config.finetune
    if tune is not None and tune.replay is not None:
        tune = replace(tune, replay=replace(tune.replay, train=each(tune.replay.train), valid=each(tune.replay.valid)))
    return replace(config, data=data, finetune=tune)


def _resolve_paths(config: RunConfig, folder: Path) -> RunConfig:
    """Make paths of inputs those beside the run file where such files exist."""

    def beside(path: str) -> str:
        file = path.partition("@")[0]
        return str(folder / path) if not Path(path).is_absolute() and (folder / file).exists() else path

    model = config.model
    if model.start is not None:
        model = replace(model, start=beside(model.start))
    changed = _map_sources(config, lambda source: replace(source, path=beside(source.path)))
    return replace(changed, model=model)
