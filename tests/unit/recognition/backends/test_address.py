"""Addresses of galleries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.backends.address import open_gallery, save_gallery
from unalike.recognition.gallery import Gallery


def test_a_path_is_a_file(tmp_path: Path) -> None:
    gallery = Gallery(2)
    gallery.enrol(np.eye(2), ["a", "b"])
    path = tmp_path / "shop.gallery"
    assert save_gallery(gallery, path).address == str(path)
    assert open_gallery(path, verify=True).counts() == open_gallery(str(path)).counts() == {"a": 1, "b": 1}
    with pytest.raises(DataError, match="exists"):
        save_gallery(Gallery(2), path)
    with pytest.raises(DataError, match="no gallery"):
        open_gallery(tmp_path / "none.gallery")
