"""The vectors of a gallery's snapshot that a filter lets pass, searched where they lie.

Shape letters: N enrolled vectors, M of them that pass the filter, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.recognition.snapshot import EnrolledNames, GallerySnapshot


@dataclass(frozen=True, eq=False, kw_only=True)
class FilteredSnapshot(GallerySnapshot):
    """Some vectors of a snapshot, read tile by tile. It is for searches: classes are those of ``whole``, names are not kept.

    Attributes:
        whole: all vectors.
        rows_M: int64, ascending: which of them these are.
    """

    whole: GallerySnapshot
    rows_M: np.ndarray

    @classmethod
    def of(cls, whole: GallerySnapshot, rows_M: np.ndarray) -> FilteredSnapshot:
        """The vectors of these rows."""
        return cls(
            whole.added_MD[:0], whole.codes_N[rows_M], whole.ids_N[rows_M], whole.classes, EnrolledNames(),
            whole=whole, rows_M=rows_M,
        )  # fmt: skip

    def stored(self, first: int, last: int, *, resident: bool = True) -> np.ndarray:
        """Vectors ``first`` to ``last`` (exclusive) as they are kept; see ``GallerySnapshot.stored``."""
        return self.whole.stored_rows(self.rows_M[first:last], resident=resident)

    def vectors(self, indices_M: np.ndarray) -> np.ndarray:
        """float32 (M, D) of the vectors at these indices."""
        return self.whole.vectors(self.rows_M[np.asarray(indices_M, np.int64)])

    def rows_of(self, indices_QK: np.ndarray) -> np.ndarray:
        """Indices of this snapshot as rows of ``whole``; -1 stays."""
        if not len(self.rows_M):
            return indices_QK
        return np.where(indices_QK >= 0, self.rows_M[np.maximum(indices_QK, 0)], -1)
