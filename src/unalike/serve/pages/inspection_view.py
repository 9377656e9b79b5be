"""An answer of ``inspect`` as the pages show it, and how the scores of an inspector are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.serve.store import DecisionRecord, Feedback
from unalike.serve.store.records import WITHDRAWN

# Width of the drawing of a scale, and the room beside it for half a label, in its own units.
WIDTH, EDGE = 400.0, 20.0
BINS = 40
# A defect may score a thousand times what a normal part does: an axis that holds both would show neither.
REACH = 4.0
HEADLINES = {"good": "Normal", "defective": "Defective", "undecided": "Not decided"}


def place_on_axis(value: float, high: float) -> float:
    """Place of a value on an axis of 0 to ``high``, in units of the drawing."""
    share = min(max(value / high, 0.0), 1.0) if high > 0 else 0.0
    return round(EDGE + share * (WIDTH - 2 * EDGE), 1)


@dataclass(frozen=True)
class InspectionView:
    """One answer.

    Attributes:
        record: the decision.
        headline: what was decided, in words.
        size: (H, W) of the picture; None for decisions of earlier versions.
        regions: what differs: ``box`` and ``score``, the highest first.
        high: value at the right end of the scale, where higher scores stand too; 0 is at the left.
        score, threshold: places on the scale; None where there is none.
        feedback: what counts of what was said about it; None where nothing does.
    """

    record: DecisionRecord
    headline: str
    size: tuple[int, int] | None
    regions: tuple[dict[str, Any], ...]
    high: float
    score: float | None
    threshold: float | None
    feedback: Feedback | None

    @classmethod
    def of(cls, record: DecisionRecord) -> InspectionView:
        """The view of a decision."""
        size = record.result.get("size")
        high = max(1e-9, 2 * (record.threshold or 0.0), 1.1 * (record.score or 0.0))
        if record.threshold:
            high = min(high, REACH * record.threshold)
        score, threshold = (
            None if value is None else place_on_axis(value, high) for value in (record.score, record.threshold)
        )
        remark = record.feedback[-1] if record.feedback else None
        return cls(
            record, HEADLINES.get(record.decision, record.decision), None if size is None else (int(size[0]), int(size[1])),
            tuple(record.result.get("spots", ())), high, score, threshold,
            None if remark is None or remark.verdict == WITHDRAWN else remark,
        )  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in units of the drawing."""

    x: float
    width: float
    height: float


@dataclass(frozen=True)
class Distribution:
    """The scores of an inspector on one axis, and what a threshold separates.

    Attributes:
        high: value at the right end of the axis; 0 is at the left.
        threshold: place of the threshold on the axis; None without one.
        fit, recent: bars of the scores of the fit's good images, and of the images that were inspected lately.
        fit_count, fit_above: number of the fit's scores, and of those above the threshold.
        recent_count, recent_above: likewise.
        flagged: the decisions above the threshold, the nearest to it first.
    """

    high: float
    threshold: float | None
    fit: tuple[Bar, ...]
    recent: tuple[Bar, ...]
    fit_count: int
    fit_above: int
    recent_count: int
    recent_above: int
    flagged: tuple[DecisionRecord, ...]

    @classmethod
    def of(
        cls, fit_scores: Sequence[float], records: Sequence[DecisionRecord], threshold: float | None, high: float
    ) -> Distribution:
        """The distribution of scores.

        Args:
            fit_scores: of the good images of the fit.
            records: decisions, with their scores.
            threshold: the one that is tried.
            high: value at the right end of the axis.
        """
        scored_records = [(float(record.score), record) for record in records if record.score is not None]
        flagged = [pair for pair in scored_records if threshold is not None and pair[0] > threshold]
        recent_scores = [score for score, _ in scored_records]
        return cls(
            high, None if threshold is None else place_on_axis(threshold, high), _bars(fit_scores, high), _bars(recent_scores, high),
            len(fit_scores), sum(threshold is not None and score > threshold for score in fit_scores), len(recent_scores),
            len(flagged), tuple(record for _, record in sorted(flagged, key=lambda pair: (pair[0], pair[1].id))),
        )  # fmt: skip


def axis_end(fit_scores: Sequence[float], records: Sequence[DecisionRecord], *thresholds: float | None) -> float:
    """The right end of an axis: beyond all scores, but of those above ``REACH`` times what is normal, which stand at the end."""
    scores = [record.score for record in records if record.score is not None]
    limits = [*fit_scores, *(value for value in thresholds if value is not None)]
    high = 1.1 * max([*limits, *scores], default=0.0)
    if limits and max(limits) > 0:
        high = min(high, REACH * max(limits))
    return float(f"{high or 1.0:.3g}")


def _bars(scores: Sequence[float], high: float) -> tuple[Bar, ...]:
    """Bars of 0 to 50 units; those of empty bins are left out."""
    counts, edges = np.histogram(np.clip(np.asarray(scores, float), 0, high), BINS, (0.0, high))
    most = max(1, int(counts.max(initial=0)))
    width = (WIDTH - 2 * EDGE) / BINS
    return tuple(
        Bar(place_on_axis(float(edge), high), round(width - 0.6, 2), round(max(1.5, 50 * count / most), 1))
        for count, edge in zip(counts.tolist(), edges[:-1].tolist(), strict=True) if count
    )  # fmt: skip
