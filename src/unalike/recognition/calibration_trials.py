"""Trials of a calibration: images compared with a gallery that lacks their class, their series or the image itself.

Every enrolled class in turn counts as unknown while the others stay, so that trials are made at the gallery's own size;
further images can be given. Images of known classes are compared with the gallery without their series.

Shape letters: N trials of unknown classes, M trials of known classes, R enrolled images, Q given images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unalike.data.class_names import check_class_name
from unalike.data.decode import decode
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError
from unalike.recognition.augmented_views import augmented_views
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.decision import score_of
from unalike.recognition.ranking import VOTERS, check_vectors, rank_classes
from unalike.recognition.series import assign_folds, rows_of
from unalike.recognition.snapshot import GallerySnapshot

# Most trials that are made of a gallery: a seeded sample, balanced over classes. Each costs a search.
MAX_TRIALS = 5000
# Parts of the second class's cosine that may be subtracted from the best one under the rule ``nearest``: the first, unless the
# gallery's own trials prefer another in at least CERTAIN_SHARE of DRAWS draws of its classes. Chosen on the development splits of
# the suite by `benchmarks/open_set_scores.py` (docs/experiments/gallery.md, 2026-11-30).
SECOND_WEIGHTS = (0.25, 0.5)
CERTAIN_SHARE, DRAWS = 0.8, 100
# False match rates at which weights are compared, and the least number of known images that can compare them.
COMPARED_RATES, MIN_COMPARED = (0.1, 0.03, 0.01), 20
# Augmented views of each of so many enrolled images stand for second images where no class has one.
VIEWS, MAX_VIEWED = 2, 200


@dataclass(frozen=True)
class UnknownTrials:
    """Images of unknown classes, each compared with a gallery without its class.

    Attributes:
        score_N: best score: a cosine, less a part of the second class's in trials with a ``second_weight``.
        group_N: class of the image.
        matched_N: enrolled class of the best score.
        weight_N: what a false match counts. An enrolled image compared with the gallery without its own class saw fewer
            vectors than a truly unknown one would; its false match counts a little over 1 for it.
        margin_N: lead of the best class over the second, infinite where there is none; None where it was not looked for.
    """

    score_N: np.ndarray
    group_N: np.ndarray
    matched_N: np.ndarray
    weight_N: np.ndarray
    margin_N: np.ndarray | None = None


@dataclass(frozen=True)
class KnownTrials:
    """Images of enrolled classes, none of them compared with itself.

    Attributes:
        score_M: score of the best class, as of unknown ones.
        margin_M: lead of the best class over the second.
        right_M: whether the best class is the right one.
        group_M: class of the image.
    """

    score_M: np.ndarray
    margin_M: np.ndarray
    right_M: np.ndarray
    group_M: np.ndarray


@dataclass(frozen=True)
class CalibrationTrials:
    """All trials that a calibration is made of.

    Attributes:
        snapshot: the state of the gallery.
        rule, k: how neighbors became a class, and how many voted.
        unknowns: images of unknown classes.
        knowns: images of enrolled classes; None where no class has two images and none were given.
        made_from: which images the unknown ones are, in words.
        second_weight: part of the second class's cosine that was subtracted for the scores (``decision.score_of``).
    """

    snapshot: GallerySnapshot
    rule: str
    k: int
    unknowns: UnknownTrials
    knowns: KnownTrials | None
    made_from: str
    second_weight: float = 0.0


def collect_trials(
    gallery: GalleryBackend, *, rule: str = "nearest", k: int = VOTERS, images: tuple[np.ndarray, Sequence[str]] | None = None,
    trials_from: str = "auto", max_trials: int = MAX_TRIALS, seed: int = 0,
) -> CalibrationTrials:  # fmt: skip
    """Compare images of unknown and of known classes with a gallery; arguments and errors as of ``calibrate``."""
    with gallery.view() as view:
        snapshot = view.snapshot()
    parts, sources = [], []
    image_unknowns = image_knowns = None
    if images is not None:
        image_unknowns, image_knowns = _image_trials(gallery, snapshot, rule, k, images)
    if trials_from == "images" and image_unknowns is None:
        raise DataError("no images of unknown classes", expected="class folders whose names are not in the gallery")
    if image_unknowns is not None and trials_from != "gallery":
        parts.append(image_unknowns)
        classes = len(np.unique(image_unknowns.group_N))
        sources.append(f"{len(image_unknowns.score_N)} images of {classes} other classes")
    if image_unknowns is None or trials_from in ("gallery", "both"):
        rows_N = balanced_sample(snapshot.codes_N, max_trials, seed)
        parts.append(leave_class_out(snapshot, rows_N, rule, k))
        sources.append("the gallery's classes, each held out in turn")
    knowns = image_knowns
    if knowns is None:
        knowns = leave_series_out(snapshot, max_trials, seed, rule, k)
    columns = zip(
        *((part.score_N, part.group_N, part.matched_N, part.weight_N, part.margin_N) for part in parts), strict=True
    )
    unknowns = UnknownTrials(*(np.concatenate(column) for column in columns))
    return weigh_second(CalibrationTrials(snapshot, rule, k, unknowns, knowns, " and ".join(sources)))


def weigh_second(trials: CalibrationTrials) -> CalibrationTrials:
    """Subtract a part of the second class's cosine from the scores of trials by the rule ``nearest``.

    As they are, where an image has no second class (galleries of one or two classes), and where there are no known images: augmented
    views stand for those then, and that a known image's score is at least that of a stranger (``operating_point``) holds for cosines
    alone.
    """
    unknowns, knowns = trials.unknowns, trials.knowns
    if trials.rule != "nearest" or knowns is None or unknowns.margin_N is None or not len(unknowns.score_N):
        return trials
    if not (np.isfinite(unknowns.margin_N).all() and np.isfinite(knowns.margin_M).all()):
        return trials
    weight = choose_second_weight(unknowns, knowns, unknowns.margin_N)
    unknowns = replace(unknowns, score_N=score_of(unknowns.score_N, unknowns.margin_N, weight))
    knowns = replace(knowns, score_M=score_of(knowns.score_M, knowns.margin_M, weight))
    return replace(trials, unknowns=unknowns, knowns=knowns, second_weight=weight)


def choose_second_weight(unknowns: UnknownTrials, knowns: KnownTrials, margin_N: np.ndarray) -> float:
    """The one of SECOND_WEIGHTS under which most known images of the trials are named right at the same false match rates.

    Compared is the mean, over COMPARED_RATES, of the share of known images that are named right and score above the threshold
    of the rate. A larger weight helps networks that put unknown images near to many classes, and harms where cosines to other
    classes are near 0. A small difference is luck of the classes, so the first weight stays unless another is as good or better
    in most draws of classes.

    Args:
        unknowns, knowns: trials whose scores are cosines.
        margin_N: lead of the best class over the second in ``unknowns``, all finite.
    """
    if len(knowns.score_M) < MIN_COMPARED:
        return SECOND_WEIGHTS[0]
    classes, code_T = np.unique(np.concatenate([unknowns.group_N, knowns.group_M]), return_inverse=True)
    rng = np.random.default_rng(0)
    draws = [np.bincount(rng.integers(0, len(classes), len(classes)), minlength=len(classes)) for _ in range(DRAWS)]
    count_BC = np.vstack([np.ones(len(classes)), *draws])  # the first row: every class once
    split = len(unknowns.score_N)
    weight_BN, weight_BM = count_BC[:, code_T[:split]] * unknowns.weight_N, count_BC[:, code_T[split:]]
    shares = []
    for weight in SECOND_WEIGHTS:
        score_N = score_of(unknowns.score_N, margin_N, weight)
        score_M = score_of(knowns.score_M, knowns.margin_M, weight)
        shares.append(_named_shares(score_N, score_M, knowns.right_M, weight_BN, weight_BM))
    named_BW = np.column_stack(shares)
    best = int(named_BW[0].argmax())
    is_certain = (named_BW[1:, best] >= named_BW[1:, 0]).mean() >= CERTAIN_SHARE
    return SECOND_WEIGHTS[best] if is_certain else SECOND_WEIGHTS[0]


def _named_shares(
    score_N: np.ndarray, score_M: np.ndarray, right_M: np.ndarray, weight_BN: np.ndarray, weight_BM: np.ndarray
) -> np.ndarray:
    """Mean share (B) of known images that are named right above the thresholds of COMPARED_RATES.

    Args:
        score_N, score_M: of unknown and of known images.
        right_M: whether a known image's best class is its own.
        weight_BN, weight_BM: what each image counts, in each of B draws.
    """
    order_N, order_M = np.argsort(-score_N, kind="stable"), np.argsort(-score_M, kind="stable")
    sum_BN = np.cumsum(weight_BN[:, order_N], axis=1)
    named_BM = np.cumsum(weight_BM[:, order_M] * right_M[order_M], axis=1)
    named_BM = np.column_stack([np.zeros(len(named_BM)), named_BM])
    total_B = np.maximum(weight_BM.sum(axis=1), 1)
    rows_B, share_B = np.arange(len(sum_BN)), np.zeros(len(sum_BN))
    for rate in COMPARED_RATES:
        first_B = (sum_BN <= rate * sum_BN[:, -1:] * (1 + 1e-12)).sum(axis=1)  # the first score that is too much
        threshold_B = score_N[order_N[np.minimum(first_B, len(order_N) - 1)]]
        above_B = np.searchsorted(-score_M[order_M], -threshold_B, "left")
        share_B += named_BM[rows_B, above_B] / total_B / len(COMPARED_RATES)
    return share_B


def balanced_sample(codes_N: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Sorted indices of at most ``most`` images, drawn so that class sizes are as equal as the classes allow."""
    if len(codes_N) <= most:
        return np.arange(len(codes_N))
    shuffled = np.random.default_rng(seed).permutation(len(codes_N))
    order = shuffled[np.argsort(codes_N[shuffled], kind="stable")]
    sorted_codes = codes_N[order]
    rank_in_class = np.arange(len(order)) - np.searchsorted(sorted_codes, sorted_codes)
    return np.sort(order[np.argsort(rank_in_class, kind="stable")[:most]])


def leave_class_out(snapshot: GallerySnapshot, rows_N: np.ndarray, rule: str, k: int) -> UnknownTrials:
    """Compare these enrolled images with the gallery without their classes."""
    codes_N = snapshot.codes_N[rows_N].astype(np.int64)
    ranking = rank_classes(snapshot, snapshot.vectors(rows_N), rule, k, exclude_class_Q=codes_N)
    has_match_N = ranking.code_Q >= 0  # false in a gallery of one class
    codes_N = codes_N[has_match_N]
    weight_N = len(snapshot) / (len(snapshot) - snapshot.counts_C[codes_N])
    score_N = ranking.score_Q[has_match_N].astype(np.float64)
    return UnknownTrials(score_N, codes_N, ranking.code_Q[has_match_N], weight_N, ranking.margin_Q[has_match_N])


def leave_series_out(snapshot: GallerySnapshot, most: int, seed: int, rule: str, k: int) -> KnownTrials | None:
    """Compare enrolled images with the gallery without their series of similar photographs (``recognition.series``).

    The series are distributed over folds, and the images of a fold are compared with those of the other folds. Where no
    class has two series, or the gallery is larger than the sample, each image is compared with all others. None where no
    class has two images.
    """
    rows_R = np.flatnonzero(snapshot.counts_C[snapshot.codes_N] > 1)
    rows_R = rows_R[balanced_sample(snapshot.codes_N[rows_R], most, seed)]
    if not len(rows_R):
        return None
    everything = rank_classes(
        snapshot,
        snapshot.vectors(rows_R),
        "nearest",
        k,
        exclude_class_Q=snapshot.codes_N[rows_R].astype(np.int64),
        second=False,
    )
    has_other_R = everything.code_Q >= 0
    if len(rows_R) < most and has_other_R.any():
        fold_R = assign_folds(snapshot, rows_R, float(np.median(everything.score_Q[has_other_R])), seed=seed)
        if (fold_R >= 0).any():
            return _cross_validated_knowns(snapshot, rows_R, fold_R, rule, k)
    return leave_image_out(snapshot, most, seed, rule, k)


def _cross_validated_knowns(
    snapshot: GallerySnapshot, rows_R: np.ndarray, fold_R: np.ndarray, rule: str, k: int
) -> KnownTrials:
    """Trials of the images that have a fold, each compared with the gallery without the images of its fold."""
    fold_N = np.full(len(snapshot), -1, np.int64)
    fold_N[rows_R] = fold_R
    parts = []
    for fold in np.unique(fold_R[fold_R >= 0]):
        queries, references = np.flatnonzero(fold_N == fold), np.flatnonzero(fold_N != fold)
        ranking = rank_classes(rows_of(snapshot, references), snapshot.vectors(queries), rule, k)
        codes_Q = snapshot.codes_N[queries]
        parts.append((ranking.score_Q.astype(np.float64), ranking.margin_Q, ranking.code_Q == codes_Q, codes_Q))
    return KnownTrials(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def leave_image_out(snapshot: GallerySnapshot, most: int, seed: int, rule: str, k: int) -> KnownTrials | None:
    """Compare enrolled images of classes that have two or more with the gallery without themselves; None where no has."""
    rows_M = np.flatnonzero(snapshot.counts_C[snapshot.codes_N] > 1)
    rows_M = rows_M[balanced_sample(snapshot.codes_N[rows_M], most, seed)]
    if not len(rows_M):
        return None
    ranking = rank_classes(snapshot, snapshot.vectors(rows_M), rule, k, exclude_row_Q=rows_M)
    codes_M = snapshot.codes_N[rows_M]
    return KnownTrials(ranking.score_Q.astype(np.float64), ranking.margin_Q, ranking.code_Q == codes_M, codes_M)


def _image_trials(
    gallery: GalleryBackend, snapshot: GallerySnapshot, rule: str, k: int, images: tuple[np.ndarray, Sequence[str]]
) -> tuple[UnknownTrials | None, KnownTrials | None]:
    """Trials with further images: of classes that are not enrolled, and of classes that are."""
    vectors_QD, labels = check_vectors(images[0], gallery.dim), [check_class_name(label) for label in images[1]]
    if len(vectors_QD) != len(labels):
        raise DataError(f"{len(vectors_QD)} vectors and {len(labels)} labels", expected="as many each")
    if not len(labels):
        return None, None
    codes = {label: code for code, label in enumerate(snapshot.classes)}
    ranking = rank_classes(snapshot, vectors_QD, rule, k)
    # Unknown classes get codes after those of the enrolled ones.
    code_Q = np.array([codes.setdefault(label, len(codes)) for label in labels])
    unknown_Q = code_Q >= len(snapshot.classes)
    unknowns = knowns = None
    score_Q = ranking.score_Q.astype(np.float64)
    if unknown_Q.any():
        weight_N = np.ones(unknown_Q.sum())
        unknowns = UnknownTrials(
            score_Q[unknown_Q], code_Q[unknown_Q], ranking.code_Q[unknown_Q], weight_N, ranking.margin_Q[unknown_Q]
        )
    if not unknown_Q.all():
        known_Q = ~unknown_Q
        right_Q = ranking.code_Q == code_Q
        knowns = KnownTrials(score_Q[known_Q], ranking.margin_Q[known_Q], right_Q[known_Q], code_Q[known_Q])
    return unknowns, knowns


def compare_views(trials: CalibrationTrials, engine: Engine, view: View) -> KnownTrials | None:
    """Compare augmented views of enrolled images with their gallery; None where no image file can be read.

    Args:
        trials: of the gallery.
        engine: computes embeddings.
        view: how its input is made of an image.
    """
    snapshot = trials.snapshot
    inputs, codes = [], []
    for row in balanced_sample(snapshot.codes_N, MAX_VIEWED, 0).tolist():
        try:
            image_HWC = decode(snapshot.names[row], decoding=view.decoding)
        except DataError:
            continue
        inputs += [view(augmented) for augmented in augmented_views(image_HWC, VIEWS, seed=row)]
        codes += [int(snapshot.codes_N[row])] * VIEWS
    if not inputs:
        return None
    steps = range(0, len(inputs), engine.batch)
    vectors_MD = np.concatenate([engine(np.stack(inputs[start : start + engine.batch])) for start in steps])
    ranking = rank_classes(snapshot, vectors_MD, trials.rule, trials.k)
    code_M = np.array(codes)
    return KnownTrials(ranking.score_Q.astype(np.float64), ranking.margin_Q, ranking.code_Q == code_M, code_M)
