"""Changes of a gallery as bytes, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unalike.recognition.attributes import ReferenceAttributes
from unalike.recognition.gallery_change import (
    ChangeRecord,
    Enrollment,
    Merger,
    Recalibration,
    Removal,
    Renaming,
    merge_enrollments,
)

NO_TEXT = "cut off \udcff"  # a file name that is not valid Unicode


def plain(change: Any) -> Any:
    if isinstance(change, Enrollment):
        attributes = change.attributes
        own = [] if attributes is None else [attributes[row] for row in range(len(change.labels))]
        return "enroll", change.vectors_MD.tolist(), list(change.labels), list(change.names), own
    return ("remove", change.ids_R.tolist()) if isinstance(change, Removal) else change


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_changes_come_back_as_they_were(dtype: type) -> None:
    draws = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    changes = [
        Enrollment(draws[:2], ["ä", "b"], ["x.jpg", NO_TEXT], ReferenceAttributes.of([{}, {"site": "ü"}])), Removal(np.array([3, 2**40])), Renaming("ä", "c"),
        Merger(["b", "c"], "d"), Recalibration(None), Enrollment(draws[2:], ["e"], [""]), Enrollment(draws[:0], [], []),
    ]  # fmt: skip
    record = ChangeRecord(changes, 12, 2**41)
    again = ChangeRecord.from_bytes(record.to_bytes(), 4, np.dtype(dtype), None)
    assert [plain(change) for change in again.changes] == [plain(change) for change in changes]
    assert (again.revision, again.next_id) == (12, 2**41)


def test_enrollments_that_follow_one_another_become_one() -> None:
    one = [Enrollment(np.full((1, 2), i), [f"c{i}"], [f"n{i}"]) for i in range(4)]
    merged = list(merge_enrollments(iter([one[0], one[1], Renaming("a", "b"), one[2], Merger(["a"], "b"), one[3]])))
    assert [plain(change) for change in merged] == [
        ("enroll", [[0, 0], [1, 1]], ["c0", "c1"], ["n0", "n1"], []), Renaming("a", "b"),
        ("enroll", [[2, 2]], ["c2"], ["n2"], []), Merger(["a"], "b"), ("enroll", [[3, 3]], ["c3"], ["n3"], []),
    ]  # fmt: skip
    assert list(merge_enrollments(iter([]))) == []
    two = [one[0], replace(one[1], attributes=ReferenceAttributes.of([{"site": "x"}]))]
    assert plain(*merge_enrollments(iter(two)))[4] == [{}, {"site": "x"}]
