"""The student: its spec, the training that fits into the time, and its checkpoint.

Shape letters: N images, F features of the trunk, D dimensions of the vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet
from unalike.data.view import View
from unalike.errors import SpecError, TrainingError
from unalike.inference.loaded_model import require_model_file
from unalike.inference.model_files import CHECKPOINTS, PRETRAINED, is_pretrained
from unalike.model.backbones import PretrainedConfig, Trunk
from unalike.model.checkpoint import write_checkpoint
from unalike.model.embedder import Embedder, build_embedder
from unalike.model.pretrained import best_available_trunk
from unalike.progress import say
from unalike.runs.filenames import BEST_CHECKPOINT, FINE_TUNING_FOLDER
from unalike.runs.subrun import Subrun
from unalike.sanitize import redact_all
from unalike.spec import load_spec, settle
from unalike.training.automatic.fine_tuning import settle_initial_head, settle_plan
from unalike.training.automatic.starting_weights import starting_spec
from unalike.training.automatic.throughput import OVERHEAD, TUNING_PRESETS, TuningPlan, plan_tuning
from unalike.training.distillation.loss import DistillationLoss
from unalike.training.heads.discriminant import FittedHead
from unalike.training.heads.interpolation import attach_head, spec_with_head
from unalike.training.heads.warm_start import load_scaled_head
from unalike.training.losses import Criterion
from unalike.training.recipe import settle_precision, settle_training
from unalike.training.setup import checkpoint_facts
from unalike.training.trainer import TrainingResult, train_embedder

if TYPE_CHECKING:
    from collections.abc import Callable

    from unalike.runs.run import Run
    from unalike.spec import Experiment
    from unalike.spec.distill import Distill

# Epochs at most, and epochs into which a time is divided that does not suffice for so many of all images.
MAX_EPOCHS, MIN_EPOCHS = 150, 6
MIN_STEPS = 20  # of fewer steps nothing is learned
EPOCH_MARGIN = 0.05  # by how much later epochs may be slower than the one that was timed
LAST_CHECKPOINT_ALONE = 1_000_000  # a checkpoint interval: nothing goes on from those in between


def student_spec(section: Distill) -> Experiment:
    """Return the spec of the student's training, with the trunk that ``distill.student`` names.

    Raises:
        SpecError: the student is neither ``pretrained:NAME`` nor a checkpoint.
        ModelError: the checkpoint is missing.
        WeightsError: it cannot be read.
    """
    values: dict[str, Any] = {
        "dataset.train_dataset": section.source, "dataset.max_unreadable": section.max_unreadable,
        "train.recipe": "unalike", "train.seed": section.seed, "automl_policy": "off",
    }  # fmt: skip
    if section.workers is not None:
        values["dataset.workers"] = section.workers
    student = section.student
    if is_pretrained(student):
        name = student.partition(":")[2] or best_available_trunk()
        return load_spec("train", None, {**values, "model.backbone": name, "model.pretrained": "true"})
    if not Path(student).suffix and not Path(student).exists():
        raise SpecError(f"distill.student is {student!r}", expected=f"{PRETRAINED}:NAME or a checkpoint (.pth)",
                        remedy=f"for a pretrained trunk: --student {PRETRAINED}:{student}")  # fmt: skip
    path = require_model_file(student)
    if path.suffix not in CHECKPOINTS:
        raise SpecError(f"distill.student is {path}, which cannot be trained", expected=f"a checkpoint ({', '.join(CHECKPOINTS)})",
                        remedy="name the checkpoint that it was exported from")  # fmt: skip
    return starting_spec(load_spec("train", None, {**values, "model.pretrained_model_path": str(path)}))


def student_view(spec: Experiment) -> View:
    """Return the student's evaluation view."""
    return replace(View.from_spec(spec), height=spec.model.input_height, width=spec.model.input_width)


def as_instances(images: ImageSet) -> ImageSet:
    """Return the images with a class for each one: a batch then tells which image, and so which target, each of its rows is."""
    names = tuple(f"{number:09d}" for number in range(len(images)))
    return ImageSet(images.paths, np.arange(len(images)), names, source=images.source)


def tune(
    spec: Experiment, run: Run, images: ImageSet, targets_ND: np.ndarray, head: FittedHead, *,
    seconds_left: Callable[[], float], inference_rate: float,
) -> TrainingResult | None:  # fmt: skip
    """Train the student in the folder ``fine_tuning`` of the run to give the teachers' vectors of augmented views.

    Args:
        spec: the student's spec; it is copied.
        run: the run.
        images: the images to learn from.
        targets_ND: the teachers' vector of each, of length 1.
        head: the head to start from.
        seconds_left: returns the seconds that are left for it.
        inference_rate: images per second that the trunk's engine embeds.

    Returns:
        The result; None where the time is too short, or training failed.
    """
    tuning_spec = _plan_spec(spec, images, head, seconds_left(), inference_rate)
    if tuning_spec is None:
        say("the time that is left is too short to train the student; more --minutes would allow it")
        return None
    train = tuning_spec.train
    say(f"training the student: {train.num_epochs} epochs of {train.epoch_images or len(images)} images")

    def initialize(embedder: Embedder, criterion: Criterion) -> None:
        load_scaled_head(embedder, head)

    try:
        return train_embedder(
            tuning_spec, Subrun(run, run.dir / FINE_TUNING_FOLDER), initialize=initialize, finish=False,
            sets=TrainingSets(as_instances(images), None, None, "left to the distillation", False),
            loss=DistillationLoss(torch.from_numpy(targets_ND)), choose_epochs=partial(_epochs_that_fit, seconds_left),
            seconds_left=seconds_left,
        )  # fmt: skip
    except TrainingError as error:
        say(f"training the student failed and is left out: {error}")
        return None


def _epochs_that_fit(seconds_left: Callable[[], float], epochs_done: int, seconds: float) -> int:
    """Plan the number of epochs again, from the ``seconds`` that the last one took."""
    further = int(seconds_left() / ((1 + EPOCH_MARGIN) * max(seconds, 1e-3)))
    return min(MAX_EPOCHS, epochs_done + max(0, further))


def _plan_spec(
    spec: Experiment, images: ImageSet, head: FittedHead, seconds: float, inference_rate: float
) -> Experiment | None:
    """Make the spec of the training: the initial head, and what fits into the time; None where that is too little."""
    draft = spec.model_copy(deep=True)
    settle_initial_head(draft, head)
    settle(draft, "dataset.num_instance", 1, "each image is the only one of its class")
    settle(
        draft, "train.loss", {"name": DistillationLoss.__name__, "parameters": {}}, "the teachers' vectors are learned"
    )
    draft.mark_set(["dataset.num_instance", "train.loss"])  # the recipe would settle them otherwise
    draft.set_value("train.checkpoint_interval", LAST_CHECKPOINT_ALONE)
    settle_precision(draft)
    embedder = build_embedder(draft)
    settle_training(
        draft, facts=embedder.trunk.facts, stages=len(embedder.trunk.stages()), classes=len(images), images=len(images),
        cuda=torch.cuda.is_available() and draft.train.num_gpus > 0, quiet=True,
    )  # fmt: skip
    plan: TuningPlan | None = None
    for preset in TUNING_PRESETS:
        plan = plan_tuning(
            embedder, draft, preset, images=len(images), seconds=seconds, inference_rate=inference_rate,
            max_epochs=MAX_EPOCHS,
        )  # fmt: skip
        if plan.epochs >= preset.min_epochs:
            break
    assert plan is not None
    total = int(max(0.0, seconds) * plan.rate / (1 + OVERHEAD))
    if total < MIN_STEPS * draft.train.batch_size:
        return None
    if plan.epochs < MIN_EPOCHS:
        plan = replace(plan, epochs=MIN_EPOCHS, epoch_images=max(1, total // MIN_EPOCHS))
    settle_plan(draft, plan)
    return draft


@dataclass(frozen=True)
class Student:
    """A network that may be delivered.

    Attributes:
        name: what it is called in the record.
        trunk: its trunk.
        head: its head.
    """

    name: str
    trunk: Trunk
    head: FittedHead


def head_of(embedder: Embedder) -> FittedHead:
    """Return the head of a network, linear or rooted, as arrays."""
    linear = embedder.head.get_submodule("linear")
    assert isinstance(linear, nn.Linear)
    matrix_FD = linear.weight.detach().float().cpu().numpy().T.copy()
    bias_D = (
        np.zeros(matrix_FD.shape[1], np.float32) if linear.bias is None else linear.bias.detach().float().cpu().numpy()
    )
    return FittedHead(matrix_FD, -bias_D, embedder.head_kind == "rooted")


def save_student(
    student: Student, spec: Experiment, run: Run, facts: PretrainedConfig, classes: Sequence[str],
    teachers: Sequence[Mapping[str, Any]],
) -> tuple[Path, Experiment]:  # fmt: skip
    """Write the student's checkpoint into the run's folder, in place of an earlier one; return it and its spec.

    Args:
        student: the network.
        spec: its resolved spec; it is copied.
        run: the run.
        facts: mean, std, license and source of the trunk's pretrained weights.
        classes: names of the classes that the teachers were trained on, and of those of the images.
        teachers: file, network's key and trunk of each, kept in the checkpoint.
    """
    embedder = attach_head(student.trunk, student.head)
    own_spec = spec_with_head(spec, embedder)
    teacher_facts = [{key: teacher[key] for key in ("file", "network", "trunk")} for teacher in teachers]
    facts_of_student = checkpoint_facts(own_spec, facts, f"distilled: {student.name}") | {"teachers": teacher_facts}
    payload = {
        "model": {name: tensor.cpu() for name, tensor in embedder.state_dict().items()},
        "spec": redact_all(own_spec.to_dict()), "classes": list(classes), "epoch": 0, "step": 0, "metrics": {},
        "facts": facts_of_student,
    }  # fmt: skip
    return write_checkpoint(run.dir / BEST_CHECKPOINT, payload), own_spec
