"""The threshold that a new gallery gets: false matches against refused known images, and a provisional one without a rate.

A threshold costs in two directions: images of unknown classes that are taken for known, and images of known classes that are
called unknown. The lowest of RATES at which few enough known images are refused is taken. Where no rate that the images can
support does that, the threshold follows from the scores of known images alone: it is *provisional*, and no rate is promised.

Shape letters: M trials of known classes, N of unknown ones, Q images of augmented views.
"""

from __future__ import annotations

import math

import numpy as np

from unalike.errors import DataError
from unalike.metrics.intervals import clustered_proportion
from unalike.recognition.calibration_trials import CalibrationTrials, KnownTrials
from unalike.recognition.decision import GalleryCalibration, RateGuarantee
from unalike.recognition.gallery_calibration import (
    calibration_of,
    effective_trials,
    independent_trials_needed,
    is_mirrored,
    known_shares,
    tail_scale,
)

# False match rates that are tried, the lowest first; above the last one "unknown" would mean little.
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
MAX_REFUSED = 0.05
CURVE_POINTS = 200


def choose_threshold(
    trials: CalibrationTrials, rate: float | None = None, max_refused: float = MAX_REFUSED, *, confidence: float = 0.95,
    views: KnownTrials | None = None,
) -> GalleryCalibration:  # fmt: skip
    """Choose the threshold of a gallery.

    Args:
        trials: images of unknown and of known classes, compared with the gallery.
        rate: target false match rate, 0..1; None: the lowest of RATES at which at most ``max_refused`` of the known images
            are called unknown.
        max_refused: share of known images that may be called unknown, 0..1.
        confidence: of the intervals.
        views: augmented views of enrolled images, for galleries in which no class has two images.

    Returns:
        A calibration with a promised rate, or a provisional one.

    Raises:
        DataError: The gallery holds nothing that could be compared (one class with one image).
    """
    refusal: DataError | None = None
    for candidate in RATES if rate is None else (rate,):
        try:
            calibration = calibration_of(trials, candidate, confidence=confidence)
        except DataError as error:
            refusal = refusal or error
            continue
        known_unknown = calibration.figures.get("known_unknown", math.inf)  # not measured: not known to be bounded
        if rate is not None or known_unknown <= max_refused:
            return calibration
    return provisional_calibration(trials, RATES[0] if rate is None else rate, max_refused, confidence, views)


def provisional_calibration(
    trials: CalibrationTrials, rate: float, max_refused: float, confidence: float, views: KnownTrials | None
) -> GalleryCalibration:
    """A calibration whose threshold accepts all but ``max_refused`` of the known images; ``rate`` is what was asked for.

    Raises:
        DataError: There are no scores to set it by.
    """
    unknowns, snapshot = trials.unknowns, trials.snapshot
    knowns = trials.knowns if trials.knowns is not None else views
    if knowns is None or not len(knowns.score_M):
        raise DataError(f"no threshold can be set: the gallery has {len(snapshot)} images of "
                        f"{np.count_nonzero(snapshot.counts_C)} classes, none with a second image or a file that can be read",
                        remedy="enroll two images or more of each class")  # fmt: skip
    threshold = _lower_quantile(knowns.score_M, max_refused)
    if trials.knowns is None and len(unknowns.score_N):
        # Augmented views are nearer to their reference than another photograph is. But the best score of a photograph of a known
        # class is at least that to the other classes, which is distributed as between classes: no more are refused than there.
        threshold = min(threshold, _lower_quantile(unknowns.score_N, max_refused))
    false_N = (unknowns.score_N >= threshold) * unknowns.weight_N
    interval, effective = clustered_proportion(
        false_N, unknowns.group_N, confidence, new_sample=True, symmetric=is_mirrored(unknowns)
    )
    value, low, high = (
        float(np.nan_to_num(number, nan=edge))  # without unknown classes nothing is known: 0 to 1
        for number, edge in ((interval.value, 1.0), (interval.low, 0.0), (interval.high, 1.0))
    )
    guarantee = RateGuarantee(
        rate, value, low, high, confidence, len(false_N), len(np.unique(unknowns.group_N)), effective,
        independent_trials_needed(rate), False,
    )  # fmt: skip
    return GalleryCalibration(
        threshold, 0.0, trials.rule, trials.k, guarantee, None, len(snapshot), int(np.count_nonzero(snapshot.counts_C)),
        trials.made_from, known_shares(unknowns, trials.knowns, threshold, 0.0, confidence), revision=snapshot.revision,
        tail=tail_scale(unknowns), provisional=True, needs=_needs(trials, rate), second_weight=trials.second_weight,
    )  # fmt: skip


def _lower_quantile(score_M: np.ndarray, share: float) -> float:
    """The threshold under which at most a share of further scores is expected to fall: an order statistic of n + 1."""
    ordered_M = np.sort(score_M)
    below = math.floor(
        share * (len(ordered_M) + 1) * (1 + 1e-12)
    )  # 0.29 of 100 are 29, whatever 0.29 * 100 is to a computer
    return float(ordered_M[max(below - 1, 0)])


def _needs(trials: CalibrationTrials, rate: float) -> str:
    """What a promised rate would need, in words."""
    classes = len(np.unique(trials.unknowns.group_N))
    min_trials = independent_trials_needed(rate)
    effective = effective_trials(trials.unknowns)
    second = "a second image of some classes, by which the share of your own images that are called unknown is measured"
    if effective >= min_trials:
        return (
            f"a promised rate needs {second}"
            if trials.knowns is None
            else (
                f"at a promised rate of {rate:.0%} more of your own images would be called unknown than allowed: train the "
                "network, or enroll more references of each class"
            )
        )
    factor = min_trials / effective if effective > 0 else math.inf
    count = f"about {math.ceil(classes * factor)}" if math.isfinite(factor) and classes else "five"
    more = f", and {second}" if trials.knowns is None else ""
    return f"a promised rate of {rate:.0%} needs images of {count} classes like these, enrolled or not; there are {classes}{more}"


def cost_curve(trials: CalibrationTrials) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Both costs by threshold.

    Returns:
        (threshold, share of unknown images taken for known) and (threshold, share of known images called unknown), at most
        CURVE_POINTS points each; empty without trials of that kind.
    """
    scores = [trials.unknowns.score_N] + ([trials.knowns.score_M] if trials.knowns is not None else [])
    both = np.concatenate(scores)
    if not len(both):
        return [], []
    thresholds = np.linspace(float(both.min()), float(both.max()), CURVE_POINTS)

    def below(score: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.sort(score), thresholds, side="left") / len(score)

    accept_rate = 1 - below(trials.unknowns.score_N) if len(trials.unknowns.score_N) else np.empty(0)
    refuse_rate = (
        below(trials.knowns.score_M) if trials.knowns is not None and len(trials.knowns.score_M) else np.empty(0)
    )
    return (
        list(zip(thresholds.tolist(), accept_rate.tolist(), strict=False)),
        list(zip(thresholds.tolist(), refuse_rate.tolist(), strict=False)),
    )
