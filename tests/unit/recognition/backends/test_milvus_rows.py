"""Rows of vectors in Milvus: what is written; that they are read by ascending id is a law, in ``test_milvus``."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.backends.milvus_rows import NEVER, WRITE_BYTES, batches, name_key, name_of, new_row, row_fields


def test_a_row_keeps_any_name_and_has_a_key_of_its_attempt() -> None:
    row = new_row(3, 5, 17, 2, "a\x00\udcff\x1ab", np.ones(2, np.float64))
    assert row["pk"] == (3 << 32) + 5 and (row["added"], row["removed"]) == (3, NEVER)
    row["name"].encode()
    assert name_of(row) == "a\x00\udcff\x1ab" and row["vector"].dtype == np.float32


def test_both_forms_of_a_name_have_one_key() -> None:
    assert name_key("Gru\u0308n") == name_key("Gr\u00fcn") != name_key("Grun") and name_key("") == ""


def test_what_milvus_cannot_hold_is_refused() -> None:
    new_row(1, 0, 0, 0, "x" * 65_535, np.ones(2))
    with pytest.raises(DataError, match="65535 bytes in Milvus"):
        new_row(1, 0, 0, 0, "ü" * 32_768, np.ones(2))
    for dim in (1, 32_769):
        with pytest.raises(DataError, match="from 2 to 32768"):
            row_fields(dim)


def test_rows_are_written_in_parts_of_bounded_size() -> None:
    rows = [{"name": "x" * (WRITE_BYTES // 4)} for _ in range(11)]
    parts = list(batches(rows, 8))
    assert [row for part in parts for row in part] == rows and max(map(len, parts)) == 4
    assert list(batches([], 8)) == []
