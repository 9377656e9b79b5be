"""The scores that a gallery gives its own references: each compared with the others, and with the other classes alone.

A calibration sees such scores; those of pictures that are asked about are compared with them.

Shape letters: C sampled classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.recognition.backends.protocol import GalleryView
from unalike.recognition.separation import spread

SAMPLED_CLASSES = 200
PART = 20  # references that are searched at a time


@dataclass(frozen=True)
class ScoreBaseline:
    """Scores of one reference of each sampled class.

    Attributes:
        known: cosine to the nearest other reference, of those whose class has another one.
        foreign: cosine to the nearest reference of another class.
        revision: of the gallery.
    """

    known: np.ndarray
    foreign: np.ndarray
    revision: int


def measure_baseline(
    view: GalleryView, sample: int = SAMPLED_CLASSES, check: Callable[[], None] = lambda: None
) -> ScoreBaseline:
    """Measure the scores of a gallery's own references.

    Args:
        view: one state of the gallery.
        sample: most classes, evenly spread over their order; of each the first reference.
        check: called between parts of the work; what it raises ends the measurement.
    """
    counts = view.counts()
    labels = list(counts)
    sample_labels = [labels[number] for number in spread(len(labels), sample)] if labels else []
    entries = [entry for entry in view.first_entries(sample_labels).values()]
    known_scores: list[np.ndarray] = [np.empty(0, np.float32)]
    foreign: list[float] = []
    for first in range(0, len(entries), PART):
        check()
        part = entries[first : first + PART]
        ids_C = np.array([entry.id for entry in part], np.int64)
        vectors_CD = view.vectors(ids_C.tolist())
        nearest = view.search(vectors_CD, 2)
        scores_CK = np.where(nearest.ids_QK == ids_C[:, None], EXCLUDED, nearest.scores_QK)
        best_C = scores_CK.max(axis=1)
        is_shared_C = np.array([counts[entry.label] > 1 for entry in part])
        known_scores.append(best_C[is_shared_C & (best_C > EXCLUDED)])
        for number, entry in enumerate(part if len(counts) > 1 else ()):
            check()
            other = view.search_others(vectors_CD[number : number + 1], entry.label)
            foreign.append(float(other.scores_QK[0, 0]))
    return ScoreBaseline(np.concatenate(known_scores), np.array(foreign, np.float32), view.revision)
