"""Training without labels: on discovered groups of images, chosen by groups that were held out.

Start at ``train_unlabeled``. Groups are found in the frozen trunk's features; a head is fitted to the differences between
nearest neighbors; then the trunk is fine-tuned to tell the groups apart. The delivered model is the best one by
``group_holdout``. Names of files and folders have no effect: images are ordered by their content.
Shape letters: N images, F features, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.from_spec import TrainingSets, load_evaluation_sets, load_unlabeled_images
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.discovery.clustering import ImageGroups
from unalike.errors import DataError
from unalike.model.checkpoint import write_checkpoint
from unalike.model.frozen_trunk import build_starting_trunk
from unalike.progress import say
from unalike.runs.filenames import (
    AUGMENTED_QUERIES_FILE,
    BEST_CHECKPOINT,
    DISCOVERED_GROUPS_FILE,
    GROUP_TUNING_SPEC_FILE,
    NOTICES_FILE,
    SAMPLE_FILE,
    UNLABELED_FILE,
)
from unalike.runs.stage import load_stage, save_stage
from unalike.spec import settle
from unalike.storage.atomic import copy_file, write_text
from unalike.training.automatic.delivery import save_given
from unalike.training.automatic.group_holdout import GroupHoldout, UnlabeledCandidate
from unalike.training.automatic.group_tuning import FINE_TUNED, fine_tune_on_groups
from unalike.training.automatic.groups import find_groups, groupable_images, label_by_group, order_by_content
from unalike.training.automatic.sampling import (
    MIN_IMAGES,
    READING_SHARE,
    UNLABELED_SHARES,
    EmbeddingLimit,
    ImageSample,
    reserve_evaluation,
)
from unalike.training.automatic.starting_weights import describe_weights, load_given_network, starting_spec
from unalike.training.heads.config import frozen_head_kind, requested_dim
from unalike.training.heads.features import TrunkFeatures, compute_features
from unalike.training.heads.interpolation import attach_head, spec_with_head
from unalike.training.heads.unsupervised import fit_unlabeled_head
from unalike.training.history import History
from unalike.training.recipe import settle_backbone, settle_decoding, settle_normalization
from unalike.training.setup import checkpoint_facts
from unalike.training.time_budget import TimeBudget
from unalike.training.trainer import TrainingResult

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

# How often an image is embedded, its augmented view as a query included; share of the time that is left for finding groups.
QUERY_PASSES, GROUPING_SHARE = 1.2, 0.25
# Meaning of the metrics, as written to unlabelled.json.
MEANING = (
    "share of augmented images whose nearest image from another part of the data is of the same discovered group, among "
    "groups that nothing was fitted to. The groups come from the frozen trunk's features, so this is no accuracy on "
    "classes of yours: it only ranks the candidates"
)


@dataclass(frozen=True)
class UnlabeledResult:
    """The outcome of training without labels.

    Attributes:
        checkpoint: the delivered model.
        spec: its resolved spec.
        training: the result of the training, for the model card.
        chosen: name of the delivered candidate.
        figures: its metrics by name, with those of the frozen trunk.
        record: the content of ``unlabelled.json``.
    """

    checkpoint: Path
    spec: Experiment
    training: TrainingResult
    chosen: str
    figures: Mapping[str, float]
    record: Mapping[str, Any]


def train_unlabeled(spec: Experiment, run: Run, *, budget: TimeBudget) -> UnlabeledResult:
    """Train on images without labels for as long as the time budget allows.

    Args:
        spec: resolved spec; the trunk is settled in it.
        run: gets checkpoint, ``experiment.yaml`` and ``unlabelled.json``.
        budget: the time budget.

    Raises:
        DataError: fewer than two images.
        UnalikeError: the errors of reading data and of training.
    """
    say(f"training without labels: {budget.seconds / 60:g} minutes (--minutes N changes that)")
    seed, notices = max(spec.train.seed, 0), Notices()
    # Registered before they are written: --overwrite must remove them after a run that was killed.
    run.own(*(run.dir / name for name in (DISCOVERED_GROUPS_FILE, AUGMENTED_QUERIES_FILE, GROUP_TUNING_SPEC_FILE)))
    own, spec = spec, starting_spec(spec)
    every = load_unlabeled_images(spec, notices)
    limit = EmbeddingLimit(budget, QUERY_PASSES, UNLABELED_SHARES)
    sample = _load_sample(run, every)
    images = order_by_content(every, limit.stop_digests) if sample is None else order_by_content(sample.images, None)
    if len(images) < 2:
        raise DataError(f"{len(images)} image to learn from", expected="at least two; some hundred to gain by it")
    settle_backbone(spec)
    settle_decoding(spec, images, stop=budget.stop_after(READING_SHARE, MIN_IMAGES))
    weights, start_network = describe_weights(own, ()), load_given_network(own, spec)
    view = replace(View.from_spec(spec), height=spec.model.input_height, width=spec.model.input_width)
    has_limit = sample is None and len(images) > MIN_IMAGES
    features = compute_features(spec.model.backbone, images, view, notices, spec, limit=limit if has_limit else None)
    validation = spec.dataset.val_dataset
    if validation is not None and (validation.reference or validation.query):
        reserve_evaluation(budget, features, *load_evaluation_sets(spec, Notices()))
    if has_limit:
        count = groupable_images(features.vectors_NF, GROUPING_SHARE * budget.left)
        limit.stopped = limit.stopped or count < len(features.vectors_NF)
        features = replace(features, vectors_NF=features.vectors_NF[:count], kept_N=features.kept_N[:count])
    images = images.select(features.kept_N)
    if sample is None:
        complete = ImageSample(every, np.arange(len(every)))
        sample = _settle_sample(run, every, images, budget) if limit.stopped else complete
    grouping = find_groups(run, run.dir / DISCOVERED_GROUPS_FILE, "groups", features.vectors_NF, seed)
    say(f"{len(images)} images: {grouping.count} discovered groups, {int((grouping.group_N < 0).sum())} images in none")
    images = label_by_group(images, grouping)
    holdout = GroupHoldout.create(images, features, grouping, spec, run, seed)
    candidates = holdout.evaluate_heads(seed)
    fitted = max(candidates, key=lambda c: c.score)
    candidates += holdout.evaluate_given(start_network)
    best = max(candidates, key=lambda c: (c.score, c.given is not None))
    checkpoint, experiment = _save_frozen(best, spec, run, images, features, seed)
    training = TrainingResult(
        checkpoint, {}, None, {}, History(), TrainingSets(images, None, None, "none", False), None, features.facts
    )
    tuning = fine_tune_on_groups(spec, run, holdout, fitted, features, budget, seed)
    if tuning is not None:
        candidates.append(holdout.evaluate_network(FINE_TUNED, tuning[0].checkpoint))
        best = max(candidates, key=lambda c: (c.score, c.given is not None))
        if best.name == FINE_TUNED:
            training, experiment = tuning
            checkpoint = run.dir / BEST_CHECKPOINT
            copy_file(training.checkpoint, checkpoint)
            run.write_experiment(experiment)
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    record = _build_record(spec, budget, candidates, best, holdout, grouping)
    record |= ({"weights": weights} if weights else {}) | sample.facts()
    write_text(run.dir / UNLABELED_FILE, json.dumps(record, indent=2) + "\n")
    run.own(run.dir / UNLABELED_FILE)
    _log_choice(candidates, best)
    return UnlabeledResult(checkpoint, experiment, replace(training, checkpoint=checkpoint), best.name,
                           _metrics_of(best, candidates[0]), record)  # fmt: skip


def _load_sample(run: Run, every: ImageSet) -> ImageSample | None:
    """Return the sample of the run that is resumed, or None."""
    if not (run.resuming and (run.dir / SAMPLE_FILE).is_file()):
        return None
    stage = load_stage(run, run.dir / SAMPLE_FILE, "sample of the images", every.fingerprint().encode())
    return None if stage is None else ImageSample(every, stage["rows"])


def _settle_sample(run: Run, every: ImageSet, images: ImageSet, budget: TimeBudget) -> ImageSample:
    """Print and keep which of the images are used, where the time does not suffice for all."""
    row_of = {path: row for row, path in enumerate(every.paths)}
    sample = ImageSample(every, np.array(sorted(row_of[path] for path in images.paths), np.int64))
    sample.say(budget)
    save_stage(run.dir / SAMPLE_FILE, every.fingerprint().encode(), {"rows": sample.row_N})
    run.own(run.dir / SAMPLE_FILE)
    return sample


def _save_frozen(
    best: UnlabeledCandidate, spec: Experiment, run: Run, images: ImageSet, features: TrunkFeatures, seed: int
) -> tuple[Path, Experiment]:
    """Save the frozen trunk with its head, if any, fitted to all images, or the user's network; return checkpoint and spec."""
    if best.given is not None:
        return save_given(best.given, run, images)
    head = fit_unlabeled_head(
        features.vectors_NF, best.sqrt, seed=seed, dim=requested_dim(spec), kind=frozen_head_kind(spec)
    )
    own_spec = spec.model_copy(deep=True)
    settle(own_spec, "model.feat_dim", head.matrix_FD.shape[1], best.name)
    settle(own_spec, "model.head", head.kind, best.name)
    settle_normalization(own_spec, features.facts)
    size = (own_spec.model.input_height, own_spec.model.input_width)
    embedder = attach_head(build_starting_trunk(own_spec, own_spec.model.backbone, size).trunk, head)
    own_spec = spec_with_head(own_spec, embedder)
    payload = {
        "model": embedder.state_dict(), "spec": own_spec.to_dict(), "classes": list(images.classes), "epoch": 0, "step": 0,
        "metrics": {}, "facts": checkpoint_facts(own_spec, features.facts, f"trained without labels: {best.name}"),
    }  # fmt: skip
    run.write_experiment(own_spec)
    return write_checkpoint(run.dir / BEST_CHECKPOINT, payload), own_spec


def _build_record(
    spec: Experiment, budget: TimeBudget, candidates: Sequence[UnlabeledCandidate], best: UnlabeledCandidate,
    holdout: GroupHoldout, grouping: ImageGroups,
) -> dict[str, Any]:  # fmt: skip
    """Return the content of ``unlabelled.json``."""
    baseline = candidates[0].result

    def row(c: UnlabeledCandidate) -> dict[str, Any]:
        if c.result is None or baseline is None:
            return {"name": c.name, "score": None, "figures": {}, "gain_over_frozen": {}}
        return {"name": c.name, "score": c.score, **c.result.to_dict(baseline)}

    return {
        "format_version": 1, "minutes": budget.seconds / 60, "spent_minutes": round(budget.spent / 60, 2),
        "goal": "no labels", "trunk": spec.model.backbone, "meaning": MEANING,
        "judged_on": {"new": sum(len(s.query_N) for s in holdout.splits)}, "fitted_to_images": len(holdout.fit_N),
        "groups": grouping.count, "images_in_no_group": int((grouping.group_N < 0).sum()),
        "agreement": None if np.isnan(grouping.agreement) else grouping.agreement,
        "candidates": [row(c) for c in candidates], "chosen": best.name,
    }  # fmt: skip


def _log_choice(candidates: Sequence[UnlabeledCandidate], best: UnlabeledCandidate) -> None:
    """Print a line per candidate; the first one is the frozen trunk."""
    for c in candidates:
        if c.result is not None:
            text = ", ".join(f"{name} {value}" for name, value in c.result.metrics()["new"].items())
            say(f"{'-> ' if c is best else '   '}{c.name}: held-out groups: {text}")
    if candidates[0].result is not None:
        say(f"({MEANING})")
    if best is candidates[0]:
        say("no candidate beats the frozen trunk, so it is delivered unchanged")


def _metrics_of(best: UnlabeledCandidate, baseline: UnlabeledCandidate) -> dict[str, float]:
    """Return the metrics of the best candidate by name, with those of the frozen trunk."""
    metrics: dict[str, float] = {}
    if best.result is None or baseline.result is None:
        return metrics
    for name, value in best.result.metrics()["new"].items():
        metrics[f"discovered groups {name}"] = value.value
        metrics[f"discovered groups {name} frozen"] = baseline.result.metrics()["new"][name].value
    return metrics
