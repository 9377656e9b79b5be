"""From measures of a difference to one score, and from trials to the limits between same, altered and different.

Each measure is told in units of its limit, what nearly all harmless pictures stay below; the largest of these is what
counts, and names the reason. The score falls with it: 1 for no difference at all, 0.5 at the limit.

The threshold on the score is set for a stated share of false accepts, tampered copies or other drawings called the same.
As for "unknown" (gallery.calibration), a plain quantile would promise too much: each asset is judged by the threshold that
the others set, until the share is right. What befalls an asset tomorrow is no kind of tampering that was thought of today:
each kind of tampering of each asset is judged by the threshold that the other kinds of the other assets set, and the
interval takes kinds for as random as assets.

Shape letters: N trials, M measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError
from unalike.metrics.intervals import clopper_pearson, clustered_share
from unalike.metrics.roc import threshold_at, trials_needed
from unalike.recognition.calibration import MIN_CLASSES, UnknownTrials, cross_validated_false_matches, find_threshold
from unalike.recognition.decision import RateGuarantee
from unalike.verification.measures import MEASURES

FORMAT_VERSION = 2
# The share of harmless pictures that stays below each single measure's limit.
BELOW = 0.98
# Limits never fall below these: what a few clean trials happen to show is no reason for less.
LEAST = {"edges": 0.05, "distortion": 0.01, "colour": 0.06, "parts": 0.06, "balance": 0.06}
# Pictures of other drawings that may pass for showing the asset (altered, if anything).
SHOWN_RATE = 0.05


@dataclass(frozen=True, eq=False)
class Trials:
    """What was measured: ``measures_NM`` in the order of MEASURES, ``fit_N``, ``asset_N`` (number of the asset that was
    looked for), ``kind_N`` (``genuine``, a kind of tampering, or ``other``), and ``cosine_N`` to that asset's vectors."""

    measures_NM: np.ndarray
    asset_N: np.ndarray
    kind_N: np.ndarray
    cosine_N: np.ndarray

    def __len__(self) -> int:
        return len(self.asset_N)

    def select(self, chosen_N: np.ndarray) -> Trials:
        return Trials(*(getattr(self, f.name)[chosen_N] for f in fields(self)))


@dataclass(frozen=True)
class Limits:
    """Where the answers part.

    ``limits`` of each measure; ``threshold`` of the score: at least that is ``same``. ``shown``: the least agreement of
    edges (1 - ``edges``) at which a picture shows the asset at all. ``known``: the least cosine of a picture that resembles
    an asset. ``false_accept`` is the promise for tampered copies of the ``kinds`` it was made with, ``unseen_accept`` for kinds
    that calibration never saw (None where it was made with one), ``other_accept`` for other drawings; ``refused`` the share
    of harmless pictures that are not called the same.
    """

    limits: dict[str, float]
    threshold: float
    shown: float
    known: float
    false_accept: RateGuarantee
    unseen_accept: RateGuarantee | None
    other_accept: RateGuarantee
    refused: RateGuarantee
    kinds: tuple[str, ...]
    assets: int
    figures: dict[str, Any] = field(default_factory=dict)

    def score(self, measures: Mapping[str, float]) -> float:
        """0..1, from the measure that is largest in units of its limit."""
        return 1.0 / (1.0 + max(self.shares(measures).values()))

    def shares(self, measures: Mapping[str, float]) -> dict[str, float]:
        """Each measure in units of its limit."""
        return {name: max(0.0, float(measures[name])) / limit for name, limit in self.limits.items()}

    def to_dict(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **asdict(self), "kinds": list(self.kinds)}

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Limits:
        """Raises DataError for limits of a later version."""
        if held.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"limits of version {held.get('format_version')}", remedy="update unalike, or calibrate again"
            )
        known = {f.name: held[f.name] for f in fields(cls)}
        for name in ("unseen_accept", "false_accept", "other_accept", "refused"):
            known[name] = RateGuarantee(**known[name]) if known[name] else None
        return cls(**{**known, "kinds": tuple(known["kinds"])})

    def __str__(self) -> str:
        seen, unseen, right = self.false_accept, self.unseen_accept, self.refused
        told = (
            f"; of kinds that calibration never saw: {unseen.rate:.2%} ({unseen.low:.2%} to {unseen.high:.2%})"
            if unseen is not None else ""
        )  # fmt: skip
        return (
            f"threshold {self.threshold:.3f}; altered pictures called the same: {seen.rate:.2%} ({seen.low:.2%} to "
            f"{seen.high:.2%} with {seen.confidence:.0%} confidence, {seen.trials} trials of {seen.classes} assets){told}; "
            f"harmless pictures refused: {right.rate:.2%} ({right.low:.2%} to {right.high:.2%}, {right.trials} trials)"
        )


def scores_of(trials: Trials, limits: Mapping[str, float]) -> np.ndarray:
    """float64 (N,)."""
    limit_M = np.array([limits[name] for name in MEASURES])
    return np.asarray(1.0 / (1.0 + np.maximum(trials.measures_NM / limit_M, 0).max(axis=1)), np.float64)


def check_rate(rate: float, confidence: float) -> None:
    for name, value in (("rate", rate), ("confidence", confidence)):
        if not 0 < value < 1:
            raise SpecError(f"{name} is {value}", expected="between 0 and 1")


def settle_limits(trials: Trials, rate: float, confidence: float = 0.95) -> Limits:
    """Find every limit. Raises DataError where the trials cannot support ``rate``."""
    check_rate(rate, confidence)
    genuine_N, other_N = trials.kind_N == "genuine", trials.kind_N == "other"
    tampered_N = ~genuine_N & ~other_N
    if not genuine_N.any() or not tampered_N.any():
        raise DataError("no trials of harmless pictures, or none of tampered ones", expected="some of each")
    needed = trials_needed(rate, confidence)
    least = min(int(tampered_N.sum()), int(other_N.sum()))
    if least < needed:
        possible = -np.expm1(np.log1p(-confidence) / max(least, 1))
        raise DataError(
            f"{tampered_N.sum()} trials with tampered and {other_N.sum()} with other drawings cannot support a "
            f"false-accept rate of {rate:g}",
            expected=f"at least {needed} of each",
            remedy=f"ask for more trials, or for a rate of {possible:.2g} or more",
        )
    below_M = np.quantile(trials.measures_NM[genuine_N], BELOW, axis=0)
    limits = {name: max(float(value), LEAST[name]) for name, value in zip(MEASURES, below_M, strict=True)}
    score_N = scores_of(trials, limits)
    assets = np.unique(trials.asset_N)
    kind_N = trials.kind_N[tampered_N].astype(str)
    several = len(np.unique(kind_N)) > 1
    tampered, others = (_Impostors(score_N[one_N], trials.asset_N[one_N]) for one_N in (tampered_N, other_N))
    found = [tampered.threshold(rate, kind_N if several else None), others.threshold(rate)]
    threshold = max(found)
    # Judged by others at a share that just keeps the rate; where the other sort sets the threshold, at that.
    seen, unseen, other = (
        _promise(one.false_N(threshold, across_N), one.asset_N, rate, confidence, across_N)
        for one, across_N in ((tampered, None), (tampered, kind_N), (others, None))
    )
    refused = _promise(score_N[genuine_N] < threshold, trials.asset_N[genuine_N], rate, confidence)
    fit_N = 1 - trials.measures_NM[:, MEASURES.index("edges")]
    own_N = genuine_N | tampered_N
    return Limits(
        limits, float(threshold), _parting(fit_N[own_N], fit_N[other_N]),
        _parting(trials.cosine_N[own_N], trials.cosine_N[other_N]), seen, unseen if several else None, other, refused,
        tuple(sorted(set(trials.kind_N[tampered_N].tolist()))), len(assets),
        {kind: float(np.mean(score_N[trials.kind_N == kind] >= threshold)) for kind in np.unique(trials.kind_N).tolist()},
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Impostors:
    """Scores of pictures that must not be called the same, and the asset that each was held against."""

    score_N: np.ndarray
    asset_N: np.ndarray

    def _unknowns(self) -> UnknownTrials:
        # Assets are the groups where there are enough of them; else a promise speaks of these few, trial by trial.
        count = len(self.score_N)
        group_N = self.asset_N if len(np.unique(self.asset_N)) >= MIN_CLASSES else np.arange(count)
        return UnknownTrials(self.score_N, group_N, np.full(count, -1, np.int64), np.ones(count))

    def threshold(self, rate: float, across_N: np.ndarray | None = None) -> float:
        """Where the share called the same is at most ``rate``, each asset (and kind, ``across_N``) judged by the others."""
        return find_threshold(self._unknowns(), rate, across_N)[0]

    def false_N(self, threshold: float, across_N: np.ndarray | None = None) -> np.ndarray:
        """Which are called the same where the others set their threshold at the share that ``threshold`` leaves of all."""
        return cross_validated_false_matches(self._unknowns(), float(np.mean(self.score_N >= threshold)), across_N)


def _promise(
    event_N: np.ndarray, asset_N: np.ndarray, target: float, confidence: float, kind_N: np.ndarray | None = None
) -> RateGuarantee:
    classes, trials = len(np.unique(asset_N)), len(event_N)
    if classes >= MIN_CLASSES or kind_N is not None:
        group_N = asset_N if classes >= MIN_CLASSES else np.arange(trials)
        interval, effective = clustered_share(event_N.astype(float), group_N, confidence, again=True, across_Q=kind_N)
    else:
        interval, effective = clopper_pearson(float(event_N.sum()), trials, confidence), float(trials)
    needed = trials_needed(target, confidence)
    return RateGuarantee(target, interval.value, interval.low, interval.high, confidence, trials, classes, effective, needed,
                   trials >= needed)  # fmt: skip


def _parting(own_N: np.ndarray, other_N: np.ndarray) -> float:
    """Where own and other values part with the fewest errors of both, counted in shares; others pass at SHOWN_RATE at most."""
    places = np.unique(np.concatenate([own_N, other_N]))
    wrong = [float(np.mean(own_N < place)) + float(np.mean(other_N >= place)) for place in places]
    return float(max(places[int(np.argmin(wrong))], threshold_at(other_N, SHOWN_RATE)))
