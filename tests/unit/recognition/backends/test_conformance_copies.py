"""The laws of copies of a gallery, kept by its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from unalike.recognition.backends import conformance_copies
from unalike.recognition.backends.conformance_copies import COPY_LAWS
from unalike.recognition.gallery import Gallery
from unalike.recognition.snapshot_view import SnapshotView


@pytest.mark.parametrize("law", COPY_LAWS, ids=lambda law: law.__name__)
def test_a_file_keeps_the_law(law: Callable[[str], None], tmp_path: Path) -> None:
    law(str(tmp_path / "shop.gallery"))


def test_a_copy_that_loses_the_calibration_or_the_revision_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_state = Gallery.of_state

    def without_calibration(state: SnapshotView) -> Gallery:
        return of_state(SnapshotView(state.snapshot(), None, state.model_identity))

    def without_revision(state: SnapshotView) -> Gallery:
        return of_state(SnapshotView(replace(state.snapshot(), revision=0), state.calibration, state.model_identity))

    for number, (fault, word) in enumerate(((without_calibration, "calibration"), (without_revision, "revision"))):
        monkeypatch.setattr(Gallery, "of_state", fault)
        with pytest.raises(AssertionError, match=word):
            conformance_copies.a_copy_holds_all_that_the_gallery_holds(str(tmp_path / f"{number}.gallery"))
