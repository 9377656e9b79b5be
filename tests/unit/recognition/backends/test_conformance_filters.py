"""The laws of attributes and filters, kept by the file of a gallery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unalike.recognition.attributes import ReferenceAttributes
from unalike.recognition.backends import conformance_filters
from unalike.recognition.backends.conformance_filters import FILTER_LAWS


@pytest.mark.parametrize("law", FILTER_LAWS, ids=lambda law: law.__name__)
def test_a_file_keeps_the_law(law: Callable[[str], None], tmp_path: Path) -> None:
    law(str(tmp_path / "shop.gallery"))


def test_a_filter_that_lets_others_pass_or_attributes_that_are_lost_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matching, select = ReferenceAttributes.matching_rows, ReferenceAttributes.select
    with monkeypatch.context() as patch:
        patch.setattr(ReferenceAttributes, "matching_rows", lambda self, where: matching(self, where)[:-1])
        for number, law in enumerate(FILTER_LAWS[:3]):
            with pytest.raises(AssertionError):
                law(str(tmp_path / f"{number}.gallery"))
    with monkeypatch.context() as patch:
        patch.setattr(ReferenceAttributes, "select", lambda self, kept: select(self, np.roll(kept, 1)))
        with pytest.raises(AssertionError):
            conformance_filters.attributes_stay_with_their_references(str(tmp_path / "c.gallery"))
