"""Fine-tune the best trunk that can be fine-tuned in the rest of the time budget."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet
from unalike.errors import TrainingError
from unalike.model.embedder import Embedder, build_embedder
from unalike.progress import say
from unalike.runs.filenames import EXPERIMENT_FILE, FINE_TUNING_FOLDER, LATEST_CHECKPOINT
from unalike.runs.subrun import Subrun
from unalike.spec import load_spec, settle
from unalike.training.automatic.budget import TimeBudget
from unalike.training.automatic.throughput import MAX_EPOCHS, MIN_EPOCHS, TUNING_PRESETS, TuningPlan, plan_tuning
from unalike.training.automatic.trunks import TrunkResult
from unalike.training.heads.config import HeadConfig
from unalike.training.recipe import settle_precision, settle_training
from unalike.training.trainer import TrainingResult, train_embedder

if TYPE_CHECKING:
    import numpy as np

    from unalike.runs.run import Run
    from unalike.spec import Experiment

TOO_SHORT = "stage two: the time that is left is too short to fine-tune; more --minutes would allow it"
# Share of the budget kept for writing results, and how often all images are embedded after fine-tuning, to evaluate it.
RESERVED_SHARE, EVALUATION_PASSES = 0.03, 2.5
EPOCH_MARGIN = 0.05  # by how much later epochs may be slower than the one that was timed
# Images per second of training steps, relative to the engine's rate, before they are measured
# (docs/experiments/training.md).
STEP_RATE_SHARE = 0.45


def can_fine_tune(spec: Experiment, trunks: Sequence[TrunkResult], images: int, budget: TimeBudget) -> bool:
    """Return whether the fastest of the trunks could be fine-tuned for ``MIN_EPOCHS`` in the time that is left.

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
    return (1 - RESERVED_SHARE) * budget.seconds - budget.spent > MIN_EPOCHS * epoch


def fine_tune(
    spec: Experiment, run: Run, images: ImageSet, fit_N: np.ndarray, trunks: Sequence[TrunkResult],
    config: HeadConfig | None, budget: TimeBudget,
) -> tuple[TrainingResult, Experiment] | None:  # fmt: skip
    """Fine-tune a trunk in the folder ``fine_tuning`` of the run.

    Args:
        spec: resolved spec of the run; it is copied.
        run: the run. If it is resumed, fine-tuning goes on by the spec of its own folder.
        images: all images.
        fit_N: rows of the images to train on.
        trunks: the trunks to choose from, best first.
        config: the head to start from, unless the user set ``model.head``.
        budget: the time budget.

    Returns:
        The result and its resolved spec; None where the time is too short or training failed.
    """
    train = images.select(fit_N).drop_empty_classes()
    subrun = Subrun(run, run.dir / FINE_TUNING_FOLDER)
    earlier_spec = subrun.dir / EXPERIMENT_FILE
    resume = run.resuming and earlier_spec.exists() and any(subrun.dir.glob(LATEST_CHECKPOINT))
    if resume:  # the earlier plan holds, except for epochs that are planned again after the first ones
        tuned = load_spec("train", str(earlier_spec))
    else:
        planned = _plan_spec(spec, train, trunks, len(images), budget)
        if planned is None:
            say(TOO_SHORT)
            return None
        tuned = planned
        if config is not None and not spec.is_set("model.head"):
            settle(tuned, "train.warm_start", True, config.name)
            config.settle(tuned, mirrored=False)  # unless the user set it: mirror images double the cost
    say(f"stage two: fine-tuning {tuned.model.backbone}, {tuned.train.num_epochs} epochs of {len(train)} images")
    replan = partial(_epochs_that_fit, budget, trunks, len(images), tuned)
    try:
        result = train_embedder(
            tuned, subrun, resume=resume, sets=TrainingSets(train, None, None, "left to automatic training", False),
            finish=False,  # the pipeline interpolates weights and fits the head itself, and evaluates both
            choose_epochs=None if spec.is_set("train.num_epochs") else replan,
        )  # fmt: skip
    except TrainingError as error:
        say(f"fine-tuning failed and is left out: {error}")
        return None
    assert result.experiment is not None
    return result, result.experiment.as_set_in(
        spec
    )  # planned values, or those of an earlier session's file, are not the user's


def _reserved_seconds(budget: TimeBudget, trunk: TrunkResult, images: int, spec: Experiment) -> float:
    """Seconds to keep for evaluation and writing after fine-tuning."""
    passes = EVALUATION_PASSES + spec.train.finish.mirrored
    return RESERVED_SHARE * budget.seconds + passes * images / trunk.features.rate


def _epochs_that_fit(
    budget: TimeBudget, trunks: Sequence[TrunkResult], images: int, spec: Experiment, epochs_done: int, seconds: float
) -> int:
    """Plan the number of epochs again after the first ones, from the ``seconds`` that the last one took."""
    trunk = next((t for t in trunks if t.features.backbone == spec.model.backbone), trunks[0])
    left = budget.left - _reserved_seconds(budget, trunk, images, spec)
    return min(MAX_EPOCHS, max(2, epochs_done + int(left / ((1 + EPOCH_MARGIN) * max(seconds, 1e-3)))))


def _plan_spec(
    spec: Experiment, train: ImageSet, trunks: Sequence[TrunkResult], images: int, budget: TimeBudget
) -> Experiment | None:
    """Draft the spec of fine-tuning and fill in what fits into the time where the user left it open.

    The first preset of which enough epochs fit for any trunk is taken, with the best of these trunks. None where there is
    none.
    """
    drafts = [_draft_spec(spec, train, t) for t in trunks]
    if spec.is_set("train.num_epochs"):
        return drafts[0][0]
    for preset in TUNING_PRESETS:
        for (tuned, embedder), trunk in zip(drafts, trunks, strict=True):
            seconds = budget.left - _reserved_seconds(budget, trunk, images, tuned)
            plan = plan_tuning(
                embedder, tuned, preset, images=len(train), seconds=seconds, inference_rate=trunk.features.rate
            )
            if plan.epochs >= preset.min_epochs:
                settle_plan(tuned, plan)
                return tuned
    return None


def settle_plan(spec: Experiment, plan: TuningPlan) -> None:
    """Write a plan into the spec where the user left it open, and mark it as set, so that training keeps it.

    Args:
        spec: the spec of fine-tuning; it is changed.
        plan: epochs, frozen stages and size of the training crops.
    """
    reason = f"what fits into the time at {plan.rate:.0f} images/s"
    sides = dict(zip(("dataset.train_height", "dataset.train_width"), plan.size, strict=True))
    for path, value in {"train.num_epochs": plan.epochs, "train.frozen_stages": plan.frozen_stages, **sides}.items():
        settle(spec, path, value, reason)
        spec.mark_set([path])


def _draft_spec(spec: Experiment, train: ImageSet, trunk: TrunkResult) -> tuple[Experiment, Embedder]:
    """Make the spec of fine-tuning this trunk, except for what depends on the rate, and its network."""
    tuned = spec.model_copy(deep=True)
    settle(tuned, "model.backbone", trunk.features.backbone, "the best trunk that can be fine-tuned in the time")
    for side in ("height", "width"):
        settle(
            tuned,
            f"model.input_{side}",
            getattr(trunk.features.view, side),
            "the size at which its features were evaluated",
        )
    tuned.mark_set(["model.backbone"])  # training would settle the first of the installed trunks
    if not spec.is_set("train.recipe"):
        tuned.set_value("train.recipe", "unalike")
    settle_precision(tuned)
    embedder = build_embedder(tuned)
    facts, stages = embedder.trunk.facts, len(embedder.trunk.stages())
    cuda = torch.cuda.is_available() and spec.train.num_gpus > 0
    settle_training(
        tuned, facts=facts, stages=stages, classes=len(train.classes), images=len(train), cuda=cuda, quiet=True
    )
    # Candidates are compared afterwards, so one validation is enough.
    return tuned.with_values({"train.validation_interval": tuned.train.num_epochs, "automl_policy": "off"}), embedder
