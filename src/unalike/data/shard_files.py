"""Tar files that are read at random, of this machine or of a store: bytes from an offset, and what tells that a file changed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

from unalike.errors import DataError
from unalike.sanitize import redact
from unalike.storage.filesystems import RemoteStore, failure_kind, uri_of
from unalike.storage.outside_files import open_file
from unalike.storage.process_lock import ProcessLock

# Stores that give a part of a file. Files of others are fetched whole, as web servers need not know parts.
RANGE_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")
MAX_OPEN_FILES = 256  # beyond them a file is opened for each read
ATTEMPTS, BACKOFF_S = 4, 0.5  # of a request to a store
_GZIP = b"\x1f\x8b"


class ShardFile(Protocol):
    """A file that is read at random.

    Attributes:
        name: Its path or address, for messages.
        size: Bytes.
        mark: Changes when the file does: time of change, or the store's tag.
        ahead: Bytes to read at once where the headers are read one after the other.
    """

    name: str
    size: int
    mark: str
    ahead: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Read bytes; fewer where the file ends before."""
        ...


class LocalShard:
    """A tar file of this machine. Reads have no position that threads or forked processes could share.

    Args:
        path: The file.

    Raises:
        DataError: No regular file that can be read.
    """

    ahead = 4096

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._descriptor: int | None = None
        with open_file(path) as file:
            status = os.fstat(file.fileno())
        self.size, self.mark = status.st_size, str(status.st_mtime_ns)

    def read_at(self, offset: int, size: int) -> bytes:
        """As ``ShardFile.read_at``. Raises DataError where the file was replaced or changed since it was first opened."""
        global _open_files
        if self._descriptor is not None:
            return _pread(self._descriptor, offset, size)
        with open_file(self.path) as file:
            status = os.fstat(file.fileno())
            if (status.st_size, str(status.st_mtime_ns)) != (self.size, self.mark):
                raise changed_error(self.name)
            with _lock:
                if self._descriptor is None and _open_files < MAX_OPEN_FILES:
                    self._descriptor = os.dup(file.fileno())
                    _open_files += 1
            return _pread(file.fileno(), offset, size)

    def close(self) -> None:
        """Close the file, which no thread may be reading."""
        global _open_files
        with _lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                _open_files -= 1

    def __del__(self) -> None:
        self.close()


_open_files = 0
_lock = ProcessLock()


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while 0 < len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data


class RemoteShard:
    """A tar file in a store, of which parts are fetched.

    Args:
        uri: Its address.

    Raises:
        DataError: No such file, or the store cannot be reached.
        MissingExtra: The package that reads such addresses is not installed.
    """

    ahead = 4 << 20

    def __init__(self, uri: str) -> None:
        self.uri, self.name = uri, redact(uri)
        self._stores: dict[int, RemoteStore] = {}  # by process: their threads and connections do not outlive a fork
        store = self._store()
        with store.explain_errors():
            file = store.file()
        if file.size is None:
            raise DataError(f"{self.name}: its store does not tell its size", remedy="fetch it, and give the file")
        self.size, self.mark = file.size, file.tag

    def _store(self) -> RemoteStore:
        return self._stores.get(os.getpid()) or self._stores.setdefault(os.getpid(), RemoteStore(self.uri))

    def read_at(self, offset: int, size: int) -> bytes:
        """As ``ShardFile.read_at``. Raises DataError where the store does not answer after some attempts."""
        store, stop = self._store(), min(offset + size, self.size)
        if stop <= offset:
            return b""
        for attempt in range(ATTEMPTS):
            try:
                return store.read(store.path, offset, stop)
            except Exception as error:  # each store's own
                if failure_kind(error) not in ("broken", "unreachable") or attempt + 1 == ATTEMPTS:
                    raise store.explain(error) from error
                time.sleep(BACKOFF_S * 2**attempt)
        raise AssertionError("the loop returns or raises")

    def close(self) -> None:
        """Nothing is kept open."""


def open_shard_file(path: Path) -> LocalShard | RemoteShard:
    """Open a tar file of this machine or of a store, by its path or its address as ``Path`` writes it."""
    uri = uri_of(path)
    return RemoteShard(uri) if uri else LocalShard(path)


def is_compressed(file: ShardFile) -> bool:
    """Whether a file is compressed by gzip, whatever its name says."""
    return file.read_at(0, 2) == _GZIP


def changed_error(name: str) -> DataError:
    """The error for a tar file that changed while it was in use."""
    return DataError(f"{name}: changed since its headers were read", expected="tar files that stay as they are while they are used",
                     remedy="begin again: a changed file is indexed anew")  # fmt: skip
