"""Files in the cache are named by their sources, alone and in texts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unalike import source_names
from unalike.data.archives import split_member
from unalike.errors import DataError
from unalike.source_names import (
    absolute_source_name,
    register_archive,
    register_files,
    register_folder,
    source_name,
    with_source_names,
)

CACHE = Path("/cache/unalike")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_names, "_prefixes", {})
    monkeypatch.setattr(source_names, "_names", {})
    register_archive(CACHE / "archives/1f", "my photos.zip")
    register_archive(CACHE / "archives/2f", "s3://bucket/photos.tar.gz")
    register_folder(CACHE / "remote/3f/files", "hf://me/photos/")
    names = {"a.png": "https://host/a.png", "b.png": "https://host/b.png?version=1"}
    register_files(CACHE / "remote/4f/files", {str(CACHE / "remote/4f/files" / k): v for k, v in names.items()})


@pytest.mark.parametrize(("path", "name"), [
    ("archives/1f/mug/1.jpg", "my photos.zip!mug/1.jpg"),
    ("archives/1f/mug/1.jpg#1,2,3,4", "my photos.zip!mug/1.jpg#1,2,3,4"),
    ("archives/1f", "my photos.zip"), ("remote/3f/files", "hf://me/photos"),
    ("archives/2f/1.jpg", "s3://bucket/photos.tar.gz!1.jpg"),
    ("remote/3f/files/mug/1.jpg", "hf://me/photos/mug/1.jpg"),
    ("remote/4f/files/b.png", "https://host/b.png?version=1"),
    ("remote/4f/files/b.png#1,2,3,4", "https://host/b.png?version=1#1,2,3,4"),
])  # fmt: skip
def test_names(path: str, name: str) -> None:
    assert source_name(CACHE / path) == source_name(str(CACHE / path)) == name
    assert with_source_names(f"{CACHE / path}: damaged ({CACHE / path})") == f"{name}: damaged ({name})"
    assert str(DataError(f"{CACHE / path}: damaged")) == f"{name}: damaged"


@pytest.mark.parametrize(
    "path",
    ["photos/mug/1.jpg", "/cache/unalike/archives/1fx/1.jpg", "/cache/unalike/archives/1f-x", "1.jpg#1,2,3,4", ""],
)
def test_other_paths_are_their_own_names(path: str) -> None:
    assert source_name(path) == path and with_source_names(f"{path}: damaged") == f"{path}: damaged"


def test_absolute_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_source_name("a/../b.png") == os.path.join(tmp_path, "a/../b.png")
    assert absolute_source_name(CACHE / "archives/1f/1.jpg") == f"{tmp_path}/my photos.zip!1.jpg"
    assert absolute_source_name(CACHE / "archives/2f/1.jpg") == "s3://bucket/photos.tar.gz!1.jpg"


@pytest.mark.parametrize(("name", "parts"), [
    ("a.zip!b/c.png", ("a.zip", "b/c.png")),
    ("wow!.tar.gz!b!.png", ("wow!.tar.gz", "b!.png")),
    ("s3://b/a.TGZ!c.png", ("s3://b/a.TGZ", "c.png")),
    ("a.zip", None),
    ("a!b.png", None),
    ("a.zip!", None),
])  # fmt: skip
def test_members(name: str, parts: tuple[str, str] | None) -> None:
    assert split_member(name) == parts
