"""Automatic training: the best model that a time budget allows, and an honest estimate of its quality.

Start at ``train_automatically``. Stage one computes the features of the frozen trunks once and fits heads to them in
seconds; stage two fine-tunes for the time that is left; then all candidates are compared on images that none of them was
fitted to: classes held out entirely, and held-out scenes of known classes. The frozen trunk is a candidate too and is
delivered where nothing beats it. The user's own query set is not read before the choice is made.
Shape letters: N images, F features, D dimensions.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.from_spec import TrainingSets, load_training_sets
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.errors import WeightsError
from unalike.model.frozen_trunk import build_starting_trunk
from unalike.model.pretrained import available_trunks
from unalike.progress import begin_step, say
from unalike.runs.filenames import (
    AUTOMATIC_FILE,
    BEST_SPEC_FILE,
    FINE_TUNING_FOLDER,
    NOTICES_FILE,
    SAMPLE_FILE,
    candidate_folder,
)
from unalike.runs.stage import load_stage, save_stage
from unalike.storage.atomic import write_text
from unalike.storage.downloads import DownloadRefused
from unalike.training.automatic.candidate_files import deliver, save_candidates
from unalike.training.automatic.choice_rule import (
    RULE,
    describe_expected,
    explain_choice,
    log_choice,
    metrics_of,
    select_best,
)
from unalike.training.automatic.delivery import save_fine_tuned, save_first, save_untuned
from unalike.training.automatic.evaluation_data import (
    REPEATS_SHARE,
    EvaluationData,
    evaluate_frozen,
    say_untested,
    with_series,
)
from unalike.training.automatic.final_choice import Candidate, evaluate_networks
from unalike.training.automatic.fine_tuning import (
    RESERVED_SHARE,
    TOO_FEW,
    TOO_SHORT,
    InitialHead,
    can_fine_tune,
    fine_tune,
)
from unalike.training.automatic.holdout import TooFewImages
from unalike.training.automatic.label_noise import weighs_labels
from unalike.training.automatic.sampling import HEADS_SHARE, MIN_IMAGES, READING_SHARE, ImageSample, reserve_evaluation
from unalike.training.automatic.single_images import (
    NOT_MEASURABLE,
    add_augmented_views,
    has_second_images,
    rank_candidates,
)
from unalike.training.automatic.starting_weights import (
    GivenNetwork,
    describe_weights,
    load_given_network,
    names_trunk_weights,
    starting_spec,
)
from unalike.training.automatic.trunks import TrunkResult, TrunkSelector
from unalike.training.heads.config import HeadConfig, HeadTraining, requested_dim
from unalike.training.heads.features import TrunkFeatures
from unalike.training.heads.head_search import (
    FITS_AFTERWARDS,
    HeadSearchSpace,
    HeadTrial,
    TooSlow,
    best_closed_form,
    evaluate_width,
    search_heads,
    search_trained_heads,
)
from unalike.training.heads.label_weights import label_weights, trusted_rows
from unalike.training.heads.trained import fit_head
from unalike.training.history import History
from unalike.training.recipe import settle_decoding
from unalike.training.report import write_automatic_report
from unalike.training.time_budget import TimeBudget
from unalike.training.trainer import TrainingResult

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

# Shares of the time budget: for stage one where fine-tuning follows, and where it cannot; kept in the latter case for
# evaluation, fitting to all images and writing; for the search of closed-form heads, which seldom needs as much.
STAGE_ONE_SHARE, HEADS_ONLY_SHARE, HEADS_ONLY_RESERVED_SHARE, HEAD_SEARCH_SHARE = 0.2, 0.7, 0.15, 0.03
END_SHARE = 0.01  # of the budget, kept for the model card


@dataclass(frozen=True)
class AutomaticResult:
    """The outcome of automatic training.

    Attributes:
        checkpoint: the delivered model.
        spec: its resolved spec.
        training: the result of the training, for the model card.
        candidates: all candidates, the frozen trunk first.
        chosen: the delivered one.
        figures: its metrics by name, with those of the frozen trunk.
        record: the content of ``automatic.json``.
    """

    checkpoint: Path
    spec: Experiment
    training: TrainingResult
    candidates: Sequence[Candidate]
    chosen: Candidate
    figures: Mapping[str, float]
    record: Mapping[str, Any]


def unsupported_reason(spec: Experiment) -> str:
    """Return why automatic training does not support this spec, or an empty string if it does."""
    if spec.model.pretrained == "false" and not names_trunk_weights(spec):
        return "model.pretrained is false"
    model = spec.model
    if spec.is_set("model.head") and model.head == "residual":
        return "model.head is residual, which no closed form fits"
    if spec.train.resume_training_checkpoint_path:
        return "a checkpoint to resume is named"
    spec = starting_spec(spec)
    model = spec.model
    names = [model.backbone] if spec.is_set("model.backbone") else available_trunks()
    if not names:
        return "no pretrained weights are installed"
    dim = requested_dim(spec)
    try:
        for name in names if spec.is_set("model.backbone") or dim else ():
            width = build_starting_trunk(spec, name, (model.input_height, model.input_width)).dim
            if dim is not None and dim > width:
                return f"model.feat_dim {dim} is more than the {width} features of {name}"
    except WeightsError as error:
        if names_trunk_weights(spec) or isinstance(error, DownloadRefused):
            raise
        return f"there are no pretrained weights for {model.backbone}"
    return ""


def train_automatically(spec: Experiment, run: Run, *, budget: TimeBudget) -> AutomaticResult:
    """Train the best model that the data and the time budget allow.

    The run's folder holds a first model, which is not measured, from the first trunk on, and the best so far from the end of stage
    one on.

    Args:
        spec: resolved spec; trunk and input size are settled in it.
        run: gets checkpoint, ``experiment.yaml``, ``best_spec.yaml``, ``automatic.json`` and the report.
        budget: the time budget; what the evaluation on the user's query will take is noted in it.

    Raises:
        UnalikeError: the errors of reading data and of training.
    """
    goal = spec.automl.goal
    say(f"automatic training: {budget.seconds / 60:g} minutes for {goal} (--minutes N, automl.goal=... change that; "
        "--automl-policy off trains plainly)")  # fmt: skip
    seed = spec.automl.seed if spec.automl.seed is not None else max(spec.train.seed, 0)
    notices = Notices()
    own, spec = spec, starting_spec(spec)
    sets = _load_all_images(spec, notices, budget)
    weights, start_network = describe_weights(own, sets.train.classes), load_given_network(own, spec)
    selector = TrunkSelector(spec, sets.train, notices, *_limits(run, budget, sets.train))
    if not has_second_images(sets.train.labels_N, sets.train.groups, sets.train.source):
        return _train_on_single_images(spec, run, sets, selector, budget, seed, notices, start_network, weights)
    try:
        trunks = selector.compare_trunks(
            budget.until(STAGE_ONE_SHARE),
            lambda first: save_first(first, spec, run, selector.trial, goal, budget),
        )
        reserve_evaluation(budget, trunks[0].features, sets.reference, sets.query)
        has_time = can_fine_tune(spec, trunks, len(sets.train), budget)
        features = _choose_features(selector, trunks, budget, has_time)
        data = EvaluationData.create(selector.images, features, goal, seed, tunes=has_time)
    except TooFewImages:  # groups, or images that are equal
        return _train_on_single_images(spec, run, sets, selector, budget, seed, notices, start_network, weights)
    sample = _settle_sample(run, selector, budget)
    images, features, tunes = data.images, data.features, has_time and data.holdout is not None
    space = HeadSearchSpace.from_spec(spec, classes=len(np.unique(data.labels_N[data.fit_N])))
    space = replace(space, label_weights=weighs_labels(spec, data))
    trials, trained, closed_form = _search_heads(spec, data, space, budget, tunes)
    configs = candidates_to_evaluate(trials, trained, space.fixed_training, goal)
    if len(configs) == 1 and closed_form is not None:  # no other could be compared in the time
        configs.append(replace(closed_form, training=space.fixed_training))
    tail_start = budget.spent
    candidates = evaluate_frozen(configs, data, goal, space, start_network, REPEATS_SHARE * budget.seconds)
    frozen_seconds = budget.spent - tail_start
    training = TrainingResult(run.dir, {}, None, {}, History(), replace(sets, train=images), None, features.facts)
    initial_head = configs[1] if len(configs) > 1 else None
    tuning = None
    if tunes:
        save_untuned(select_best(candidates, goal), spec, run, images, features)  # the best so far, in case of a kill
        assert data.holdout is not None
        tuning = fine_tune(
            spec, run, _images_to_tune_on(sample, selector, data, initial_head), trunks, initial_head, budget,
            embedded=len(images), tail_seconds=budget.spent - tail_start,
            start=_fit_initial_head(spec, data, initial_head) if selector.is_sampled else None,
        )  # fmt: skip
    else:
        say(TOO_FEW if has_time else TOO_SHORT)
    if tuning is not None:
        networks = evaluate_networks(*tuning, initial_head, images, data.fit_N, data.splits, goal, notices,
                                     lambda: budget.until(1 - RESERVED_SHARE) - frozen_seconds)  # fmt: skip
        candidates += [with_series(c, data) for c in networks]
    elif tunes and (pooled := data.pooled(goal)) is not None and _fits(pooled, data, frozen_seconds, budget):
        data = pooled
        candidates = evaluate_frozen(configs, data, goal, space, start_network, REPEATS_SHARE * budget.seconds)
    say_untested(data, goal)
    best = select_best(candidates, goal)

    def save(candidate: Candidate, folder: Run) -> Experiment:
        if candidate.tuned is not None and tuning is not None:
            return save_fine_tuned(candidate, *tuning, folder, images)[1]
        return save_untuned(candidate, spec, folder, images, features)[1]

    specs = save_candidates(run, candidates, save)
    training = tuning[0] if tuning is not None and best.tuned is not None else training
    checkpoint, experiment = deliver(run, candidates.index(best), specs[best.name])
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    record = _build_record(spec, experiment.model.backbone, budget, [*trials, *trained], candidates, best, data)
    record |= ({"weights": weights} if weights else {}) | sample.facts()
    if selector.is_sampled and best.tuned is not None:
        record["images_fine_tuned_on"] = len(training.sets.train)
    _write_results(run, experiment, record, training, data, best, budget)
    log_choice(candidates, best, goal)
    _say_other_candidates(candidates, best, run)
    training = replace(training, checkpoint=checkpoint)
    return AutomaticResult(checkpoint, experiment, training, candidates, best, metrics_of(best, candidates[0]), record)


def _fits(pooled: EvaluationData, data: EvaluationData, seconds: float, budget: TimeBudget) -> bool:
    """Whether cross-validation fits into the time that is left, by the seconds that the hold-out took."""
    return seconds * len(pooled.splits) / len(data.splits) <= budget.left


def _choose_features(
    selector: TrunkSelector, trunks: list[TrunkResult], budget: TimeBudget, tunes: bool
) -> TrunkFeatures:
    """Return the features of the best trunk, of larger and of mirrored images where that helps; settle the spec."""
    share = STAGE_ONE_SHARE if tunes else HEADS_ONLY_SHARE
    trunk = selector.embed_all(selector.try_larger_images(trunks[0], budget.until(share)))
    if selector.is_sampled and not tunes:
        share = HEADS_SHARE
    trunk = selector.add_mirrored(trunk, budget.until(share))
    trunk.settle_spec(selector.spec)
    if trunk.features.view == trunks[0].features.view:
        trunks[0] = trunk
    return trunk.features


def _say_other_candidates(candidates: Sequence[Candidate], best: Candidate, run: Run) -> None:
    """Print the command that delivers another candidate, where there is one."""
    if len(candidates) > 1:
        other = next(n for n, c in enumerate(candidates) if c is not best)
        say(f"to deliver another one, by name or number (0 to {len(candidates) - 1}): unalike train --take {other} "
            f"{shlex.quote(f'train.results_dir={run.dir}')}")  # fmt: skip


def _limits(run: Run, budget: TimeBudget, images: ImageSet) -> tuple[TimeBudget | None, np.ndarray | None]:
    """Return what limits the images of a run: its budget, or the sample of the run that is resumed."""
    path = run.dir / SAMPLE_FILE
    if run.resuming and path.is_file():
        stage = load_stage(run, path, "sample of the images", images.fingerprint().encode())
        if stage is not None:
            return budget, stage["rows"]
    tuning_began = run.resuming and (run.dir / FINE_TUNING_FOLDER).exists()  # on what was held out of all images
    return (None if tuning_began else budget), None


def _images_to_tune_on(
    sample: ImageSample, selector: TrunkSelector, data: EvaluationData, config: HeadConfig | None
) -> ImageSet:
    """Return the images to fine-tune on: those that are not held out, without suspected labels where the head weighs them.

    Of a sample of a large set all are used, since not all of its images have features.
    """
    assert data.holdout is not None
    images = sample.training_images(data.features.kept_N, data.holdout)
    if config is None or not config.label_weights or selector.is_sampled:
        return images
    labels_N = data.labels_N[data.fit_N]
    rows = trusted_rows(label_weights(data.features.vectors_NF[data.fit_N], labels_N), labels_N)
    say(f"stage two: {len(images) - len(rows)} images whose neighbors contradict their label are left out")
    return images.select(rows)


def _settle_sample(run: Run, selector: TrunkSelector, budget: TimeBudget) -> ImageSample:
    """Print and keep which images are used, where these are not all."""
    sample = selector.sample
    sample.say(budget, sample.every.classes)
    if selector.is_sampled:
        save_stage(run.dir / SAMPLE_FILE, sample.every.fingerprint().encode(), {"rows": sample.row_N})
        run.own(run.dir / SAMPLE_FILE)
    return sample


def _fit_initial_head(spec: Experiment, data: EvaluationData, config: HeadConfig | None) -> InitialHead | None:
    """Fit the head that fine-tuning starts from to the sample."""
    if config is None:
        return None
    x_NF, labels_N = data.features.training_rows(data.fit_N, data.labels_N)
    head = fit_head(x_NF, labels_N, config, requested_dim(spec), views=data.features.views)
    return InitialHead(head, x_NF, [data.images.classes[label] for label in labels_N.tolist()])


def _train_on_single_images(
    spec: Experiment, run: Run, sets: TrainingSets, selector: TrunkSelector, budget: TimeBudget, seed: int, notices: Notices,
    start_network: GivenNetwork | None, weights: Mapping[str, Any] | None,
) -> AutomaticResult:  # fmt: skip
    """Deliver the frozen trunk with or without a head where too few classes have a second image; nothing is measured.

    Nothing is fine-tuned: views of the same augmentation would favor a network that was trained on it.
    """
    say(f"estimate: {NOT_MEASURABLE}")
    trunk = selector.best_available()
    _settle_sample(run, selector, budget)
    reserve_evaluation(budget, trunk.features, sets.reference, sets.query)
    trunk.settle_spec(selector.spec)
    images = selector.images.select(trunk.features.kept_N)
    features = add_augmented_views(trunk.features, images, spec, seed)
    candidates = rank_candidates(features, images.labels_N, spec, seed, start_network, budget.left)
    best = select_best(candidates, "new-classes")
    checkpoint, experiment = save_untuned(best, spec, run, images, features)
    training = TrainingResult(
        checkpoint, {}, None, {}, History(), replace(sets, train=images), None, features.facts, experiment=experiment
    )
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    record: dict[str, Any] = {
        "format_version": 1, "minutes": budget.seconds / 60, "spent_minutes": round(budget.spent / 60, 2),
        "goal": spec.automl.goal, "trunk": experiment.model.backbone, "estimate": NOT_MEASURABLE, "judged_on": {},
        "fitted_to_images": len(images), "classes": len(np.unique(images.labels_N)), "heads": [],
        "candidates": [{"name": c.name, "score": None, "figures": {}, "gain_over_frozen": {}} for c in candidates],
        "chosen": best.name, **({"weights": weights} if weights else {}),
    }  # fmt: skip
    record |= selector.sample.facts()
    write_text(run.dir / AUTOMATIC_FILE, json.dumps(record, indent=2) + "\n")
    run.own(run.dir / AUTOMATIC_FILE, run.dir / BEST_SPEC_FILE)
    say(f"delivered: {best.name}")
    return AutomaticResult(checkpoint, experiment, training, candidates, best, {}, record)


def _load_all_images(spec: Experiment, notices: Notices, budget: TimeBudget) -> TrainingSets:
    """Load all training images; a validation set that the user named is kept apart, for reporting only."""
    # Images are held out here by scene and class instead.
    sets = load_training_sets(spec.with_values({"dataset.validation.by": "none"}), notices)
    settle_decoding(spec, sets.train, sets.reference, sets.query, stop=budget.stop_after(READING_SHARE, MIN_IMAGES))
    return sets


def _search_heads(
    spec: Experiment, data: EvaluationData, space: HeadSearchSpace, budget: TimeBudget, tunes: bool
) -> tuple[list[HeadTrial], list[HeadTrial], HeadConfig | None]:
    """Search for a head on the images that may be fitted to.

    The best closed form is trained further only where no fine-tuning follows (``tunes``): after fine-tuning the head is
    fitted again, so that training it before gains nothing (docs/experiments/heads.md).

    Returns:
        Trials of the frozen trunk and of closed forms, best first after the frozen trunk; trials of trained heads; the best
        closed form, or the one to take where there was no time to compare any.
    """
    goal = spec.automl.goal
    begin_step("comparing heads")
    rows, splits = data.search_splits(goal)
    features_NF, labels_N = data.features.vectors_NF[rows], data.labels_N[rows]
    start = time.monotonic()
    try:
        trials = search_heads(features_NF, labels_N, splits, goal, seconds=HEAD_SEARCH_SHARE * budget.seconds, space=space,
                              hard_seconds=budget.left)  # fmt: skip
    except TooSlow as error:
        say("stage one: no time to compare heads, so one is fitted with the usual settings")
        return [error.baseline], [], space.uncompared_head(goal)
    seconds = time.monotonic() - start
    best = best_closed_form(trials, goal)
    say(f"stage one: {len(trials)} heads on frozen features in {seconds:.1f} s, {trials[0].score:.3f} as they are"
        + (f", {best.score:.3f} with a {best.name}" if best else ""))  # fmt: skip
    if best is None:
        return trials[:1], [], None
    others = sorted((t for t in trials[1:] if t is not best), key=lambda t: -t.score)
    if space.dim is not None:
        best = evaluate_width(best, features_NF, labels_N, splits, goal, space.dim)
    trials = [trials[0], best, *others]
    if tunes or not space.trainings:
        return trials, [], best.config
    split_seconds = seconds / (len(splits) * len({t.config.sqrt for t in trials if t.config}))
    seconds = min(budget.until(1 - HEADS_ONLY_RESERVED_SHARE), budget.left - FITS_AFTERWARDS * split_seconds)
    if seconds < 2 * len(splits) * split_seconds:  # they start from a closed form of each split
        return trials, [], best.config
    trained = search_trained_heads(
        best, features_NF, labels_N, splits, goal, seconds=seconds, trainings=space.trainings, dim=space.dim
    )
    for trial in trained:
        comparison = "clearly better" if trial.beats(best, goal) else "R@1 not clearly higher, or another metric lower"
        say(f"   {trial.score:.3f} {trial.name}: {comparison}")
    return trials, trained, best.config


def candidates_to_evaluate(
    trials: Sequence[HeadTrial], trained: Sequence[HeadTrial], fixed_training: HeadTraining | None, goal: str
) -> list[HeadConfig | None]:
    """Choose the heads to compare on held-out images.

    Args:
        trials: the frozen trunk, then closed forms, best first.
        trained: trials of trained heads.
        fixed_training: the training that the user set; it is applied to the best closed form.
        goal: a key of ``holdout.GOALS``.

    Returns:
        None (the frozen trunk), the best closed form, and the best trained head that is significantly better.
    """
    better = [t for t in trained if t.beats(trials[1], goal)]
    closed_form = [replace(t.config, training=fixed_training) for t in trials[1:2] if t.config]
    return [None, *closed_form, *(t.config for t in sorted(better, key=lambda t: -t.score)[:1])]


def _build_record(
    spec: Experiment, trunk: str, budget: TimeBudget, trials: Sequence[HeadTrial], candidates: Sequence[Candidate],
    best: Candidate, data: EvaluationData,
) -> dict[str, Any]:  # fmt: skip
    """Return the content of ``automatic.json``."""
    baseline, goal = candidates[0].result, spec.automl.goal
    reasons = explain_choice(candidates, best, goal)
    return {
        "format_version": 1, "minutes": budget.seconds / 60, "spent_minutes": round(budget.spent / 60, 2),
        "goal": goal, "trunk": trunk, **data.describe(best, goal), "rule": RULE,
        "fitted_to_images": len(data.fit_N), "classes": len(np.unique(data.labels_N)),
        "heads": [{"name": t.name, "score": t.score} for t in trials],
        "candidates": [
            {"name": c.name, "score": c.score, "reason": reasons[c.name], "folder": candidate_folder(n),
             "expected": {name: value.to_dict() for name, value in c.result.expected().items()},
             "statement": describe_expected(c.result), **c.result.to_dict(baseline)}
            for n, c in enumerate(candidates)
        ],
        "chosen": best.name, "chosen_by": "rule", "images": data.images.fingerprint(),
    }  # fmt: skip


def _write_results(
    run: Run,
    spec: Experiment,
    record: Mapping[str, Any],
    training: TrainingResult,
    data: EvaluationData,
    best: Candidate,
    budget: TimeBudget,
) -> None:
    """Write ``automatic.json`` and the report page, and register the files with the run."""
    write_text(run.dir / AUTOMATIC_FILE, json.dumps(record, indent=2) + "\n")
    run.own(run.dir / AUTOMATIC_FILE, run.dir / BEST_SPEC_FILE)
    files = write_automatic_report(
        run.dir,
        spec,
        record,
        training.history,
        data.images,
        data.features.vectors_NF,
        best.result,
        seconds=budget.until(1 - END_SHARE),
    )
    run.own(*files)
