"""Rows of the collection of vectors of a gallery in Milvus: how they are written, and read by ascending id.

A row is written once; when its reference is removed, the number of that attempt is put into it. A state sees the rows that were
added by then and not removed.

Shape letters: M vectors, D width.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.recognition.backends.milvus_connection import MOST_ROWS
from unalike.recognition.backends.milvus_state import ROW_BITS, MilvusState
from unalike.recognition.backends.postgres_tables import decode_text, encode_text

NEVER = 1 << 62  # the attempt that removes what is there
MAX_DIM = 32_768  # of Milvus
MOST_NAME_BYTES = 65_535  # of Milvus's texts
WRITE_BYTES, READ_BYTES = 2 << 20, 16 << 20  # of vectors and names in one call
FACTS = ("id", "class", "name", "attributes")
ALL = ("pk", *FACTS, "name_key", "added", "removed", "vector")
INDEXED = "indexed"  # the field with the same vector again, in galleries that have an index for approximate search
INDEXES = {
    "vector": {"index_type": "FLAT", "metric_type": "IP"},
    "id": {"index_type": "INVERTED"},
    "class": {"index_type": "INVERTED"},
    "attributes": {"index_type": "INVERTED"},
    "name_key": {"index_type": "INVERTED"},
}
# As faiss and Milvus's own examples have it; the effort of a search is chosen by its measured recall.
HNSW = {"index_type": "HNSW", "metric_type": "IP", "params": {"M": 16, "efConstruction": 200}}
Row = dict[str, Any]
Query = Callable[[str, Sequence[str]], list[Row]]  # the rows of a condition, in any order, with these fields


def row_fields(dim: int, has_index: bool = False) -> Sequence[tuple[str, str, dict[str, Any]]]:
    """The fields of the collection. Raises DataError for a width that Milvus cannot hold."""
    if not 2 <= dim <= MAX_DIM:
        raise DataError(f"vectors of width {dim}", expected=f"from 2 to {MAX_DIM} in Milvus")
    return (
        ("pk", "INT64", {}),
        ("id", "INT64", {}),
        ("class", "INT64", {}),
        ("attributes", "INT64", {}),  # number of the set; 0 for none
        ("name", "VARCHAR", {"max_length": MOST_NAME_BYTES}),
        ("name_key", "VARCHAR", {"max_length": 64}),
        ("added", "INT64", {}),
        ("removed", "INT64", {}),
        ("vector", "FLOAT_VECTOR", {"dim": dim}),
        *([(INDEXED, "FLOAT_VECTOR", {"dim": dim})] if has_index else []),
    )


def row_indexes(has_index: bool = False) -> dict[str, dict[str, Any]]:
    """The indexes of the fields: Milvus has one for each field, and searches a field exactly or by HNSW, never both."""
    return {**INDEXES, INDEXED: HNSW} if has_index else INDEXES


def name_key(name: str) -> str:
    """A digest of a name, the same for both of Unicode's forms of it; empty for none."""
    text = unicodedata.normalize("NFC", name).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest() if name else ""


def new_row(
    attempt: int, number: int, id: int, of_class: int, name: str, vector_D: np.ndarray, attributes: int = 0
) -> Row:
    """A row that an attempt adds as its ``number``-th. Raises DataError for a name that is too long."""
    text = encode_text(name)
    if len(text.encode()) > MOST_NAME_BYTES:
        raise DataError(f"a name of {len(text)} characters", expected=f"at most {MOST_NAME_BYTES} bytes in Milvus")
    return {"pk": attempt << ROW_BITS | number, "id": id, "class": of_class, "attributes": attributes, "name": text, "name_key": name_key(name),
            "added": attempt, "removed": NEVER, "vector": np.asarray(vector_D, np.float32)}  # fmt: skip


def stored_row(row: Row, has_index: bool) -> Row:
    """The fields of a row as they are written."""
    fields = {key: row[key] for key in ALL}
    return {**fields, INDEXED: row["vector"]} if has_index else fields


def name_of(row: Row) -> str:
    """The name in a row, as it was given."""
    return decode_text(row["name"])


def batches(rows: Sequence[Row], dim: int) -> Iterator[Sequence[Row]]:
    """Rows in parts of bounded size, for writing."""
    first, size = 0, 0
    for row, each in enumerate(rows):
        size += 4 * dim * (1 + (INDEXED in each)) + len(each.get("name") or each.get("text", "")) + 128
        if size > WRITE_BYTES:
            yield rows[first : row + 1]
            first, size = row + 1, 0
    if first < len(rows):
        yield rows[first:]


def read_rows(
    query: Query, state: MilvusState, fields: Sequence[str], condition: str = "", after: int = -1
) -> Iterator[Row]:
    """The rows of a state by ascending id, which Milvus gives in no order: a span of ids at a time.

    Args:
        query: asks the collection of vectors.
        state: whose rows are read.
        fields: of the rows.
        condition: a further expression.
        after: with a larger id than this.
    """
    most = max(1, min(MOST_ROWS, READ_BYTES // (4 * state.dim))) if "vector" in fields else MOST_ROWS
    conditions = [state.condition, *([condition] if condition else [])]
    first, span = after + 1, min(most, 256)
    while first < state.next_id:
        last = min(first + span, state.next_id)
        rows = query(" and ".join([f"id >= {first}", f"id < {last}", *conditions]), ["id", *fields])
        yield from sorted(rows, key=lambda row: row["id"])
        first, span = last, min(most, 4 * span)


def rows_of_ids(query: Query, state: MilvusState, ids: Sequence[int], fields: Sequence[str]) -> dict[int, Row]:
    """The rows of references by their ids; those that do not exist are left out."""
    rows: dict[int, Row] = {}
    step = max(1, min(1000, READ_BYTES // (4 * state.dim)))
    for first in range(0, len(ids), step):
        part = sorted(set(ids[first : first + step]))
        condition = f"id in {part} and {state.condition}"
        rows.update((row["id"], row) for row in query(condition, ["id", *fields]))
    return rows
