"""Changes of a snapshot: earlier snapshots stay as they were, and what an abandoned change wrote is taken back."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.recognition.change_application import apply_change, class_codes, sharing_undone
from unalike.recognition.gallery_change import Enrollment, Merger, Removal, Renaming
from unalike.recognition.snapshot import GallerySnapshot


def described(snapshot: GallerySnapshot) -> list[tuple[int, str, str, list[float]]]:
    rows = np.arange(len(snapshot))
    columns = (
        snapshot.ids_N.tolist(),
        snapshot.labels_of(snapshot.codes_N),
        snapshot.names,
        snapshot.vectors(rows).tolist(),
    )
    return list(zip(*columns, strict=False))


def test_earlier_snapshots_stay_as_they_were() -> None:
    eye = np.eye(4, dtype=np.float32)
    snapshot, codes = GallerySnapshot.empty(4), class_codes([])
    history = []
    for change in (
        Enrollment(eye[:3], list("aba"), list("123")),
        Enrollment(eye[3:], ["c"], ["4"]),
        Renaming("a", "d"),
        Removal(np.array([1])),
        Merger(["d"], "c"),
        Enrollment(eye[:1], ["d"], ["5"]),
    ):
        snapshot, codes = apply_change(snapshot, codes, change)
        history.append((snapshot, described(snapshot)))
    assert all(described(each) == before for each, before in history)
    assert [row[:3] for row in described(snapshot)] == [(0, "c", "1"), (2, "c", "3"), (3, "c", "4"), (4, "d", "5")]
    assert codes == {"c": 0, "d": 1} and snapshot.revision == 5


def test_an_abandoned_enrollment_leaves_nothing_behind() -> None:
    eye = np.eye(4, dtype=np.float32)
    snapshot, codes = apply_change(GallerySnapshot.empty(4), {}, Enrollment(eye[:2], ["a", "b"], ["1", "2"]))
    before = described(snapshot)
    with pytest.raises(KeyboardInterrupt), sharing_undone(snapshot):
        apply_change(snapshot, dict(codes), Enrollment(eye[2:], ["x", "y"], ["3", "4"]))
        raise KeyboardInterrupt
    assert list(snapshot.classes) == ["a", "b"] and described(snapshot) == before
    after, codes = apply_change(snapshot, codes, Enrollment(eye[3:], ["c"], ["5"]))
    assert described(after)[2] == (2, "c", "5", [0, 0, 0, 1]) and codes == {"a": 0, "b": 1, "c": 2}
