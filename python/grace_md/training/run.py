"""A training run from its settings to the exported model: what `grace-md train` calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grace_md.data import find_model
from grace_md.interrupt import on_stop_signal
from grace_md.strict import ConfigError
from grace_md.training import memory
from grace_md.training.config import RunConfig, all_sources
from grace_md.training.dataset import Part, RunData, open_data
from grace_md.training.distributed import Processes
from grace_md.training.export import check_against_ase, export_arrays, export_model, peer_limits
from grace_md.training.finetune import StartModel
from grace_md.training.folder import RunFolder
from grace_md.training.loop import Trainer
from grace_md.training.loss import PARTS, label_sums
from grace_md.training.records import data_hash, versions
from grace_md.training.setup import (
    candidate_elements,
    data_constants,
    find_references,
    make_model,
    read_start,
    set_references,
)
from grace_md.training.trainable import Trainable
from grace_md.weights import file_sha256

__all__ = ["Outcome", "train"]

CHECKED_ATOMS, CHECKED_STRUCTURES = 64, 4  # of the comparison with ASE after every export


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes
    ----------
    status : "complete", "no longer improving", "stopped" or "dry run"
    folder : of the run
    best : record of the best validation
    model : the exported weight file, None if there is none yet
    """

    status: str
    folder: Path
    best: dict[str, Any]
    model: Path | None


def train(
    config: RunConfig,
    *,
    force: bool = False,
    until: int | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] | None = None,
) -> Outcome:
    """Train a model, or go on with an interrupted run in the same folder.

    Parameters
    ----------
    config : settings
    force : forget an earlier run in the folder
    until : stop after this epoch; the schedule stays that of all epochs, and the run can go on later
    dry_run : convert the data and say what would be done
    say : takes lines for people; default: print them

    Raises
    ------
    ConfigError, LabelError, FileExistsError, CheckpointError, DivergedError, ExportError, ...
        One sentence each, with the remedy.
    """
    device = pick_device(config.fit.device)
    with Processes(device) as processes:
        tell = (say or _print) if processes.first else _ignore
        if device == "cuda":
            device = f"cuda:{processes.local_rank}"
        return _Run(config, processes, torch.device(device), tell).run(force=force, until=until, dry_run=dry_run)


def pick_device(name: str) -> str:
    """Return "cpu", "cuda" or "cuda:N"; ConfigError for a GPU that torch cannot use."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise ConfigError(f"`fit.device` = {name!r} must be auto, cpu, cuda or cuda:N.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"`fit.device` = {name!r}, but torch sees no GPU; use cpu or auto.")
    return name


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the lines for people


def _ignore(_line: str) -> None:
    pass


class _Run:
    """One run; its steps are methods so that each can be read alone."""

    def __init__(
        self, config: RunConfig, processes: Processes, device: torch.device, say: Callable[[str], None]
    ) -> None:
        self.config, self.processes, self.device, self.say = config, processes, device, say
        self.folder = RunFolder(Path(config.output.dir))

    def run(self, *, force: bool, until: int | None, dry_run: bool) -> Outcome:
        config, fit = self.config, self.config.fit
        if fit.threads:
            torch.set_num_threads(fit.threads)
        if fit.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(fit.seed)
        resume = False
        if not dry_run:
            resume = self.processes.decide(lambda: self.folder.prepare(config, force=force))
        start = read_start(config)
        data = self._open_data(start)
        self._check_labels(data)
        constants = data_constants(config, data)
        model, begun = make_model(config, data, start, constants)
        model.to(self.device)
        references = self.processes.decide(lambda: find_references(config, data, model, begun))
        set_references(data, references, begun)
        tune = config.finetune
        trainable = Trainable(
            model,
            freeze=tune.freeze if tune is not None else (),
            lora=tune.lora if tune is not None else None,
            seed=fit.seed,
        )
        self.references, self.trainable, self.data = references, trainable, data
        self._describe(constants, begun)
        trainer = Trainer(
            config, self.folder.path, trainable, data, self.processes, self.device, self._export,
            {"elements": model.elements},
        )  # fmt: skip
        estimate = self._probe(trainer, run_worst=fit.memory_probe and not dry_run and not resume)
        if dry_run:
            self.say(f"dry run: {trainer.n_steps} steps would be made; nothing was trained.")
            return Outcome("dry run", self.folder.path, {}, None)
        if resume:
            trainer.restore()
            self.say(f"going on after step {trainer.progress.step} of {trainer.n_steps}")
        if self.processes.first:
            self._write_record(constants, begun, estimate)
        return self._fit(trainer, until)

    def _fit(self, trainer: Trainer, until: int | None) -> Outcome:
        begin = time.monotonic()
        status = "failed"
        try:
            with on_stop_signal(trainer.ask_to_stop):
                status = trainer.fit(until)
        finally:
            best = trainer.progress.best
            if self.processes.first:
                seconds = self.folder.record.get("seconds", 0.0) + time.monotonic() - begin
                self.folder.write(status=status, best=best, seconds=round(seconds, 1), step=trainer.progress.step)
        path = self.folder.path / "model.npz"
        if best:
            errors = ", ".join(
                f"{key.removeprefix('valid_').replace('_', ' ', 1)} {value:.4g}"
                for key, value in best.items()
                if key.startswith("valid_") and "_mae_" in key
            )
            self.say(f"best: epoch {best['epoch']}, loss {best['loss']:.4g} ({errors})")
        if status == "stopped":
            self.say("stopped; the same command goes on from here")
        self.say(f"{status}: {path if best else self.folder.path}")
        return Outcome(status, self.folder.path, best, path if best else None)

    # --------------------------------------------------------------------------------------------- data

    def _open_data(self, start: Any) -> RunData:
        """Convert on the first process, then open everywhere."""
        elements, cutoffs = candidate_elements(self.config, start)
        folder = Path(self.config.data.folder) if self.config.data.folder else self.folder.path / "data"
        folder.mkdir(parents=True, exist_ok=True)
        data = None
        if self.processes.first:
            data = self.processes.decide(lambda: _Local(open_data(self.config, elements, cutoffs, folder))).value
        else:
            self.processes.decide(lambda: None)
            data = open_data(self.config, elements, cutoffs, folder)
        assert data is not None
        return data

    def _check_labels(self, data: RunData) -> None:
        """Refuse weights of the loss for which no structure has a label, and say what is unusual."""
        loss, shards, rows = self.config.loss, data.train.shards, data.train.rows
        present = {
            "energy": bool(np.isfinite(shards.energy[rows]).any()),
            "forces": bool(shards.column("n_forces")[rows].any()),
            "stress": bool(np.isfinite(shards.stress[rows, 0]).any()),
        }
        for name in PARTS:
            if getattr(loss, name) > 0 and not present[name]:
                raise ConfigError(
                    f"`loss.{name}` = {getattr(loss, name):g}, but no structure of the training set has "
                    f"{'an energy' if name == 'energy' else 'forces' if name == 'forces' else 'a stress'}; set "
                    f"`loss.{name}: 0`, or name the labels with `data.{name}_key`."
                )
        lonely = int((shards.n_bonds[rows] == 0).sum())
        if lonely:
            self.say(f"note: {lonely} structures have no neighbours within the cutoffs; only their energies count")

    # --------------------------------------------------------------------------------------------- words

    def _describe(self, constants: tuple[float, float], begun: StartModel | None) -> None:
        data, model = self.data, self.trainable.model
        atoms = int(data.train.shards.n_atoms[data.train.rows].sum())
        self.say(
            f"training on {len(data.train.rows):,} structures ({atoms:,} atoms), validating on "
            f"{len(data.valid.rows):,}; elements {' '.join(model.elements)}"
        )
        frozen = sum(p.numel() for p in model.parameters()) - self.trainable.n_trained
        self.say(
            f"{self.trainable.n_trained:,} trained parameters"
            + (f", {frozen:,} frozen" if frozen > 0 else "")
            + f"; {constants[0]:.2f} neighbours per atom, scale {float(model.output_scale):.4g} eV, "
            f"{self.config.fit.precision} precision on {self.device}"
            + (f", {self.processes.size} processes" if self.processes.size > 1 else "")
        )
        if begun is not None and (begun.added or begun.removed):
            added = ", ".join(f"{new} from {old}" for new, old in begun.added.items()) or "none"
            self.say(f"elements added: {added}; left out: {' '.join(begun.removed) or 'none'}")
        energies = " ".join(
            f"{element} {energy:.4f}" for element, energy in zip(model.elements, self.references.energies, strict=True)
        )
        self.say(f"reference energies ({self.references.origin}), eV: {energies}")
        if self.references.warning:
            self.say(f"warning: {self.references.warning}")

    def _write_record(self, constants: tuple[float, float], begun: StartModel | None, estimate: int) -> None:
        config, model = self.config, self.trainable.model
        start = config.model.start
        self.folder.write(
            status="running",
            config=config.plain(),
            versions=versions(),
            device=str(self.device),
            device_name=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
            processes=self.processes.size,
            data_sha256=data_hash([source.path.rpartition("@")[0] or source.path for source in all_sources(config)]),
            shards_sha256={part.name: part.sha256 for part in self.data.parts()},
            start_sha256=None if start is None else file_sha256(find_model(start)),
            elements=model.elements,
            n_parameters=sum(p.numel() for p in model.parameters()),
            n_trained=self.trainable.n_trained,
            references=dict(zip(model.elements, self.references.energies.tolist(), strict=True)),
            references_origin=self.references.origin,
            warnings=[self.references.warning] if self.references.warning else [],
            average_neighbors=constants[0],
            output_scale=float(model.output_scale),
            elements_added={} if begun is None else begun.added,
            elements_removed=[] if begun is None else begun.removed,
            estimated_bytes=estimate,
        )

    # --------------------------------------------------------------------------------------------- memory

    def _probe(self, trainer: Trainer, *, run_worst: bool) -> int:
        """Say what the largest batch needs, from a small one, and try it; nothing of the model changes."""
        part, fit = self.data.train, self.config.fit
        worst = trainer.sampler.worst_batch()
        bonds = part.shards.n_bonds
        small = part.rows[np.argsort(bonds[part.rows], kind="stable")[: max(1, len(part.rows) // 2)]][-fit.batch :]
        small = small[: max(1, min(len(small), 4))]

        def step(indices: Any) -> Callable[[], None]:
            def attempt() -> None:
                batch, labels = part.batch(indices)
                labels = labels.to(self.device)
                trainer.forward_backward(batch.to(self.device), labels, label_sums(labels), 0.0)
                for parameter in self.trainable.parameters.values():
                    parameter.grad = None

            return attempt

        per_bond = memory.saved_bytes(step(small)) / max(1, int(bonds[small].sum()))
        n_bonds = int(bonds[worst].sum())
        # Parameters, gradients, average, two moments of Adam, and a copy during validation.
        state = 6 * sum(p.numel() * p.element_size() for p in self.trainable.parameters.values())
        estimate = int(per_bond * n_bonds + state)
        free = memory.available_bytes(self.device)
        what = f"{len(worst)} structures, {int(part.shards.n_atoms[worst].sum()):,} atoms, {n_bonds:,} bonds"
        self.say(
            f"{trainer.sampler.n_steps()} steps per epoch; largest batch {what}, about "
            f"{memory.format_bytes(estimate)} of {memory.format_bytes(free)} free"
        )
        if estimate > free:
            raise memory.MemoryShortage(
                f"the largest batch ({what}) needs about {memory.format_bytes(estimate)}, and "
                f"{memory.format_bytes(free)} are free; lower `fit.max_bonds` or `fit.batch`."
            )
        if run_worst:
            memory.run_probe(step(worst), what)
        return estimate

    # --------------------------------------------------------------------------------------------- export

    def _export(self, best: dict[str, Any]) -> None:
        """Write the model of the best validation, with the averaged weights, and compare it with ASE."""
        path = self.folder.path / "model.npz"
        arrays = export_arrays(self.trainable, self.references.energies)
        metadata: dict[str, str | float] = {
            "trained_by": f"grace_md {versions()['grace_md']}",
            "training_epoch": float(best["epoch"]),
            "validation_loss": float(best["loss"]),
            "training_data_sha256": self.data.train.sha256,
        }
        sha256 = export_model(path, arrays, metadata)
        chosen = _smallest(self.data.valid)
        batch, _ = self.data.valid.batch(chosen)
        with torch.no_grad():
            energies = self.trainable(batch.to(self.device), forces=False, stress=False, create_graph=False).energy
        shift = torch.from_numpy(self.references.energies)[batch.species]
        totals = energies.cpu().index_add(0, batch.structure, shift).numpy()
        structures = [self.data.valid.shards.atoms(int(index)) for index in chosen]
        worst = check_against_ase(path, structures, totals)
        self.folder.write(model_sha256=sha256, ase_difference_eV_per_atom=worst, peer_limits=peer_limits(arrays))


@dataclass(frozen=True)
class _Local:
    """Data of the first process: other processes receive it as None, since mapped files do not travel."""

    value: RunData | None

    def __reduce__(self) -> Any:
        return _Local, (None,)


def _smallest(part: Part) -> Any:
    sizes = part.shards.n_atoms[part.rows]
    order = np.argsort(sizes, kind="stable")
    some = part.rows[order[sizes[order] <= CHECKED_ATOMS]]
    chosen = some[np.unique(np.linspace(0, len(some) - 1, CHECKED_STRUCTURES).astype(int))] if len(some) else []
    return np.asarray(chosen if len(chosen) else part.rows[order[:1]])
