"""The training loop: steps, validation, checkpoints at any step, stop by signal, early stop.

Every decision is made by the first process and travels with the sums of the loss; no process acts alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grace_md.progress import ProgressBar
from grace_md.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from grace_md.training.config import RunConfig
from grace_md.training.dataset import Part, RunData
from grace_md.training.distributed import Processes
from grace_md.training.ema import Ema
from grace_md.training.loss import PARTS, Loss, label_sums, residuals
from grace_md.training.metrics import ErrorSums
from grace_md.training.optimiser import clip_gradients, load_optimiser, make_optimiser, optimiser_arrays
from grace_md.training.records import MetricsLog
from grace_md.training.schedule import LearningRate
from grace_md.training.trainable import Trainable

__all__ = ["DivergedError", "Progress", "Trainer"]


class DivergedError(RuntimeError):
    """The loss or its gradient is not a number; the message says where, and where the batch was saved."""


@dataclass
class Progress:
    """Where a run is; all of it goes into the checkpoint.

    Attributes
    ----------
    step : optimiser steps done
    epochs : epochs completed
    sums : loss parts (energy, forces, stress), total, gradient norm and their number, of the running epoch
    best : {"epoch", "loss", "weights", errors...} of the best validation so far
    waited : validations since the best
    """

    step: int = 0
    epochs: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 6)
    best: dict[str, Any] = field(default_factory=dict)
    waited: int = 0


class Trainer:
    """Fits a model; made by `grace_md.training.run`, which prepares everything that is passed here.

    Parameters
    ----------
    config : the run file
    folder : of the run
    trainable : parameters and model
    data : what is trained and validated on
    processes : this process among all
    device : of the model
    on_best : called by the first process inside the averaged weights when a validation is the best so far
    meta : what the checkpoint must remember besides (elements, configuration)
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        trainable: Trainable,
        data: RunData,
        processes: Processes,
        device: torch.device,
        on_best: Callable[[dict[str, Any]], None],
        meta: dict[str, Any],
    ) -> None:
        fit = config.fit
        assert fit.lr is not None
        assert fit.min_lr is not None
        self.config, self.folder, self.trainable, self.data = config, folder, trainable, data
        self.processes, self.device, self.on_best, self.meta = processes, device, on_best, meta
        self.loss = Loss(config.loss)
        self.sampler = data.train.sampler(config, shuffle=True, rank=processes.rank, size=processes.size)
        self.n_steps = self.sampler.total_steps(fit.epochs)
        self.rate = LearningRate(fit.lr, fit.min_lr, self.n_steps, fit.warmup_steps, fit.schedule == "constant")
        processes.copy_from_first(trainable.parameters.values())
        self.ema = Ema(trainable.parameters, fit.ema)
        self.optimiser = make_optimiser(
            trainable.parameters, fit.optimiser, weight_decay=fit.weight_decay, betas=(fit.betas[0], fit.betas[1])
        )
        self.progress = Progress()
        self.stop_asked = False  # set by a signal handler
        self._saved_at = time.monotonic()
        self._seconds = 0.0

    # --------------------------------------------------------------------------------------------- one step

    def ask_to_stop(self, _signal: str = "") -> None:
        """Stop after the step in progress."""
        self.stop_asked = True

    def forward_backward(self, batch: Any, labels: Any, sums: Tensor, share: float) -> Tensor:
        """Return the parts of the loss [3] of this process and leave its gradients in the parameters."""
        weights = self.loss.weights(share)
        output = self.trainable(batch, forces=weights[1] > 0, stress=weights[2] > 0, create_graph=True)
        n_atoms = torch.bincount(batch.structure, minlength=batch.n_structures)
        parts = self.loss.parts(residuals(output, labels, n_atoms), sums)
        parameters = list(self.trainable.parameters.values())
        for parameter in parameters:
            parameter.grad = None
        total = (parts * parts.new_tensor(weights)).sum()
        if total.requires_grad:  # not where a process has padding without any label
            torch.autograd.backward(total, inputs=parameters)
        return parts.detach()

    def _step(self, batch: Any, labels: Any) -> bool:
        """Do one optimiser step; return whether the first process asks to stop after it."""
        progress, processes = self.progress, self.processes
        share = progress.step / self.n_steps
        control = torch.zeros(5, dtype=torch.float64, device=self.device)
        control[:3] = label_sums(labels)
        control[3] = float(self.stop_asked)
        if processes.first:
            control[4] = float(time.monotonic() - self._saved_at > 60.0 * self.config.output.checkpoint_minutes)
        processes.sum_(control)
        parts = processes.sum_(self.forward_backward(batch, labels, control[:3], share))
        processes.sum_gradients(self.trainable.parameters.values())
        norm = clip_gradients(self.trainable.parameters, self.config.fit.clip_norm)
        values = parts.tolist()
        if not (math.isfinite(sum(values)) and math.isfinite(norm)):
            self._diverged(values, norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(progress.step)
        self.optimiser.step()
        self.ema.update()
        progress.step += 1
        total = sum(w * v for w, v in zip(self.loss.weights(share), values, strict=True))
        progress.sums = [a + b for a, b in zip(progress.sums, [*values, total, norm, 1.0], strict=True)]
        stop, due = control[3:].tolist()
        if due and not stop:
            self.save()
        return bool(stop)

    def _diverged(self, parts: list[float], norm: float) -> None:
        """Save the batch of this process and raise."""
        from ase.io import write  # noqa: PLC0415

        epoch, step = self.sampler.epoch, self.sampler.step
        indices = [i for i in self.sampler.batches(epoch)[step - 1].tolist() if i >= 0]
        shards = self.data.train.shards
        suffix = f"_{self.processes.rank}" if self.processes.size > 1 else ""
        path = self.folder / f"diverged_batch{suffix}.extxyz"
        structures = []
        for index in indices:
            atoms = shards.atoms(index)
            atoms.info["where"] = shards.describe(index)
            structures.append(atoms)
        write(path, structures, format="extxyz")
        what = ", ".join(f"{name} {value:g}" for name, value in zip(PARTS, parts, strict=True))
        raise DivergedError(
            f"the loss is not a number in epoch {epoch + 1}, step {step} (parts: {what}; gradient norm {norm:g}); the "
            f"batch is in {path}: look for atoms on top of each other and wrong labels there, or lower `fit.lr`."
        )

    # --------------------------------------------------------------------------------------------- validation

    @torch.no_grad()
    def evaluate(self, part: Part, share: float) -> tuple[float, dict[str, float]]:
        """Return the loss of a set with the present parameters, weighted as at `share` of the run, and its errors."""
        sums = torch.zeros(2, 3, dtype=torch.float64, device=self.device)
        errors = ErrorSums(self.device)
        sampler = part.sampler(self.config, shuffle=False, rank=self.processes.rank, size=self.processes.size)
        ones = torch.ones(3, dtype=torch.float64, device=self.device)
        for batch, labels in part.loader(sampler, self._prefetch):
            batch, labels = batch.to(self.device), labels.to(self.device)  # noqa: PLW2901
            with_forces, with_stress = (bool(torch.isfinite(x).any()) for x in (labels.forces, labels.stress))
            output = self.trainable(batch, forces=with_forces, stress=with_stress, create_graph=False)
            n_atoms = torch.bincount(batch.structure, minlength=batch.n_structures)
            found = residuals(output, labels, n_atoms)
            sums[0] += self.loss.parts(found, ones)
            sums[1] += label_sums(labels)
            errors.add(found)
        self.processes.sum_(sums)
        self.processes.sum_(errors.sums)
        parts = (sums[0] / sums[1].clamp(min=1e-300)).tolist()
        return sum(w * p for w, p in zip(self.loss.weights(share), parts, strict=True)), errors.summary()

    def _validate(self) -> dict[str, Any]:
        """Evaluate the averaged model; tell `on_best` if it is the best so far."""
        share = min(1.0, self.progress.step / self.n_steps)
        with self.ema.applied():
            loss, errors = self.evaluate(self.data.valid, share)
            record = {"valid_loss": loss, **{f"valid_{name}": value for name, value in errors.items()}}
            if self.data.replay_valid is not None:
                replay_loss, errors = self.evaluate(self.data.replay_valid, share)
                record |= {"replay_loss": replay_loss, **{f"replay_{name}": value for name, value in errors.items()}}
                assert self.config.finetune is not None
                assert self.config.finetune.replay is not None
                mix = self.config.finetune.replay.share
                loss = (1.0 - mix) * loss + mix * replay_loss
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the validation loss is not a number after epoch {self.progress.epochs}; lower `fit.lr` and start "
                    "again from the last checkpoint."
                )
            # After a switch of weights the loss is another quantity, and earlier values say nothing about later ones.
            weights = list(self.loss.weights(share))
            best = self.progress.best
            record["best"] = not best or best["weights"] != weights or loss < best["loss"]
            if record["best"]:
                self.progress.best = {"epoch": self.progress.epochs, "loss": loss, "weights": weights, **record}
                self.progress.waited = 0
                self.processes.decide(lambda: self.on_best(self.progress.best))
            else:
                self.progress.waited += 1
        return record

    # --------------------------------------------------------------------------------------------- the loop

    def fit(self, until: int | None = None) -> str:
        """Train to the end, or until `until` epochs are done; return "complete", "stopped" or "no longer improving"."""
        last = min(self.config.fit.epochs, until or self.config.fit.epochs)
        label = f"epoch {self.progress.epochs + 1}/{self.config.fit.epochs}"
        writer = MetricsLog(
            self.folder if self.processes.first else None,
            tensorboard=self.config.output.tensorboard,
            keep_to=self.progress.step,
        )
        stream = None if self.processes.first else open("/dev/null", "w", encoding="ascii")  # noqa: SIM115
        end = self.sampler.total_steps(last)
        with writer, ProgressBar(end, label, start=self.progress.step, stream=stream) as bar:
            while self.progress.epochs < last:
                bar.label = f"epoch {self.progress.epochs + 1}/{self.config.fit.epochs}"
                if self._epoch(bar, writer):
                    return "stopped"
                self._end_epoch(writer, bar)
                patience = self.config.fit.patience
                if patience is not None and self.progress.waited >= patience:
                    return "no longer improving"
        return "complete" if self.progress.epochs >= self.config.fit.epochs else "stopped"

    def _epoch(self, bar: ProgressBar, writer: MetricsLog) -> bool:
        """Do the rest of the epoch; return whether to stop in the middle of it (the state is saved)."""
        begin = time.monotonic()
        every = self.config.output.log_steps
        for batch, labels in self.data.train.loader(self.sampler, self._prefetch):
            stop = self._step(batch.to(self.device), labels.to(self.device))
            sums = self.progress.sums
            bar.update(1.0, f"loss {sums[3] / sums[5]:.4g}")
            if every and self.progress.step % every == 0:
                writer.write({"step": self.progress.step, "mean_train_loss_of_epoch": sums[3] / sums[5]})
            if stop:  # also after the last step: the epoch then ends when the run goes on
                self.save()
                return True
        self._seconds = time.monotonic() - begin
        return False

    def _end_epoch(self, writer: MetricsLog, bar: ProgressBar) -> None:
        progress = self.progress
        *parts, total, norm, count = progress.sums
        progress.sums = [0.0] * 6
        progress.epochs += 1
        record: dict[str, Any] = {
            "step": progress.step,
            "epoch": progress.epochs,
            "lr": self.rate(max(0, progress.step - 1)),
            "train_loss": total / max(count, 1.0),
            **{f"train_loss_{name}": value / max(count, 1.0) for name, value in zip(PARTS, parts, strict=True)},
            "gradient_norm": norm / max(count, 1.0),
            "train_seconds": round(self._seconds, 3),
        }
        if progress.epochs % self.config.fit.validate_every == 0 or progress.epochs >= self.config.fit.epochs:
            begin = time.monotonic()
            record |= self._validate()
            record["valid_seconds"] = round(time.monotonic() - begin, 3)
            bar.note = f"valid {record['valid_loss']:.4g}"
        writer.write(record)
        self.save(best=bool(record.get("best")))

    @property
    def _prefetch(self) -> int:
        return 2 if self.device.type == "cuda" else 0

    # --------------------------------------------------------------------------------------------- state

    @property
    def checkpoint_path(self) -> Path:
        """The last checkpoint."""
        return self.folder / "checkpoints" / "last.npz"

    def save(self, *, best: bool = False) -> None:
        """Write the state as the last checkpoint, and as the best one if asked; the first process does it."""
        self.processes.decide(lambda: self._write(best))
        self._saved_at = time.monotonic()

    def _write(self, best: bool) -> None:
        cuda = {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        checkpoint = Checkpoint(
            groups={
                "model": self.trainable.state(),
                "ema": {name: value.cpu().numpy().copy() for name, value in self.ema.average.items()},
                "optimiser": optimiser_arrays(self.optimiser, self.trainable.parameters),
                "rng": {name: state.numpy() for name, state in {"torch": torch.get_rng_state(), **cuda}.items()},
            },
            meta={"progress": asdict(self.progress), "sampler": self.sampler.state_dict(), **self.meta},
        )
        self.checkpoint_path.parent.mkdir(exist_ok=True)
        save_checkpoint(self.checkpoint_path, checkpoint)
        if best:
            save_checkpoint(self.checkpoint_path.with_name("best.npz"), checkpoint)

    def restore(self) -> None:
        """Go on from the last checkpoint."""
        path = self.checkpoint_path
        checkpoint = load_checkpoint(path)
        checkpoint.require_same_model(self.trainable.shapes(), self.meta["elements"], path)
        self.trainable.load_state(checkpoint.groups["model"])
        for name, values in checkpoint.groups["ema"].items():
            self.ema.average[name].copy_(torch.from_numpy(values))
        load_optimiser(self.optimiser, self.trainable.parameters, checkpoint.groups.get("optimiser", {}))
        rng = checkpoint.groups["rng"]
        torch.set_rng_state(torch.from_numpy(rng["torch"]))
        if "cuda" in rng and self.device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(rng["cuda"]), self.device)
        self.progress = Progress(**checkpoint.meta["progress"])
        self.sampler.load_state_dict(checkpoint.meta["sampler"])
