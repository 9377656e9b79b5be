"""An immutable state of a gallery, which any number of threads may search while the gallery changes.

Shape letters: N enrolled vectors, M chosen ones, Q queries, K neighbors, D width, C classes, B rows of a tile of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unalike.errors import DataError
from unalike.metrics.knn import EXCLUDED, float16_to_float32, scan, unit
from unalike.storage.blockfile import Block, PackedTexts

# float16 rows that are widened at once: 4 MB of float32 at width 256, which stay in cache until they are multiplied.
HALF_ROWS = 4096

# Overwrites scores of a tile (B x columns) with EXCLUDED; then the index of its first query and of its first vector.
Exclusion = Callable[[np.ndarray, int, int], None]


@dataclass(frozen=True)
class NearestNeighbors:
    """The K nearest enrolled vectors of every query, best first.

    Attributes:
        scores_QK: cosines.
        indices_QK: indices into the gallery.
        labels_QK: class names.
    """

    scores_QK: np.ndarray
    indices_QK: np.ndarray
    labels_QK: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class GallerySnapshot:
    """The vectors, classes and names of a gallery at one moment.

    Attributes:
        vectors_ND: unit length, float32 or float16.
        codes_N: int32, index of each vector's class in ``classes``.
        classes: class names; may be longer than what this snapshot refers to, since the list only grows.
        names: what each vector was computed from (a path); may be longer too.
        file: the block of a gallery file that the vectors lie in, or None.
        revision: number of changes of vectors and of their classes (renaming a class is none); a measurement made at
            another revision does not hold.
    """

    vectors_ND: np.ndarray
    codes_N: np.ndarray
    classes: Sequence[str]
    names: Sequence[str]
    file: Block | None = None
    revision: int = 0

    @classmethod
    def empty(cls, dim: int, half: bool = False) -> GallerySnapshot:
        """A snapshot without vectors, of width ``dim``."""
        return cls(np.empty((0, dim), np.float16 if half else np.float32), np.empty(0, np.int32), [], [])

    def __len__(self) -> int:
        return len(self.codes_N)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.vectors_ND.shape[1])

    @property
    def half(self) -> bool:
        """Whether the vectors are kept in half precision."""
        return self.vectors_ND.dtype == np.float16

    @cached_property
    def counts_C(self) -> np.ndarray:
        """Number of vectors of each class."""
        return np.bincount(self.codes_N, minlength=int(self.codes_N.max(initial=-1)) + 1)

    def stored(self, first: int, last: int) -> np.ndarray:
        """Vectors ``first`` to ``last`` (exclusive) as they are kept; those of a file are checked."""
        return self.vectors_ND[first:last] if self.file is None else self.file.check(first, last)

    def reader(self) -> Callable[[int, int], np.ndarray]:
        """Return a function (first, last) -> float32 vectors, for one thread: it may reuse its memory."""
        if not self.half:
            return self.stored
        buffer = np.empty((min(HALF_ROWS, max(1, len(self))), self.dim), np.float32)

        def read(first: int, last: int) -> np.ndarray:
            return float16_to_float32(self.stored(first, last), buffer[: last - first])

        return read

    def vectors(self, indices_M: np.ndarray) -> np.ndarray:
        """float32 (M, D) of the vectors at these indices."""
        chosen_MD = np.asarray(self.vectors_ND[indices_M])
        if self.file is not None:
            for index in np.unique(indices_M):
                self.file.check(int(index), int(index) + 1)
        return np.ascontiguousarray(chosen_MD, np.float32)

    def search(self, vectors_QD: np.ndarray, k: int, hide: Exclusion | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest vectors of every query by cosine, exactly.

        Args:
            vectors_QD: queries of any length.
            k: number of neighbors, at least 1.
            hide: excludes pairs of query and vector, as in ``metrics.knn.scan``.

        Returns:
            (scores_QK, indices_QK), best first. K is ``k``, or the number of vectors when there are fewer; indices are -1
            where fewer count.

        Raises:
            DataError: the gallery is empty or ``k`` is below 1.
        """
        if not len(self):
            raise DataError("the gallery is empty", remedy="enrol reference images first")
        if k < 1:
            raise DataError(f"k is {k}", expected="at least 1 neighbor")
        columns = HALF_ROWS if self.half else None
        queries_QD = unit(vectors_QD, name="query vectors")
        return scan(queries_QD, self.reader(), len(self), min(k, len(self)), hide=hide, columns=columns)

    def exclude_rows(self, rows_Q: np.ndarray) -> Exclusion:
        """Exclude for each query one enrolled vector: the query itself, where queries are enrolled vectors."""

        def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
            column_B = rows_Q[top : top + len(scores_BC)] - left
            inside_B = np.flatnonzero((column_B >= 0) & (column_B < scores_BC.shape[1]))
            scores_BC[inside_B, column_B[inside_B]] = EXCLUDED

        return hide

    def exclude_classes(self, codes_Q: np.ndarray) -> Exclusion:
        """Exclude for each query all vectors of one class."""

        def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
            code_B1 = codes_Q[top : top + len(scores_BC), None]
            scores_BC[code_B1 == self.codes_N[None, left : left + scores_BC.shape[1]]] = EXCLUDED

        return hide

    @cached_property
    def sums_CD(self) -> np.ndarray:
        """float64 sums of each class's vectors, from which prototypes are made."""
        sums_CD = np.zeros((len(self.counts_C), self.dim))
        read = self.reader()
        for first in range(0, len(self), HALF_ROWS):
            last = min(first + HALF_ROWS, len(self))
            order_B = np.argsort(self.codes_N[first:last], kind="stable")
            codes_S, start_S = np.unique(self.codes_N[first:last][order_B], return_index=True)
            sums_CD[codes_S] += np.add.reduceat(read(first, last)[order_B].astype(np.float64), start_S, axis=0)
        return sums_CD

    @cached_property
    def prototypes_CD(self) -> np.ndarray:
        """float32 unit vectors in the direction of each class's mean; zero for a class without vectors."""
        return unit(self.sums_CD, name="class sums")

    def labels_of(self, codes: np.ndarray) -> list[str]:
        """Class names of these codes."""
        return [self.classes[code] for code in codes.tolist()]


def as_list(names: Sequence[str]) -> list[str]:
    """A list that can grow, of names that may lie in a file."""
    return names.unpack() if isinstance(names, PackedTexts) else list(names)
