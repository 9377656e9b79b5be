"""Fine-tune a trunk to tell discovered groups apart, and find the groups again halfway.

An image in no group is a class of its own, known by its augmented views (instance discrimination: Wu et al., 2018).
Shape letters: N images, F features, D dimensions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet
from unalike.data.preprocessing import Preprocessing
from unalike.errors import TrainingError
from unalike.model.checkpoint import load_embedder
from unalike.model.embedder import Embedder, build_embedder
from unalike.numerics.normalization import l2_normalize
from unalike.progress import say
from unalike.runs.filenames import (
    DISCOVERED_GROUPS_FILE,
    EXPERIMENT_FILE,
    GROUP_TUNING_SPEC_FILE,
    LATEST_CHECKPOINT,
    LEARNED_VECTORS_FILE,
    fine_tuning_folder,
)
from unalike.runs.stage import load_or_compute
from unalike.runs.subrun import Subrun
from unalike.spec import load_spec
from unalike.storage.atomic import write_text
from unalike.training.automatic.fine_tuning import epochs_that_fit, settle_initial_head, settle_plan
from unalike.training.automatic.group_holdout import GroupHoldout, UnlabeledCandidate, embed_rows, roots_to_try
from unalike.training.automatic.groups import find_groups, label_by_group
from unalike.training.automatic.throughput import TUNING_PRESETS, plan_tuning
from unalike.training.heads.config import frozen_head_kind, requested_dim
from unalike.training.heads.discriminant import FittedHead
from unalike.training.heads.features import TrunkFeatures
from unalike.training.heads.unsupervised import fit_unlabeled_head
from unalike.training.heads.warm_start import start_from_head
from unalike.training.losses import initialize_proxies
from unalike.training.recipe import settle_precision, settle_training
from unalike.training.time_budget import TimeBudget
from unalike.training.trainer import Initializer, TrainingResult, train_embedder

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

FINE_TUNED = "fine-tuned on discovered groups"  # name of the candidate in unlabelled.json
RESERVED_SHARE = 0.1  # of the time budget, for evaluation and writing
MIN_EPOCHS_FOR_REGROUPING = 6


def fine_tune_on_groups(
    spec: Experiment, run: Run, holdout: GroupHoldout, best: UnlabeledCandidate, features: TrunkFeatures,
    budget: TimeBudget, seed: int,
) -> tuple[TrainingResult, Experiment] | None:  # fmt: skip
    """Fine-tune the trunk on the groups that are not held out, starting from a whitening head.

    With enough epochs, training is done in two rounds, and the groups of the second one are found in the vectors of the
    network so far.

    Args:
        spec: resolved spec of the run; it is copied.
        run: the run. If it is resumed, the earlier plan is kept.
        holdout: what is held out, and all images.
        best: the best head; ``sqrt`` applies to the new head too.
        features: the frozen features of the images.
        budget: the time budget.
        seed: seed of heads and groups.

    Returns:
        The result of the last round and its spec; None where nothing is held out, the time is too short, or training
        failed.
    """
    if not holdout.splits:
        return None
    train = holdout.images.select(holdout.fit_N).drop_empty_classes()
    embedding_seconds = len(train) / features.rate + features.setup_seconds
    reserved_seconds = max(RESERVED_SHARE * budget.seconds, embedding_seconds)
    seconds = budget.left - reserved_seconds - embedding_seconds
    fit_NF = features.vectors_NF[holdout.fit_N]
    roots = roots_to_try(spec)
    sqrt = bool(best.sqrt) if len(roots) > 1 else roots[0]
    head = fit_unlabeled_head(fit_NF, sqrt, seed=seed, dim=requested_dim(spec), kind=frozen_head_kind(spec))
    tuning_spec: Experiment | None
    if run.resuming and (run.dir / GROUP_TUNING_SPEC_FILE).is_file():
        tuning_spec = load_spec("train", str(run.dir / GROUP_TUNING_SPEC_FILE))
    else:
        tuning_spec = _plan_spec(spec, train, features, seconds, head)
        if tuning_spec is not None:
            write_text(run.dir / GROUP_TUNING_SPEC_FILE, tuning_spec.to_yaml(redacted=True))
    if tuning_spec is None:
        say("the time that is left is too short to fine-tune; more --minutes would allow it")
        return None
    epochs = tuning_spec.train.num_epochs
    rounds = [epochs // 2, epochs - epochs // 2] if epochs >= MIN_EPOCHS_FOR_REGROUPING else [epochs]
    initialize: Initializer = start_from_head(head, fit_NF, train.labels_N)
    result: TrainingResult | None = None
    for number, count in enumerate(rounds, start=1):
        if result is not None:
            train, initialize = _regroup(train, result.checkpoint, spec, run, seed)
        say(f"fine-tuning, round {number} of {len(rounds)}: {count} epochs of {len(train)} images")
        share = 1.0 if number == len(rounds) else count / epochs
        following = 0.0 if number == len(rounds) else embedding_seconds  # groups are found again
        end = budget.spent + share * (budget.left - reserved_seconds - following)
        has_limit = spec.automl.minutes is not None or not spec.is_set("train.num_epochs")
        seconds_left = partial(_seconds_until, budget, end) if has_limit else None
        result = _train_round(
            tuning_spec, count, run, run.dir / fine_tuning_folder(number), train, initialize, seconds_left
        )
        if result is None:
            return None
    assert result is not None
    return result, tuning_spec


def _seconds_until(budget: TimeBudget, seconds: float) -> float:
    return seconds - budget.spent


def _train_round(
    spec: Experiment, epochs: int, run: Run, folder: Path, train: ImageSet, initialize: Initializer,
    seconds_left: Callable[[], float] | None,
) -> TrainingResult | None:  # fmt: skip
    """Train one round in a folder of its own; None where training failed."""
    subrun = Subrun(run, folder)
    earlier_spec = folder / EXPERIMENT_FILE
    resume = run.resuming and earlier_spec.exists() and any(folder.glob(LATEST_CHECKPOINT))
    if resume:  # with the earlier plan
        round_spec = load_spec("train", str(earlier_spec))
    else:
        round_spec = spec.with_values({"train.num_epochs": epochs, "train.validation_interval": epochs})
    sets = TrainingSets(train, None, None, f"trained without labels: {FINE_TUNED}", False)
    try:
        return train_embedder(
            round_spec, subrun, resume=resume, sets=sets, initialize=initialize, finish=False,
            choose_epochs=None if seconds_left is None else partial(_fewer_epochs, seconds_left, epochs),
            seconds_left=seconds_left,
        )  # fmt: skip
    except TrainingError as error:
        say(f"fine-tuning failed and is left out: {error}")
        return None


def _fewer_epochs(seconds_left: Callable[[], float], epochs: int, epochs_done: int, seconds: float) -> int:
    """Plan the number of epochs again: as planned, or as many as fit."""
    return min(epochs, epochs_that_fit(seconds_left, epochs_done, seconds))


def _plan_spec(
    spec: Experiment, train: ImageSet, features: TrunkFeatures, seconds: float, head: FittedHead
) -> Experiment | None:
    """Make the spec of fine-tuning: the initial head, and what fits into the time where the user left it open.

    None where too few epochs fit.
    """
    tuning_spec = spec.model_copy(deep=True)
    settle_initial_head(tuning_spec, head)
    if not spec.is_set("train.recipe"):
        tuning_spec.set_value("train.recipe", "unalike")
    settle_precision(tuning_spec)
    embedder = build_embedder(tuning_spec)
    cuda = torch.cuda.is_available() and spec.train.num_gpus > 0
    settle_training(tuning_spec, facts=embedder.trunk.facts, stages=len(embedder.trunk.stages()),
                    classes=len(train.classes), images=len(train), cuda=cuda, quiet=True)  # fmt: skip
    tuning_spec.set_value("automl_policy", "off")
    if spec.is_set("train.num_epochs"):
        return tuning_spec
    for preset in TUNING_PRESETS:
        plan = plan_tuning(
            embedder, tuning_spec, preset, images=len(train), seconds=seconds, inference_rate=features.rate
        )
        if plan.epochs >= preset.min_epochs:
            settle_plan(tuning_spec, plan)
            return tuning_spec
    return None


def _regroup(train: ImageSet, checkpoint: Path, spec: Experiment, run: Run, seed: int) -> tuple[ImageSet, Initializer]:
    """Find groups again in the network's vectors.

    Returns:
        The images with the new groups as classes (the old ones if fewer than two are found), and the function that
        continues training from the network's weights.
    """
    embedder, meta = load_embedder(checkpoint)
    weights = {name: tensor.clone() for name, tensor in embedder.state_dict().items()}
    preprocessing = Preprocessing.from_facts(meta["facts"])
    rows = np.arange(len(train))

    def embed() -> dict[str, np.ndarray]:
        return {"vectors": embed_rows(embedder, preprocessing, train, rows, preprocessing.view, spec)}

    folder = checkpoint.parent
    vectors_ND = load_or_compute(run, folder / LEARNED_VECTORS_FILE, "learned vectors", checkpoint.read_bytes(), embed)[
        "vectors"
    ]
    grouping = find_groups(run, folder / DISCOVERED_GROUPS_FILE, "groups of the second round", vectors_ND, seed)
    if grouping.count >= 2:
        say(f"groups found again: {grouping.count}, {int((grouping.group_N < 0).sum())} images in none")
        train = label_by_group(train, grouping)
    unit_ND = l2_normalize(vectors_ND)
    means_CD = l2_normalize(
        np.stack([unit_ND[train.labels_N == label].mean(axis=0) for label in np.unique(train.labels_N)])
    )

    def initialize(network: Embedder, criterion: nn.Module) -> None:
        network.load_state_dict(weights)
        initialize_proxies(criterion, means_CD)

    return train, initialize
