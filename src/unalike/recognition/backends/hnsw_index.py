"""HNSW index of pgvector for approximate search in a gallery, whose recall is measured.

It stays in use while references come and go. Scores are computed from the vectors as they are kept, and mean the same as those
of exact search.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.errors import DataError
from unalike.progress import say
from unalike.recognition.backends.measured_index import RECALL, SAMPLE, MeasuredIndex
from unalike.recognition.backends.postgres_tables import GalleryRow

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.errors import Diagnostic

    from unalike.recognition.backends.postgres_view import PostgresView

# Widths that pgvector can index: as float32, and above that as float16, by which candidates are found only.
MAX_DIM, MAX_HALF_DIM = 2000, 4000


# Links of a vector (m) and candidates while the graph is built (ef_construction), by the least number of vectors. 16 and 64 are
# pgvector's own; at a million vectors their recall stays below the target at any effort (docs/experiments/scale.md, 2026-12-01).
GRAPHS = ((300_000, 24, 128), (0, 16, 64))


@dataclass(frozen=True)
class HnswIndex(MeasuredIndex):
    """An index of pgvector; ``effort`` is ``hnsw.ef_search``, of which 1,000 is the most."""

    @classmethod
    def of(cls, row: GalleryRow) -> HnswIndex | None:
        """The index of a gallery; None where there is none yet."""
        return None if row.search_index is None else cls.of_dict(row.search_index)

    def order(self, row: GalleryRow) -> str:
        """The ORDER BY of a search through it."""
        return f"{_indexed(row)[0]} <#> %(query)b{_indexed(row)[1]}"

    def prepare(self, view: PostgresView, k: int) -> None:
        """Let the searches of a transaction go through the index, with enough candidates for k neighbors."""
        view.fetch(
            "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'strict_order', true), "
            "set_config('enable_seqscan', 'off', true)",
            [str(self.candidates(k))],
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
    links, candidates = next((links, candidates) for least, links, candidates in GRAPHS if row.vectors >= least)
    return (
        f"CREATE INDEX IF NOT EXISTS {name} ON {row.vectors_table} USING hnsw ({_indexed(row)[0]} {operators}) "
        f"WITH (m = {links}, ef_construction = {candidates})"
    )


@contextmanager
def says_if_memory_is_short(connection: Connection[Any]) -> Iterator[None]:
    """Print that the server's ``maintenance_work_mem`` is too small, where pgvector says so while a transaction builds an index."""

    def report(notice: Diagnostic) -> None:
        if "maintenance_work_mem" in (notice.message_primary or ""):
            say(f"{notice.message_primary}: the rest takes many times as long. To begin again with more, interrupt (nothing is lost), "
                "and let the server's administrator run, for example, ALTER DATABASE ... SET maintenance_work_mem = '2GB'")  # fmt: skip

    connection.add_notice_handler(report)
    try:
        connection.execute("SET LOCAL client_min_messages = notice")
        yield
    finally:
        connection.remove_notice_handler(report)


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
    return HnswIndex.measured(view, sample_S, queries_SD, recall)
