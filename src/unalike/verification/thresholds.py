"""From measures to one score, and from trials to the thresholds between same, altered and different.

Each measure is divided by its limit, below which nearly all benign images stay; the largest quotient counts and names the
reason. The score falls with it: 1 without any difference, 0.5 at the limit.

The threshold of the score is set for a target rate of false accepts: tampered copies or other drawings that are called the
same. As for "unknown" (``recognition.gallery_calibration``), a plain quantile of the trials would be too optimistic: each asset is
evaluated at the threshold that the other assets set, until the rate is met. Tampering in use may be of a kind that
calibration does not contain: so each kind of tampering of each asset is evaluated at the threshold that the other kinds of
the other assets set, and the confidence interval treats kinds as random, like assets.

Shape letters: N trials, M measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError
from unalike.metrics.intervals import clopper_pearson, clustered_proportion
from unalike.metrics.roc import threshold_at, trials_needed
from unalike.numerics.arguments import check_number
from unalike.recognition.calibration_trials import UnknownTrials
from unalike.recognition.decision import RateGuarantee
from unalike.recognition.gallery_calibration import (
    MIN_CLASSES,
    MIN_RATE,
    ThresholdSearch,
    cross_validated_false_matches,
    find_threshold,
)
from unalike.verification.measures import MEASURES

FORMAT_VERSION = 4
# The share of benign images that stays below the limit of each single measure. Not the tail: one image in which the asset
# was not found would make a measure's limit so large that the measure says nothing.
BENIGN_QUANTILE = 0.9
# Least limits: a few clean trials are no reason for lower ones.
MIN_LIMITS = {"edges": 0.1, "distortion": 0.01, "colour": 1.2, "parts": 0.06, "balance": 0.06}
# The limit of ``edges`` in units of that share: small and compressed images have the longest tail in it, and what changes edges
# changes other measures too.
LIMIT_FACTORS = {"edges": 2.0}
# Largest share of other drawings that may pass as showing the asset (at most altered).
OTHER_SHOWN_RATE = 0.05
# Kinds of trials that are no tampering; all other kinds are names of ``tampering.TAMPERING``.
GENUINE, OTHER = "genuine", "other"
# Attributes of VerificationThresholds -> their keys in set files and results, where they differ.
KEYS = {
    "min_correlation": "shown", "min_similarity": "known", "false_accept_unseen": "unseen_accept",
    "false_accept_other": "other_accept", "false_reject": "refused",
}  # fmt: skip
GUARANTEES = ("false_accept", "false_accept_unseen", "false_accept_other", "false_reject")


@dataclass(frozen=True, eq=False)
class TrialMeasurements:
    """Measurements of calibration trials.

    Attributes:
        measures_NM: float64, in the order of MEASURES.
        asset_N: Number of the asset that each image was compared with.
        kind_N: ``genuine``, a kind of tampering, or ``other``.
        similarity_N: Cosine similarity of the image's vector to those of the asset.
        correlation_N: Correlation of the edges, -1 to 1.
    """

    measures_NM: np.ndarray
    asset_N: np.ndarray
    kind_N: np.ndarray
    similarity_N: np.ndarray
    correlation_N: np.ndarray

    def __len__(self) -> int:
        return len(self.asset_N)

    def select(self, chosen_N: np.ndarray) -> TrialMeasurements:
        """Return the chosen trials; ``chosen_N`` is a mask or indices."""
        return TrialMeasurements(*(getattr(self, f.name)[chosen_N] for f in fields(self)))


@dataclass(frozen=True)
class VerificationThresholds:
    """The thresholds between the answers, and the error rates that were measured with them.

    Attributes:
        limits: By measure, the value that nearly all benign images stay below.
        threshold: Score from which an image shows the asset unaltered.
        min_correlation: Correlation of edges from which an image shows the asset at all.
        min_similarity: Cosine similarity from which an image resembles an asset.
        false_accept: Rate of tampered copies called the same, of the ``kinds`` used in calibration.
        false_accept_unseen: The same for kinds that were not used; None where there was one kind only.
        false_accept_other: Rate of other drawings called the same.
        false_reject: Rate of benign images not called the same.
        kinds: Kinds of tampering used in calibration.
        assets: Number of assets.
        figures: Share called the same, by kind of trial.
    """

    limits: dict[str, float]
    threshold: float
    min_correlation: float
    min_similarity: float
    false_accept: RateGuarantee
    false_accept_unseen: RateGuarantee | None
    false_accept_other: RateGuarantee
    false_reject: RateGuarantee
    kinds: tuple[str, ...]
    assets: int
    figures: dict[str, Any] = field(default_factory=dict)

    def score(self, measures: Mapping[str, float]) -> float:
        """Score of an image, 0 to 1, from its largest measure in units of the limit."""
        return 1.0 / (1.0 + max(self.relative(measures).values()))

    def relative(self, measures: Mapping[str, float]) -> dict[str, float]:
        """Return each measure in units of its limit."""
        return {name: max(0.0, float(measures[name])) / limit for name, limit in self.limits.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON and set files."""
        values = {KEYS.get(name, name): value for name, value in asdict(self).items()}
        return {"format_version": FORMAT_VERSION, **values, "kinds": list(self.kinds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VerificationThresholds:
        """Read what ``to_dict`` wrote; raise DataError for thresholds of another version."""
        if values.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"limits of version {values.get('format_version')}", remedy="update unalike, or calibrate again"
            )
        values_by_field = {f.name: values[KEYS.get(f.name, f.name)] for f in fields(cls)}
        for name in GUARANTEES:
            values_by_field[name] = RateGuarantee(**values_by_field[name]) if values_by_field[name] else None
        limits = values_by_field["limits"]
        if set(limits) != set(MEASURES) or not all(
            type(limit) in (int, float) and limit > 0 for limit in limits.values()
        ):
            raise ValueError("the limits of the measures do not fit")
        return cls(**{**values_by_field, "kinds": tuple(values_by_field["kinds"])})

    def __str__(self) -> str:
        accept, accept_unseen, reject = self.false_accept, self.false_accept_unseen, self.false_reject
        of_unseen = (
            f"; of kinds that calibration never saw: {accept_unseen.rate:.2%} ({accept_unseen.low:.2%} to "
            f"{accept_unseen.high:.2%})"
            if accept_unseen is not None else ""
        )  # fmt: skip
        miss_text = (
            ""
            if accept.kept and self.false_accept_other.kept
            else f"; THE TARGET OF {accept.target:.2%} IS NOT ATTAINED"
        )
        return (
            f"threshold {self.threshold:.3f}; altered images called the same: {accept.rate:.2%} ({accept.low:.2%} to "
            f"{accept.high:.2%} with {accept.confidence:.0%} confidence, {accept.trials} trials of {accept.classes} "
            f"assets){of_unseen}; benign images refused: {reject.rate:.2%} ({reject.low:.2%} to {reject.high:.2%}, "
            f"{reject.trials} trials){miss_text}"
        )


def compute_scores(trials: TrialMeasurements, limits: Mapping[str, float]) -> np.ndarray:
    """Return the score of each trial, float64 (N,), 0 to 1."""
    limit_M = np.array([limits[name] for name in MEASURES])
    return np.asarray(1.0 / (1.0 + np.maximum(trials.measures_NM / limit_M, 0).max(axis=1)), np.float64)


def check_rate(rate: float, confidence: float) -> None:
    """Raise SpecError unless both lie between ``MIN_RATE`` and 1."""
    for name, value in (("rate", rate), ("confidence", confidence)):
        if not MIN_RATE <= check_number(name, value) < 1:
            raise SpecError(f"{name} is {value}", expected=f"{MIN_RATE:g} or more, below 1")


def fit_thresholds(trials: TrialMeasurements, rate: float, confidence: float = 0.95) -> VerificationThresholds:
    """Set all thresholds from trials.

    Args:
        trials: Genuine, tampered and other trials.
        rate: Target rate of false accepts, 0 to 1.
        confidence: Confidence of the intervals, 0 to 1.

    Raises:
        DataError: There are too few trials for the rate.
        SpecError: The rate or the confidence is out of range.
    """
    check_rate(rate, confidence)
    genuine_N, other_N = trials.kind_N == GENUINE, trials.kind_N == OTHER
    tampered_N = ~genuine_N & ~other_N
    if not genuine_N.any() or not tampered_N.any():
        raise DataError("no trials of benign images, or none of tampered ones", expected="some of each")
    require_trials(int(tampered_N.sum()), int(other_N.sum()), rate, confidence)
    quantile_M = np.quantile(trials.measures_NM[genuine_N], BENIGN_QUANTILE, axis=0)
    limits = {
        name: max(float(value) * LIMIT_FACTORS.get(name, 1.0), MIN_LIMITS[name])
        for name, value in zip(MEASURES, quantile_M, strict=True)
    }
    score_N = compute_scores(trials, limits)
    kind_N = trials.kind_N[tampered_N].astype(str)
    several = len(np.unique(kind_N)) > 1
    tampered, others = (_ImpostorScores(score_N[one_N], trials.asset_N[one_N]) for one_N in (tampered_N, other_N))
    searches = tampered.find_threshold(rate, kind_N if several else None), others.find_threshold(rate)
    threshold = max(search.threshold for search in searches)
    # Each asset evaluated by the others, at the share that the threshold accepts of all impostors of its sort.
    rate_seen, rate_unseen, other = (
        _measure_rate(sort.false_accepts(threshold, across_N), sort.asset_N, rate, confidence, across_N)
        for sort, across_N in ((tampered, None), (tampered, kind_N), (others, None))
    )
    rate_seen, other = (
        replace(guarantee, kept=guarantee.kept and search.attained)
        for guarantee, search in zip((rate_seen, other), searches, strict=True)
    )
    reject_rate = _measure_rate(score_N[genuine_N] < threshold, trials.asset_N[genuine_N], rate, confidence)
    own_N = genuine_N | tampered_N
    kinds = np.unique(trials.kind_N).tolist()
    return VerificationThresholds(
        limits=limits,
        threshold=float(threshold),
        min_correlation=_separate(trials.correlation_N[own_N], trials.correlation_N[other_N]),
        min_similarity=_separate(trials.similarity_N[own_N], trials.similarity_N[other_N]),
        false_accept=rate_seen,
        false_accept_unseen=rate_unseen if several else None,
        false_accept_other=other,
        false_reject=reject_rate,
        kinds=tuple(sorted(set(trials.kind_N[tampered_N].tolist()))),
        assets=len(np.unique(trials.asset_N)),
        figures={kind: float(np.mean(score_N[trials.kind_N == kind] >= threshold)) for kind in kinds},
    )


def require_trials(tampered: int, others: int, rate: float, confidence: float) -> None:
    """Raise DataError where the numbers of trials with tampered and with other drawings cannot support the rate."""
    required_trials = trials_needed(rate, confidence)
    least = min(tampered, others)
    if least < required_trials:
        possible = -np.expm1(np.log1p(-confidence) / max(least, 1))
        raise DataError(
            f"{tampered} trials with tampered and {others} with other drawings cannot support a "
            f"false-accept rate of {rate:g}",
            expected=f"at least {required_trials} of each",
            remedy=f"ask for more trials, or for a rate of {possible:.2g} or more",
        )


@dataclass(frozen=True, eq=False)
class _ImpostorScores:
    """Scores of images that must not be called the same, and the asset that each was compared with."""

    score_N: np.ndarray
    asset_N: np.ndarray

    def _unknowns(self) -> UnknownTrials:
        # Assets are the groups where there are enough of them; with fewer, the rate holds for these alone, trial by trial.
        count = len(self.score_N)
        group_N = self.asset_N if len(np.unique(self.asset_N)) >= MIN_CLASSES else np.arange(count)
        return UnknownTrials(self.score_N, group_N, np.full(count, -1, np.int64), np.ones(count))

    def find_threshold(self, rate: float, across_N: np.ndarray | None = None) -> ThresholdSearch:
        """Find the threshold that accepts a share of at most ``rate``, each asset (and kind, ``across_N``) by the others."""
        return find_threshold(self._unknowns(), rate, across_N)

    def false_accepts(self, threshold: float, across_N: np.ndarray | None = None) -> np.ndarray:
        """Which are accepted where the others set their threshold at the share that ``threshold`` accepts of all."""
        return cross_validated_false_matches(self._unknowns(), float(np.mean(self.score_N >= threshold)), across_N)


def _measure_rate(
    event_N: np.ndarray, asset_N: np.ndarray, target: float, confidence: float, kind_N: np.ndarray | None = None
) -> RateGuarantee:
    """The rate of an event with its interval; assets, and kinds where they are given, are taken as random."""
    classes, trials = len(np.unique(asset_N)), len(event_N)
    if classes >= MIN_CLASSES or kind_N is not None:
        group_N = asset_N if classes >= MIN_CLASSES else np.arange(trials)
        interval, effective = clustered_proportion(
            event_N.astype(float), group_N, confidence, new_sample=True, crossed_groups_Q=kind_N
        )
    else:
        interval, effective = clopper_pearson(float(event_N.sum()), trials, confidence), float(trials)
    required_trials = trials_needed(target, confidence)
    return RateGuarantee(target, interval.value, interval.low, interval.high, confidence, trials, classes, effective,
                         required_trials, trials >= required_trials)  # fmt: skip


def _separate(own_N: np.ndarray, other_N: np.ndarray) -> float:
    """The threshold with the fewest errors (shares of both sorts added), which at most OTHER_SHOWN_RATE of others pass."""
    candidates = np.unique(np.concatenate([own_N, other_N]))
    errors = [float(np.mean(own_N < value)) + float(np.mean(other_N >= value)) for value in candidates]
    return float(max(candidates[int(np.argmin(errors))], threshold_at(other_N, OTHER_SHOWN_RATE)))
