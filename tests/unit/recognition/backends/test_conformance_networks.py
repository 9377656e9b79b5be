"""The laws of a gallery that gets another network, kept by its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from unalike.recognition.backends import address as addresses
from unalike.recognition.backends import conformance_networks
from unalike.recognition.backends.conformance_networks import NETWORK_LAWS
from unalike.recognition.snapshot_view import SnapshotView


@pytest.mark.parametrize("law", NETWORK_LAWS, ids=lambda law: law.__name__)
def test_a_file_keeps_the_law(law: Callable[[str], None], tmp_path: Path) -> None:
    law(str(tmp_path / "shop.gallery"))


def test_a_backend_that_loses_a_change_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotView, "is_unchanged_since", lambda self, earlier: True)
        with pytest.raises(AssertionError, match="replaced"):
            conformance_networks.what_others_changed_meanwhile_is_not_replaced(str(tmp_path / "a.gallery"))
    with monkeypatch.context() as patch:
        patch.setattr(addresses, "write_gallery_file", lambda *_: None)
        with pytest.raises(AssertionError):
            conformance_networks.a_gallery_gets_another_network_in_one_step(str(tmp_path / "b.gallery"))
