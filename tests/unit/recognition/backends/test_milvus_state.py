"""Documents and tables of classes of galleries in Milvus, as texts; what a server does with them is in ``test_milvus``."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from unalike.errors import DataError
from unalike.recognition.backends.conformance import calibration_for
from unalike.recognition.backends.conformance_networks import identity_of
from unalike.recognition.backends.milvus_state import ROW_BITS, ClassTable, MilvusState, class_rows, document_rows
from unalike.recognition.gallery import Gallery


def state() -> MilvusState:
    return MilvusState(
        uid="ab", commit=9, dim=8, half=True, vectors=3, classes=2, revision=5, next_id=7, next_class=4, next_set=6,
        model_identity=identity_of(1), calibration=calibration_for(Gallery(8)), aborted=(4, 6), formers={"cd": (3, 12.5)},
        rewritten=2, history=((1, 2.5),),
    )  # fmt: skip


def test_a_document_comes_back_as_it_was() -> None:
    before = state()
    after = MilvusState.of_text("ab", 9, before.to_text(), "milvus://h")
    assert after.model_identity.equals(before.model_identity)
    assert replace(after, model_identity=before.model_identity) == before


def test_a_long_document_takes_several_rows() -> None:
    long = replace(state(), history=tuple((number, 1e9 + number) for number in range(9000)))
    rows = document_rows(long, 5)
    assert len(rows) > 2 and all(len(row["text"]) <= 60_000 and row["text"].isascii() for row in rows)
    assert [row["pk"] for row in rows] == [9 << ROW_BITS | 5 + part for part in range(len(rows))]
    assert "".join(row["text"] for row in rows) == long.to_text()


@pytest.mark.parametrize(
    ("text", "fault"), [("{", "damaged"), ("{}", "damaged"), ('{"format": 99}', "format version 99")]
)
def test_what_is_no_document_is_refused(text: str, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        MilvusState.of_text("ab", 9, text, "milvus://h")


def test_attempts_that_were_no_commits_are_left_out_from_then_on() -> None:
    next_state = state().next(12)
    assert (next_state.commit, next_state.aborted) == (12, (4, 6, 10, 11))
    assert [number for number in range(14) if next_state.is_visible(number)] == [0, 1, 2, 3, 5, 7, 8, 9, 12]
    added = [eval(next_state.condition, {"added": number, "removed": 1 << 62}) for number in range(14)]
    assert added == [next_state.is_visible(number) for number in range(14)], "rows that were added"
    removed = [eval(next_state.condition, {"added": 0, "removed": number}) for number in range(1, 14)]
    assert removed == [not next_state.is_visible(number) for number in range(1, 14)], "rows that were removed"
    assert eval(replace(state(), aborted=()).condition, {"added": 9, "removed": 10})


def test_a_table_of_classes_follows_its_lines() -> None:
    table = ClassTable()
    for line in (
        {"n": 0, "l": "a", "v": 2, "t": None},
        {"n": 1, "l": "b", "v": 1, "t": None},
        {"n": 2, "l": "ü", "v": 1, "t": None},
        {"n": 1, "l": "", "v": 0, "t": 2},
        {"n": 0, "l": "", "v": 0, "t": None},
    ):
        table.put(line)
    table.put({"n": 2, "l": "ü", "v": 2, "t": None})
    assert table.counts() == {"ü": 2} and table.number_of() == {"ü": 2}
    assert (table.target(1), table.target(2), table.members(2)) == (2, 2, [2, 1])
    again = ClassTable()
    for row in class_rows(3, [table.line(number) for number in (0, 1, 2)], 0):
        again.put(json.loads(row["text"]))
    assert (again.classes, again.targets) == (table.classes, table.targets)
    copy = table.copy()
    copy.classes.clear()
    assert table.counts() == {"ü": 2}
