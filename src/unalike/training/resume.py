"""Resuming: the checkpoint that a training goes on from, and the seed that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric

from unalike.errors import UnalikeError
from unalike.model.checkpoint import read_checkpoint
from unalike.progress import say
from unalike.training.checkpoints import newest_checkpoint

if TYPE_CHECKING:
    from unalike.spec import Experiment


class ResumeCheckpoint:
    """The checkpoint to resume from, or none. It is released once taken: weights and optimizer state are large."""

    def __init__(self, checkpoint: dict[str, Any] | None) -> None:
        self._checkpoint = checkpoint

    def __bool__(self) -> bool:
        return self._checkpoint is not None

    @property
    def seed(self) -> int | None:
        """The seed of the run that the checkpoint is of."""
        training = (self._checkpoint or {}).get("training") or {}
        seed: int | None = training.get("identity", {}).get("seed")
        return seed

    def take(self) -> dict[str, Any]:
        """The content of the checkpoint, which is not kept here any longer."""
        checkpoint, self._checkpoint = self._checkpoint, None
        assert checkpoint is not None
        return checkpoint


def find_resume_checkpoint(experiment: Experiment, folder: Path, resume: bool, fabric: Fabric) -> ResumeCheckpoint:
    """The checkpoint of ``train.resume_training_checkpoint_path``, or with ``resume`` the newest one in ``folder``.

    Rank 0 looks for it: another rank may find its file newer or not yet there. Raises WeightsError on all ranks.
    """
    answer: Any = None
    if fabric.is_global_zero:
        try:
            named = experiment.train.resume_training_checkpoint_path
            answer = named or (str(newest_checkpoint(folder)) if resume else None)
        except UnalikeError as error:
            answer = error  # all ranks leave with it, or the others would wait for ever
    answer = fabric.broadcast(answer)
    if isinstance(answer, UnalikeError):
        raise answer
    return ResumeCheckpoint(read_checkpoint(answer) if answer else None)


def choose_seed(experiment: Experiment, checkpoint: ResumeCheckpoint, fabric: Fabric) -> int:
    """One seed for all ranks: the user's; else that of the run that is resumed, so that its batches do too; else a new one.

    A user's seed that is not the checkpoint's is left to ``TrainingLoop.load_checkpoint``, which reports it.
    """
    resumed, own = checkpoint.seed, experiment.train.seed
    if resumed is not None and (own < 0 or not experiment.is_set("train.seed")):
        seed = int(resumed)
    else:
        seed = own if own >= 0 else int(fabric.broadcast(torch.seed() % 2**31))
    if seed != own:
        say(f"seed: {seed} ({'that of the run that is resumed' if checkpoint else 'drawn, since train.seed is -1'})")
    return seed
