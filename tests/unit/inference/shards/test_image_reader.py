"""Images by path and address; broken connections are tried again, and streams are read ahead."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.sharding import SIZE, image_bytes, write_tar
from unalike.data.tar_stream import TarImage
from unalike.data.view import View
from unalike.errors import DataError, UnreadableImage
from unalike.inference.shards import image_reader
from unalike.inference.shards.image_reader import ImageReader, prefetch, stream_tar
from unalike.storage.filesystems import RemoteStore

VIEW = View(*SIZE)


@pytest.fixture
def address() -> str:
    return f"memory://{uuid.uuid4().hex}"


def put(address: str, content: bytes) -> str:
    store = RemoteStore(address)
    store.fs.pipe_file(f"{store.path}/0.png", content)
    return f"{address}/0.png"


def test_an_image_of_a_store_is_that_of_the_disk(tmp_path: Path, address: str) -> None:
    content = image_bytes(300)
    (tmp_path / "0.png").write_bytes(content)
    read, remote = ImageReader(VIEW), put(address, content)
    for region in ("", "#1,2,4,5"):
        assert np.array_equal(read(remote + region), read(str(tmp_path / "0.png") + region))
    assert np.array_equal(read.decode(TarImage("0.png", "", content)), read(remote))
    assert read.content(remote) == content and read.content(str(tmp_path / "0.png")) == tmp_path / "0.png"


def test_what_does_not_exist_or_is_no_image_is_unreadable(address: str) -> None:
    read = ImageReader(VIEW)
    with pytest.raises(UnreadableImage, match=r"1\.png: no such file"):
        read(f"{address}/1.png")
    with pytest.raises(UnreadableImage, match=r"0\.png: not an image"):
        read(put(address, b"nothing"))
    with pytest.raises(UnreadableImage, match="too large"):
        read.decode(TarImage("0.png", "", b"", "too large"))


def test_a_broken_connection_is_tried_again_and_ends_the_run_in_the_end(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_reader, "BACKOFF_S", 0.0)
    uri = put(address, image_bytes(1))
    fs, faults = RemoteStore(address).fs, 2
    read_file = fs.cat_file

    def cat_file(path: str) -> bytes:
        nonlocal faults
        faults -= 1
        if faults >= 0:
            raise ConnectionResetError("cut")
        return bytes(read_file(path))

    monkeypatch.setattr(fs, "cat_file", cat_file)
    assert ImageReader(VIEW)(uri).shape == (*SIZE, 3) and faults == -1
    faults = 100
    with pytest.raises(DataError, match="the connection broke off"):
        ImageReader(VIEW)(uri)
    assert faults == 100 - image_reader.ATTEMPTS


def test_a_tar_of_a_store_is_read_as_that_of_the_disk(tmp_path: Path, address: str) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{n}.png": image_bytes(n) for n in range(5)})
    store = RemoteStore(address)
    store.fs.pipe_file(f"{store.path}/a.tar", path.read_bytes())
    assert list(stream_tar(f"{address}/a.tar")) == list(stream_tar(str(path)))
    with pytest.raises(DataError, match="no such file"):
        list(stream_tar(str(tmp_path / "b.tar")))


def test_prefetched_items_keep_their_order_and_their_error() -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for number in range(100):
            drawn += 1
            if number == 50:
                raise KeyError("fifty")
            yield number

    numbers: list[int] = []
    with pytest.raises(KeyError, match="fifty"):
        numbers.extend(prefetch(items(), 4))
    assert numbers == list(range(50)) and list(prefetch(iter(range(9)), 2)) == list(range(9))
    reader = prefetch(iter(range(1000)), 4)
    assert next(reader) == 0
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
