"""HNSW index of pgvector for approximate search in a gallery, whose recall is measured.

It stays in use while references come and go. Scores are computed from the vectors as they are kept, and mean the same as those
of exact search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.errors import DataError
from unalike.recognition.backends.postgres_tables import GalleryRow

if TYPE_CHECKING:
    from unalike.recognition.backends.postgres_view import PostgresView

# Target recall, the number of neighbors that it counts, and the number of vectors that it is measured on.
RECALL, RECALL_AT, SAMPLE = 0.99, 10, 256
MOST_CANDIDATES = 1000  # of pgvector's hnsw.ef_search
# Widths that pgvector can index: as float32, and above that as float16, by which candidates are found only.
MAX_DIM, MAX_HALF_DIM = 2000, 4000


@dataclass(frozen=True)
class HnswIndex:
    """An index on the server.

    Attributes:
        effort: candidates that a search keeps (``hnsw.ef_search``).
        recall: measured for ``RECALL_AT`` neighbors when it was built, 0..1.
        trials: number of references that it was measured on.
    """

    effort: int
    recall: float
    trials: int

    @property
    def most(self) -> int:
        """Most neighbors that it can find; more are searched exactly."""
        return MOST_CANDIDATES

    def to_dict(self) -> dict[str, Any]:
        """Kind, effort, recall, number of neighbors and of trials: plain data."""
        return {
            "kind": "hnsw",
            "effort": self.effort,
            "recall": self.recall,
            "neighbours": RECALL_AT,
            "trials": self.trials,
        }

    @classmethod
    def of(cls, row: GalleryRow) -> HnswIndex | None:
        """The index of a gallery; None where there is none yet."""
        facts = row.search_index
        return None if facts is None else cls(int(facts["effort"]), float(facts["recall"]), int(facts["trials"]))

    def order(self, row: GalleryRow) -> str:
        """The ORDER BY of a search through it."""
        return f"{_indexed(row)[0]} <#> %(query)b{_indexed(row)[1]}"

    def prepare(self, view: PostgresView, k: int) -> None:
        """Let the searches of a transaction go through the index, with enough candidates for k neighbors."""
        candidates = min(max(self.effort, k), MOST_CANDIDATES)
        view.fetch(
            "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'strict_order', true), "
            "set_config('enable_seqscan', 'off', true)",
            [str(candidates)],
        )

    def finish(self, view: PostgresView) -> None:
        """Let later statements of the transaction be planned as ever."""
        view.fetch("SELECT set_config('enable_seqscan', 'on', true)")


def _indexed(row: GalleryRow) -> tuple[str, str]:
    """The indexed expression, and the cast of a query to its type."""
    if row.half:
        return "vector", f"::halfvec({row.dim})"
    if row.dim > MAX_DIM:
        return f"(vector::halfvec({row.dim}))", f"::halfvec({row.dim})"
    return "vector", ""


def check_indexable(row: GalleryRow) -> None:
    """Raise DataError for vectors that are too wide for pgvector's index, and for a gallery without any."""
    if row.dim > MAX_HALF_DIM:
        raise DataError(f"vectors of width {row.dim}", expected=f"at most {MAX_HALF_DIM} for approximate search in PostgreSQL",
                        remedy="search exactly, or keep the gallery in a file")  # fmt: skip
    if not row.vectors:
        raise DataError("the gallery is empty", remedy="enrol reference images first")


def index_statement(row: GalleryRow) -> str:
    """The statement that builds the index; searches see it when its transaction has ended."""
    operators = "halfvec_ip_ops" if row.half or row.dim > MAX_DIM else "vector_ip_ops"
    name = f"unalike_gallery_{row.id}_hnsw"
    return f"CREATE INDEX IF NOT EXISTS {name} ON {row.vectors_table} USING hnsw ({_indexed(row)[0]} {operators})"


def measure(view: PostgresView, *, recall: float = RECALL, seed: int = 0) -> HnswIndex:
    """Raise the effort until a recall (0..1) is measured, as far as it can be.

    Args:
        view: of a gallery whose index was built.
        recall: target.
        seed: draws the references that recall is measured on.
    """
    row, rng = view.row, np.random.default_rng(seed)
    ids = [number for (number,) in view.fetch(f"SELECT id FROM {row.vectors_table} ORDER BY id")]
    sample_S = np.sort(rng.choice(ids, min(SAMPLE, len(ids)), replace=False))
    vectors = view.fetch(f"SELECT vector FROM {row.vectors_table} WHERE id = ANY(%s) ORDER BY id", [sample_S.tolist()])
    queries_SD = np.stack([vector.to_numpy() for (vector,) in vectors]).astype(np.float32)
    # One more than counts: the nearest of an enrolled vector is itself, which any index finds.
    true_SK = view.search(queries_SD, RECALL_AT + 1).ids_QK
    counts_SK = true_SK != sample_S[:, None]
    effort = RECALL_AT + 1
    while True:
        index = HnswIndex(effort, 0.0, len(sample_S))
        found_SK = view.search(queries_SD, RECALL_AT + 1, index).ids_QK
        is_found_SK = (true_SK[:, :, None] == found_SK[:, None, :]).any(axis=2)
        share = float(is_found_SK[counts_SK].mean()) if counts_SK.any() else 1.0
        if share >= recall or effort >= MOST_CANDIDATES:
            return HnswIndex(effort, share, len(sample_S))
        effort = min(MOST_CANDIDATES, 2 * effort)
