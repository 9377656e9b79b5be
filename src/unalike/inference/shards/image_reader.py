"""Reading of images by path or address, one at a time, and of tar files as streams; broken connections are tried again.

Shape letters: H, W height and width of an image.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Full, Queue
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from unalike.data.decode import open_image
from unalike.data.regions import crop_region, split_region
from unalike.data.tar_stream import TarImage, read_tar
from unalike.data.view import View
from unalike.errors import UnreadableImage
from unalike.sanitize import redact
from unalike.storage.filesystems import RemoteStore, failure_kind, split_address, uri_of
from unalike.storage.outside_files import open_file

ATTEMPTS = 4  # of one file, whose connection breaks off
BACKOFF_S = 0.5
REMOTE_THREADS = 16
T = TypeVar("T")


class ImageReader:
    """Gives the network's view of an image by its path or address, for any number of threads.

    Args:
        view: The evaluation view.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._stores: dict[tuple[str, str], RemoteStore] = {}
        self._lock = threading.Lock()

    def __call__(self, path: str) -> np.ndarray:
        """Read an image: uint8 (H, W, 3).

        Raises:
            UnreadableImage: It cannot be decoded, or does not exist.
            DataError: Its store cannot be reached, or refuses to give it.
        """
        if not uri_of(path):
            return self._view(path)
        address, box = split_region(path)
        content = self._fetch(address)
        try:
            if box is None:
                return self._view(content)
            return self._view(crop_region(open_image(content, decoding=self._view.decoding), box, path))
        except UnreadableImage as error:
            raise UnreadableImage(f"{redact(path)}: {error.found.removeprefix('image bytes: ')}") from error

    def content(self, path: str) -> bytes | Path:
        """What an image is opened from: the path of a local one, the bytes of another. Raises as reading it does."""
        return self._fetch(split_region(path)[0]) if uri_of(path) else Path(path)

    def decode(self, image: TarImage) -> np.ndarray:
        """Decode an image of a tar: uint8 (H, W, 3). Raises UnreadableImage."""
        if image.fault:
            raise UnreadableImage(image.fault)
        try:
            return self._view(image.content)
        except UnreadableImage as error:
            raise UnreadableImage(error.found.removeprefix("image bytes: ")) from error

    def _fetch(self, uri: str) -> bytes:
        address = split_address(uri)
        place = address.scheme, address.netloc
        with self._lock:
            if place not in self._stores:
                self._stores[place] = RemoteStore(uri)
            store = self._stores[place]
        path = type(store.fs)._strip_protocol(uri)
        for attempt in range(ATTEMPTS):
            try:
                return cast(bytes, store.fs.cat_file(path))
            except Exception as error:  # each store's own
                kind = failure_kind(error)
                if kind == "missing":
                    raise UnreadableImage(f"{redact(uri)}: no such file") from error
                if kind not in ("broken", "unreachable") or attempt + 1 == ATTEMPTS:
                    raise store.explain(error, redact(uri)) from error
                time.sleep(BACKOFF_S * 2**attempt)
        raise AssertionError("the loop returns or raises")


def stream_tar(path: str) -> Iterator[TarImage]:
    """Read the images of a tar file of this machine or of a store, in one pass. Raises DataError where it cannot be opened."""
    with _open(path) as stream:
        yield from read_tar(stream, redact(path))


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    if not uri_of(path):
        with open_file(path) as file:
            yield file
        return
    store = RemoteStore(path)
    # Blocks are read one after the other: a cache of those behind would only cost memory.
    options = {"block_size": 8 << 20, "cache_type": "readahead"}
    with store.explain_errors(), store.fs.open(store.path, "rb", **options) as stream:
        yield stream


def prefetch(items: Iterator[T], count: int) -> Iterator[T]:
    """Draw items in a thread of its own, up to ``count`` ahead: a stream is read while the network computes.

    Raises:
        Exception: What drawing an item raised, after the items before it.
    """
    queue: Queue[Any] = Queue(count)
    stop = threading.Event()
    end = object()

    def put(entry: Any) -> None:
        while not stop.is_set():
            try:
                return queue.put(entry, timeout=0.2)
            except Full:  # look again whether anybody still reads
                continue

    def draw() -> None:
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
            put((end, None))
        except Exception as error:  # noqa: BLE001  raised again by the reader
            put((end, error))

    thread = threading.Thread(target=draw, daemon=True, name="prefetch")
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield cast(T, item)
    finally:
        stop.set()
        thread.join()
