"""The training loop, to be read from top to bottom.

Shape letters: B batch (all ranks' together after the gather), C channels, H height, W width, D embedding width.
A batch makes five hops: item (data.store) -> collate (data.loader) -> step -> embedder -> criterion.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from unalike.errors import Interrupted, TrainingError, WeightsError
from unalike.progress import progress, say
from unalike.training.checkpoints import Checkpointer
from unalike.training.cpu.batchnorm_folding import FoldablePairs, fold_batchnorm
from unalike.training.cpu.frozen_stages import CompiledStages, use_compiled_stages
from unalike.training.ema import ModelEma
from unalike.training.freezing import Freezer
from unalike.training.losses import Criterion
from unalike.training.optimizer import set_learning_rates
from unalike.training.schedule import LRSchedule

# What a loop tells the world: ("step", {...}) every `log_every` batches, ("validation", {...}), ("checkpoint", {...}).
Listener = Callable[[str, dict[str, Any]], None]
# Epochs after which their number may still change: in the first, photographs are decoded beside the steps.
SETTLING = 2


@dataclass
class Position:
    """Where training stands; the next batch to take."""

    epoch: int = 0
    step: int = 0  # within the epoch
    total: int = 0  # batches since the start


@dataclass
class History:
    """Curves for reports: one row a logged step, one row a validation."""

    steps: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)


class TrainingLoop:
    """One training run over what the caller built; ``run`` goes from the present position to the end."""

    def __init__(
        self,
        *,
        fabric: Fabric,
        embedder: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        freezer: Freezer,
        batches: Any,
        schedule: LRSchedule,
        spec: Any,
        checkpointer: Checkpointer,
        validate: Callable[[nn.Module], Mapping[str, float]] | None,
        payload: Callable[[Mapping[str, Tensor]], dict[str, Any]],
        names: Callable[[Iterable[int]], list[str]],
        listener: Listener,
        stop_requested: Callable[[], int],
        identity: Mapping[str, Any] | None = None,
        folds: FoldablePairs = (),
        prefix: CompiledStages | None = None,
        epochs_at: Callable[[int, float], int] | None = None,
    ) -> None:
        self.fabric, self.embedder, self.criterion, self.freezer = fabric, embedder, criterion, freezer
        network: Any = torch.compile(embedder) if spec.train.compile else embedder
        self.model, self.optimizer = fabric.setup(network, optimizer)
        self.batches, self.schedule, self.spec, self.checkpointer = batches, schedule, spec, checkpointer
        self.validate, self.payload, self.names, self.listener = validate, payload, names, listener
        self.stop_requested, self.folds, self.prefix = stop_requested, folds, prefix
        self.epochs_at = epochs_at  # how many epochs there shall be, by those done and the seconds of the last
        ema = spec.train.ema
        self.average = ModelEma(embedder, ema.decay) if ema.enabled else None
        self.position, self.history = Position(), History()
        self.epochs, self.steps = spec.train.num_epochs, len(batches)
        # What a checkpoint must share with this run for "epoch 3, step 7" to mean the same images in both.
        self.identity = dict(identity or {}) | {"steps": self.steps, "world_size": fabric.world_size}
        self.epoch_loss, self.epoch_batches = 0.0, 0  # of the present epoch, for its mean
        self.group: list[Tensor] = []  # image indices of the batches since the last update

    # -- one step ------------------------------------------------------------------------------------------------

    def _gather(self, vectors_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and labels of all ranks, with gradient, so that negatives span them.

        The gather's backward sums what every rank's loss asks of a vector and DDP divides by the number of ranks: the
        gradient is that of one process with the whole batch.
        """
        if self.fabric.world_size == 1 or not self.spec.train.max_gather:
            return vectors_BD, labels_B
        vectors: Any = self.fabric.all_gather(vectors_BD, sync_grads=True)
        labels: Any = self.fabric.all_gather(labels_B)
        return vectors.flatten(0, 1), labels.flatten()

    def _group_size(self) -> int:
        """Batches in the present accumulation group; the last one of an epoch may be short."""
        first = self.position.step // self.spec.train.accumulate * self.spec.train.accumulate
        return int(min(self.spec.train.accumulate, self.steps - first))

    def _step(self, batch: Any, *, update: bool) -> float:
        train = self.spec.train
        self.group.append(batch.indices_B)
        waiting = self.fabric.world_size > 1 and not update
        with self.fabric.no_backward_sync(self.model, enabled=waiting) if waiting else nullcontext():
            vectors_BD = self.model(batch.images_BCHW)
            loss = self.criterion(*self._gather(vectors_BD, batch.labels_B))
            value = float(loss.detach())
            if not np.isfinite(value):
                raise self._not_finite("loss", value, batch.indices_B)
            if loss.requires_grad:
                self.fabric.backward(loss / self._group_size())
        if update:
            if not train.max_gather and self.fabric.world_size > 1:
                self._average_criterion_gradients()
            norm = float(self._clipped_norm())
            # fp16 overflows now and then: its scaler leaves such an update out and lowers its factor.
            if train.precision != "fp16" and not np.isfinite(norm):
                raise self._not_finite("gradient's norm", norm, torch.cat(self.group))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.group.clear()
            if self.average is not None:
                self.average.update(self.embedder)
        return value

    def _clipped_norm(self) -> Tensor:
        """The norm of all gradients before they are clipped (where that is asked for)."""
        if self.spec.train.clip_grad_norm > 0:
            norm: Any = self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.spec.train.clip_grad_norm, error_if_nonfinite=False
            )
            return norm  # type: ignore[no-any-return]
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _not_finite(self, what: str, value: float, indices: Tensor) -> TrainingError:
        return TrainingError(
            f"the {what} is {value} at epoch {self.position.epoch}, step {self.position.step}",
            expected="a finite number; the weights were not moved",
            remedy="lower the learning rates or set train.clip_grad_norm. Images of this batch: "
            + ", ".join(self.names(indices.tolist())),
        )

    def _average_criterion_gradients(self) -> None:
        for parameter in self.criterion.parameters():
            if parameter.grad is not None:
                mean: Any = self.fabric.all_reduce(parameter.grad, reduce_op="mean")
                parameter.grad = mean

    # -- the whole way -------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Train from the present position to the last epoch. Raises TrainingError, Interrupted."""
        at = self.position
        total = (self.epochs - at.epoch) * self.steps - at.step
        with progress("training", total, "steps") as advance:
            while at.epoch < self.epochs:
                self._epoch(advance)
        return self.history

    def _epoch(self, advance: Callable[..., None]) -> None:
        at, train = self.position, self.spec.train
        head_only = at.epoch < train.head_epochs
        self.freezer.set_modes(head_only=head_only)
        with fold_batchnorm(self.folds), use_compiled_stages(self.prefix):
            taken, seconds = self._updates(advance, head_only)
        if at.epoch < SETTLING and self.epochs_at is not None:
            advance(0, more=self._settle_epochs(self.epochs_at, seconds) * self.steps)
        epoch, last = at.epoch, at.epoch + 1 == self.epochs
        mean = self.epoch_loss / max(self.epoch_batches, 1)
        self.epoch_loss, self.epoch_batches = 0.0, 0
        at.epoch, at.step = epoch + 1, 0
        kpis: Mapping[str, float] | None = None
        if self.validate is not None and ((epoch + 1) % train.validation_interval == 0 or last):
            kpis = self._validate(epoch)
        due = (epoch + 1) % train.checkpoint_interval == 0
        if train.checkpoint_interval_unit == "step":
            due = self._passed(at.total, taken, train.checkpoint_interval)
        signal_number = self._agreed_signal()
        self._save(due=due or signal_number > 0, last=last, kpis={**(kpis or {}), "train_loss": mean}, epoch=epoch)
        if signal_number and not last:
            raise self._interrupted(signal_number)

    def _settle_epochs(self, epochs_at: Callable[[int, float], int], seconds: float) -> int:
        """Another number of epochs from here on, the schedule's too; returns how many more than before."""
        before, done = self.epochs, self.position.epoch + 1
        self.epochs = int(self.fabric.broadcast(max(done, epochs_at(done, seconds))))
        self.schedule = replace(self.schedule, epochs=self.epochs)
        self.spec.train.num_epochs = self.epochs
        return self.epochs - before

    def _updates(self, advance: Callable[..., None], head_only: bool) -> tuple[int, float]:
        """The rest of this epoch's batches; returns how many the last update took, and the seconds of an epoch.

        These by the median step, since the first ones wait for photographs to be decoded and networks to be compiled.
        """
        at, train, taken = self.position, self.spec.train, 0
        start, began_at = time.monotonic(), at.step
        recent: list[float] = []
        ended = [start]
        for batch in self.batches.epoch(at.epoch, at.step):
            rates = set_learning_rates(
                self.optimizer, self.schedule.factor(at.epoch, at.step), trunk_learns=not head_only
            )
            update = (at.step + 1) % train.accumulate == 0 or at.step + 1 == self.steps
            taken = self._group_size()
            recent.append(self._step(batch, update=update))
            self.epoch_loss, self.epoch_batches = self.epoch_loss + recent[-1], self.epoch_batches + 1
            at.step, at.total = at.step + 1, at.total + 1
            advance(1, note=f"epoch {at.epoch + 1}/{self.epochs} loss {recent[-1]:.4f}")
            if at.step % train.log_every == 0 or at.step == self.steps:
                pace = (time.monotonic() - start) / max(at.step - began_at, 1)
                self._log_step(float(np.mean(recent)), rates, pace)
                recent.clear()
            ended.append(time.monotonic())
            if update and at.step < self.steps:  # the last step of an epoch is saved after its validation
                self._between_updates(at, taken)
        return taken, self.steps * float(np.median(np.diff(ended))) if len(ended) > 1 else 0.0

    @staticmethod
    def _passed(now: int, taken: int, interval: int) -> bool:
        """Whether a multiple of ``interval`` lies in the last ``taken`` batches."""
        return now // interval > (now - taken) // interval

    def _between_updates(self, at: Position, taken: int) -> None:
        """Step checkpoints and signals wait for the update that ends a group of ``taken`` batches.

        Gradients summed so far are in no checkpoint: a run resumed within a group would lose them.
        """
        train = self.spec.train
        if train.checkpoint_interval_unit == "step" and self._passed(at.total, taken, train.checkpoint_interval):
            self._save(due=True, last=False, kpis=None, epoch=at.epoch)
        # Ranks must leave together; they ask each other no more often than they log.
        if self.fabric.world_size > 1 and not self._passed(at.step, taken, train.log_every):
            return
        signal_number = self._agreed_signal()
        if signal_number:
            self._save(due=True, last=False, kpis=None, epoch=at.epoch)
            raise self._interrupted(signal_number)

    def _validate(self, epoch: int) -> Mapping[str, float]:
        assert self.validate is not None
        with self.average.applied(self.embedder) if self.average is not None else nullcontext():
            if self.fabric.world_size > 1:
                # Each rank has BatchNorm statistics of its own until DDP's next forward pass; checkpoints hold rank 0's,
                # and those must be what all ranks measure.
                for buffer in self.embedder.buffers():
                    torch.distributed.broadcast(buffer, src=0)
            kpis = dict(self.validate(self.embedder))
        self.history.validations.append({"epoch": epoch, "step": self.position.total, **kpis})
        self.listener("validation", {"epoch": epoch, "step": self.position.total, "kpi": kpis})
        return kpis

    def _log_step(self, loss: float, rates: Mapping[str, float], seconds_per_step: float) -> None:
        at = self.position
        row = {"train_loss": loss, "trunk_base_lr": rates.get("trunk", 0.0),
               "embedder_base_lr": rates.get("embedder", 0.0)}  # fmt: skip
        self.history.steps.append({"epoch": at.epoch, "step": at.total, **row})
        left = (self.epochs - at.epoch) * self.steps - at.step
        self.listener("step", {
            "epoch": at.epoch, "step": at.total, "max_epoch": self.epochs, "max_step": self.epochs * self.steps,
            "time_per_epoch": seconds_per_step * self.steps, "eta": seconds_per_step * left, "kpi": row,
        })  # fmt: skip

    def _agreed_signal(self) -> int:
        """The signal that asked any rank to stop, or 0; the same on all ranks."""
        signal_number = self.stop_requested()
        if self.fabric.world_size > 1:
            highest: Any = self.fabric.all_reduce(torch.tensor(float(signal_number)), reduce_op="max")
            signal_number = int(highest)
        return signal_number

    def _interrupted(self, signal_number: int) -> Interrupted:
        at = self.position
        return Interrupted(signal_number, f"stopped by signal {signal_number} in epoch {at.epoch}, step {at.step}; "
                           "the checkpoint is saved, --resume goes on from it")  # fmt: skip

    # -- state ---------------------------------------------------------------------------------------------------

    def _save(self, *, due: bool, last: bool, kpis: Mapping[str, float] | None, epoch: int) -> None:
        if self.fabric.is_global_zero and (due or last or kpis is not None):
            payload = self.payload(self.weights()) | {"training": self.state()}
            written = self.checkpointer.save(
                payload, epoch=epoch, step=self.position.total, due=due, last=last, kpis=kpis
            )
            if written is not None:
                self.listener("checkpoint", {"epoch": epoch, "step": self.position.total, "path": str(written)})
        self.fabric.barrier()

    def weights(self) -> Mapping[str, Tensor]:
        """What is measured and saved: the running average where there is one."""
        return self.average.average if self.average is not None else self.embedder.state_dict()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs to go on bit for bit: tensors and plain data."""
        numpy_state: Any = np.random.get_state(legacy=True)
        return {
            "identity": dict(self.identity),
            "position": vars(self.position).copy(),
            "epoch_loss": [self.epoch_loss, self.epoch_batches],
            "optimiser": self.optimizer.state_dict(),
            "objective": self.criterion.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "average": None if self.average is None else {
                "updates": self.average.updates, "raw": dict(self.embedder.state_dict())},
            "history": {"steps": list(self.history.steps), "validations": list(self.history.validations)},
            "random": {
                "torch": torch.get_rng_state(),
                "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
                "numpy": [numpy_state[1].tolist(), int(numpy_state[2])],
                "python": list(random.getstate()[1]),
            },
        }  # fmt: skip

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up a checkpoint of the same run. Raises WeightsError when it is another's, naming what differs."""
        state = checkpoint.get("training")
        if not state:
            raise WeightsError("the checkpoint holds weights alone, no state of training",
                               remedy="give it as model.pretrained_model_path instead")  # fmt: skip
        self._refuse_another_run(state.get("identity", {}))
        weights = checkpoint["model"] if state["average"] is None else state["average"]["raw"]
        try:
            self.embedder.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimiser"])
            self.criterion.load_state_dict(state["objective"])
        except (RuntimeError, ValueError) as error:
            first = " ".join(str(error).split())[:200]
            raise WeightsError(f"the checkpoint does not fit this run: {first}", expected="the same network, loss and optimizer",
                               remedy="resume with the spec that it was trained with") from error  # fmt: skip
        if self.average is not None and state["average"] is not None:
            self.average.updates = state["average"]["updates"]
            for key, value in checkpoint["model"].items():
                self.average.average[key].copy_(value)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.position = Position(**state["position"])
        if self.position.step >= self.steps:
            self.position.epoch, self.position.step = self.position.epoch + 1, 0
        self.epoch_loss, self.epoch_batches = state.get("epoch_loss", (0.0, 0))
        self.history = History(list(state["history"]["steps"]), list(state["history"]["validations"]))
        self.checkpointer.restore(state["keeper"])
        draw = state["random"]
        torch.set_rng_state(draw["torch"].cpu().to(torch.uint8))
        if draw["cuda"] and torch.cuda.is_available() and len(draw["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([t.cpu().to(torch.uint8) for t in draw["cuda"]])
        np.random.set_state(("MT19937", np.array(draw["numpy"][0], np.uint32), draw["numpy"][1], 0, 0.0))
        random.setstate((3, tuple(draw["python"]), None))
        say(f"resumed at epoch {self.position.epoch}, step {self.position.step}")

    def _refuse_another_run(self, theirs: Mapping[str, Any]) -> None:
        different = [key for key, value in self.identity.items() if key in theirs and theirs[key] != value]
        if different:
            raise WeightsError(
                "the checkpoint is of another run: " + ", ".join(f"{k} {_brief(theirs[k])}" for k in different),
                expected=", ".join(f"{k} {_brief(self.identity[k])}" for k in different),
                remedy="resume with what it was trained with, or start anew from its weights with "
                "model.pretrained_model_path",
            )


def _brief(value: Any) -> str:
    """A value in few words: class lists and fingerprints are long."""
    if isinstance(value, list | tuple):
        return f"{len(value)} ({', '.join(map(str, value[:3]))}{', ...' if len(value) > 3 else ''})"
    return str(value)[:16]
