"""Fine-tune the best trunk that can be fine-tuned in the rest of the time budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet
from unalike.errors import TrainingError
from unalike.model.embedder import Embedder, build_embedder
from unalike.progress import say
from unalike.runs.filenames import EXPERIMENT_FILE, FINE_TUNING_FOLDER, LATEST_CHECKPOINT
from unalike.runs.subrun import Subrun
from unalike.spec import load_spec, settle
from unalike.training.automatic.larger_inputs import larger_views, planned_seconds
from unalike.training.automatic.sampling import MIN_TUNING_IMAGES, STEP_RATE_SHARE, TUNING_PART, allows_sampled_tuning
from unalike.training.automatic.throughput import (
    MAX_EPOCHS,
    MIN_EPOCHS,
    OVERHEAD,
    TUNING_PRESETS,
    TuningPlan,
    plan_tuning,
)
from unalike.training.automatic.trunks import TrunkResult
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import FittedHead
from unalike.training.heads.warm_start import start_from_head
from unalike.training.recipe import settle_precision, settle_training
from unalike.training.time_budget import TimeBudget
from unalike.training.trainer import Initializer, TrainingResult, train_embedder

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

TOO_SHORT = "stage two: the time that is left is too short to fine-tune; more --minutes would allow it"
TOO_FEW = (
    "stage two: nothing is fine-tuned, since too few images would be left if some were held out for its evaluation"
)
# Share of the budget kept for writing results, and how often all images are embedded after fine-tuning, to evaluate it.
RESERVED_SHARE, EVALUATION_PASSES = 0.03, 2.5
EPOCH_MARGIN = 0.05  # by how much later epochs may be slower than the one that was timed
MAX_PART_EPOCHS = 10  # of a set of which an epoch draws a part only


def can_fine_tune(spec: Experiment, trunks: Sequence[TrunkResult], images: int, budget: TimeBudget) -> bool:
    """Return whether the fastest of the trunks could be fine-tuned in the time that is left.

    That is for ``MIN_EPOCHS`` of all images, or on so many images that it is worth its time although an epoch draws a part.

    True in any case where ``train.num_epochs`` is set, by the user or by an earlier session of a resumed run.

    Args:
        spec: resolved spec of the run.
        trunks: the trunks with their rates.
        images: number of images.
        budget: the time budget.
    """
    if spec.is_set("train.num_epochs"):
        return True
    rate = max(t.features.rate for t in trunks)
    epoch = images / rate / STEP_RATE_SHARE if spec.train.num_gpus == 0 or not torch.cuda.is_available() else 0.0
    if budget.until(1 - RESERVED_SHARE) > MIN_EPOCHS * epoch:
        return True
    return allows_sampled_tuning(rate, TUNING_PART * budget.until(1.0))


def fine_tune(
    spec: Experiment, run: Run, train: ImageSet, trunks: Sequence[TrunkResult], config: HeadConfig | None,
    budget: TimeBudget, *, embedded: int, tail_seconds: float = 0.0, start: InitialHead | None = None,
) -> tuple[TrainingResult, Experiment] | None:  # fmt: skip
    """Fine-tune a trunk in the folder ``fine_tuning`` of the run.

    Args:
        spec: resolved spec of the run; it is copied.
        run: the run. If it is resumed, fine-tuning goes on by the spec of its own folder.
        train: the images to train on.
        trunks: the trunks to choose from, best first.
        config: the head to start from, unless the user set ``model.head``.
        budget: the time budget.
        embedded: number of images that the evaluation afterwards embeds.
        tail_seconds: time that fitting and evaluating heads and writing took before, and will take again.
        start: the head to start from, fitted to a sample; None to fit ``config`` to all images to train on.

    Returns:
        The result and its resolved spec; None where the time is too short or training failed.
    """
    subrun = Subrun(run, run.dir / FINE_TUNING_FOLDER)
    earlier_spec = subrun.dir / EXPERIMENT_FILE
    resume = run.resuming and earlier_spec.exists() and any(subrun.dir.glob(LATEST_CHECKPOINT))
    if resume:  # the earlier plan holds, except for epochs that are planned again after the first ones
        setup = load_spec("train", str(earlier_spec))
    else:
        plan = _plan_spec(spec, train, trunks, embedded, tail_seconds, budget)
        if plan is None:
            say(TOO_SHORT)
            return None
        setup = plan
        if config is not None and not spec.is_set("model.head"):
            config.settle(setup, mirrored=False)  # unless the user set it: mirror images double the cost
            if start is None:
                settle(setup, "train.warm_start", True, config.name)
            else:
                settle_initial_head(setup, start.head)
    images_text = f"{setup.train.epoch_images} of " if setup.train.epoch_images else ""
    say(
        f"stage two: fine-tuning {setup.model.backbone}, {setup.train.num_epochs} epochs of {images_text}{len(train)} images"
    )

    def seconds_left() -> float:
        return budget.left - _reserved_seconds(budget, _trunk_of(trunks, setup), embedded, tail_seconds, setup)

    has_limit = spec.automl.minutes is not None or not spec.is_set("train.num_epochs")
    try:
        result = train_embedder(
            setup, subrun, resume=resume, sets=TrainingSets(train, None, None, "left to automatic training", False),
            finish=False,  # the pipeline interpolates weights and fits the head itself, and evaluates both
            initialize=start.initializer(train) if start is not None and not resume else None,
            choose_epochs=None if spec.is_set("train.num_epochs") else partial(epochs_that_fit, seconds_left),
            seconds_left=seconds_left if has_limit else None,
        )  # fmt: skip
    except TrainingError as error:
        say(f"fine-tuning failed and is left out: {error}")
        return None
    assert result.experiment is not None
    return result, result.experiment.as_set_in(
        spec
    )  # planned values, or those of an earlier session's file, are not the user's


@dataclass(frozen=True)
class InitialHead:
    """A head that was fitted to a sample of the images.

    Attributes:
        head: the head.
        features_NF: the features that it was fitted to.
        names: the class of each of their images.
    """

    head: FittedHead
    features_NF: np.ndarray
    names: Sequence[str]

    def initializer(self, train: ImageSet) -> Initializer:
        """Return the function that sets network and criterion to the head, for the classes of ``train``."""
        index = {name: i for i, name in enumerate(train.classes)}
        labels_N = np.array([index.get(name, -1) for name in self.names], np.int64)
        known_N = labels_N >= 0
        return start_from_head(self.head, self.features_NF[known_N], labels_N[known_N], classes=len(train.classes))


def settle_initial_head(spec: Experiment, head: FittedHead) -> None:
    """Settle head and width, and that no epoch trains the head alone, as training begins with a fitted one."""
    settle(spec, "model.feat_dim", head.matrix_FD.shape[1], "fine-tuning begins with the fitted head")
    spec.set_value("model.head", head.kind)
    settle(spec, "train.head_epochs", 0, "fine-tuning begins with the fitted head")
    spec.mark_set(["train.head_epochs"])  # the recipe would settle it otherwise


def _trunk_of(trunks: Sequence[TrunkResult], spec: Experiment) -> TrunkResult:
    return next((t for t in trunks if t.features.backbone == spec.model.backbone), trunks[0])


def _reserved_seconds(
    budget: TimeBudget, trunk: TrunkResult, images: int, tail_seconds: float, spec: Experiment
) -> float:
    """Seconds to keep for evaluation and writing after fine-tuning.

    Two networks are embedded with and evaluated, one of them on larger images too.
    """
    mirrored, features = int(spec.train.finish.mirrored), trunk.features
    pass_seconds = images / features.rate
    embedding = (EVALUATION_PASSES + mirrored) * pass_seconds + 2 * features.setup_seconds
    larger = larger_views(features.view, features.backbone, spec)
    embedding += planned_seconds(features.view, larger, (1 + mirrored) * pass_seconds, budget)
    return RESERVED_SHARE * budget.seconds + embedding + tail_seconds


def epochs_that_fit(seconds_left: Callable[[], float], epochs_done: int, seconds: float) -> int:
    """Plan the number of epochs again, from the ``seconds`` that the last one took."""
    return min(MAX_EPOCHS, max(2, epochs_done + int(seconds_left() / ((1 + EPOCH_MARGIN) * max(seconds, 1e-3)))))


def _plan_spec(
    spec: Experiment,
    train: ImageSet,
    trunks: Sequence[TrunkResult],
    images: int,
    tail_seconds: float,
    budget: TimeBudget,
) -> Experiment | None:
    """Draft the spec of fine-tuning and fill in what fits into the time where the user left it open.

    The first preset of which enough epochs fit for any trunk is taken, with the best of these trunks. Where there is none, the
    first with which epochs that draw a part of the images are worth their time. None where there is none of these either.
    """
    drafts = [_draft_spec(spec, train, t) for t in trunks]
    if spec.is_set("train.num_epochs"):
        return drafts[0][0]
    drawing_a_part: list[tuple[Experiment, TuningPlan]] = []
    for preset in TUNING_PRESETS:
        for (draft, embedder), trunk in zip(drafts, trunks, strict=True):
            seconds = budget.left - _reserved_seconds(budget, trunk, images, tail_seconds, draft)
            plan = plan_tuning(
                embedder, draft, preset, images=len(train), seconds=seconds, inference_rate=trunk.features.rate
            )
            if plan.epochs >= preset.min_epochs:
                settle_plan(draft, plan)
                return draft
            total = int(seconds * plan.rate / (1 + OVERHEAD))
            if total >= MIN_TUNING_IMAGES and len(train) > total // MAX_PART_EPOCHS:
                part = replace(plan, epochs=MAX_PART_EPOCHS, epoch_images=total // MAX_PART_EPOCHS)
                drawing_a_part.append((draft, part))
    for draft, plan in drawing_a_part[:1]:
        settle_plan(draft, plan)
        return draft
    return None


def settle_plan(spec: Experiment, plan: TuningPlan) -> None:
    """Write a plan into the spec where the user left it open, and mark it as set, so that training keeps it.

    Args:
        spec: the spec of fine-tuning; it is changed.
        plan: epochs, frozen stages and size of the training crops.
    """
    reason = f"what fits into the time at {plan.rate:.0f} images/s"
    sides = dict(zip(("dataset.train_height", "dataset.train_width"), plan.size, strict=True))
    values = {"train.num_epochs": plan.epochs, "train.frozen_stages": plan.frozen_stages, **sides}
    if plan.epoch_images is not None:
        values["train.epoch_images"] = plan.epoch_images
    for path, value in values.items():
        settle(spec, path, value, reason)
        spec.mark_set([path])


def _draft_spec(spec: Experiment, train: ImageSet, trunk: TrunkResult) -> tuple[Experiment, Embedder]:
    """Make the spec of fine-tuning this trunk, except for what depends on the rate, and its network."""
    draft = spec.model_copy(deep=True)
    settle(draft, "model.backbone", trunk.features.backbone, "the best trunk that can be fine-tuned in the time")
    for side in ("height", "width"):
        settle(
            draft,
            f"model.input_{side}",
            getattr(trunk.features.view, side),
            "the size at which its features were evaluated",
        )
    draft.mark_set(["model.backbone"])  # training would settle the first of the installed trunks
    if not spec.is_set("train.recipe"):
        draft.set_value("train.recipe", "unalike")
    settle_precision(draft)
    embedder = build_embedder(draft)
    facts, stages = embedder.trunk.facts, len(embedder.trunk.stages())
    cuda = torch.cuda.is_available() and spec.train.num_gpus > 0
    settle_training(
        draft, facts=facts, stages=stages, classes=len(train.classes), images=len(train), cuda=cuda, quiet=True
    )
    # Candidates are compared afterwards, so one validation is enough.
    return draft.with_values({"train.validation_interval": draft.train.num_epochs, "automl_policy": "off"}), embedder
