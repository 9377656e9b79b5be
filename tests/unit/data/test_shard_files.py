"""Random reads of tar files, here and in a store."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import fsspec
import pytest

from unalike.data import shard_files
from unalike.data.shard_files import LocalShard, RemoteShard, is_compressed, open_shard_file
from unalike.errors import DataError


def test_bytes_of_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(range(100)))
    file = open_shard_file(path)
    assert isinstance(file, LocalShard) and file.size == 100
    assert file.read_at(10, 5) == bytes(range(10, 15))
    assert file.read_at(98, 5) == b"bc" and file.read_at(100, 5) == b""
    assert not is_compressed(file)
    file.close()
    assert file.read_at(10, 1) == b"\n"
    file.close()


def test_no_more_files_stay_open_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "MAX_OPEN_FILES", shard_files._open_files + 2)
    files = []
    for number in range(5):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(bytes([number]))
        files.append(LocalShard(path))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        assert [file.read_at(0, 1)[0] for file in files] == list(range(5))
    if before:
        assert len(os.listdir("/proc/self/fd")) == before + 2
    for file in files:
        file.close()


def test_a_file_that_was_replaced_before_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"one")
    file = LocalShard(path)
    path.write_bytes(b"three")
    with pytest.raises(DataError, match=r"a\.tar: changed since its headers were read"):
        file.read_at(0, 1)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        LocalShard(tmp_path / "a.tar")
    with pytest.raises(DataError, match="a folder"):
        LocalShard(tmp_path)


def test_bytes_of_a_file_in_a_store() -> None:
    address = f"memory://{uuid.uuid4().hex}/a.tar"
    with fsspec.open(address, "wb") as out:
        out.write(b"\x1f\x8b" + bytes(range(50)))
    file = open_shard_file(Path(address))  # which folds the slashes
    assert isinstance(file, RemoteShard) and file.uri == address and file.size == 52
    assert file.read_at(2, 3) == b"\0\1\2" and file.read_at(50, 9) == b"01" and file.read_at(60, 2) == b""
    assert is_compressed(file)
    with pytest.raises(DataError, match="nothing exists|no such|there is no"):
        RemoteShard(address + "x")


def test_requests_that_break_off_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"memory://{uuid.uuid4().hex}/a.tar"
    with fsspec.open(address, "wb") as out:
        out.write(b"content")
    file = RemoteShard(address)
    monkeypatch.setattr(shard_files, "BACKOFF_S", 0.0)
    faults = [ConnectionResetError("cut"), ConnectionResetError("cut")]

    def read(self: object, path: str, start: int, stop: int) -> bytes:
        if faults:
            raise faults.pop()
        return b"content"[start:stop]

    monkeypatch.setattr("unalike.storage.filesystems.RemoteStore.read", read)
    assert file.read_at(0, 3) == b"con" and not faults
    faults += [ConnectionResetError("cut")] * shard_files.ATTEMPTS
    with pytest.raises(DataError, match="broke off"):
        file.read_at(0, 3)
