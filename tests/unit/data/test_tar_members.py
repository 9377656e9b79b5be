"""Images that are read from tar files by name."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.support.forks import code_in_child
from tests.support.sharding import image_bytes, write_tar
from unalike.data import tar_members
from unalike.data.decode import decode
from unalike.data.tar_members import find_member, member_size, open_tar, read_member
from unalike.errors import DataError, UnreadableImage


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))


def some_tar(path: Path) -> Path:
    return write_tar(path, {f"k/{i}.png": image_bytes(i) for i in range(20)})


def test_a_member_is_read_by_its_name_alone(tmp_path: Path) -> None:
    path = some_tar(tmp_path / "a.tar")
    assert read_member(f"{path}!k/7.png") == image_bytes(7) and member_size(f"{path}!k/7.png") == len(image_bytes(7))
    assert decode(Path(f"{path}!k/7.png"))[0, 0].tolist() == [7, 0, 7]
    assert decode(Path(f"{path}!k/7.png#1,1,2,3")).shape == (3, 2, 3)  # a region of it


def test_other_names(tmp_path: Path) -> None:
    path = some_tar(tmp_path / "a.tar")
    for name in (f"{path}!k/99.png", f"{path}", f"{tmp_path}/none.tar!k/1.png", "a!b", f"{path}!k", f"{path}!"):
        assert find_member(name) is None and read_member(name) is None and member_size(name) == -1
    with tarfile.open(tmp_path / "b.tar", "w:gz") as tar:
        tar.add(path, "k/1.png")
    assert find_member(f"{tmp_path}/b.tar!k/1.png") is None
    with pytest.raises(UnreadableImage, match=r"99\.png: no such file"):
        decode(Path(f"{path}!k/99.png"))
    with pytest.raises(DataError, match="compressed, so that single images cannot be read"):
        open_tar(tmp_path / "b.tar")


def test_a_file_of_that_name_is_taken_first(tmp_path: Path) -> None:
    path = some_tar(tmp_path / "a.tar")
    (tmp_path / "a.tar!k").mkdir()
    (tmp_path / "a.tar!k/7.png").write_bytes(image_bytes(9))
    assert decode(Path(f"{path}!k/7.png"))[0, 0].tolist() == [9, 0, 7]


def test_a_tar_file_that_changes_in_place_is_an_error_that_names_the_member(tmp_path: Path) -> None:
    path = some_tar(tmp_path / "a.tar")
    status = os.stat(path)
    assert read_member(f"{path}!k/7.png") == image_bytes(7)
    content = path.read_bytes()
    row = content.index(b"k/7.png")
    with path.open("r+b") as file:  # the same inode, size and time
        file.seek(row)
        file.write(b"k/8.png")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"a\.tar!k/7\.png: changed since its headers were read"):
        decode(Path(f"{path}!k/7.png"))
    os.truncate(path, row + 600)
    with pytest.raises(DataError, match=r"a\.tar!k/7\.png: changed"):
        read_member(f"{path}!k/7.png")
    with pytest.raises(DataError, match="damaged or truncated"):
        open_tar(path)


def test_a_new_file_is_indexed_when_it_is_opened_again(tmp_path: Path) -> None:
    path = some_tar(tmp_path / "a.tar")
    first, is_new = open_tar(path)
    assert is_new and open_tar(path) == (first, False)
    write_tar(tmp_path / "b.tar", {"m/1.png": image_bytes(3)})
    os.replace(tmp_path / "b.tar", path)
    assert open_tar(path)[0].index.name(0) == "m/1.png" and read_member(f"{path}!m/1.png") == image_bytes(3)


def test_an_image_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(UnreadableImage, match="expected at most 10"):
        read_member(f"{some_tar(tmp_path / 'a.tar')}!k/1.png")


def test_forked_processes_read_the_same_file_at_once(tmp_path: Path) -> None:
    path = some_tar(tmp_path / "a.tar")
    read_member(f"{path}!k/0.png")

    def reads_right() -> bool:
        return all(read_member(f"{path}!k/{i % 20}.png") == image_bytes(i % 20) for i in range(300))

    assert code_in_child(reads_right) == 0 and reads_right()
