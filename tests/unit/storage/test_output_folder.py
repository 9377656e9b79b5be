"""A folder that is written into, on a disk and in a store of fsspec: files are whole or absent."""

from __future__ import annotations

import multiprocessing
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unalike.errors import DataError
from unalike.storage.filesystems import RemoteStore
from unalike.storage.output_folder import PARTIAL, OutputFolder


@pytest.fixture(params=["disk", "memory"])
def folder(request: Any, tmp_path: Path) -> Iterator[OutputFolder]:
    address = str(tmp_path / "out") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/out"
    yield OutputFolder(address)


def test_a_file_appears_when_it_is_complete(folder: OutputFolder) -> None:
    assert folder.names() == set()
    folder.create()
    with folder.write("a.parquet") as path:
        path.write_bytes(b"one")
        assert folder.names() == set() and not folder.exists("a.parquet")
    assert folder.names() == {"a.parquet"} and folder.exists("a.parquet")
    with folder.open("a.parquet") as stream:
        assert stream.read() == b"one"
    folder.remove("a.parquet")
    assert folder.names() == set()


def test_an_error_leaves_the_file_of_before(folder: OutputFolder) -> None:
    folder.create()
    with folder.write("a") as path:
        path.write_bytes(b"one")
    with pytest.raises(KeyError), folder.write("a") as path:
        path.write_bytes(b"two")
        raise KeyError
    with folder.open("a") as stream:
        assert stream.read() == b"one"
    assert folder.names() == {"a"}


def test_what_is_not_there_is_one_line(folder: OutputFolder) -> None:
    folder.create()
    with pytest.raises(DataError, match="b.parquet"), folder.open("b.parquet"):
        pass


def test_temporary_files_of_a_killed_process_are_no_files_and_are_removed_from_a_store() -> None:
    address = f"memory://{uuid.uuid4().hex}/out"
    folder, store = OutputFolder(address), RemoteStore(address)
    store.fs.pipe_file(f"{store.path}/.a{PARTIAL}0011", b"half")
    store.fs.pipe_file(f"{store.path}/b", b"whole")
    assert folder.names() == {"b"}
    folder.remove_partials()
    assert [str(path).rpartition("/")[2] for path in store.fs.ls(store.path, detail=False)] == ["b"]


def _hold(address: str, ready: Any, done: Any) -> None:
    with OutputFolder(address).locked():
        ready.set()
        done.wait(30)


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, done))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(DataError, match="another process"), OutputFolder(tmp_path).locked():
            pass
    finally:
        done.set()
        process.join()
    with OutputFolder(tmp_path).locked():
        pass
