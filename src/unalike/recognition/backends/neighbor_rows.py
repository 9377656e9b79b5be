"""The rows that the search of a server found, with the classes that they belong to.

Shape letters: Q queries, K neighbors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.recognition.backends.protocol import Entry, NearestReferences


@dataclass(frozen=True, eq=False)
class NeighborRows:
    """The rows that a search found, best first.

    Attributes:
        scores_QK: cosines; EXCLUDED where fewer were found.
        ids_QK: int64 ids, and -1.
        classes_QK: int64 numbers of the classes, and -1.
        entries_QK: the references.
        labels: names of the classes by their numbers.
    """

    scores_QK: np.ndarray
    ids_QK: np.ndarray
    classes_QK: np.ndarray
    entries_QK: tuple[tuple[Entry, ...], ...]
    labels: dict[int, str]

    def first(self, k: int) -> NearestReferences:
        """The k best."""
        return NearestReferences(
            self.scores_QK[:, :k], self.ids_QK[:, :k], tuple(entries[:k] for entries in self.entries_QK)
        )
