"""HNSW index of Milvus for approximate search in a gallery, whose recall is measured.

Milvus searches a field exactly or through a graph, never both: a gallery with an index keeps each vector twice, which is decided
when it is made (``?index=hnsw`` in its address). It stays in use while references come and go.

Shape letters: S references of the sample, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unalike.errors import DataError
from unalike.recognition.backends.measured_index import RECALL, SAMPLE, MeasuredIndex
from unalike.recognition.backends.milvus_state import MilvusState

if TYPE_CHECKING:
    from unalike.recognition.backends.milvus_view import MilvusView

DRAWS = 50  # of ids, of which those of removed references count for nothing


@dataclass(frozen=True)
class MilvusIndex(MeasuredIndex):
    """An index of Milvus; ``effort`` is its parameter ``ef``."""

    @classmethod
    def of(cls, state: MilvusState) -> MilvusIndex | None:
        """The index of a gallery; None where its recall was not measured yet."""
        return cls.of_dict(state.search_index) if state.search_index else None


def check_index(state: MilvusState, display: str) -> None:
    """Raise DataError for a gallery that was made without an index, and for one that is empty."""
    if not state.has_index:
        raise DataError(f"{display} was made without an index for approximate search",
                        remedy="search exactly, or copy it (unalike gallery copy) to an address with index=hnsw among its parameters")  # fmt: skip
    if not state.vectors:
        raise DataError("the gallery is empty", remedy="enrol reference images first")


def measure(view: MilvusView, *, recall: float = RECALL, seed: int = 0) -> MilvusIndex:
    """Raise the effort until a recall (0..1) is measured, as far as it can be.

    Args:
        view: of a gallery whose index was built.
        recall: target.
        seed: draws the references that recall is measured on.
    """
    rng, vectors = np.random.default_rng(seed), dict[int, np.ndarray]()
    count, next_id = min(SAMPLE, view.state.vectors), view.state.next_id
    for _ in range(DRAWS):
        ids = np.unique(rng.integers(0, next_id, SAMPLE)).tolist() if next_id > 4 * SAMPLE else list(range(next_id))
        for id, row in view.rows_of_ids([id for id in ids if id not in vectors], ("vector",)).items():
            if len(vectors) < count:
                vectors[id] = np.asarray(row["vector"], np.float32)
        if len(vectors) == count:
            break
    else:  # hardly any reference is left of those that there were
        entries = view.entries(limit=count)
        vectors = dict(zip([entry.id for entry in entries], view.vectors([entry.id for entry in entries]), strict=True))
    ids_S = np.array(sorted(vectors), np.int64)
    return MilvusIndex.measured(view, ids_S, np.stack([vectors[id] for id in ids_S.tolist()]), recall)
