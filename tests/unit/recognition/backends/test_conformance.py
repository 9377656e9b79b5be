"""The laws of a gallery, kept by its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unalike.recognition.backends import conformance
from unalike.recognition.backends.conformance import LAWS
from unalike.recognition.gallery import Gallery
from unalike.recognition.snapshot_view import SnapshotView


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_file_keeps_the_law(law: Callable[[str], None], tmp_path: Path) -> None:
    law(str(tmp_path / "shop.gallery"))


def test_a_law_finds_a_backend_that_breaks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault is found by the law that speaks of it."""
    search = SnapshotView._search

    def search_backwards(self: SnapshotView, *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = search(self, *arguments)
        return scores[:, ::-1], rows[:, ::-1]

    def broken(law: str, address: str) -> None:
        with pytest.raises(AssertionError):
            getattr(conformance, law)(str(tmp_path / address))

    with monkeypatch.context() as patch:
        patch.setattr(SnapshotView, "_search", search_backwards)
        broken("search_and_lists_equal_a_plain_list", "a")
        broken("equal_scores_are_ordered_by_id", "b")
    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "refresh", lambda self: False)
        broken("refresh_takes_over_changes_of_others", "c")
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotView, "stale", "")
        broken("a_calibration_is_kept_and_becomes_stale", "d")
