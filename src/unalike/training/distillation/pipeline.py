"""Distillation: a student learns to give the vectors of its teachers, within a time budget.

Start at ``distill_student``. The teachers' vectors are computed once for each image and kept in the cache. A head by ridge
regression on the student's pretrained trunk is the first model; then the student is trained on augmented views for the
time that is left, and a head is fitted to its trunk once more. Delivered is what follows the teachers best on images that
none of this has seen, as it was judged: nothing is fitted again.
Shape letters: N images, F features, D dimensions of the vector.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet, load_images
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.errors import DataError
from unalike.model.checkpoint import load_embedder
from unalike.model.frozen_trunk import build_starting_trunk
from unalike.progress import begin_step, say
from unalike.report.model_card_format import add_section
from unalike.runs.filenames import DISTILLATION_FILE, MODEL_CARD_STEM, NOTICES_FILE
from unalike.sanitize import redact
from unalike.storage.atomic import write_text
from unalike.training.automatic.holdout_result import KIND_NAMES, HoldoutResult, stated_intervals
from unalike.training.distillation.holdout import HeldOut, Outcome, head_vectors, hold_out, judge, retrieval
from unalike.training.distillation.student import Student, head_of, save_student, student_spec, student_view, tune
from unalike.training.distillation.teachers import (
    ImageLimit,
    TeacherVectors,
    choose_width,
    compute_teacher_vectors,
    fit_projection,
    project,
    require_teachers,
)
from unalike.training.heads.features import TrunkFeatures, compute_features
from unalike.training.heads.interpolation import embed_with_trunk
from unalike.training.heads.ridge import fit_ridge_head
from unalike.training.history import History
from unalike.training.model_card_content import write_model_card
from unalike.training.recipe import settle_decoding, settle_normalization
from unalike.training.time_budget import TimeBudget
from unalike.training.trainer import TrainingResult

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment
    from unalike.spec.distill import Distill

CLOSED_FORM, TRAINED, REFITTED = "head in closed form", "trained", "trained, head fitted again"
# Shares of the budget: for the features of the student's trunk, of what is left then; kept for writing.
FEATURES_SHARE, RESERVED_SHARE = 0.2, 0.03
HELD_OUT_KIND = "held-out images"
# What the figures do not say, for the model card and the record.
STATEMENT = (
    "the student has not learned from the held-out images, but the teachers may have been trained on them: images that are new to "
    "both tell what the student is worth"
)
# How the delivered student is chosen, without labels and with them.
RULES = ("the highest mean cosine to the teachers' vectors on the held-out images",
         "the highest mean of R@1 and MAP@R of the held-out images")  # fmt: skip


@dataclass(frozen=True)
class DistillationResult:
    """The outcome of a distillation.

    Attributes:
        checkpoint: the delivered student.
        figures: its figures by name, with those of the teachers.
        record: the content of ``distillation.json``.
    """

    checkpoint: Path
    figures: Mapping[str, float]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class _Data:
    """What is learned from: the images that teachers and student could read, and the teachers' vectors of them."""

    images: ImageSet
    targets_ND: np.ndarray
    features: TrunkFeatures
    held_out: HeldOut
    teachers: TeacherVectors
    teacher_result: HoldoutResult | None


def distill_student(section: Distill, run: Run, *, budget: TimeBudget) -> DistillationResult:
    """Train the student that follows the teachers best in the time.

    The run's folder holds a first model from the closed form on.

    Args:
        section: the options.
        run: gets the checkpoint, ``distillation.json`` and the model card.
        budget: the time budget.

    Raises:
        UnalikeError: the errors of reading images and networks, and of training.
    """
    say(f"distillation: {budget.seconds / 60:g} minutes (--minutes N changes that)")
    notices = Notices()
    require_teachers(section)
    spec = student_spec(section)
    data = _prepare(section, spec, notices, budget)
    settle_normalization(spec, data.features.facts)
    view = student_view(spec)
    trunk = build_starting_trunk(spec, spec.model.backbone, (view.height, view.width)).trunk
    classes = sorted({*data.teachers.classes, *data.images.classes})
    fit_N, start = data.held_out.fit_N, budget.spent

    def save(student: Student) -> tuple[Path, Experiment]:
        return save_student(student, spec, run, data.features.facts, classes, data.teachers.facts)

    begin_step("fitting the head")
    fitted = fit_ridge_head(data.features.vectors_NF[fit_N], data.targets_ND[fit_N], seed=section.seed)
    first = Student(CLOSED_FORM, trunk, fitted.head)
    students = [(first, judge(head_vectors(fitted.head, data.features.vectors_NF), data.targets_ND, data.held_out))]
    checkpoint, own_spec = save(first)
    say(
        f"first model after {budget.spent:.0f} s, replaced by a better one: {checkpoint}; held-out images: {_text(students[0][1])}"
    )
    tail_seconds = budget.spent - start

    def seconds_left() -> float:
        embedding = len(data.images) / data.features.rate + 2 * data.features.setup_seconds
        return budget.left - RESERVED_SHARE * budget.seconds - embedding - 1.5 * tail_seconds

    training = tune(
        spec, run, data.images.select(fit_N), data.targets_ND[fit_N], fitted.head, seconds_left=seconds_left,
        inference_rate=data.features.rate,
    )  # fmt: skip
    if training is not None:
        students += _judge_trained(training, spec, data, section.seed, notices)
    best, outcome = max(students, key=lambda pair: pair[1].score)
    if best is not first:
        checkpoint, own_spec = save(best)
    for student, other in students:
        say(f"{'-> ' if student is best else '   '}{student.name}: held-out images: {_text(other)}")
    say(f"({STATEMENT})")
    record = _build_record(section, spec, budget, data, students, best, outcome, training)
    return _write_results(run, own_spec, record, data, checkpoint, training, notices)


def _prepare(section: Distill, spec: Experiment, notices: Notices, budget: TimeBudget) -> _Data:
    """Read the images, compute the teachers' vectors and the student's features, and hold images out."""
    images, own_N = _load_images(section, notices)
    settle_decoding(spec, images)
    order_N = np.random.default_rng([section.seed, 53]).permutation(len(images))
    begin_step("the teachers' vectors")
    teachers = compute_teacher_vectors(section, images, spec.dataset, order_N, notices, budget)
    begin_step("features of the student's trunk")
    rank_N = np.argsort(np.argsort(order_N))[teachers.kept_N]
    features = compute_features(
        spec.model.backbone, images.select(teachers.kept_N), student_view(spec), notices, spec,
        limit=ImageLimit(budget, FEATURES_SHARE), order_N=np.argsort(rank_N),
    )  # fmt: skip
    width = choose_width(section.dim, teachers.vectors_NW.shape[1], features.vectors_NF.shape[1])
    rows_N = teachers.kept_N[features.kept_N]
    _say_left_out(len(images), len(rows_N), notices, budget)
    images, own_N, vectors_NW = images.select(rows_N), own_N[rows_N], teachers.vectors_NW[features.kept_N]
    images = images.drop_empty_classes()
    held_out = hold_out(vectors_NW, images.labels_N, own_N, groups=images.groups, seed=section.seed)
    projection_WD = fit_projection(vectors_NW[held_out.fit_N], width)
    if projection_WD is not None:
        share = float((project_lengths(vectors_NW[held_out.held_H], projection_WD) ** 2).mean())
        say(
            f"the teachers' {vectors_NW.shape[1]} numbers are reduced to {width}, which keep {share:.1%} of their squares"
        )
    say(
        f"{len(images)} images: {len(held_out.fit_N)} to learn from, {len(held_out.held_H)} held out; vectors of {width} numbers"
    )
    return _Data(
        images, project(vectors_NW, projection_WD), features, held_out, teachers, retrieval(vectors_NW, held_out)
    )


def project_lengths(vectors_NW: np.ndarray, projection_WD: np.ndarray) -> np.ndarray:
    """Return the lengths (N) of unit vectors after a projection: how much of each is kept.

    Args:
        vectors_NW: vectors of length 1.
        projection_WD: orthonormal columns.
    """
    lengths_N: np.ndarray = np.linalg.norm(vectors_NW @ projection_WD, axis=1)
    return lengths_N


def _load_images(section: Distill, notices: Notices) -> tuple[ImageSet, np.ndarray]:
    """Return the images of the source and the further ones, and a mask of the former."""
    own = load_images(str(section.source), labeled=section.labeled, notices=notices)
    if len(own) == 0:
        raise DataError(f"{section.source} holds no images", expected="images to learn from")
    own_N = np.ones(len(own), bool)
    if section.further is None:
        return own, own_N
    further = load_images(section.further, labeled=False, notices=notices)
    own_paths = {str(path) for path in own.paths}
    rows = [row for row, path in enumerate(further.paths) if str(path) not in own_paths]
    images = ImageSet(
        (*own.paths, *(further.paths[row] for row in rows)),
        np.concatenate([own.labels_N, np.full(len(rows), -1)]), own.classes,
        None if own.groups is None else (*own.groups, *[""] * len(rows)), source=own.source,
    )  # fmt: skip
    return images, np.arange(len(images)) < len(own)


def _say_left_out(count: int, read_count: int, notices: Notices, budget: TimeBudget) -> None:
    """Print how many images are used, where the time does not suffice for all."""
    if read_count < count - len(notices.names("unreadable")):
        say(f"{read_count} of {count} images are used: more do not fit into {budget.seconds / 60:g} minutes (--minutes N); the vectors of "
            "these are kept, so that another run goes on with others")  # fmt: skip


def _judge_trained(
    training: TrainingResult, spec: Experiment, data: _Data, seed: int, notices: Notices
) -> list[tuple[Student, Outcome]]:
    """Judge the trained student with its own head, and with one fitted again to its trunk."""
    embedder, meta = load_embedder(training.checkpoint)
    features = embed_with_trunk(
        embedder.trunk, data.images, Preprocessing.from_facts(meta["facts"]), dataset=spec.dataset, notices=notices,
        describe="features of the trained student",
    )  # fmt: skip
    if len(features.kept_N) < len(data.images):
        raise DataError(f"{len(data.images) - len(features.kept_N)} images cannot be read any more", expected="images that stay "
                        "as they are during the run")  # fmt: skip
    fit_N = data.held_out.fit_N
    refitted = fit_ridge_head(features.vectors_ND[fit_N], data.targets_ND[fit_N], seed=seed)
    students = [Student(TRAINED, embedder.trunk, head_of(embedder)), Student(REFITTED, embedder.trunk, refitted.head)]
    return [(s, judge(head_vectors(s.head, features.vectors_ND), data.targets_ND, data.held_out)) for s in students]


def _text(outcome: Outcome) -> str:
    interval = outcome.describe_cosine()
    text = f"cosine to the teacher {interval.value:.4f} {interval.format_bounds()}"
    for kind, row in (outcome.result.metrics() if outcome.result else {}).items():
        text += f"; {KIND_NAMES[kind]}: " + ", ".join(f"{name} {value}" for name, value in row.items())
    return text


def _build_record(
    section: Distill, spec: Experiment, budget: TimeBudget, data: _Data, students: Sequence[tuple[Student, Outcome]],
    best: Student, outcome: Outcome, training: TrainingResult | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the content of ``distillation.json``."""
    held_out, teacher, first = data.held_out, data.teacher_result, students[0][1]
    counts = {} if outcome.result is None else outcome.result.counts()
    gain = outcome.gain_over(first)
    return {
        "format_version": 1, "minutes": budget.seconds / 60, "spent_minutes": round(budget.spent / 60, 2),
        "goal": "distillation", "trunk": spec.model.backbone, "source": redact(str(section.source)),
        "teachers": [dict(facts) for facts in data.teachers.facts],
        "dim": data.targets_ND.shape[1], "joined_dim": data.teachers.vectors_NW.shape[1],
        "fitted_to_images": len(held_out.fit_N), "held_out_images": len(held_out.held_H),
        "epochs": 0 if training is None or training.experiment is None else training.experiment.train.num_epochs,
        "judged_on": {HELD_OUT_KIND: len(held_out.held_H), **{kind: row["queries"] for kind, row in counts.items()}},
        "teacher_figures": {} if teacher is None else _figures_of(teacher),
        "candidates": [{"name": student.name, "statement": STATEMENT, **other.to_dict(teacher)} for student, other in students],
        "chosen": best.name, "gain_of_training": gain.to_dict() if training is not None else None,
        "rule": RULES[outcome.result is not None],
    }  # fmt: skip


def _figures_of(result: HoldoutResult) -> dict[str, dict[str, Any]]:
    return {kind: {name: value.to_dict() for name, value in row.items()} for kind, row in result.metrics().items()}


def _write_results(
    run: Run, spec: Experiment, record: Mapping[str, Any], data: _Data, checkpoint: Path, training: TrainingResult | None,
    notices: Notices,
) -> DistillationResult:  # fmt: skip
    """Write the record and the model card; return the result."""
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    write_text(run.dir / DISTILLATION_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    run.own(run.dir / DISTILLATION_FILE)
    candidate = next(row for row in record["candidates"] if row["name"] == record["chosen"])
    sets = TrainingSets(data.images, None, None, "distilled", False)
    history = training.history if training is not None and record["chosen"] != CLOSED_FORM else History()
    outcome = TrainingResult(checkpoint, {}, None, {}, history, sets, None, data.features.facts, experiment=spec)
    write_model_card(run.dir, spec, outcome, record=record)
    add_section(run.dir, "distillation", {"teachers": [f"{t['file']} ({t['network']})" for t in record["teachers"]]},
                source=None, stem=MODEL_CARD_STEM)  # fmt: skip
    figures = {"images": record["fitted_to_images"], "held_out": record["held_out_images"], "dim": record["dim"]}
    for kind, row in candidate["figures"].items():
        figures |= {f"{KIND_NAMES.get(kind, kind)} {name}": value["value"] for name, value in row.items()}
    for kind, row in record["teacher_figures"].items():
        figures |= {f"{KIND_NAMES[kind]} {name} teacher": value["value"] for name, value in row.items()}
    run.add_intervals(stated_intervals(record))
    return DistillationResult(checkpoint, figures, record)
