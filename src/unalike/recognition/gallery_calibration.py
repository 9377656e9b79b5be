"""Calibration of a gallery: the decision threshold for a target false match rate, measured on unknown classes.

An unknown image is matched falsely when its *best* score over the whole gallery reaches the threshold. Trials are therefore
made at the gallery's own size (``recognition.calibration_trials``). A plain quantile of these scores is too low: the few classes that have a look-alike among the
others make most of the false matches, and the quantile is fitted to just these. So the threshold is moved until the false
match rate is right in cross-validation: false matches of a class are counted at the threshold that the other classes set,
without the trials that matched this very class. And it is moved until the true rate is at most TOLERANCE x the target with a
confidence of CERTAINTY, by the number of independent trials that the images are worth; where no threshold attains that, the
calibration is refused (docs/experiments/gallery.md has how often, by simulation).

Shape letters: N trials of unknown classes, M trials of known classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError, closest
from unalike.metrics.intervals import SYMMETRIC_FACTOR, beta_quantile, clustered_proportion, student_quantile
from unalike.metrics.roc import auroc, between, threshold_at, trials_needed
from unalike.numerics.arguments import check_count, check_number
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.calibration_trials import (
    MAX_TRIALS,
    CalibrationTrials,
    KnownTrials,
    UnknownTrials,
    collect_trials,
)
from unalike.recognition.decision import GalleryCalibration, RateGuarantee, check_rule
from unalike.recognition.ranking import VOTERS

# With fewer unknown classes nothing can be stated about further ones, whatever the number of images.
MIN_CLASSES = 5
# A threshold is accepted when the true rate is at most TOLERANCE x the target with a confidence of CERTAINTY.
TOLERANCE, CERTAINTY = 1.5, 0.9
# Lower rates would take millions of independent trials.
MIN_RATE = 1e-6
# Factor between the rates of which a refusal names the first that would be accepted.
RATE_STEP = 1.15
# The shares of best scores by which the effective number of trials is estimated; the smallest estimate counts. With the first
# alone galleries were accepted for their luck: 15 % of those of 30 Grocery classes at a rate of 5 %, and of these 40 % had more
# than 1.5 x the rate (docs/experiments/gallery.md, 2026-11-29).
TAIL_SHARES = (0.1, 0.2, 0.3)
# Most folds of the cross-validation over classes.
FOLDS = 100
TRIALS_FROM = ("auto", "gallery", "images", "both")


def calibrate(
    gallery: GalleryBackend,
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
    """Find threshold and margin for ``rule``. The gallery is not changed: assign the result to ``gallery.calibration``.

    Args:
        gallery: the enrolled classes.
        rate: target false match rate, the share of unknown images that may be taken for known (0..1, exclusive).
        wrong: share of known images that may get another class's name; ``rate`` when None.
        rule: how neighbors become a class (``decision.RULES``).
        k: number of neighbors that vote.
        images: (vectors, class names) of further images; those whose class is not enrolled are unknown.
        trials_from: where unknown images come from: ``images``, ``gallery`` (enrolled classes, each left out in turn),
            ``both``, or ``auto``: ``images`` where there are unknown ones among them.
        confidence: of the intervals, 0..1, exclusive.
        max_trials: most trials that are made of the gallery.
        seed: of the sample of trials.

    Raises:
        DataError: the data cannot support the rate.
        SpecError: a setting is out of range.
    """
    check_settings(rate, wrong, rule, trials_from, confidence)
    k, max_trials = check_count("k", k), check_count("max_trials", max_trials)
    trials = collect_trials(
        gallery, rule=rule, k=k, images=images, trials_from=trials_from, max_trials=max_trials, seed=seed
    )
    return calibration_of(trials, rate, wrong=wrong, confidence=confidence)


def calibration_of(
    trials: CalibrationTrials, rate: float, *, wrong: float | None = None, confidence: float = 0.95
) -> GalleryCalibration:
    """Find threshold and margin from trials; arguments and errors as of ``calibrate``."""
    snapshot, unknowns, knowns = trials.snapshot, trials.unknowns, trials.knowns
    threshold, false_match = _false_match_guarantee(unknowns, rate, confidence)
    margin, wrong_label = 0.0, None
    if knowns is not None and len(knowns.score_M):
        wrong = rate if wrong is None else wrong
        margin = find_margin(knowns, threshold, wrong)
        wrong_label = _wrong_label_guarantee(knowns, threshold, margin, wrong, confidence)
    return GalleryCalibration(
        threshold, margin, trials.rule, trials.k, false_match, wrong_label, len(snapshot),
        int(np.count_nonzero(snapshot.counts_C)), trials.made_from,
        known_shares(unknowns, knowns, threshold, margin, confidence), revision=snapshot.revision,
        tail=tail_scale(unknowns), second_weight=trials.second_weight,
    )  # fmt: skip


def check_settings(
    rate: float, wrong: float | None = None, rule: str = "nearest", trials_from: str = "auto", confidence: float = 0.95,
    **_others: Any,
) -> None:  # fmt: skip
    """Raise SpecError for settings of ``calibrate`` out of range, before images are embedded for it."""
    check_rule(rule)
    for name, value in (("rate", rate), ("wrong", rate if wrong is None else wrong), ("confidence", confidence)):
        if not MIN_RATE <= check_number(name, value) < 1:
            raise SpecError(f"{name} is {value}", expected=f"{MIN_RATE:g} or more, below 1")
    if trials_from not in TRIALS_FROM:
        raise SpecError(f"trials from {trials_from!r}", expected=", ".join(TRIALS_FROM),
                        remedy=closest(trials_from, TRIALS_FROM))  # fmt: skip


# ---- threshold and margin ----


def threshold_at_share(score_N: np.ndarray, weight_N: np.ndarray, share: float) -> float:
    """The lowest threshold that scores of at most a weight of ``share`` times the number of trials reach."""
    if not len(score_N):
        return np.inf
    order = np.argsort(-score_N, kind="stable")
    score_N, sum_N = score_N[order], np.cumsum(weight_N[order])
    last = int(np.searchsorted(sum_N, share * len(score_N) * (1 + 1e-12), "right"))  # the first score that is too much
    if last == len(score_N):
        return -np.inf
    above_N = score_N[:last][score_N[:last] > score_N[last]]
    if not len(above_N):
        return float(np.nextafter(score_N[last], np.inf))
    return between(float(score_N[last]), float(above_N[-1]))


def cross_validated_false_matches(
    unknowns: UnknownTrials, share: float, kind_N: np.ndarray | None = None
) -> np.ndarray:
    """Which trials are false matches (bool N) at the threshold of ``share`` that the other classes set.

    Args:
        unknowns: the trials. A class and its look-alike are left out together: trials that matched a class do not set the
            threshold that it is compared with.
        share: as in ``threshold_at_share``.
        kind_N: another grouping that crosses classes; trials of the same kind are left out as well.
    """
    classes, group_N = np.unique(unknowns.group_N, return_inverse=True)
    fold_of = np.arange(len(classes)) % FOLDS
    index_N = np.minimum(np.searchsorted(classes, unknowns.matched_N), len(classes) - 1)
    matched_fold_N = np.where(classes[index_N] == unknowns.matched_N, fold_of[index_N], -1)
    kinds, kind_N = (None, None) if kind_N is None else np.unique(kind_N, return_inverse=True)
    false_N = np.zeros(len(group_N), np.bool_)
    for fold in range(fold_of.max() + 1):
        for kind in range(1 if kinds is None else len(kinds)):
            test_N = fold_of[group_N] == fold
            train_N = (fold_of[group_N] != fold) & (matched_fold_N != fold)
            if kind_N is not None:
                test_N, train_N = test_N & (kind_N == kind), train_N & (kind_N != kind)
            if not train_N.any():
                train_N = ~test_N
            threshold = threshold_at_share(unknowns.score_N[train_N], unknowns.weight_N[train_N], share)
            false_N[test_N] = unknowns.score_N[test_N] >= threshold
    return false_N


@dataclass(frozen=True)
class ThresholdSearch:
    """Result of ``find_threshold``.

    Attributes:
        threshold: the lowest threshold that meets the target.
        false_N: which trials are false matches in cross-validation.
        attained: whether the target is met; False where it is missed even by a threshold above every score, which is
            then the result.
    """

    threshold: float
    false_N: np.ndarray
    attained: bool


def find_threshold(
    unknowns: UnknownTrials,
    rate: float,
    kind_N: np.ndarray | None = None,
    *,
    upper_bound: Callable[[float], float] | None = None,
) -> ThresholdSearch:
    """Find the lowest threshold whose cross-validated false match rate is at most ``rate``, by bisection.

    Args:
        unknowns: the trials.
        rate: target false match rate, 0..1.
        kind_N: as in ``cross_validated_false_matches``.
        upper_bound: computes an upper bound of the true rate from the one measured; it must be at most TOLERANCE x
            ``rate``. None does not bound it.
    """

    def meets_target(share: float) -> tuple[bool, np.ndarray]:
        false_N = cross_validated_false_matches(unknowns, share, kind_N)
        false_rate = float((false_N * unknowns.weight_N).mean())
        return false_rate <= rate and (upper_bound is None or upper_bound(false_rate) <= TOLERANCE * rate), false_N

    low, high = 0.0, rate
    is_attained, false_N = meets_target(rate)
    if is_attained:
        return ThresholdSearch(threshold_at_share(unknowns.score_N, unknowns.weight_N, rate), false_N, True)
    is_attained, false_N = meets_target(0.0)
    for _ in range(12 if is_attained else 0):
        share = (low + high) / 2
        meets, false_at_share_N = meets_target(share)
        if meets:
            low, false_N = share, false_at_share_N
        else:
            high = share
    return ThresholdSearch(threshold_at_share(unknowns.score_N, unknowns.weight_N, low), false_N, is_attained)


def find_margin(knowns: KnownTrials, threshold: float, wrong: float) -> float:
    """The smallest margin at which at most a share ``wrong`` of the known images gets another class's name."""
    mislabeled_M = ~knowns.right_M & (knowns.score_M >= threshold)
    margins = np.where(mislabeled_M, knowns.margin_M, -1.0)
    return max(0.0, threshold_at(margins, wrong))


def effective_trials(unknowns: UnknownTrials) -> float:
    """Number of independent trials that these tell as much as, 0 without trials.

    Measured by which trials are among the best TAIL_SHARES of scores: the images of a class are alike, and where enrolled
    classes are the unknown ones, two look-alikes match one another, so that their false matches count once.
    """
    if not len(unknowns.score_N):
        return 0.0
    thresholds = [threshold_at_share(unknowns.score_N, unknowns.weight_N, share) for share in TAIL_SHARES]
    effective = min(
        clustered_proportion(unknowns.score_N >= threshold, unknowns.group_N)[1] for threshold in thresholds
    )
    # With few classes that number is uncertain itself.
    freedom = max(1, len(np.unique(unknowns.group_N)) - 1)
    effective *= (student_quantile(1e6, CERTAINTY) / student_quantile(freedom, CERTAINTY)) ** 2
    return effective / (SYMMETRIC_FACTOR if is_mirrored(unknowns) else 1)


def tail_scale(unknowns: UnknownTrials) -> float:
    """Mean excess of the best scores over the one that begins them: the scale of an exponential tail.

    Each class counts with its own best score, since images of a class are alike. The largest of the mean excesses of the best
    fortieth to half of the classes, at least five of them: the tail is longer where some classes have look-alikes.
    """
    classes, group_N = np.unique(unknowns.group_N, return_inverse=True)
    best_C = np.full(len(classes), -np.inf)
    np.maximum.at(best_C, group_N, unknowns.score_N)
    best_C = np.sort(best_C)[::-1]
    counts = {max(5, math.ceil(share * len(best_C))) for share in (0.025, 0.05, 0.1, 0.2, 0.5)}
    return max((float(best_C[:n].mean() - best_C[n]) for n in counts if n < len(best_C)), default=0.0)


def is_mirrored(unknowns: UnknownTrials) -> bool:
    """Whether unknown images matched classes that are unknown in other trials, so that a pair may count twice."""
    return bool(np.isin(unknowns.matched_N, unknowns.group_N).any())


def lowest_rate(trials: float) -> float:
    """The lowest false match rate (0..1) that so many independent trials support where one of them is a false match.

    Its upper bound at confidence CERTAINTY is then TOLERANCE x the rate.
    """
    return min(1.0, beta_quantile(2, trials - 1, CERTAINTY) / TOLERANCE) if trials > 1 else 1.0


def independent_trials_needed(rate: float) -> int:
    """The smallest number of independent trials whose ``lowest_rate`` is at most ``rate``."""
    low, high = 1, 2
    while lowest_rate(high) > rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if lowest_rate(middle) <= rate else (middle, high)
    return high


def _upper_bound(rate: float, effective: float) -> float:
    """The rate that the true one exceeds with a probability of 1 - CERTAINTY, where so many independent trials measured it."""
    count = min(rate, 1.0) * effective
    return beta_quantile(count + 1, effective - count, CERTAINTY)


def _false_match_guarantee(unknowns: UnknownTrials, rate: float, confidence: float) -> tuple[float, RateGuarantee]:
    """(threshold, what is known of its false match rate). DataError where there are too few trials or classes."""
    trials, classes = len(unknowns.score_N), len(np.unique(unknowns.group_N))
    effective = effective_trials(unknowns)
    required_trials = independent_trials_needed(rate)

    def search_threshold(target: float) -> ThresholdSearch:
        return find_threshold(unknowns, target, upper_bound=lambda share: _upper_bound(share, effective))

    search = search_threshold(rate) if classes >= MIN_CLASSES else None
    if search is None or not search.attained:
        possible = max(lowest_rate(effective), RATE_STEP * rate)
        while classes >= MIN_CLASSES and possible < 1 and not search_threshold(possible).attained:
            possible *= RATE_STEP
        possible = math.ceil(1000 * possible) / 1000  # so that it can be typed
        raise DataError(
            f"{trials} trials of {classes} unknown classes are worth {effective:.0f} independent ones, since images of a class "
            f"are alike; that cannot support a false-match rate of {rate:g}",
            expected=f"at least {required_trials} independent trials, of {MIN_CLASSES} classes or more",
            remedy="give images of more classes that are not enrolled, or enroll more classes"
            + (f", or ask for a rate of {possible:g} or more" if classes >= MIN_CLASSES and possible < 1 else ""),
        )
    interval, _ = clustered_proportion(
        search.false_N * unknowns.weight_N,
        unknowns.group_N,
        confidence,
        new_sample=True,
        symmetric=is_mirrored(unknowns),
    )
    return search.threshold, RateGuarantee(
        rate, interval.value, interval.low, interval.high, confidence, trials, classes, effective, required_trials
    )


def _wrong_label_guarantee(
    knowns: KnownTrials, threshold: float, margin: float, wrong: float, confidence: float
) -> RateGuarantee:
    mislabeled_M = (knowns.score_M >= threshold) & (knowns.margin_M >= margin) & ~knowns.right_M
    interval, effective = clustered_proportion(mislabeled_M, knowns.group_M, confidence)
    low, high = (float(np.nan_to_num(bound, nan=edge)) for bound, edge in ((interval.low, 0.0), (interval.high, 1.0)))
    required_trials = trials_needed(wrong, confidence)
    trials, classes = len(knowns.score_M), len(np.unique(knowns.group_M))
    return RateGuarantee(
        wrong,
        interval.value,
        low,
        high,
        confidence,
        trials,
        classes,
        effective,
        required_trials,
        trials >= required_trials,
    )


def known_shares(
    unknowns: UnknownTrials, knowns: KnownTrials | None, threshold: float, margin: float, confidence: float = 0.95
) -> dict[str, Any]:
    """Shares of known images by decision, and how well scores tell known from unknown (AUROC).

    ``known_unknown``, the share that is called unknown, has an interval over classes: ``known_unknown_low`` and ``_high``.
    """
    if knowns is None or not len(knowns.score_M):
        return {}
    known_M, sure_M = knowns.score_M >= threshold, knowns.margin_M >= margin
    shares = {
        "right": known_M & sure_M & knowns.right_M,
        "wrong": known_M & sure_M & ~knowns.right_M,
        "ambiguous": known_M & ~sure_M,
        "unknown": ~known_M,
    }
    refusal, _ = clustered_proportion(~known_M, knowns.group_M, confidence)
    low, high = (float(np.nan_to_num(bound, nan=edge)) for bound, edge in ((refusal.low, 0.0), (refusal.high, 1.0)))
    return {
        "known_images": len(knowns.score_M),
        "known_classes": len(np.unique(knowns.group_M)),
        **{f"known_{name}": float(np.mean(share_M)) for name, share_M in shares.items()},
        "known_unknown_low": low,
        "known_unknown_high": high,
        "auroc": auroc(knowns.score_M, unknowns.score_N) if len(unknowns.score_N) else None,
    }
