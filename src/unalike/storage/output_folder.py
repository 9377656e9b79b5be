"""A folder that files are written into, each whole or not at all: of this machine, or of a store that fsspec writes to."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from unalike.errors import DataError
from unalike.sanitize import redact
from unalike.storage.atomic import atomic_write
from unalike.storage.file_lock import file_lock
from unalike.storage.filesystems import RemoteStore, failure_kind, uri_of
from unalike.storage.outside_files import expand_home

PARTIAL = ".partial-"


class OutputFolder:
    """A folder of files that are written whole: under a temporary name, which is then changed to their own.

    Attributes:
        name: The folder, for messages.

    Raises:
        DataError: An address that no known store reads.
        MissingExtra: The package of its store is not installed.
    """

    def __init__(self, address: str | Path) -> None:
        uri = uri_of(address)
        self.address = uri or os.path.abspath(expand_home(str(address)))
        self.name = redact(uri) if uri else str(address)
        self._store = RemoteStore(uri) if uri else None
        self._local = Path(self.address)

    def names(self) -> set[str]:
        """Names of the files and folders in it; empty where it does not exist. Temporary files are left out."""
        if self._store is None:
            names = os.listdir(self._local) if self._local.is_dir() else []
        else:
            with self._store.explain_errors():
                try:
                    names = [
                        str(path).rstrip("/").rpartition("/")[2]
                        for path in self._store.fs.ls(self._store.path, detail=False)
                    ]
                except Exception as error:  # each store's own
                    if failure_kind(error) != "missing":
                        raise
                    names = []
        return {name for name in names if name and PARTIAL not in name}

    def exists(self, name: str) -> bool:
        """Whether it holds a file of that name."""
        if self._store is None:
            return (self._local / name).is_file()
        with self._store.explain_errors():
            return bool(self._store.fs.exists(self._path(name)))

    def create(self) -> None:
        """Create the folder where it does not exist. Raises DataError where that cannot be."""
        if self._store is not None:
            return  # stores of objects have no folders, and the others create them with the first file
        try:
            self._local.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.name} cannot be created: {error.strerror or error}", expected="a folder",
                            remedy="choose another name") from error  # fmt: skip

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yield the path of an empty local file; what is written there becomes the file ``name``, unless an error is raised."""
        if self._store is None:
            with atomic_write(self._local / name) as partial:
                yield partial
            return
        with tempfile.TemporaryDirectory(prefix="unalike-") as folder:
            path = Path(folder) / name
            path.touch()
            yield path
            fs, target = self._store.fs, self._path(name)
            partial_name = self._path(f".{name}{PARTIAL}{secrets.token_hex(8)}")
            with self._store.explain_errors(f"{self.name}/{name}"):
                with contextlib.suppress(NotImplementedError):
                    fs.makedirs(self._store.path, exist_ok=True)
                fs.put_file(str(path), partial_name)
                fs.mv(partial_name, target)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file of it for reading at any position. Raises DataError where that cannot be."""
        if self._store is None:
            try:
                stream: Any = open(self._local / name, "rb")  # noqa: SIM115  closed below
            except OSError as error:
                raise DataError(f"{self.name}/{name}: {error.strerror or error}") from error
        else:
            with self._store.explain_errors(f"{self.name}/{name}"):
                stream = self._store.fs.open(self._path(name), "rb")
        with stream:
            yield stream

    def remove(self, name: str) -> None:
        """Remove a file of it, if it exists."""
        if self._store is None:
            (self._local / name).unlink(missing_ok=True)
            return
        with self._store.explain_errors(f"{self.name}/{name}"):
            self._store.fs.rm_file(self._path(name))

    def remove_partials(self) -> None:
        """Remove temporary files that killed processes left in a store; on a disk the next write removes them."""
        if self._store is None:
            return
        with self._store.explain_errors():
            paths = [str(path) for path in self._store.fs.ls(self._store.path, detail=False)]
            for path in paths:
                if PARTIAL in path.rpartition("/")[2]:
                    self._store.fs.rm_file(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock on the folder, where it is of this machine. Raises DataError where another process holds it."""
        if self._store is not None:
            yield
            return
        with file_lock(self._local, timeout_s=1.0):
            yield

    def _path(self, name: str) -> str:
        assert self._store is not None
        return f"{self._store.path.rstrip('/')}/{name}"
