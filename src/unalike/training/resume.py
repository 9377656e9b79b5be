"""Resuming a training: find the checkpoint to continue from, and the seed that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric

from unalike.data.decoding import Decoding
from unalike.errors import UnalikeError, WeightsError
from unalike.model.checkpoint import read_checkpoint
from unalike.model.parent_checkpoint import set_decoding
from unalike.progress import say
from unalike.runs.filenames import LATEST_CHECKPOINT, PERIODIC_CHECKPOINTS
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
        """The seed of the run that wrote the checkpoint."""
        training = (self._checkpoint or {}).get("training") or {}
        seed: int | None = training.get("identity", {}).get("seed")
        return seed

    @property
    def decoding(self) -> Decoding:
        """How images become 8-bit RGB in the run that the checkpoint is of."""
        view = ((self._checkpoint or {}).get("facts") or {}).get("view") or {}
        return Decoding.from_dict(view.get("decoding"))

    def take(self) -> dict[str, Any]:
        """Return the content of the checkpoint and release it."""
        checkpoint, self._checkpoint = self._checkpoint, None
        assert checkpoint is not None
        return checkpoint


def find_resume_checkpoint(experiment: Experiment, folder: Path, resume: bool, fabric: Fabric) -> ResumeCheckpoint:
    """Find the checkpoint of ``train.resume_training_checkpoint_path``, or with ``resume`` the newest one in ``folder``.

    Args:
        experiment: the spec.
        folder: the run's folder.
        resume: whether to continue from the newest checkpoint.
        fabric: rank 0 looks for the file; another rank might see a newer one, or none yet.

    Returns:
        The checkpoint; an empty one where training starts anew, as after a run that ended before its first checkpoint.

    Raises:
        WeightsError: the checkpoint cannot be read; raised on all ranks.
    """
    message: str | UnalikeError | None = None
    if fabric.is_global_zero:
        try:
            user_path = experiment.train.resume_training_checkpoint_path
            message = user_path or (str(newest_checkpoint(folder)) if resume and _holds_checkpoint(folder) else None)
            if resume and not message:
                say(f"{folder}: the former run ended before its first checkpoint, starting from the beginning")
        except UnalikeError as error:
            message = error  # raised on all ranks, or the others would wait forever
    message = fabric.broadcast(message)
    if isinstance(message, UnalikeError):
        raise message
    return ResumeCheckpoint(read_checkpoint(message, experiment) if message else None)


def _holds_checkpoint(folder: Path) -> bool:
    return (folder / LATEST_CHECKPOINT).exists() or any(folder.glob(PERIODIC_CHECKPOINTS))


def adopt_decoding(experiment: Experiment, checkpoint: ResumeCheckpoint) -> None:
    """Give the spec the decoding of the run that is resumed. Raises WeightsError where the user set another one."""
    decoding = checkpoint.decoding
    if experiment.is_set("dataset.decoding"):
        conflict = decoding.conflict(Decoding.from_section(experiment.dataset.decoding))
        if conflict:
            raise WeightsError(f"the checkpoint was trained with {conflict}", expected="the same",
                               remedy="remove dataset.decoding, or start anew from its weights with "
                               "model.pretrained_model_path")  # fmt: skip
    set_decoding(experiment, decoding)


def choose_seed(experiment: Experiment, checkpoint: ResumeCheckpoint, fabric: Fabric) -> int:
    """Choose one seed for all ranks: the user's, else that of the resumed run, so that its batches are the same, else a new one.

    Args:
        experiment: the spec; a negative ``train.seed`` asks for a new seed.
        checkpoint: of the resumed run. ``TrainingLoop.load_checkpoint`` refuses it if the user set another seed.
        fabric: broadcasts a new seed from rank 0.

    Returns:
        The seed, 0 or greater.
    """
    checkpoint_seed, own = checkpoint.seed, experiment.train.seed
    if checkpoint_seed is not None and (own < 0 or not experiment.is_set("train.seed")):
        seed = int(checkpoint_seed)
    else:
        seed = own if own >= 0 else int(fabric.broadcast(torch.seed() % 2**31))
    if seed != own:
        say(f"seed: {seed} ({'that of the resumed run' if checkpoint else 'drawn, since train.seed is -1'})")
    return seed


def check_identity(own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raise WeightsError where a checkpoint is of another run.

    Args:
        own: facts of this run by which "epoch 3, step 7" means the same images.
        other: those of the checkpoint; a fact that it lacks is not compared.
    """
    different = [key for key, value in own.items() if key in other and other[key] != value]
    if different:
        raise WeightsError(
            "the checkpoint is of another run: " + ", ".join(f"{k} {_brief(other[k])}" for k in different),
            expected=", ".join(f"{k} {_brief(own[k])}" for k in different),
            remedy="resume with what it was trained with, or start anew from its weights with "
            "model.pretrained_model_path",
        )


def _brief(value: object) -> str:
    """Shorten a value for a message: class lists and fingerprints are long."""
    if isinstance(value, list | tuple):
        return f"{len(value)} ({', '.join(map(str, value[:3]))}{', ...' if len(value) > 3 else ''})"
    return str(value)[:16]
