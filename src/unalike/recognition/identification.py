"""Identification: the class of one image, or that it has none, with its nearest neighbors in the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unalike.recognition.attributes import describe_where
from unalike.recognition.backends.protocol import RankedClasses
from unalike.recognition.decision import LABEL, UNKNOWN, GalleryCalibration


@dataclass(frozen=True)
class Neighbor:
    """One enrolled image near a query.

    Attributes:
        label: its class.
        name: the name under which it was enrolled, such as a path.
        score: cosine to the query, -1..1.
        distance: squared L2 distance of the unit vectors, 0..4.
    """

    label: str
    name: str
    score: float
    distance: float


@dataclass(frozen=True)
class Identification:
    """The class of one image, or that it has none.

    Attributes:
        label: the class where ``decision`` is ``label``, else None.
        score: cosine of the best class, -1..1.
        distance: squared L2 distance of unit vectors that follows from it, 0..4.
        neighbours: the nearest enrolled images, best first.
        decision: ``label``, ``ambiguous`` or ``unknown``.
        nearest: the best class whatever the decision.
        second: the next class; None where there is none or it was not looked for.
        margin: lead of the best class over the second; None likewise.
        calibrated: whether the decision is that of a calibration with a promised rate, which was measured on this state of
            the gallery. Without a calibration the decision is always ``label``.
        stale: whether the gallery has changed since its calibration. The decision is then by the threshold that follows
            from the gallery's size (``GalleryCalibration.threshold_for``); no measured rate stands for it.
        threshold: lowest cosine of a known image; None without a calibration. Where ``second_weight`` is not 0, it is the
            threshold of the gallery plus so many times the cosine of the second class (under a filter, of the whole gallery).
        second_weight: weight of the second class's cosine in the threshold, 0..1.
        note: why the image is unknown and what would change that, and what a promised rate would need; else empty.

    Where no reference passes a filter, the image is ``unknown`` without a ``nearest`` class (empty), without neighbors and with the
    lowest score, -1.
    """

    label: str | None
    score: float
    distance: float
    neighbours: tuple[Neighbor, ...]
    decision: str = LABEL
    nearest: str = ""
    second: str | None = None
    margin: float | None = None
    calibrated: bool = False
    stale: bool = False
    threshold: float | None = None
    note: str = ""
    second_weight: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def make_identification(
    ranking: RankedClasses,
    q: int,
    decision: str,
    *,
    calibration: GalleryCalibration | None,
    stale: bool,
    threshold: float | None,
    where: Mapping[str, Sequence[str]] | None = None,
) -> Identification:
    """Return the result for one query.

    Args:
        ranking: the classes ranked for all queries, and their nearest references.
        q: index of the query.
        decision: ``label``, ``ambiguous`` or ``unknown``.
        calibration: what the decision was made by; None without.
        stale: whether the gallery has changed since that calibration.
        threshold: lowest cosine of a known image for this query; None without a calibration.
        where: the filter of the search, checked; None for none.
    """
    neighbors = tuple(
        Neighbor(entry.label, entry.name, float(score), _distance(score))
        for score, entry in zip(ranking.nearest.scores_QK[q], ranking.nearest.entries_QK[q], strict=False)
    )
    nearest, second = ranking.label_Q[q], ranking.second_Q[q]
    score = float(ranking.score_Q[q])
    margin = None if second is None else float(ranking.margin_Q[q])
    notes = []
    if not nearest:
        notes.append(f"no reference passes the filter {describe_where(where or {})}")
    elif decision == UNKNOWN and threshold is not None:
        notes.append(f"the nearest class, {nearest}, has a score of {score:.3f}, below the threshold of {threshold:.3f}"
                     f"{_describe_second(calibration)}: if the image shows it, enroll the image as a further reference")  # fmt: skip
    if calibration is not None and calibration.provisional:
        notes.append(f"the threshold is provisional: {calibration.needs}")
    return Identification(
        nearest if decision == LABEL else None, score, _distance(score), neighbors, decision, nearest, second, margin,
        calibration is not None and not stale and not calibration.provisional and _keeps_rate(calibration, where), stale, threshold, "; ".join(notes),
        0.0 if calibration is None else calibration.second_weight,
    )  # fmt: skip


def _describe_second(calibration: GalleryCalibration | None) -> str:
    return (
        " for an image as near as this to a second class"
        if calibration is not None and calibration.second_weight
        else ""
    )


def lead_over_others(ranking: RankedClasses, whole: RankedClasses) -> np.ndarray:
    """Lead (Q,) of each query's best class over the best other class of the whole gallery; infinite where there is none.

    Args:
        ranking: of a filtered search.
        whole: of the same queries without the filter.
    """
    is_same_Q = np.array([own == best for own, best in zip(ranking.label_Q, whole.label_Q, strict=True)], np.bool_)
    has_other_Q = np.array([bool(label) for label in ranking.label_Q], np.bool_) & (
        ~is_same_Q | np.isfinite(whole.margin_Q)
    )
    other_Q = whole.score_Q - np.where(is_same_Q & has_other_Q, whole.margin_Q, 0)
    lead_Q: np.ndarray = np.where(has_other_Q, ranking.score_Q - other_Q, np.inf)
    return lead_Q


def _keeps_rate(calibration: GalleryCalibration, where: object) -> bool:
    """Whether the promised rate holds under a filter: the nearest of fewer references is never nearer than that of all.

    The mean of some references of a class may be nearer than that of all, and a class may win a vote of fewer neighbors. The
    second class is that of the whole gallery, so that its part of the score is not smaller either.
    """
    return where is None or calibration.rule == "nearest"


def _distance(score: float) -> float:
    """Squared L2 distance of unit vectors of this cosine."""
    return float(max(0.0, 2.0 - 2.0 * score))
