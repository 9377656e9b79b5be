"""Where "unknown" begins: the threshold for a stated share of false matches, measured on classes that are not enrolled.

An unknown image is matched falsely when its *best* score over the whole gallery reaches the threshold, so that trials are
made at the gallery's own size: every enrolled class in turn counts as unknown while the others stay (and, or, images of
other classes are given). What a plain quantile of these scores promises does not hold: the few classes that have a
double among the others make most of the false matches, and the quantile is drawn through just these. So the threshold
is moved until the share of false matches is right for classes that had no part in setting it: each class is judged by
the threshold that the others set, without the trials that matched this very class.

Shape letters: N trials of unknown classes, M trials of known ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError, closest
from unalike.metrics.intervals import clustered_share
from unalike.metrics.roc import auroc, between, threshold_at, trials_needed
from unalike.recognition.decision import GalleryCalibration, RateGuarantee, check_rule
from unalike.recognition.gallery import Gallery
from unalike.recognition.ranking import VOTERS, check_vectors, rank_classes
from unalike.recognition.snapshot import GallerySnapshot

# Below this many unknown classes nothing can be said of further ones, whatever the number of images.
MIN_CLASSES = 5
# Trials that are made of a gallery: a seeded sample, as many of each class as can be. Their cost is that of searches.
MAX_TRIALS = 5000
# Classes are judged by the others in at most so many parts.
FOLDS = 100
TRIALS_FROM = ("auto", "gallery", "images", "both")


@dataclass(frozen=True)
class UnknownTrials:
    """Trials with images of unknown classes: best score, their class, the enrolled class that they matched, weight.

    A trial against a gallery without its own class saw fewer vectors than a true unknown would: its false match counts
    for as much more (``weight_N``, a little over 1).
    """

    score_N: np.ndarray
    group_N: np.ndarray
    matched_N: np.ndarray
    weight_N: np.ndarray


@dataclass(frozen=True)
class KnownTrials:
    """Trials with images of enrolled classes, none of which met itself: score, margin, right class or not, its class."""

    score_M: np.ndarray
    margin_M: np.ndarray
    right_M: np.ndarray
    group_M: np.ndarray


def calibrate(
    gallery: Gallery,
    rate: float = 0.01,
    *,
    wrong: float | None = None,
    rule: str = "nearest",
    k: int = VOTERS,
    images: tuple[np.ndarray, Sequence[str]] | None = None,
    trials_from: str = "auto",
    confidence: float = 0.95,
    max_trials: int = MAX_TRIALS,
    seed: int = 0,
) -> GalleryCalibration:
    """Find threshold and margin for ``rule``; the gallery itself is left as it is (set ``gallery.calibration``).

    ``rate``: the share of unknown images that may be taken for known. ``wrong``: the share of known images that may get
    another class's name (``rate`` when None). ``images``: (vectors, class names), of enrolled classes and others; those
    of other classes are the unknown ones (``trials_from`` images), instead of or beside the enrolled classes held out
    (gallery, both; auto takes images where there are unknown ones among them).
    Raises DataError where the data cannot support the rate, SpecError for settings that make no sense.
    """
    check_settings(rate, wrong, rule, trials_from, confidence)
    held = gallery.snapshot
    unknown_parts, known_parts, told = [], [], []
    given, given_known = _given(gallery, held, rule, k, images) if images is not None else (None, None)
    if trials_from == "images" and given is None:
        raise DataError("no images of unknown classes", expected="class folders whose names are not in the gallery")
    if given is not None and trials_from != "gallery":
        unknown_parts.append(given)
        told.append(f"{len(given.score_N)} images of {len(np.unique(given.group_N))} other classes")
    if given is None or trials_from in ("gallery", "both"):
        rows_N = balanced_sample(held.codes_N, max_trials, seed)
        unknown_parts.append(leave_class_out(held, rows_N, rule, k))
        told.append("the gallery's classes, each held out in turn")
    known_parts.append(given_known if given_known is not None else leave_image_out(held, max_trials, seed, rule, k))
    unknowns = UnknownTrials(*(np.concatenate(column) for column in zip(*map(_columns, unknown_parts), strict=True)))
    return _settle(held, unknowns, known_parts[0], rate, rate if wrong is None else wrong, rule, k, confidence,
                   " and ".join(told))  # fmt: skip


def check_settings(
    rate: float, wrong: float | None = None, rule: str = "nearest", trials_from: str = "auto", confidence: float = 0.95,
    **_others: Any,
) -> None:  # fmt: skip
    """SpecError for settings of ``calibrate`` that make no sense; for those who embed images before they call it."""
    check_rule(rule)
    for name, value in (("rate", rate), ("wrong", rate if wrong is None else wrong), ("confidence", confidence)):
        if not 0 < value < 1:
            raise SpecError(f"{name} is {value}", expected="between 0 and 1")
    if trials_from not in TRIALS_FROM:
        raise SpecError(f"trials from {trials_from!r}", expected=", ".join(TRIALS_FROM),
                        remedy=closest(trials_from, TRIALS_FROM))  # fmt: skip


def _columns(part: UnknownTrials) -> tuple[np.ndarray, ...]:
    return part.score_N, part.group_N, part.matched_N, part.weight_N


def balanced_sample(codes_N: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of at most ``most`` trials, drawn so that every class has as equal a number as its size allows."""
    if len(codes_N) <= most:
        return np.arange(len(codes_N))
    shuffled = np.random.default_rng(seed).permutation(len(codes_N))
    order = shuffled[np.argsort(codes_N[shuffled], kind="stable")]
    sorted_codes = codes_N[order]
    place_in_class = np.arange(len(order)) - np.searchsorted(sorted_codes, sorted_codes)
    return np.sort(order[np.argsort(place_in_class, kind="stable")[:most]])


def leave_class_out(held: GallerySnapshot, rows_N: np.ndarray, rule: str, k: int) -> UnknownTrials:
    """These enrolled images against the gallery without their classes."""
    codes_N = held.codes_N[rows_N].astype(np.int64)
    ranked = rank_classes(held, held.vectors(rows_N), rule, k, exclude_class_Q=codes_N, second=False)
    there_N = ranked.code_Q >= 0  # false in a gallery of one class
    codes_N = codes_N[there_N]
    weight_N = len(held) / (len(held) - held.counts_C[codes_N])
    return UnknownTrials(ranked.score_Q[there_N].astype(np.float64), codes_N, ranked.code_Q[there_N], weight_N)


def leave_image_out(held: GallerySnapshot, most: int, seed: int, rule: str, k: int) -> KnownTrials | None:
    """Enrolled images of classes with at least two, each against the gallery without itself."""
    several_M = np.flatnonzero(held.counts_C[held.codes_N] > 1)
    rows_M = several_M[balanced_sample(held.codes_N[several_M], most, seed)]
    if not len(rows_M):
        return None
    ranked = rank_classes(held, held.vectors(rows_M), rule, k, exclude_row_Q=rows_M)
    codes_M = held.codes_N[rows_M]
    return KnownTrials(ranked.score_Q.astype(np.float64), ranked.margin_Q, ranked.code_Q == codes_M, codes_M)


def _given(
    gallery: Gallery, held: GallerySnapshot, rule: str, k: int, images: tuple[np.ndarray, Sequence[str]]
) -> tuple[UnknownTrials | None, KnownTrials | None]:
    vectors_QD, labels = check_vectors(images[0], gallery.dim), list(images[1])
    if len(vectors_QD) != len(labels):
        raise DataError(f"{len(vectors_QD)} vectors and {len(labels)} labels", expected="as many each")
    if not len(labels):
        return None, None
    codes = {label: code for code, label in enumerate(held.classes)}
    ranked = rank_classes(held, vectors_QD, rule, k)
    # Unknown classes get numbers after the enrolled ones.
    number_Q = np.array([codes.setdefault(label, len(codes)) for label in labels])
    unknown_Q = number_Q >= len(held.classes)
    unknowns = knowns = None
    score_Q = ranked.score_Q.astype(np.float64)
    if unknown_Q.any():
        unknowns = UnknownTrials(
            score_Q[unknown_Q], number_Q[unknown_Q], ranked.code_Q[unknown_Q], np.ones(unknown_Q.sum())
        )
    if not unknown_Q.all():
        known_Q = ~unknown_Q
        right_Q = ranked.code_Q == number_Q
        knowns = KnownTrials(score_Q[known_Q], ranked.margin_Q[known_Q], right_Q[known_Q], number_Q[known_Q])
    return unknowns, knowns


# ---- threshold and margin ----


def threshold_at_share(score_N: np.ndarray, weight_N: np.ndarray, share: float) -> float:
    """The lowest threshold at which the weights of the scores that reach it are at most ``share`` of the trials."""
    if not len(score_N):
        return np.inf
    order = np.argsort(-score_N, kind="stable")
    score_N, sum_N = score_N[order], np.cumsum(weight_N[order])
    last = int(np.searchsorted(sum_N, share * len(score_N) * (1 + 1e-12), "right"))  # the first score that is too much
    if last == len(score_N):
        return -np.inf
    above_N = score_N[:last][score_N[:last] > score_N[last]]
    return (
        between(float(score_N[last]), float(above_N[-1]))
        if len(above_N)
        else float(np.nextafter(score_N[last], np.inf))
    )


def cross_validated_false_matches(
    unknowns: UnknownTrials, share: float, across_N: np.ndarray | None = None
) -> np.ndarray:
    """Which trials are false matches (bool N) at the threshold of ``share`` that the other classes set.

    A class and its double are left out together: the trials that matched a class have no say in its judgement. Nor have,
    where ``across_N`` (N,) names another sort of groups that cross the classes, the trials of the same of those.
    """
    classes, group_N = np.unique(unknowns.group_N, return_inverse=True)
    part_of = np.arange(len(classes)) % FOLDS
    place_N = np.searchsorted(classes, unknowns.matched_N)
    known_N = classes[np.minimum(place_N, len(classes) - 1)] == unknowns.matched_N
    matched_part_N = np.where(known_N, part_of[np.minimum(place_N, len(classes) - 1)], -1)
    sorts, across_N = (None, None) if across_N is None else np.unique(across_N, return_inverse=True)
    false_N = np.zeros(len(group_N), np.bool_)
    for part in range(part_of.max() + 1):
        for sort in range(1 if sorts is None else len(sorts)):
            own_N, judge_N = part_of[group_N] == part, (part_of[group_N] != part) & (matched_part_N != part)
            if across_N is not None:
                own_N, judge_N = own_N & (across_N == sort), judge_N & (across_N != sort)
            if not judge_N.any():
                judge_N = ~own_N
            threshold = threshold_at_share(unknowns.score_N[judge_N], unknowns.weight_N[judge_N], share)
            false_N[own_N] = unknowns.score_N[own_N] >= threshold
    return false_N


def find_threshold(
    unknowns: UnknownTrials, rate: float, across_N: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """(threshold, which trials are false matches by the others' judgement): the share of those is at most ``rate``."""
    low, high = 0.0, rate
    share = rate
    for _ in range(12):
        false_N = cross_validated_false_matches(unknowns, share, across_N)
        measured = float((false_N * unknowns.weight_N).mean())
        low, high = (share, high) if measured <= rate else (low, share)
        if low == rate:
            break
        share = (low + high) / 2
    return threshold_at_share(unknowns.score_N, unknowns.weight_N, low), cross_validated_false_matches(
        unknowns, low, across_N
    )


def find_margin(knowns: KnownTrials, threshold: float, wrong: float) -> float:
    """The smallest margin at which at most a share ``wrong`` of the known images gets another class's name."""
    named_M = ~knowns.right_M & (knowns.score_M >= threshold)
    margins = np.where(named_M, knowns.margin_M, -1.0)
    return max(0.0, threshold_at(margins, wrong))


def _settle(
    held: GallerySnapshot,
    unknowns: UnknownTrials,
    knowns: KnownTrials | None,
    rate: float,
    wrong: float,
    rule: str,
    k: int,
    confidence: float,
    told: str,
) -> GalleryCalibration:
    trials, classes = len(unknowns.score_N), len(np.unique(unknowns.group_N))
    needed = trials_needed(rate, confidence)
    if trials < needed or classes < MIN_CLASSES:
        least = -np.expm1(np.log1p(-confidence) / trials) if trials else 1.0
        raise DataError(
            f"{trials} trials of {classes} unknown classes cannot support a false-match rate of {rate:g}",
            expected=f"at least {needed} trials of {MIN_CLASSES} classes",
            remedy="give images of more classes that are not enrolled"
            + (f", or ask for a rate of {least:.2g} or more" if classes >= MIN_CLASSES and least < 1 else ""),
        )
    threshold, false_N = find_threshold(unknowns, rate)
    mirrored = bool(np.isin(unknowns.matched_N, unknowns.group_N).any())
    interval, effective = clustered_share(
        false_N * unknowns.weight_N, unknowns.group_N, confidence, again=True, mirrored=mirrored
    )
    promise = RateGuarantee(
        rate, interval.value, interval.low, interval.high, confidence, trials, classes, effective, needed
    )
    margin, labels, figures = 0.0, None, _figures(unknowns, None, threshold, 0.0)
    if knowns is not None and len(knowns.score_M):
        margin = find_margin(knowns, threshold, wrong)
        labels = _wrong_labels(knowns, threshold, margin, wrong, confidence)
        figures = _figures(unknowns, knowns, threshold, margin)
    return GalleryCalibration(
        threshold, margin, rule, k, promise, labels, len(held), int(np.count_nonzero(held.counts_C)), told, figures,
        revision=held.revision,
    )  # fmt: skip


def _wrong_labels(
    knowns: KnownTrials, threshold: float, margin: float, wrong: float, confidence: float
) -> RateGuarantee:
    named_M = (knowns.score_M >= threshold) & (knowns.margin_M >= margin) & ~knowns.right_M
    interval, effective = clustered_share(named_M, knowns.group_M, confidence)
    low, high = (float(np.nan_to_num(bound, nan=edge)) for bound, edge in ((interval.low, 0.0), (interval.high, 1.0)))
    needed = trials_needed(wrong, confidence)
    trials, classes = len(knowns.score_M), len(np.unique(knowns.group_M))
    return RateGuarantee(
        wrong, interval.value, low, high, confidence, trials, classes, effective, needed, trials >= needed
    )


def _figures(unknowns: UnknownTrials, knowns: KnownTrials | None, threshold: float, margin: float) -> dict[str, Any]:
    """Shares of known images by answer, and how well scores tell known from unknown."""
    if knowns is None:
        return {}
    known_M, sure_M = knowns.score_M >= threshold, knowns.margin_M >= margin
    shares = {
        "right": known_M & sure_M & knowns.right_M,
        "wrong": known_M & sure_M & ~knowns.right_M,
        "ambiguous": known_M & ~sure_M,
        "unknown": ~known_M,
    }
    return {
        "known_images": len(knowns.score_M),
        **{f"known_{name}": float(np.mean(share_M)) for name, share_M in shares.items()},
        "auroc": auroc(knowns.score_M, unknowns.score_N),
    }
