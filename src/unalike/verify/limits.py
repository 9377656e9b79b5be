"""From measures of a difference to one score, and from trials to the limits between same, altered and different.

Each measure is told in units of its limit, what nearly all harmless pictures stay below; the largest of these is what
counts, and names the reason. The score falls with it: 1 for no difference at all, 0.5 at the limit.

The threshold on the score is set for a stated share of false accepts, tampered copies or other drawings called the same.
As for "unknown" (gallery.calibration), a plain quantile would promise too much: each asset is judged by the threshold that
the others set, until the share is right.

Shape letters: N trials, M measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError
from unalike.gallery.calibration import MIN_CLASSES, Unknowns, find_threshold
from unalike.gallery.decision import Promise
from unalike.measure.intervals import clopper_pearson, clustered_share
from unalike.measure.verification import threshold_at, trials_needed
from unalike.verify.differing import MEASURES

FORMAT_VERSION = 1
# The share of harmless pictures that stays below each single measure's limit.
BELOW = 0.98
# Limits never fall below these: what a few clean trials happen to show is no reason for less.
LEAST = {"edges": 0.05, "distortion": 0.01, "colour": 0.06, "parts": 0.06, "area": 0.005}
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
    an asset. ``false_accept`` is the promise for tampered copies, ``other_accept`` for other drawings; ``refused`` the
    share of harmless pictures that are not called the same. ``kinds`` are those of tampering it was made with.
    """

    limits: dict[str, float]
    threshold: float
    shown: float
    known: float
    false_accept: Promise
    other_accept: Promise
    refused: Promise
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
        for name in ("false_accept", "other_accept", "refused"):
            known[name] = Promise(**known[name])
        return cls(**{**known, "kinds": tuple(known["kinds"])})

    def __str__(self) -> str:
        wrong, right = self.false_accept, self.refused
        return (
            f"threshold {self.threshold:.3f}; altered pictures called the same: {wrong.rate:.2%} ({wrong.low:.2%} to "
            f"{wrong.high:.2%} with {wrong.confidence:.0%} confidence, {wrong.trials} trials of {wrong.classes} assets); "
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
    parts = []
    for chosen_N in (tampered_N, other_N):
        found, false_N = _threshold(score_N[chosen_N], trials.asset_N[chosen_N], rate)
        parts.append((found, false_N, trials.asset_N[chosen_N]))
    threshold = max(found for found, _, _ in parts)
    promises = [
        _promise(false_N if found == threshold else score_N[chosen_N] >= threshold, group_N, rate, confidence)
        for (found, false_N, group_N), chosen_N in zip(parts, (tampered_N, other_N), strict=True)
    ]
    refused = _promise(score_N[genuine_N] < threshold, trials.asset_N[genuine_N], rate, confidence)
    fit_N = 1 - trials.measures_NM[:, MEASURES.index("edges")]
    own_N = genuine_N | tampered_N
    return Limits(
        limits, float(threshold), _parting(fit_N[own_N], fit_N[other_N]),
        _parting(trials.cosine_N[own_N], trials.cosine_N[other_N]), promises[0], promises[1], refused,
        tuple(sorted(set(trials.kind_N[tampered_N].tolist()))), len(assets),
        {kind: float(np.mean(score_N[trials.kind_N == kind] >= threshold)) for kind in np.unique(trials.kind_N).tolist()},
    )  # fmt: skip


def _groups(asset_N: np.ndarray) -> np.ndarray:
    """Assets are the groups where there are enough of them; else a promise speaks of these few, trial by trial."""
    return asset_N if len(np.unique(asset_N)) >= MIN_CLASSES else np.arange(len(asset_N))


def _threshold(score_N: np.ndarray, asset_N: np.ndarray, rate: float) -> tuple[float, np.ndarray]:
    group_N = _groups(asset_N)
    nobody_N = np.full(len(score_N), -1, np.int64)
    return find_threshold(Unknowns(score_N, group_N, nobody_N, np.ones(len(score_N))), rate)


def _promise(event_N: np.ndarray, asset_N: np.ndarray, target: float, confidence: float) -> Promise:
    classes, trials = len(np.unique(asset_N)), len(event_N)
    if classes >= MIN_CLASSES:
        interval, effective = clustered_share(event_N.astype(float), asset_N, confidence, again=True)
    else:
        interval, effective = clopper_pearson(float(event_N.sum()), trials, confidence), float(trials)
    needed = trials_needed(target, confidence)
    return Promise(target, interval.value, interval.low, interval.high, confidence, trials, classes, effective, needed,
                   trials >= needed)  # fmt: skip


def _parting(own_N: np.ndarray, other_N: np.ndarray) -> float:
    """Where own and other values part with the fewest errors of both, counted in shares; others pass at SHOWN_RATE at most."""
    places = np.unique(np.concatenate([own_N, other_N]))
    wrong = [float(np.mean(own_N < place)) + float(np.mean(other_N >= place)) for place in places]
    return float(max(places[int(np.argmin(wrong))], threshold_at(other_N, SHOWN_RATE)))
