"""The training loop: steps, epochs, validation, checkpoints, resume.

A batch takes five steps from file to loss: item (``pixel_cache.PixelCache.get``), collate (``loader.TrainingLoader``),
``TrainingLoop.train_step``, embedder (``model.embedder.Embedder.forward``), loss (``losses.Criterion.forward``).
Shape letters: B batch (all ranks' together after the gather), R ranks, C channels, H height, W width, D embedding width.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from unalike.errors import Interrupted, TrainingError, WeightsError
from unalike.progress import progress, say
from unalike.runs.failures import signal_name
from unalike.storage.outside_files import reader_errors
from unalike.training.checkpoints import CheckpointManager
from unalike.training.cpu.batchnorm_folding import FoldablePairs, fold_batchnorm
from unalike.training.cpu.openvino_stages import CompiledStages, use_compiled_stages
from unalike.training.ema import ModelEma
from unalike.training.freezing import Freezer
from unalike.training.history import History, Position
from unalike.training.lora import merged_copy, merged_state, state_before_training, unmerged_part, unmerged_state
from unalike.training.loss_reader import (
    READ_LAG,
    LossReader,
    StepFigures,
    not_finite_error,
    skip_unless_finite,
    skips_updates,
)
from unalike.training.losses import Criterion
from unalike.training.optimizer import set_learning_rates
from unalike.training.random_state import read_random_state, restore_random_state
from unalike.training.resume import check_identity
from unalike.training.schedule import LRSchedule

if TYPE_CHECKING:
    from unalike.data.batches.loader import Batch
    from unalike.spec import Experiment

# Called with an event and its facts: "step" every `log_every` batches, "validation", "checkpoint", and "epochs" when their
# number changed.
Listener = Callable[[str, dict[str, Any]], None]
# Maps the number of finished epochs and the seconds of the last one to the total number of epochs.
EpochChooser = Callable[[int, float], int]
# Epochs after which their number may still grow; it may shrink after every epoch. In the first, photographs are decoded beside
# the steps.
REPLANNED_EPOCHS = 2
RECENT_STEPS, MIN_TIMED_STEPS = 30, 5  # the median of at most, and of at least so many steps measures the pace


class BatchLoader(Protocol):
    """The methods of ``data.batches.loader.TrainingLoader`` that the loop calls."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from ``start_step`` on."""
        ...


class TrainingLoop:
    """Trains an embedder; ``run`` goes from the present position to the last epoch.

    Args:
        fabric: device, precision and processes.
        embedder: the network; ``fabric.setup`` wraps it.
        criterion: miner and loss, already on the device.
        optimizer: for the trainable parameters of both.
        freezer: sets train and eval modes at the start of an epoch.
        loader: this rank's batches.
        schedule: factor of every base learning rate.
        experiment: the settled spec; the loop only reads it.
        checkpoint_manager: writes checkpoints and keeps the best metric.
        validate: returns the metrics of the embedder; None without validation images.
        payload: returns the content of a checkpoint for the weights and the present number of epochs.
        image_names: returns the names of images by their indices, for error messages.
        listener: called with each event.
        stop_requested: returns the number of the signal on which to stop, or 0.
        identity: facts that a checkpoint must share with this run to be resumed.
        foldable_pairs: frozen BatchNorm layers to be folded into their convolutions.
        compiled_stages: the frozen stages, compiled for the CPU.
        choose_epochs: returns the number of epochs again after each epoch.
        seconds_left: returns seconds that are left for steps; an epoch that would pass them ends early and is the last.
    """

    def __init__(
        self,
        *,
        fabric: Fabric,
        embedder: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        freezer: Freezer,
        loader: BatchLoader,
        schedule: LRSchedule,
        experiment: Experiment,
        checkpoint_manager: CheckpointManager,
        validate: Callable[[nn.Module], Mapping[str, float]] | None,
        payload: Callable[[Mapping[str, Tensor], int], dict[str, Any]],
        image_names: Callable[[Iterable[int]], list[str]],
        listener: Listener,
        stop_requested: Callable[[], int],
        identity: Mapping[str, Any] | None = None,
        foldable_pairs: FoldablePairs = (),
        compiled_stages: CompiledStages | None = None,
        choose_epochs: EpochChooser | None = None,
        seconds_left: Callable[[], float] | None = None,
    ) -> None:
        self.fabric, self.embedder, self.criterion, self.freezer = fabric, embedder, criterion, freezer
        network = cast(nn.Module, torch.compile(embedder)) if experiment.train.compile else embedder
        self.model, self.optimizer = fabric.setup(network, optimizer)
        self.loader, self.schedule, self.checkpoint_manager = loader, schedule, checkpoint_manager
        self.options = experiment.train
        self.validate, self.payload, self.image_names, self.listener = validate, payload, image_names, listener
        self.stop_requested, self.choose_epochs, self.seconds_left = stop_requested, choose_epochs, seconds_left
        self.foldable_pairs, self.compiled_stages = foldable_pairs, compiled_stages
        ema = self.options.ema
        self.ema = ModelEma(embedder, ema.decay) if ema.enabled else None
        self.position, self.history = Position(), History()
        self.epochs, self.steps = self.options.num_epochs, len(loader)
        self.last_step = self.steps  # of the present epoch; lower where the time ends before
        self.recent_seconds: deque[float] = deque(maxlen=RECENT_STEPS)  # of steps
        self.validation_seconds = 0.0
        # What a checkpoint must share with this run for "epoch 3, step 7" to mean the same images in both.
        self.identity = dict(identity or {}) | {"steps": self.steps, "world_size": fabric.world_size}
        self.epoch_loss, self.epoch_batches = 0.0, 0  # of the present epoch, for its mean
        # On a GPU a step does not wait for its loss: an update of gradients that are not finite moves nothing there.
        self.inner_optimizer = optimizer
        self.reader = LossReader(READ_LAG if fabric.device.type == "cuda" and skips_updates(optimizer) else 0)
        self.recent_losses: list[float] = []  # since the last logged step
        self.latest_loss = float("nan")
        self.accumulated: list[Tensor] = []  # image indices of the batches since the last update

    # -- one step ------------------------------------------------------------------------------------------------

    def train_step(self, batch: Batch, *, update: bool) -> None:
        """Run forward pass, loss and backward pass of one batch.

        Args:
            batch: this rank's batch.
            update: whether an optimizer step follows; otherwise gradients accumulate.

        Raises:
            TrainingError: loss or gradients are not finite, here or some steps before; such a step moves no weights.
        """
        self.accumulated.append(batch.indices_B)
        no_sync = self.fabric.world_size > 1 and not update
        with self.fabric.no_backward_sync(self.model, enabled=no_sync) if no_sync else nullcontext():
            vectors_BD = self.model(batch.images_BCHW)
            loss = self.criterion(*self._gather(vectors_BD, batch.labels_B))
            if not self.reader.lag and not np.isfinite(float(loss.detach())):
                raise self._not_finite("loss", self._figures(loss, loss, batch.indices_B))
            if loss.requires_grad:
                self.fabric.backward(loss / self._accumulation_size())
        indices = torch.cat(self.accumulated) if update else batch.indices_B
        norm = self._update() if update else None
        self.reader.put(loss, norm, epoch=self.position.epoch, step=self.position.step, indices=indices)
        self._read_losses()

    def _read_losses(self, *, every: bool = False) -> None:
        """Note the losses that are known by now; with ``every`` wait for all. Raises TrainingError as ``train_step``."""
        for figures in self.reader.take(every=every):
            if not np.isfinite(figures.loss):
                raise self._not_finite("loss", figures)
            if self.reader.lag and not np.isfinite(figures.norm):
                raise self._not_finite("gradient's norm", figures)
            self.latest_loss = figures.loss
            self.recent_losses.append(figures.loss)
            self.epoch_loss, self.epoch_batches = self.epoch_loss + figures.loss, self.epoch_batches + 1

    def _update(self) -> Tensor:
        """Run an optimizer step with the gradients accumulated so far; return their norm."""
        if not self.options.max_gather and self.fabric.world_size > 1:
            self._average_criterion_gradients()
        norm = self._clip_gradients()
        if self.reader.lag:
            skip_unless_finite(self.inner_optimizer, norm)
        # fp16 overflows at times: its scaler skips such an update and lowers its factor.
        elif self.options.precision != "fp16" and not np.isfinite(float(norm)):
            raise self._not_finite("gradient's norm", self._figures(norm, norm, torch.cat(self.accumulated)))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.accumulated.clear()
        if self.ema is not None:
            self.ema.update(self.embedder)
        return norm

    def _gather(self, vectors_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Gather vectors and labels of all ranks, with gradient, so that a loss sees the negatives of all ranks.

        The gather's backward pass sums the gradients of every rank's loss with respect to a vector and DDP divides by the
        number of ranks: the gradient is that of one process with the complete batch.
        """
        if self.fabric.world_size == 1 or not self.options.max_gather:
            return vectors_BD, labels_B
        vectors_RBD = cast(Tensor, self.fabric.all_gather(vectors_BD, sync_grads=True))
        labels_RB = cast(Tensor, self.fabric.all_gather(labels_B))
        return vectors_RBD.flatten(0, 1), labels_RB.flatten()

    def _accumulation_size(self) -> int:
        """Return the number of batches of the present update; the last update of an epoch may have fewer."""
        first = self.position.step // self.options.accumulate * self.options.accumulate
        return int(min(self.options.accumulate, self.steps - first))

    def _clip_gradients(self) -> Tensor:
        """Clip the gradients where ``train.clip_grad_norm`` is above 0; return their norm before clipping."""
        if self.options.clip_grad_norm > 0:
            norm = self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.options.clip_grad_norm, error_if_nonfinite=False
            )
            assert norm is not None  # with max_norm it is returned
            return norm
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _average_criterion_gradients(self) -> None:
        for parameter in self.criterion.parameters():
            if parameter.grad is not None:
                parameter.grad = cast(Tensor, self.fabric.all_reduce(parameter.grad, reduce_op="mean"))

    def _not_finite(self, quantity: str, figures: StepFigures) -> TrainingError:
        return not_finite_error(quantity, figures, self.image_names(figures.indices.tolist()))

    def _figures(self, loss: Tensor, norm: Tensor, indices: Tensor) -> StepFigures:
        return StepFigures(float(loss.detach()), float(norm.detach()), self.position.epoch, self.position.step, indices)

    # -- epochs --------------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Train from the present position to the last epoch.

        Raises:
            TrainingError: loss or gradients are not finite.
            Interrupted: a signal asked to stop; the checkpoint is written.
        """
        at = self.position
        total = (self.epochs - at.epoch) * self.steps - at.step
        with progress("training", total, "steps") as advance:
            while at.epoch < self.epochs:
                self._train_epoch(advance)
        return self.history

    def _train_epoch(self, advance: Callable[..., None]) -> None:
        """Train on the remaining batches of this epoch, then validate and write checkpoints where they are due."""
        at, options = self.position, self.options
        head_only = at.epoch < options.head_epochs
        self.freezer.set_train_modes(head_only=head_only)
        with fold_batchnorm(self.foldable_pairs), use_compiled_stages(self.compiled_stages):
            group_size, seconds = self._train_batches(advance, head_only)
        if self.choose_epochs is not None and self.last_step == self.steps:
            advance(0, more=self._replan(self.choose_epochs, seconds) * self.steps)
        epoch, last = at.epoch, at.epoch + 1 == self.epochs
        mean = self.epoch_loss / max(self.epoch_batches, 1)
        self.epoch_loss, self.epoch_batches = 0.0, 0
        at.epoch, at.step = epoch + 1, 0
        kpis: Mapping[str, float] | None = None
        if self.validate is not None and ((epoch + 1) % options.validation_interval == 0 or last):
            start = time.monotonic()
            kpis = self._validate(epoch)
            self.validation_seconds = time.monotonic() - start
        due = (epoch + 1) % options.checkpoint_interval == 0
        if options.checkpoint_interval_unit == "step":
            due = self._passed_multiple(at.global_step, group_size, options.checkpoint_interval)
        signal_number = self._agree_on_signal()
        self._save(due=due or signal_number > 0, last=last, kpis={**(kpis or {}), "train_loss": mean}, epoch=epoch)
        if signal_number and not last:
            raise self._interrupted(signal_number)

    def _replan(self, choose_epochs: EpochChooser, seconds: float) -> int:
        """Choose the number of epochs again, for the schedule too; return how many more than before."""
        before, epochs_done = self.epochs, self.position.epoch + 1
        epochs = max(epochs_done, choose_epochs(epochs_done, seconds))
        self.epochs = int(self.fabric.broadcast(epochs if epochs_done <= REPLANNED_EPOCHS else min(before, epochs)))
        self.schedule = replace(self.schedule, epochs=self.epochs)
        if self.epochs != before:
            self.listener("epochs", {"epochs": self.epochs, "before": before, "seconds": seconds})
        return self.epochs - before

    def _train_batches(self, advance: Callable[..., None], head_only: bool) -> tuple[int, float]:
        """Train on the remaining batches of this epoch.

        Returns:
            The number of batches of the last update, and the seconds of an epoch. These are estimated from the median step,
            as the first steps wait for photographs to be decoded and networks to be compiled.
        """
        at, options, group_size = self.position, self.options, 0
        start, first_step = time.monotonic(), at.step
        self.recent_losses.clear()
        times = [start]
        for batch in self.loader.epoch(at.epoch, at.step):
            factor = self.schedule.factor(at.epoch, at.step)
            rates = set_learning_rates(self.optimizer, factor, train_trunk=not head_only)
            update = (at.step + 1) % options.accumulate == 0 or at.step + 1 == self.steps
            group_size = self._accumulation_size()
            self.train_step(batch, update=update)
            at.step, at.global_step = at.step + 1, at.global_step + 1
            advance(1, note=f"epoch {at.epoch + 1}/{self.epochs} loss {self.latest_loss:.4f}")
            if at.step % options.log_every == 0 or at.step == self.steps:
                seconds_per_step = (time.monotonic() - start) / max(at.step - first_step, 1)
                self._read_losses(every=True)
                self._log_step(float(np.mean(self.recent_losses)), rates, seconds_per_step)
                self.recent_losses.clear()
            times.append(time.monotonic())
            self.recent_seconds.append(times[-1] - times[-2])
            if update and self._ends_early(advance):
                break
            if update and at.step < self.steps:  # the last step of an epoch is saved after its validation
                self._after_update(group_size)
        self._read_losses(every=True)
        return group_size, self.steps * float(np.median(np.diff(times))) if len(times) > 1 else 0.0

    def _ends_early(self, advance: Callable[..., None]) -> bool:
        """Return whether the time limit ends the training with the present step; the schedule ends with the last that fits."""
        at, several = self.position, self.fabric.world_size > 1
        if self.seconds_left is None or (several and not self._passed_multiple(at.step, 1, self.options.log_every)):
            return False
        seconds = self.seconds_left()
        pace = float(np.median(self.recent_seconds)) if len(self.recent_seconds) >= MIN_TIMED_STEPS else 0.0
        last = min(self.steps, at.step + max(0, int(seconds / pace)) if pace else at.step + self.steps * (seconds > 0))
        last = int(self.fabric.broadcast(last)) if several else last
        if last < self.steps and self.last_step == self.steps:
            advance(0, more=at.step - (self.epochs - at.epoch) * self.steps)  # what is left is no longer known
            self.epochs = at.epoch + 1
            say(f"the time is over within epoch {self.epochs}, which ends after {last} of {self.steps} steps")
        if last != self.last_step:
            self.last_step, self.schedule = last, replace(self.schedule, epochs=at.epoch + last / self.steps)
        return at.step >= last

    @staticmethod
    def _passed_multiple(now: int, count: int, interval: int) -> bool:
        """Return whether a multiple of ``interval`` is among the last ``count`` batches."""
        return now // interval > (now - count) // interval

    def _after_update(self, group_size: int) -> None:
        """Write a step checkpoint where it is due, and stop on a signal, after an update of ``group_size`` batches.

        Not between updates: accumulated gradients are in no checkpoint, so a run resumed there would lose them.
        """
        at, options = self.position, self.options
        by_step = options.checkpoint_interval_unit == "step"
        if by_step and self._passed_multiple(at.global_step, group_size, options.checkpoint_interval):
            self._save(due=True, last=False, kpis=None, epoch=at.epoch)
        # Ranks must stop together; they communicate no more often than they log.
        if self.fabric.world_size > 1 and not self._passed_multiple(at.step, group_size, options.log_every):
            return
        signal_number = self._agree_on_signal()
        if signal_number:
            self._save(due=True, last=False, kpis=None, epoch=at.epoch)
            raise self._interrupted(signal_number)

    def _validate(self, epoch: int) -> Mapping[str, float]:
        assert self.validate is not None
        with self.ema.applied(self.embedder) if self.ema is not None else nullcontext():
            if self.fabric.world_size > 1:
                # Each rank has BatchNorm statistics of its own until DDP's next forward pass; checkpoints hold rank 0's,
                # and those must be what all ranks measure.
                for buffer in self.embedder.buffers():
                    torch.distributed.broadcast(buffer, src=0)
            kpis = dict(self.validate(merged_copy(self.embedder)))
        self.history.validations.append({"epoch": epoch, "step": self.position.global_step, **kpis})
        self.listener("validation", {"epoch": epoch, "step": self.position.global_step, "kpi": kpis})
        return kpis

    def _log_step(self, loss: float, rates: Mapping[str, float], seconds_per_step: float) -> None:
        at = self.position
        row = {"train_loss": loss, "trunk_base_lr": rates.get("trunk", 0.0),
               "embedder_base_lr": rates.get("embedder", 0.0)}  # fmt: skip
        self.history.steps.append({"epoch": at.epoch, "step": at.global_step, **row})
        steps_left = (self.epochs - at.epoch) * self.steps - at.step
        self.listener("step", {
            "epoch": at.epoch, "step": at.global_step, "max_epoch": self.epochs, "max_step": self.epochs * self.steps,
            "time_per_epoch": seconds_per_step * self.steps, "eta": seconds_per_step * steps_left, "kpi": row,
        })  # fmt: skip

    def _agree_on_signal(self) -> int:
        """Return the signal on which to stop, received by any rank, or 0; the same on all ranks."""
        signal_number = self.stop_requested()
        if self.fabric.world_size > 1:
            highest = cast(Tensor, self.fabric.all_reduce(torch.tensor(float(signal_number)), reduce_op="max"))
            signal_number = int(highest)
        return signal_number

    def _interrupted(self, signal_number: int) -> Interrupted:
        at = self.position
        return Interrupted(signal_number, f"stopped by {signal_name(signal_number)} in epoch {at.epoch + 1}, after {at.step} of its steps; "
                           "the checkpoint is saved, --resume goes on from it")  # fmt: skip

    # -- state ---------------------------------------------------------------------------------------------------

    def _save(self, *, due: bool, last: bool, kpis: Mapping[str, float] | None, epoch: int) -> None:
        self._read_losses(every=True)
        step = self.position.global_step
        if self.fabric.is_global_zero and (due or last or kpis is not None):
            payload = self.payload(self.weights(), self.epochs) | {"training": self.state_dict()}
            path = self.checkpoint_manager.save(payload, epoch=epoch, step=step, due=due, last=last, kpis=kpis)
            if path is not None:
                self.listener("checkpoint", {"epoch": epoch, "step": step, "path": str(path)})
        self.fabric.barrier()

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights that are validated and saved: the moving average where there is one, low-rank updates merged."""
        return merged_state(self._unmerged_weights())

    def _unmerged_weights(self) -> Mapping[str, Tensor]:
        return self.ema.average if self.ema is not None else self.embedder.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to continue bit for bit, as tensors and plain data."""
        at = self.position
        return {
            "identity": dict(self.identity),
            "position": {"epoch": at.epoch, "step": at.step, "total": at.global_step},
            "epoch_loss": [self.epoch_loss, self.epoch_batches],
            "optimiser": self.optimizer.state_dict(),
            "objective": self.criterion.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "average": None if self.ema is None else {
                "updates": self.ema.updates, "raw": dict(self.embedder.state_dict())},
            "lora": unmerged_part(self._unmerged_weights()),
            "history": {"steps": list(self.history.steps), "validations": list(self.history.validations)},
            "random": read_random_state(),
        }  # fmt: skip

    def load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the state in a checkpoint of the same run, random generators included.

        Raises:
            WeightsError: the checkpoint has no state of training, or is of another run; the message names what differs.
        """
        if checkpoint.get("origin"):
            self._continue_from_weights(checkpoint)
            return
        state = checkpoint.get("training")
        if not state:
            raise WeightsError("the checkpoint holds weights alone, no state of training",
                               remedy="give it as model.pretrained_model_path instead")  # fmt: skip
        check_identity(self.identity, state.get("identity", {}))
        model = unmerged_state(checkpoint["model"], state.get("lora") or {})
        weights = model if state["average"] is None else state["average"]["raw"]
        try:
            self.embedder.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimiser"])
            self.criterion.load_state_dict(state["objective"])
        except (RuntimeError, ValueError) as error:
            first = " ".join(str(error).split())[:200]
            raise WeightsError(f"the checkpoint does not fit this run: {first}", expected="the same network, loss and optimizer",
                               remedy="resume with the spec that it was trained with") from error  # fmt: skip
        if self.ema is not None and state["average"] is not None:
            self.ema.updates = state["average"]["updates"]
            for key, value in model.items():
                self.ema.average[key].copy_(value)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        position = state["position"]
        self.position = Position(position["epoch"], position["step"], position["total"])
        if self.position.step >= self.steps:
            self.position.epoch, self.position.step = self.position.epoch + 1, 0
        self.epoch_loss, self.epoch_batches = state.get("epoch_loss", (0.0, 0))
        self.history = History(list(state["history"]["steps"]), list(state["history"]["validations"]))
        self.checkpoint_manager.load_state(state["keeper"])
        restore_random_state(state["random"])
        say(f"resumed in epoch {self.position.epoch + 1}, after {self.position.step} of its steps")

    def _continue_from_weights(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on after the epoch of another program's checkpoint: its weights and epoch, with a new optimizer."""
        weights = state_before_training(self.embedder, checkpoint["model"])
        remedy = "give the spec that it was trained with: -e spec.yaml"
        with reader_errors("the checkpoint is not of the network of this run", remedy=remedy, error=WeightsError):
            self.embedder.load_state_dict(weights)
        if self.ema is not None:
            for key, value in weights.items():
                self.ema.average[key].copy_(value)
        epoch = 0 if checkpoint.get("epoch") is None else int(checkpoint["epoch"]) + 1
        self.position = Position(epoch, 0, epoch * self.steps)
        say(
            f"resumed from a checkpoint of {checkpoint['origin']} in epoch {epoch + 1}; the optimizer's averages start anew"
        )
