"""Checks of enrolled references, part by part: whose nearest neighbors are of another class, and which two are nearly one picture.

A part is a page of references that are searched in the gallery; memory does not grow with it.

Shape letters: Q references of the part, K neighbors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from unalike.metrics.diagnostics import EQUAL, outvoted_labels
from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.recognition.backends.protocol import Entry, GalleryView

NEIGHBORS = 8  # that vote on the class of a reference
PART = 128  # references that are searched at a time
LEAST_SHARE = 0.5  # of the weighted votes, which the other class needs


@dataclass(frozen=True)
class LabelDoubt:
    """A reference whose nearest neighbors are of another class.

    Attributes:
        reference: the reference.
        suggested: the class of most of its neighbors, by weight.
        lead: weighted votes for that class less those for its own, 0..1.
        nearest: its nearest neighbor that is no copy of it.
        score: cosine of the two.
    """

    reference: Entry
    suggested: str
    lead: float
    nearest: Entry
    score: float


@dataclass(frozen=True)
class NearPair:
    """Two references, the one with the lower id first, of which one is the nearest of the other; with their cosine."""

    low: Entry
    high: Entry
    score: float


@dataclass(frozen=True)
class PartChecks:
    """What was found about a part of the references.

    Attributes:
        references: those that were looked at.
        doubts: those whose class is doubtful.
        pairs: id of each -> the pair of it and its nearest other reference.
        nearest_Q: cosine of each to its nearest other reference; those that have none are left out.
    """

    references: list[Entry]
    doubts: list[LabelDoubt]
    pairs: dict[int, NearPair]
    nearest_Q: np.ndarray


def check_part(view: GalleryView, counts: Mapping[str, int], after: int = -1, part: int = PART) -> PartChecks:
    """Look at the references behind the one with the id ``after``.

    The ``NEIGHBORS`` nearest other references vote, with weights that fall with their cosine as in
    ``metrics.diagnostics.suspected_labels``; copies of a reference do not. A reference that is alone in its class is not doubted.

    Args:
        view: one state of the gallery.
        counts: number of references of each class in that state.
        after: id of the last reference of the part before.
        part: most references to look at.

    Returns:
        What was found; nothing behind the last reference.
    """
    entries = view.entries(None, after, part)
    if not entries or view.size[0] < 2:
        return PartChecks(entries, [], {}, np.empty(0, np.float32))
    ids_Q = np.array([entry.id for entry in entries], np.int64)
    nearest = view.search(view.vectors(ids_Q.tolist()), NEIGHBORS + 1)
    scores_QK = np.where(nearest.ids_QK == ids_Q[:, None], EXCLUDED, nearest.scores_QK)
    order_QK = np.argsort(-scores_QK, axis=1, kind="stable")[:, :NEIGHBORS]
    scores_QK = np.take_along_axis(scores_QK, order_QK, axis=1)
    others = [[row[place] for place in order if place < len(row)] for row, order in zip(nearest.entries_QK, order_QK.tolist(), strict=True)]  # fmt: skip
    pairs = {
        entry.id: NearPair(min(entry, row[0]), max(entry, row[0]), float(score))
        for entry, row, score in zip(entries, others, scores_QK[:, 0], strict=True) if score > EXCLUDED
    }  # fmt: skip
    return PartChecks(
        entries, _find_doubts(entries, others, scores_QK, counts), pairs, scores_QK[scores_QK[:, 0] > EXCLUDED, 0]
    )


def _find_doubts(
    entries: list[Entry], others: list[list[Entry]], scores_QK: np.ndarray, counts: Mapping[str, int]
) -> list[LabelDoubt]:
    labels = sorted({entry.label for row in (entries, *others) for entry in row})
    codes = {label: code for code, label in enumerate(labels)}
    own_Q = np.array([codes[entry.label] for entry in entries], np.int64)
    near_QK = np.full(scores_QK.shape, len(labels), np.int64)  # where there are fewer neighbors: no class
    for row, neighbors in enumerate(others):
        near_QK[row, : len(neighbors)] = [codes[entry.label] for entry in neighbors]
    # A copy under another class says nothing about which of the two is right.
    is_there_QK = (scores_QK > EXCLUDED) & (scores_QK < 1 - EQUAL)
    rows_Q, first_Q = np.arange(len(entries)), is_there_QK.argmax(axis=1)
    best_Q = scores_QK[rows_Q, first_Q]
    lowest_Q = np.where(is_there_QK, scores_QK, best_Q[:, None]).min(axis=1)
    fall = max(float(np.median(best_Q - lowest_Q)), 1e-6)
    weights_QK = np.where(is_there_QK, np.exp((scores_QK - best_Q[:, None]).clip(max=0).astype(np.float64) / fall), 0.0)
    weights_QK /= np.maximum(weights_QK.sum(axis=1, keepdims=True), 1e-12)
    suggested_Q, lead_Q, share_Q = outvoted_labels(own_Q, near_QK, weights_QK)
    is_shared_Q = np.array([counts.get(entry.label, 0) > 1 for entry in entries])
    is_doubtful_Q = is_shared_Q & is_there_QK.any(axis=1) & (near_QK[rows_Q, first_Q] != own_Q)
    is_doubtful_Q &= (lead_Q > 0) & (share_Q >= LEAST_SHARE) & (suggested_Q < len(labels))
    return [
        LabelDoubt(
            entries[row], labels[suggested_Q[row]], float(lead_Q[row]), others[row][first_Q[row]], float(best_Q[row])
        )
        for row in np.flatnonzero(is_doubtful_Q).tolist()
    ]  # fmt: skip
