"""Write the checkpoints of a training: periodic ones, the latest, the best, and the top k by a monitored metric.

Names are TAO's: ``model_epoch_EEE_step_SSSSS.pth``, ``ml_model_latest.pth``; ``ml_model_best.pth`` is always kept where
there is a validation (TAO D6, D8). A file appears under its name only when it is complete.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import SpecError, WeightsError
from unalike.model.checkpoint import read_checkpoint, write_checkpoint
from unalike.runs.filenames import BEST_CHECKPOINT, LATEST_CHECKPOINT, PERIODIC_CHECKPOINTS, periodic_checkpoint
from unalike.storage.atomic import copy_file, link_file
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.spec.train import Train

# The metric that chooses the best epoch, and the one that decides where the first is equal.
MONITORED, TIE_BREAKER = "val Precision at Rank 1", "val Mean Average Precision"
KPI_NAMES = (
    "val_AMI", "val_NMI", TIE_BREAKER, "val Mean Reciprocal Rank", "val r-Precision", MONITORED,
    "train_loss",
)  # fmt: skip


def ranking_key(metrics: Mapping[str, float], monitor: str, sign: float) -> tuple[float, float]:
    """Return the sort key of a validation, larger for a better one.

    Args:
        metrics: metrics of the validation by name.
        monitor: name of the monitored metric.
        sign: 1 if more is better, -1 if less is.

    Returns:
        The monitored metric times ``sign``, then mean average precision, as R@1 is soon 1 on easy sets.
    """
    average = metrics.get(TIE_BREAKER, math.nan)
    return sign * metrics.get(monitor, math.nan), -math.inf if math.isnan(average) else average


def newest_checkpoint(folder: Path) -> Path:
    """Return the checkpoint to resume from in a run's folder.

    Raises:
        WeightsError: the folder has no checkpoint.
    """
    latest = folder / LATEST_CHECKPOINT
    if latest.exists():
        return latest.resolve()
    periodic = sorted(folder.glob(PERIODIC_CHECKPOINTS))
    if not periodic:
        raise WeightsError(f"{folder} holds nothing to resume from", expected=f"{LATEST_CHECKPOINT} or {PERIODIC_CHECKPOINTS}",
                           remedy="start without --resume (add --overwrite to replace the run)")  # fmt: skip
    return periodic[-1]


class CheckpointManager:
    """Writes checkpoints when they are due and keeps the best metrics; ``state`` goes into every checkpoint.

    Args:
        folder: the run's folder.
        train: the spec's section ``train``.

    Raises:
        SpecError: ``train.checkpointer`` has an unknown monitor or a bad file name pattern.
        RunError: its folder is a file, or cannot be written.
    """

    def __init__(self, folder: Path, train: Train) -> None:
        self.folder, self.train = folder, train
        options = train.checkpointer
        self.monitor = options.monitor or MONITORED
        self.mode = options.mode or ("min" if self.monitor == "train_loss" else "max")
        if self.monitor not in KPI_NAMES:
            raise SpecError(
                f"train.checkpointer.monitor is {self.monitor!r}", expected=f"one of {', '.join(KPI_NAMES)}"
            )
        self.top_k = options.save_top_k if options.enable_topk else 0
        self.top_folder = Path(options.dirpath) if options.dirpath else folder
        if options.dirpath:
            refuse_existing(self.top_folder, True, folder=True, field="train.checkpointer.dirpath")
        self.periodic = not (options.enable_topk and options.replace_periodic)
        self.best: float | None = None
        self.best_tie_breaker = -math.inf
        self.best_epoch: int | None = None
        self.top: list[tuple[float, str, float]] = []  # monitored metric, file name, tie breaker
        self.dropped: list[str] = []  # no longer among the best; deleted once the new one is written
        self.top_name(0, 0, 0.5)  # a pattern that cannot be filled in is refused now, not after the first epoch

    @property
    def _sign(self) -> float:
        return 1.0 if self.mode == "max" else -1.0

    def state(self) -> dict[str, Any]:
        """Return what resuming needs, as plain data."""
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best, "tie": self.best_tie_breaker,
                "best_epoch": self.best_epoch, "top": [list(t) for t in self.top]}  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the ``state`` of an earlier session of the same run.

        Metrics of another monitor or mode are ignored. The best metric is forgotten when the best checkpoint is
        not of its epoch (a kill between two files, or another folder): the next validation then writes one that agrees with it.
        """
        if (state.get("monitor", self.monitor), state.get("mode", self.mode)) != (self.monitor, self.mode):
            return
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.best_tie_breaker = state.get("tie", -math.inf)
        self.top = [
            (float(value), str(name), float(tie[0]) if tie else -math.inf) for value, name, *tie in state["top"]
        ]
        path = self.folder / BEST_CHECKPOINT
        if self.best is not None and not (path.exists() and read_checkpoint(path).get("epoch") == self.best_epoch):
            self.best = self.best_epoch = None

    def _improves(self, kpis: Mapping[str, float] | None) -> bool:
        """Whether these metrics are better than the best so far."""
        if kpis is None or math.isnan(kpis.get(self.monitor, math.nan)):
            return False
        if self.best is None:
            return True
        return ranking_key(kpis, self.monitor, self._sign) > (self._sign * self.best, self.best_tie_breaker)

    def _set_best(self, kpis: Mapping[str, float], epoch: int) -> None:
        self.best, self.best_epoch = kpis.get(self.monitor), epoch
        self.best_tie_breaker = ranking_key(kpis, self.monitor, 1.0)[1]

    def save(self, payload: Mapping[str, Any], *, epoch: int, step: int, due: bool, last: bool,
             kpis: Mapping[str, float] | None) -> Path | None:  # fmt: skip
        """Write the files that are due after a validation or an epoch.

        Args:
            payload: content of the checkpoint, its training state under ``training``.
            epoch: the epoch that has ended, or is under way, counted from 0.
            step: batches since the start of training.
            due: whether ``train.checkpoint_interval`` has passed.
            last: whether this is the last epoch.
            kpis: metrics of this epoch, or None between epochs.

        Returns:
            The latest checkpoint, or None when none was due.
        """
        value = None if kpis is None else kpis.get(self.monitor)
        is_best = self._improves(kpis)
        if is_best:
            assert kpis is not None
            self._set_best(kpis, epoch)
        name = periodic_checkpoint(epoch, step)
        enters_top = kpis is not None and self._enter_top(kpis, epoch, step)
        payload = dict(payload) | {"epoch": epoch, "step": step, "metrics": dict(kpis or {})}
        payload["training"] = dict(payload["training"]) | {"keeper": self.state()}
        # The latest comes last: its state names the best files, which must be there if a kill comes in between.
        source: Path | None = None
        if is_best:
            source = _copy_or_write(None, self.folder / BEST_CHECKPOINT, payload)
        if enters_top:
            self.top_folder.mkdir(parents=True, exist_ok=True)
            assert value is not None
            source = _copy_or_write(source, self.top_folder / self.top_name(epoch, step, value), payload)
        for old in self.dropped:
            (self.top_folder / old).unlink(missing_ok=True)
        self.dropped.clear()
        if not (due or last):
            return None
        path = _copy_or_write(source, self.folder / (name if self.periodic else LATEST_CHECKPOINT), payload)
        if self.periodic:
            link_file(self.folder / LATEST_CHECKPOINT, path)
        return path

    def save_if_best(
        self, payload: Mapping[str, Any], *, epoch: int, step: int, kpis: Mapping[str, float] | None
    ) -> bool:
        """Write the best checkpoint, without a state to resume from, if its metrics are better than the best so far.

        Args:
            payload: content of the checkpoint.
            epoch: its epoch, from 0.
            step: number of training steps before it.
            kpis: its metrics; None without validation.

        Returns:
            Whether it was written; always where nothing was validated before.
        """
        if self.best is not None and not self._improves(kpis):
            return False
        self._set_best(kpis or {}, epoch)
        write_checkpoint(
            self.folder / BEST_CHECKPOINT, dict(payload) | {"epoch": epoch, "step": step, "metrics": dict(kpis or {})}
        )
        return True

    def top_name(self, epoch: int, step: int, value: float) -> str:
        """Return the file name of a top-k checkpoint by ``train.checkpointer.filename``.

        Args:
            epoch: its epoch, from 0.
            step: number of training steps before it.
            value: its monitored metric.

        Raises:
            SpecError: the pattern cannot be filled in.
        """
        pattern = self.train.checkpointer.filename
        if self.train.checkpointer.auto_insert_metric_name:
            for name in ("epoch", "step", self.monitor):
                pattern = pattern.replace(f"{{{name}", f"{name}={{{name}")
        try:
            stem = pattern.format(**{"epoch": epoch, "step": step, self.monitor: value})
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise SpecError(f"train.checkpointer.filename is {pattern!r}", expected="a pattern of {epoch}, {step} and "
                            f"{{{self.monitor}}}, such as model_best_{{epoch:03d}}") from error  # fmt: skip
        return f"{stem}.pth"

    def _enter_top(self, kpis: Mapping[str, float], epoch: int, step: int) -> bool:
        """Insert these metrics into the top k; return whether they are among them."""
        value = kpis.get(self.monitor, math.nan)
        if self.top_k == 0 or math.isnan(value):
            return False
        entry = (value, self.top_name(epoch, step, value), ranking_key(kpis, self.monitor, self._sign)[1])
        entries = sorted([*self.top, entry], key=lambda t: (self._sign * t[0], t[2]), reverse=True)
        limit = len(entries) if self.top_k < 0 else self.top_k
        self.top = entries[:limit]
        names = {name for _, name, _ in self.top}
        self.dropped = [name for _, name, _ in entries[limit:] if name not in names]
        return entry in self.top


def _copy_or_write(source: Path | None, target: Path, payload: Mapping[str, Any]) -> Path:
    """Write ``target`` and return it; a hard link of ``source``, where that was written already, costs nothing."""
    if source is None:
        return write_checkpoint(target, dict(payload))
    copy_file(source, target, link=True)
    return target
