"""An index for approximate search whose effort is raised until a recall is measured, whatever database keeps it.

Shape letters: S references of the sample, K neighbors, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from unalike.metrics.intervals import mean_interval
from unalike.recognition.backends.protocol import GalleryView

# Target recall, the number of neighbors that it counts, and the number of references that it is measured on.
RECALL, RECALL_AT, SAMPLE = 0.99, 10, 256


@dataclass(frozen=True)
class MeasuredIndex:
    """A graph of neighbors (HNSW) on a server.

    Attributes:
        effort: candidates that a search keeps.
        recall: measured for ``RECALL_AT`` neighbors when it was built, 0..1.
        trials: number of references that it was measured on.
        bounds: 95 % interval of the recall; NaN where it is not known, as in an index of an earlier version.
    """

    MOST: ClassVar[int] = 1000  # candidates that a search may keep

    effort: int
    recall: float
    trials: int
    bounds: tuple[float, float] = (math.nan, math.nan)

    @property
    def most(self) -> int:
        """Most neighbors that it can find; more are searched exactly."""
        return self.MOST

    def candidates(self, k: int) -> int:
        """Candidates of a search for k neighbors."""
        return min(max(self.effort, k), self.MOST)

    def to_dict(self) -> dict[str, Any]:
        """Kind, effort, recall with its interval, number of neighbors and of trials: plain data."""
        facts = {
            "kind": "hnsw",
            "effort": self.effort,
            "recall": self.recall,
            "neighbours": RECALL_AT,
            "trials": self.trials,
        }
        return facts if math.isnan(self.bounds[0]) else {**facts, "recall_interval": list(self.bounds)}

    @classmethod
    def of_dict(cls, facts: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        low, high = facts.get("recall_interval", (math.nan, math.nan))
        return cls(int(facts["effort"]), float(facts["recall"]), int(facts["trials"]), (float(low), float(high)))

    @classmethod
    def measured(cls, view: GalleryView, ids_S: np.ndarray, queries_SD: np.ndarray, recall: float = RECALL) -> Self:
        """Raise the effort until a recall is measured, as far as it can be.

        Args:
            view: of a gallery whose index was built.
            ids_S: ids of references.
            queries_SD: float32, their vectors.
            recall: target, 0..1.
        """
        # One more than counts: the nearest of an enrolled vector is itself, which any index finds.
        true_SK = view.search(queries_SD, RECALL_AT + 1).ids_QK
        counts_SK = true_SK != ids_S[:, None]
        effort = RECALL_AT + 1
        while True:
            index = cls(effort, 0.0, len(ids_S))
            found_SK = view.search(queries_SD, RECALL_AT + 1, index).ids_QK
            is_found_SK = (true_SK[:, :, None] == found_SK[:, None, :]).any(axis=2)
            share = float(is_found_SK[counts_SK].mean()) if counts_SK.any() else 1.0
            if share >= recall or effort >= cls.MOST:
                # A reference that has no neighbors counts for nothing.
                shares_S = [
                    float(row[counts].mean())
                    for row, counts in zip(is_found_SK, counts_SK, strict=True)
                    if counts.any()
                ]
                interval = mean_interval(np.array(shares_S))
                return cls(effort, share, len(ids_S), (interval.low, interval.high))
            effort = min(cls.MOST, 2 * effort)
