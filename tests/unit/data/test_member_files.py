"""Files and members of tar files are opened by their name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sharding import write_tar
from unalike.data.member_files import file_size, is_image_file, member_content, open_image_file
from unalike.data.regions import ContentDigests
from unalike.errors import DataError


def test_files_and_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    tar = write_tar(tmp_path / "a.tar", {"k/1.png": b"content"})
    (tmp_path / "b!.png").write_bytes(b"content")
    member, file, nothing = f"{tar}!k/1.png", tmp_path / "b!.png", tmp_path / "c!.png"
    assert member_content(member) == b"content" and member_content(file) is None and member_content(nothing) is None
    for path in (member, file):
        with open_image_file(path) as stream:
            assert stream.read() == b"content"
        assert file_size(path) == 7 and is_image_file(path)
    assert file_size(nothing) == file_size(tmp_path / "none") == -1
    assert not is_image_file(nothing) and not is_image_file(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        open_image_file(nothing)
    digests = ContentDigests()
    assert digests(member) == digests(file) is not None


def test_the_readers_of_images_do_not_load_archives() -> None:
    code = (
        "import sys, unalike.data.decode; assert not {'tarfile', 'zipfile', 'unalike.data.archives'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
