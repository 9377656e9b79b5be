"""Which checkpoints training leaves behind: periodic ones, the latest, the best, and the top k of a monitored figure.

Names are TAO's: ``model_epoch_EEE_step_SSSSS.pth``, ``ml_model_latest.pth``; ``ml_model_best.pth`` is always kept where
there is a validation (TAO D6, D8). A file appears under its name only when it is whole.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unalike.errors import SpecError, WeightsError
from unalike.model.checkpoint import read_checkpoint, write_checkpoint
from unalike.runs.filenames import BEST_CHECKPOINT, LATEST_CHECKPOINT, PERIODIC_CHECKPOINTS, periodic_checkpoint
from unalike.storage.atomic import atomic_write, copy_file

# The metric that chooses the best epoch, and the one that decides where the first is equal.
MONITORED, TIE_BREAKER = "val Precision at Rank 1", "val Mean Average Precision"
KPI_NAMES = (
    "val_AMI", "val_NMI", TIE_BREAKER, "val Mean Reciprocal Rank", "val r-Precision", MONITORED,
    "train_loss",
)  # fmt: skip


def ranking_key(figures: Mapping[str, float], monitor: str, sign: float) -> tuple[float, float]:
    """What decides between two validations, the greater one wins: the monitored figure times ``sign``, then MAP, since R@1 is
    soon 1 on easy sets."""
    average = figures.get(TIE_BREAKER, math.nan)
    return sign * figures.get(monitor, math.nan), -math.inf if math.isnan(average) else average


def _point(link: Path, target: Path) -> None:
    """Make ``link`` lead to ``target`` (a neighbour) in one step; a copy where links are not to be had."""
    with atomic_write(link) as partial:
        try:
            partial.symlink_to(os.path.relpath(target, link.parent))
        except OSError:
            shutil.copyfile(target, partial)


def newest_checkpoint(folder: Path) -> Path:
    """The checkpoint to resume from in a run's own folder. Raises WeightsError, naming what was looked for."""
    latest = folder / LATEST_CHECKPOINT
    if latest.exists():
        return latest.resolve()
    found = sorted(folder.glob(PERIODIC_CHECKPOINTS))
    if not found:
        raise WeightsError(f"{folder} holds nothing to resume from", expected=f"{LATEST_CHECKPOINT} or {PERIODIC_CHECKPOINTS}",
                           remedy="start without --resume (add --overwrite to replace the run)")  # fmt: skip
    return found[-1]


class Checkpointer:
    """Writes checkpoints when they are due and remembers the best figures; ``state`` goes into every checkpoint."""

    def __init__(self, folder: Path, train: Any) -> None:
        self.folder, self.train = folder, train
        settings = train.checkpointer
        self.monitor = settings.monitor or MONITORED
        self.mode = settings.mode or ("min" if self.monitor == "train_loss" else "max")
        if self.monitor not in KPI_NAMES:
            raise SpecError(
                f"train.checkpointer.monitor is {self.monitor!r}", expected=f"one of {', '.join(KPI_NAMES)}"
            )
        self.top_k = settings.save_top_k if settings.enable_topk else 0
        self.top_folder = Path(settings.dirpath) if settings.dirpath else folder
        self.periodic = not (settings.enable_topk and settings.replace_periodic)
        self.best: float | None = None
        self.tie = -math.inf  # TIE_BREAKER of the best
        self.best_epoch: int | None = None
        self.top: list[tuple[float, str, float]] = []  # monitored figure, file name, TIE_BREAKER
        self.dropped: list[str] = []  # fallen out of the top, deleted once the newcomer is on the disk
        self.top_name(0, 0, 0.5)  # a pattern that cannot be filled in is refused now, not after the first epoch

    def state(self) -> dict[str, Any]:
        """Plain data: what resuming needs."""
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best, "tie": self.tie,
                "best_epoch": self.best_epoch, "top": [list(t) for t in self.top]}  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the memory of an earlier session of the same run.

        Figures of another monitor or mode say nothing about this one. The best figure is forgotten when the best checkpoint is
        not of its epoch (a kill between two files, or another folder): the next validation then writes one that agrees with it.
        """
        if (state.get("monitor", self.monitor), state.get("mode", self.mode)) != (self.monitor, self.mode):
            return
        self.best, self.best_epoch, self.tie = state["best"], state["best_epoch"], state.get("tie", -math.inf)
        self.top = [
            (float(value), str(name), float(tie[0]) if tie else -math.inf) for value, name, *tie in state["top"]
        ]
        path = self.folder / BEST_CHECKPOINT
        if self.best is not None and not (path.exists() and read_checkpoint(path).get("epoch") == self.best_epoch):
            self.best = self.best_epoch = None

    def _improves(self, kpis: Mapping[str, float] | None) -> bool:
        """Whether these figures are better than the best so far."""
        if kpis is None or math.isnan(kpis.get(self.monitor, math.nan)):
            return False
        sign = 1.0 if self.mode == "max" else -1.0
        return self.best is None or ranking_key(kpis, self.monitor, sign) > (sign * self.best, self.tie)

    def _remember(self, kpis: Mapping[str, float], epoch: int) -> None:
        self.best, self.best_epoch = kpis.get(self.monitor), epoch
        self.tie = ranking_key(kpis, self.monitor, 1.0)[1]

    def save(self, payload: Mapping[str, Any], *, epoch: int, step: int, due: bool, last: bool,
             kpis: Mapping[str, float] | None) -> Path | None:  # fmt: skip
        """Write what is due after a validation or an epoch; returns the latest file, or None when nothing was due."""
        value = None if kpis is None else kpis.get(self.monitor)
        improved = self._improves(kpis)
        if improved:
            assert kpis is not None
            self._remember(kpis, epoch)
        name = periodic_checkpoint(epoch, step)
        enters = kpis is not None and self._enters_top(kpis, epoch, step)
        payload = dict(payload) | {"epoch": epoch, "step": step, "metrics": dict(kpis or {})}
        payload["training"] = dict(payload["training"]) | {"keeper": self.state()}
        # The latest comes last: its memory names the best files, which must be there if a kill comes in between.
        source: Path | None = None
        if improved:
            source = self._copy_or_write(None, self.folder / BEST_CHECKPOINT, payload)
        if enters:
            self.top_folder.mkdir(parents=True, exist_ok=True)
            assert value is not None
            source = self._copy_or_write(source, self.top_folder / self.top_name(epoch, step, value), payload)
        for old in self.dropped:
            (self.top_folder / old).unlink(missing_ok=True)
        self.dropped.clear()
        if not (due or last):
            return None
        written = self._copy_or_write(source, self.folder / (name if self.periodic else LATEST_CHECKPOINT), payload)
        if self.periodic:
            _point(self.folder / LATEST_CHECKPOINT, written)
        return written

    def offer(self, payload: Mapping[str, Any], *, epoch: int, step: int, kpis: Mapping[str, float] | None) -> bool:
        """Write the best checkpoint, from which no training goes on, where it is better than what validation has seen, or where there was
        none; returns whether it was."""
        if self.best is not None and not self._improves(kpis):
            return False
        self._remember(kpis or {}, epoch)
        write_checkpoint(
            self.folder / BEST_CHECKPOINT, dict(payload) | {"epoch": epoch, "step": step, "metrics": dict(kpis or {})}
        )
        return True

    def top_name(self, epoch: int, step: int, value: float) -> str:
        """File name of a top-k checkpoint from ``train.checkpointer.filename``. Raises SpecError for a bad pattern."""
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

    def _enters_top(self, kpis: Mapping[str, float], epoch: int, step: int) -> bool:
        value = kpis.get(self.monitor, math.nan)
        if self.top_k == 0 or math.isnan(value):
            return False
        sign = 1.0 if self.mode == "max" else -1.0
        entry = (value, self.top_name(epoch, step, value), ranking_key(kpis, self.monitor, sign)[1])
        ranked = sorted([*self.top, entry], key=lambda t: (sign * t[0], t[2]), reverse=True)
        limit = len(ranked) if self.top_k < 0 else self.top_k
        self.top = ranked[:limit]
        names = {name for _, name, _ in self.top}
        self.dropped = [name for _, name, _ in ranked[limit:] if name not in names]
        return entry in self.top

    def _copy_or_write(self, source: Path | None, target: Path, payload: Mapping[str, Any]) -> Path:
        """Write ``target``, whose path comes back; as a hard link of ``source`` it costs nothing and stays alone."""
        if source is None:
            return write_checkpoint(target, dict(payload))
        copy_file(source, target, link=True)
        return target
