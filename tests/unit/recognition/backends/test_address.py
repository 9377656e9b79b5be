"""Addresses of galleries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.recognition.backends.address import copy_gallery, open_gallery, save_gallery
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


def test_another_store_is_no_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``s3://bucket/x.gallery`` was written into a folder ``s3:`` and said to be at that address."""
    monkeypatch.chdir(tmp_path)
    gallery = Gallery(4)
    gallery.enrol(np.eye(4), list("abcd"))
    gallery.save("a.gallery")
    for other in ("s3://bucket/x.gallery", "mysql://u:1/hunter2@h/db", " postgresql://u:hunter2@h/db?gallery=g"):
        for call, values in (
            (open_gallery, (other,)),
            (save_gallery, (gallery, other)),
            (copy_gallery, ("a.gallery", other)),
        ):
            with pytest.raises(DataError, match="is an address") as caught:
                call(*values)  # type: ignore[operator]
            assert "hunter2" not in str(caught.value) and "milvus://HOST" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gallery"]
