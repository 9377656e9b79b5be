"""A walk over all references of a gallery, part by part, for what a review asks about them; it goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from unalike.metrics.diagnostics import duplicate_cosine
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.reference_checks import PART, LabelDoubt, NearPair, PartChecks, check_part
from unalike.recognition.score_baseline import ScoreBaseline, measure_baseline

# Of each kind so many are kept, those of the highest lead or score.
MOST_KEPT = 1000
# References that were looked at are looked at again, where the gallery changed, after so long.
AGAIN_S = 600.0


class ReferenceScan:
    """The walk over one gallery. ``step`` is called by one thread at a time; any thread may read.

    Args:
        clock: seconds.

    Attributes:
        looked: number of references that were looked at in this round.
        idle_revision: revision of the gallery of which there was nothing left to look at; -1 before the first round is over.
        baseline: scores of a sample of the references; None until they are measured.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.looked, self.idle_revision = 0, -1
        self.baseline: ScoreBaseline | None = None
        self._after = -1
        self._is_round_over, self._revision, self._end = False, -1, 0.0
        self._doubts: dict[int, LabelDoubt] = {}
        self._pairs: dict[int, NearPair] = {}
        self._nearest: list[np.ndarray] = []
        self._round_nearest: list[np.ndarray] = []

    def step(self, gallery: GalleryBackend, check: Callable[[], None] = lambda: None) -> bool:
        """Do one part of the work.

        Args:
            gallery: the gallery.
            check: as of ``measure_baseline``.

        Returns:
            Whether there was something to do.
        """
        with gallery.view() as view:
            if not view.size[0]:
                self.idle_revision = view.revision
                return False
            if self._after < 0 and (self.baseline is None or self.baseline.revision != view.revision):
                self.baseline = measure_baseline(view, check=check)
                return True
            counts = view.counts()
            part = check_part(view, counts, self._after, PART)
            revision = view.revision
        if part.references:
            self._take(part)
            return True
        return self._finish_round(revision)

    def doubts(self) -> list[LabelDoubt]:
        """References whose class is doubtful, the most doubtful first."""
        return sorted(self._doubts.copy().values(), key=lambda one: (-one.lead, one.reference.id))

    def pairs(self) -> list[NearPair]:
        """Pairs of references that are nearly one picture, the nearest first, each once."""
        nearest = self._nearest or self._round_nearest
        if not nearest:
            return []
        threshold = duplicate_cosine(np.concatenate(nearest))
        pairs = {(pair.low.id, pair.high.id): pair for pair in self._pairs.copy().values() if pair.score >= threshold}
        return sorted(pairs.values(), key=lambda one: (-one.score, one.low.id))

    def _take(self, part: PartChecks) -> None:
        for entry in part.references:
            self._doubts.pop(entry.id, None)
            self._pairs.pop(entry.id, None)
        self._doubts.update({doubt.reference.id: doubt for doubt in part.doubts})
        self._pairs.update(part.pairs)
        self._round_nearest.append(part.nearest_Q)
        self._after, self.looked = part.references[-1].id, self.looked + len(part.references)
        if len(self._doubts) > 2 * MOST_KEPT:
            self._doubts = {doubt.reference.id: doubt for doubt in self.doubts()[:MOST_KEPT]}
        if len(self._pairs) > 2 * MOST_KEPT:
            best = sorted(self._pairs.items(), key=lambda one: -one[1].score)[:MOST_KEPT]
            self._pairs = dict(best)

    def _finish_round(self, revision: int) -> bool:
        """Note the end of a round; begin another one where the gallery changed since, and some time has passed."""
        if not self._is_round_over:
            self._is_round_over = True
            self._revision, self._end, self._nearest = revision, self._clock(), self._round_nearest
        if revision == self._revision or self._clock() - self._end <= AGAIN_S:
            self.idle_revision = revision
            return False
        self._after, self.looked, self._round_nearest, self._is_round_over = -1, 0, [], False
        return True
