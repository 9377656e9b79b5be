"""Automatic training: within a time, the best recogniser that the trunk can give, and an honest figure of its worth.

Read ``train_automatically`` first. Stage one computes the features of the frozen trunks once and fits heads to them in
seconds; stage two fine-tunes for the time that is left; then all that was made is judged on images that none of it was
fitted to: classes left out whole, and scenes of known classes left out whole. The frozen trunk as it came is judged with
them, and is delivered where nothing beats it. The user's own query set is never looked at before that is settled.
Shape letters: N images, F features, D dimensions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unalike.data.from_spec import TrainingSets, load_training_sets
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.errors import TrainingError, WeightsError
from unalike.model.embedder import build_embedder
from unalike.model.frozen import build_frozen_trunk
from unalike.model.pretrained import available_trunks
from unalike.progress import say
from unalike.runs.filenames import (
    AUTOMATIC_FILE,
    BEST_SPEC_FILE,
    EXPERIMENT_FILE,
    FINE_TUNING_FOLDER,
    LATEST_CHECKPOINT,
    NOTICES_FILE,
)
from unalike.runs.subrun import Part
from unalike.spec import load_spec, settle
from unalike.storage.atomic import write_text
from unalike.training.automatic.candidates import (
    Candidate,
    best_of,
    figures_of,
    judged_heads,
    judged_networks,
    say_verdict,
)
from unalike.training.automatic.delivery import deliver_frozen, deliver_tuned
from unalike.training.automatic.holdout import Round, held_rounds, hold_out, make_rounds, scenes
from unalike.training.automatic.throughput import FEWEST, LEVELS, MOST, plan
from unalike.training.automatic.trunks import Explorer, Found
from unalike.training.heads.features import Features
from unalike.training.heads.search import (
    HeadTrial,
    Open,
    best_closed,
    enough_to_judge,
    search_heads,
    search_trained,
)
from unalike.training.heads.trained import Family, Form
from unalike.training.loop import History
from unalike.training.recipe import settle_precision, settle_training
from unalike.training.report import write_automatic_report
from unalike.training.trainer import TrainingResult, train_embedder

DEFAULT_MINUTES = 10.0
# Of the whole time: what stage one may take where fine-tuning follows, and where it cannot; what is kept for writing at the
# end, and how often all images are seen once more before, to judge by.
FROZEN_SHARE, ALONE_SHARE, CLOSING_SHARE, JUDGED = 0.2, 0.7, 0.03, 2.5
ALONE_CLOSING_SHARE = 0.15  # kept for judging, fitting to all images and writing, where heads are trained instead
LATER = 0.05  # by how much later epochs may be slower than the one that was timed
HEADS_SHARE = 0.03  # for the search of heads, which seldom needs as much
# A training step's images a second as a share of those that the engine embeds (docs/experiments/training.md), before
# the pace is measured.
STEP_SHARE = 0.45
TOO_SHORT = "stage two: the time that is left is too short to fine-tune; more --minutes would allow it"


@dataclass(frozen=True)
class Choice:
    """What automatic training leaves."""

    checkpoint: Path
    spec: Any  # as it was settled for what is delivered
    outcome: TrainingResult  # for the model card
    candidates: Sequence[Candidate]
    chosen: Candidate
    figures: Mapping[str, float]
    record: Mapping[str, Any]


def why_not(spec: Any) -> str:
    """Why automatic training cannot be had for this spec, in a few words; empty where it can."""
    model = spec.model
    if model.pretrained == "false":
        return "model.pretrained is false"
    if spec.is_set("model.head") and model.head == "residual":
        return "model.head is residual, which no closed form fits"
    if model.pretrained_model_path or model.pretrained_trunk_path or model.pretrained_embedder_path:
        return "weights of your own are named"
    if spec.train.resume_training_checkpoint_path:
        return "a checkpoint to resume is named"
    try:
        if spec.is_set("model.backbone"):
            build_frozen_trunk(model.backbone, (model.input_height, model.input_width))
        elif not available_trunks():
            return "no pretrained weights are installed"
    except WeightsError:
        return f"there are no pretrained weights for {model.backbone}"
    return ""


class Clock:
    """The time that may be spent, counted from the start of the action."""

    def __init__(self, minutes: float, start: float) -> None:
        self.seconds, self.start = 60.0 * minutes, start

    @property
    def left(self) -> float:
        return self.start + self.seconds - time.monotonic()

    @property
    def spent(self) -> float:
        return time.monotonic() - self.start


def train_automatically(spec: Any, run: Any, *, start: float) -> Choice:
    """Train as the data and the time allow; ``start`` (``time.monotonic``) is when the action began.

    Raises the errors of training. The best so far lies in the run's folder from the end of stage one on.
    """
    clock = Clock(spec.automl.minutes or DEFAULT_MINUTES, start)
    goal = spec.automl.goal
    say(f"automatic training: {clock.seconds / 60:g} minutes for {goal} (--minutes N, automl.goal=... change that; "
        "--automl-policy off trains plainly)")  # fmt: skip
    seed = spec.automl.seed if spec.automl.seed is not None else max(spec.train.seed, 0)
    notices = Notices()
    sets = _all_images(spec, notices)
    explorer = Explorer(spec, sets.train, notices)
    found = explorer.trunks(FROZEN_SHARE * clock.seconds - clock.spent)
    tunes = _worth_tuning(spec, found, len(sets.train), clock)
    share = FROZEN_SHARE if tunes else ALONE_SHARE
    chosen = explorer.larger(found[0], share * clock.seconds - clock.spent)
    chosen = explorer.mirrored(chosen, share * clock.seconds - clock.spent)
    explorer.settle(chosen)
    if chosen.features.view == found[0].features.view:
        found[0] = chosen
    features = chosen.features
    images = sets.train.select(features.kept_N)
    labels_N = images.labels_N
    scene_N = scenes(features.vectors_NF, labels_N, groups=images.groups, seed=seed)
    fit_N, held = _held(labels_N, scene_N, goal, seed)
    trials, trained = _stage_one(spec, features, labels_N, scene_N, fit_N, seed, clock, tunes)
    forms = _to_judge(trials, trained, Open.of(spec).own, goal)
    candidates = judged_heads(forms, features, labels_N, fit_N, held, goal)
    best = max(candidates, key=lambda c: c.score)
    checkpoint, delivered = deliver_frozen(best, spec, run, images, features)
    outcome = TrainingResult(checkpoint, {}, None, {}, History(), replace(sets, train=images), None, features.facts)
    start_from = forms[1] if len(forms) > 1 else None
    tuning = _stage_two(spec, run, images, fit_N, found, start_from, clock) if tunes else None
    if not tunes:
        say(TOO_SHORT)
    if tuning is not None:
        tuned, tuned_spec = tuning
        candidates += judged_networks(tuned, tuned_spec, start_from, images, fit_N, held, goal, notices)
        best = best_of(candidates, goal)
        if best.tuned is not None:
            outcome = tuned
            checkpoint, delivered = deliver_tuned(best, tuned, tuned_spec, run, images)
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    record = _record(
        spec, delivered.model.backbone, clock, [*trials, *trained], candidates, best, held, labels_N, fit_N
    )
    write_text(run.dir / AUTOMATIC_FILE, json.dumps(record, indent=2) + "\n")
    run.own(run.dir / AUTOMATIC_FILE, run.dir / BEST_SPEC_FILE)
    page = write_automatic_report(
        run.dir, delivered, record, outcome.history, images, features.vectors_NF, best.vectors_ND, held
    )
    run.own(*page)
    say_verdict(candidates, best)
    outcome = replace(outcome, checkpoint=checkpoint)
    return Choice(checkpoint, delivered, outcome, candidates, best, figures_of(best, candidates[0]), record)


def _all_images(spec: Any, notices: Notices) -> TrainingSets:
    """All training images; what the user named for validation is kept apart, to be reported on only."""
    kept = spec.dataset.validation.by
    spec.dataset.validation.by = "none"  # what is held out here is held out by scene and class, below
    try:
        return load_training_sets(spec, notices)
    finally:
        spec.dataset.validation.by = kept


def _worth_tuning(spec: Any, found: Sequence[Found], images: int, clock: Clock) -> bool:
    """Whether the quickest of the trunks could be fine-tuned long enough to gain something in the time that is left.

    What the user, or an earlier run that goes on, has fixed is done in any case.
    """
    if spec.is_set("train.num_epochs"):
        return True
    rate = max(f.features.rate for f in found)
    epoch = images / rate / STEP_SHARE if spec.train.num_gpus == 0 or not torch.cuda.is_available() else 0.0
    return (1 - CLOSING_SHARE) * clock.seconds - clock.spent > FEWEST * epoch


def _held(labels_N: np.ndarray, scene_N: np.ndarray, goal: str, seed: int) -> tuple[np.ndarray, list[Round]]:
    held = hold_out(labels_N, scene_N, goal, seed=seed)
    fit_N = np.flatnonzero(~(held.query_N | held.class_N))
    return fit_N, held_rounds(labels_N, scene_N, held, among_all=True)


def _stage_one(
    spec: Any, features: Features, labels_N: np.ndarray, scene_N: np.ndarray, fit_N: np.ndarray, seed: int, clock: Clock,
    tunes: bool,
) -> tuple[list[HeadTrial], list[HeadTrial]]:  # fmt: skip
    """Head trials on the images that may be fitted: the frozen trunk and closed forms from the best on; those that losses
    trained.

    The best is trained on where nothing else follows; before fine-tuning, whose head is fitted anew at the end, that gains
    nothing (docs/experiments/heads.md).
    """
    goal, within = spec.automl.goal, Open.of(spec)
    rows = fit_N[enough_to_judge(labels_N[fit_N], seed)]
    rounds = make_rounds(labels_N[rows], scene_N[rows], goal, seed=seed)
    told = features.vectors_NF[rows], labels_N[rows], rounds, goal
    began = time.monotonic()
    trials = search_heads(*told, seconds=HEADS_SHARE * clock.seconds, within=within)
    seconds = time.monotonic() - began
    best = best_closed(trials, goal)
    say(f"stage one: {len(trials)} heads on frozen features in {seconds:.1f} s, {trials[0].score:.3f} as they are"
        + (f", {best.score:.3f} with a {best.name}" if best else ""))  # fmt: skip
    if best is None:
        return trials[:1], []
    others = sorted((t for t in trials[1:] if t is not best), key=lambda t: -t.score)
    trials = [trials[0], best, *others]
    if tunes or not within.families:
        return trials, []
    seconds = (1 - ALONE_CLOSING_SHARE) * clock.seconds - clock.spent
    trained = search_trained(best, *told, seconds=seconds, families=within.families)
    for trial in trained:
        verdict = "clearly better" if trial.beats(best, goal) else "R@1 not clearly higher, or another figure lower"
        say(f"   {trial.score:.3f} {trial.name}: {verdict}")
    return trials, trained


def _to_judge(
    trials: Sequence[HeadTrial], trained: Sequence[HeadTrial], own: Family | None, goal: str
) -> list[Form | None]:
    """The frozen trunk, the best closed form, trained on by what the user named (``own``), and the best of the trained ones
    that are clearly better."""
    better = [t for t in trained if t.beats(trials[1], goal)]
    closed = [replace(t.form, family=own) for t in trials[1:2] if t.form]
    return [None, *closed, *(t.form for t in sorted(better, key=lambda t: -t.score)[:1])]


def _stage_two(
    spec: Any, run: Any, images: ImageSet, fit_N: np.ndarray, found: Sequence[Found], form: Form | None, clock: Clock
) -> tuple[TrainingResult, Any] | None:
    """Fine-tuning for the time that is left, and its spec; None where that is too short to start, or it failed.

    It begins with a head of this form fitted to the frozen features, where the user lets the head be such a one.
    """
    train = images.select(fit_N).drop_empty_classes()
    part = Part(run, run.dir / FINE_TUNING_FOLDER)
    earlier = part.dir / EXPERIMENT_FILE
    resume = run.resuming and earlier.exists() and any(part.dir.glob(LATEST_CHECKPOINT))
    if resume:  # its plan holds, but for what is counted after the first epochs
        tuned = load_spec("train", str(earlier))
    else:
        planned = _planned(spec, train, found, len(images), clock)
        if planned is None:
            say(TOO_SHORT)
            return None
        tuned = planned
        if form is not None and not spec.is_set("model.head"):
            settle(tuned, "train.warm_start", True, form.name)
            form.settle(tuned, mirrored=False)  # unless the user says so: it costs as much again
    say(f"stage two: fine-tuning {tuned.model.backbone}, {tuned.train.num_epochs} epochs of {len(train)} images")
    try:
        outcome = train_embedder(
            tuned, part, resume=resume, sets=TrainingSets(train, None, None, "left to automatic training", False),
            finish=False,  # that is done here, and judged
            epochs_at=None if spec.is_set("train.num_epochs") else partial(_epochs_that_fit, clock, found, len(images), tuned),
        )  # fmt: skip
    except TrainingError as error:
        say(f"fine-tuning failed and is left out: {error}")
        return None
    return outcome, tuned.as_set_in(spec)  # what was planned, or read from an earlier run's file, is not the user's own


def _closing(clock: Clock, found: Found, images: int, spec: Any) -> float:
    """Seconds to keep for what follows fine-tuning: judging by what the trunk sees in all images, and writing."""
    looks = JUDGED + spec.train.finish.mirrored
    return CLOSING_SHARE * clock.seconds + looks * images / found.features.rate


def _epochs_that_fit(clock: Clock, found: Sequence[Found], images: int, tuned: Any, done: int, seconds: float) -> int:
    """How many epochs there is time for, ``done`` of them made, the last in ``seconds``: the plan knew a pace of few steps."""
    own = next((f for f in found if f.features.backbone == tuned.model.backbone), found[0])
    left = clock.left - _closing(clock, own, images, tuned)
    return min(MOST, max(2, done + int(left / ((1 + LATER) * max(seconds, 1e-3)))))


def _planned(spec: Any, train: ImageSet, found: Sequence[Found], images: int, clock: Clock) -> Any | None:
    """The user's spec with what fits into the time filled in where they said nothing.

    Of the levels of ``pace`` the first that leaves enough epochs to any trunk, and of the trunks the best such one.
    """
    drafts = [_draft(spec, train, f) for f in found]
    if spec.is_set("train.num_epochs"):
        return drafts[0][0]
    for level in LEVELS:
        for (tuned, embedder), f in zip(drafts, found, strict=True):
            seconds = clock.left - _closing(clock, f, images, tuned)
            fits = plan(embedder, tuned, level, images=len(train), seconds=seconds, embeds=f.features.rate)
            if fits.epochs < level.wanted:
                continue
            why = f"what fits into the time at {fits.rate:.0f} images/s"
            sides = dict(zip(("dataset.train_height", "dataset.train_width"), fits.side, strict=True))
            for path, value in {"train.num_epochs": fits.epochs, "train.frozen_stages": fits.frozen, **sides}.items():
                settle(tuned, path, value, why)
                tuned.mark_set([path])
            return tuned
    return None


def _draft(spec: Any, train: ImageSet, found: Found) -> tuple[Any, Any]:
    """The spec of fine-tuning this trunk, all but what depends on the pace, and its network."""
    tuned = spec.model_copy(deep=True)
    settle(tuned, "model.backbone", found.features.backbone, "the best trunk that can be fine-tuned in the time")
    for side in ("height", "width"):
        settle(tuned, f"model.input_{side}", getattr(found.features.view, side), "the size its features were judged at")
    tuned.mark_set(["model.backbone"])  # training would settle on the first of the trunks that are installed
    if not spec.is_set("train.recipe"):
        tuned.train.recipe = "unalike"
    settle_precision(tuned)
    embedder = build_embedder(tuned)
    facts, stages = embedder.trunk.facts, len(embedder.trunk.stages())
    cuda = torch.cuda.is_available() and spec.train.num_gpus > 0
    settle_training(
        tuned, facts=facts, stages=stages, classes=len(train.classes), images=len(train), cuda=cuda, quiet=True
    )
    tuned.train.validation_interval = tuned.train.num_epochs  # what counts is judged afterwards
    tuned.automl_policy = "off"
    return tuned, embedder


def _record(
    spec: Any, trunk: str, clock: Clock, trials: Sequence[HeadTrial], candidates: Sequence[Candidate], best: Candidate,
    held: Sequence[Round], labels_N: np.ndarray, fit_N: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """What was tried and what it was worth, for ``automatic.json``."""
    base = candidates[0].verdict

    return {
        "format_version": 1, "minutes": clock.seconds / 60, "spent_minutes": round(clock.spent / 60, 2),
        "goal": spec.automl.goal, "trunk": trunk,
        "judged_on": {kind: sum(len(r.query_N) for r in held if r.kind == kind) for kind in {r.kind for r in held}},
        "fitted_to_images": len(fit_N), "classes": len(np.unique(labels_N)),
        "heads": [{"name": t.name, "score": t.score} for t in trials],
        "candidates": [{"name": c.name, "score": c.score, **c.verdict.beside(base)} for c in candidates], "chosen": best.name,
    }  # fmt: skip
