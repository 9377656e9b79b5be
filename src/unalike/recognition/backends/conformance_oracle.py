"""What the laws of a gallery are checked with: a gallery as a plain list, and requirements that raise AssertionError.

Shape letters: N enrolled vectors, Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unalike.errors import UnalikeError
from unalike.recognition.backends.address import save_gallery
from unalike.recognition.backends.protocol import Entry, GalleryBackend, pages
from unalike.recognition.gallery import Gallery
from unalike.recognition.model_identity import ModelIdentity

DIM = 8
# Rounding of float32 sums of products, whose order differs between backends.
SCORE_TOLERANCE = 2e-6


def require(holds: object, what: str) -> None:
    """Raise AssertionError where something does not hold."""
    if not holds:
        raise AssertionError(what)


def require_equal(result: object, reference: object, what: str) -> None:
    """Raise AssertionError where two values differ."""
    require(result == reference, f"{what}: {result!r}, not {reference!r}")


def require_error(kind: type[UnalikeError], call: Callable[[], object], *words: str) -> None:
    """Raise AssertionError unless the call raises this error, whose message has these words."""
    try:
        call()
    except kind as error:
        for word in words:
            require(word in str(error), f"the message has no {word!r}: {error}")
        return
    raise AssertionError(f"no {kind.__name__}")


def create(address: str, *, half: bool = False, identity: ModelIdentity | None = None) -> GalleryBackend:
    """An empty gallery at the address."""
    return save_gallery(Gallery(DIM, identity, half=half), address)


def random_vectors(count: int, seed: int = 0) -> np.ndarray:
    """float32 (count, DIM), not of unit length."""
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def enrol(gallery: GalleryBackend, *arguments: Any) -> list[int]:
    """Enroll in one durable step; the ids."""
    with gallery.change() as change:
        return change.enrol(*arguments)


def listed(gallery: GalleryBackend) -> list[Entry]:
    """All references, read in short pages."""
    with gallery.view() as view:
        return list(pages(view, limit=3))


class PlainList:
    """The slow oracle: a gallery as a list of references, with the rules written down one by one."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, str, np.ndarray]] = []
        self.next_id = 0

    def enrol(self, vectors_ND: np.ndarray, labels: Sequence[str], names: Sequence[str]) -> None:
        """Add references of unit length."""
        for vector, label, name in zip(vectors_ND.astype(np.float64), labels, names, strict=True):
            self.rows.append((self.next_id, label, name, vector / np.linalg.norm(vector)))
            self.next_id += 1

    def remove(self, ids: Sequence[int]) -> None:
        """Remove references."""
        self.rows = [row for row in self.rows if row[0] not in ids]

    def relabel(self, labels: Sequence[str], new: str) -> None:
        """Give the references of some classes another class."""
        self.rows = [(i, new if label in labels else label, name, v) for i, label, name, v in self.rows]

    def entries(self) -> list[Entry]:
        """All references."""
        return [Entry(*row[:3]) for row in self.rows]

    def search(self, query_D: np.ndarray, k: int) -> list[tuple[float, int]]:
        """(cosine, id) of the nearest, best first, equal ones by id."""
        unit = query_D.astype(np.float64) / np.linalg.norm(query_D)
        return sorted(((float(v @ unit), i) for i, _, _, v in self.rows), key=lambda pair: (-pair[0], pair[1]))[:k]


def check_against(oracle: PlainList, gallery: GalleryBackend, queries_QD: np.ndarray, k: int, tolerance: float) -> None:
    """Compare everything that can be read with the oracle."""
    require_equal(listed(gallery), oracle.entries(), "references")
    require_equal(len(gallery), len(oracle.rows), "number of references")
    counts: dict[str, int] = {}
    for _, label, _, _ in oracle.rows:
        counts[label] = counts.get(label, 0) + 1
    require_equal(gallery.counts(), counts, "counts")
    with gallery.view() as view:
        require_equal(view.size, (len(oracle.rows), len(counts)), "size")
        result = view.search(queries_QD, k)
    for q, query_D in enumerate(queries_QD):
        reference = oracle.search(query_D, k)
        require_equal(len(result.entries_QK[q]), len(reference), "number of neighbors")
        require_equal([entry.id for entry in result.entries_QK[q]], result.ids_QK[q].tolist(), "ids and entries")
        for score, id, entry, (cosine, _) in zip(
            result.scores_QK[q], result.ids_QK[q].tolist(), result.entries_QK[q], reference, strict=True
        ):
            require(abs(float(score) - cosine) <= tolerance, f"score {score}, not {cosine}")
            own = next(row for row in oracle.rows if row[0] == id)
            require(
                abs(float(own[3] @ query_D) / np.linalg.norm(query_D) - cosine) <= 2 * tolerance, f"id {id} is not near"
            )
            require_equal((entry.label, entry.name), own[1:3], "entry")
