"""How well one class of a gallery is separated from the others, and which classes are its look-alikes.

Of each measured reference the nearest other reference of its class (itself left out) is compared with the nearest reference of any
other class. The vectors in memory at once do not grow with the gallery: references are measured in parts, and those of the class
are read in parts.

Shape letters: Q measured references, M references of a part, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unalike.errors import DataError, closest
from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.recognition.backends.protocol import GalleryView, pages

MEASURED = 100  # references, evenly spread over the class; all where it has no more
MOST_MEASURED = 1000
PART = 1000  # references of the class that are read at a time
QUERIES = 50  # measured references that are searched at a time; between them the measurement can be stopped


@dataclass(frozen=True)
class LookAlike:
    """A class that is near.

    Attributes:
        label: its name.
        references: number of measured references whose nearest reference of another class is one of it.
        score: highest cosine of those, -1..1.
    """

    label: str
    references: int
    score: float


@dataclass(frozen=True)
class Separation:
    """How far the references of a class are from those of other classes.

    Attributes:
        references: number of references of the class.
        measured: number of those that were measured.
        own: mean cosine to the nearest other reference of the class; None where the class has one reference alone.
        other: mean cosine to the nearest reference of another class; None where there is no other class.
        margin: mean of the differences of these two, -2..2; None where one of them is.
        closer_to_others: number of measured references that are at least as near to another class as to their own; None where
            ``margin`` is.
        look_alikes: classes of the nearest foreign references, the most frequent first; equal ones by score, then by name.
    """

    references: int
    measured: int
    own: float | None
    other: float | None
    margin: float | None
    closer_to_others: int | None
    look_alikes: tuple[LookAlike, ...]


def measure_separation(
    view: GalleryView, label: str, sample: int = MEASURED, check: Callable[[], None] = lambda: None
) -> Separation:
    """Measure how well a class is separated.

    Args:
        view: one state of the gallery.
        label: the class.
        sample: most references that are measured, 1 to ``MOST_MEASURED``.
        check: called between parts of the work; what it raises ends the measurement.

    Raises:
        DataError: there is no such class, or ``sample`` is out of its range.
    """
    if not 1 <= sample <= MOST_MEASURED:
        raise DataError(f"{sample} measured references", expected=f"1 to {MOST_MEASURED}")
    counts = view.counts()
    if label not in counts:
        raise DataError(f"no class {label!r} in the gallery", remedy=closest(label, counts))
    all_ids = [entry.id for entry in pages(view, label)]
    ids = [all_ids[number] for number in spread(len(all_ids), sample)]
    vectors_QD = view.vectors(ids)
    own_Q = _nearest_of_own(view, all_ids, ids, vectors_QD, check)
    other_Q = np.full(len(ids), EXCLUDED, np.float32)
    look_alikes: dict[str, list[float]] = {}
    for first in range(0, len(ids), QUERIES):
        check()
        nearest = view.search_others(vectors_QD[first : first + QUERIES], label)
        for row, entries in enumerate(nearest.entries_QK):
            for entry in entries:
                other_Q[first + row] = nearest.scores_QK[row, 0]
                look_alikes.setdefault(entry.label, []).append(float(nearest.scores_QK[row, 0]))
    return _summarize(len(all_ids), own_Q, other_Q, look_alikes)


def spread(total: int, most: int) -> list[int]:
    """At most ``most`` of the numbers 0 to ``total`` - 1, ascending, evenly spread."""
    count = min(total, most)
    return [number * total // count for number in range(count)]


def _nearest_of_own(
    view: GalleryView, all_ids: Sequence[int], ids: Sequence[int], vectors_QD: np.ndarray, check: Callable[[], None]
) -> np.ndarray:
    """Cosine of each measured reference to the nearest other one of its class; EXCLUDED where there is none."""
    best_Q, ids_Q = np.full(len(ids), EXCLUDED, np.float32), np.array(ids, np.int64)
    for first in range(0, len(all_ids), PART):
        check()
        part = all_ids[first : first + PART]
        scores_QM = vectors_QD @ view.vectors(part).T
        scores_QM[ids_Q[:, None] == np.array(part, np.int64)[None, :]] = EXCLUDED
        best_Q = np.maximum(best_Q, scores_QM.max(axis=1))
    return best_Q


def _summarize(total: int, own_Q: np.ndarray, other_Q: np.ndarray, look_alikes: dict[str, list[float]]) -> Separation:
    has_own, has_other = bool(np.all(own_Q > EXCLUDED)), bool(np.all(other_Q > EXCLUDED))
    margins_Q = own_Q - other_Q if has_own and has_other else None
    order = sorted(
        (LookAlike(label, len(scores), max(scores)) for label, scores in look_alikes.items()),
        key=lambda one: (-one.references, -one.score, one.label),
    )
    return Separation(
        total, len(own_Q), _mean(own_Q) if has_own else None, _mean(other_Q) if has_other else None,
        None if margins_Q is None else _mean(margins_Q), None if margins_Q is None else int(np.count_nonzero(margins_Q <= 0)),
        tuple(order),
    )  # fmt: skip


def _mean(values_Q: np.ndarray) -> float:
    return math.fsum(values_Q.tolist()) / len(values_Q)
