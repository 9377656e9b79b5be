"""Images by the SHA-256 of their content, in a folder or a remote store (fsspec), and their thumbnails.

Layout: ``ab/abcd...`` for content, ``thumbnails/256/ab/abcd....jpg``. What is written once is never changed. The time of a file
is that of its last ``put``; the retention goes by it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from unalike.data.decode import MAX_PIXELS, open_image
from unalike.errors import DataError, NoSuchImage, StoreError
from unalike.serve.store.records import utc_now
from unalike.storage.atomic import atomic_write, sync_file, sync_folder
from unalike.storage.digests import content_sha256
from unalike.storage.filesystems import RemoteStore, uri_of
from unalike.storage.outside_files import expand_home, reason

SHARDS = [f"{number:02x}" for number in range(256)]
# Sides of thumbnails, in pixels; another one is rounded up, so that a client cannot make us keep any number of them.
SIDES = (64, 128, 256, 512, 1024)
THUMBNAILS, JPEG_QUALITY = "thumbnails", 85
_DOOMED = ".deleted-"  # what a file that is being deleted is called
_SHA = re.compile(r"[0-9a-f]{64}")
# First bytes -> media type; of ISO media files the brand at byte 8.
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"),
)  # fmt: skip
_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
}


class Files(Protocol):
    """Files by name, below one root; each appears whole or not at all."""

    address: str

    def write(self, name: str, content: bytes, media_type: str, *, sync: bool = True) -> None:
        """Write a file, or note that its content was given again; with ``sync`` it is on the disk then."""
        ...

    def read(self, name: str) -> bytes:
        """Its content. Raises FileNotFoundError."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A stream of its content. Raises FileNotFoundError."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes; None where there is no such file."""
        ...

    def delete(self, name: str, before: datetime | None = None) -> bool:
        """Delete it; with ``before`` only if it was not written since. False where there is nothing to delete."""
        ...

    def names(self, before: datetime | None = None) -> Iterator[str]:
        """Names of all files but thumbnails; with ``before`` those that were not written since."""
        ...


class LocalFiles:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, str(folder)
        try:
            for name in SHARDS if not (folder / SHARDS[-1]).is_dir() else ():
                (folder / name).mkdir(parents=True, exist_ok=True)
            sync_folder(folder)
        except OSError as error:
            raise StoreError(f"{folder} cannot be written: {reason(error)}", expected="a folder for images",
                             remedy="name another one with --images") from error  # fmt: skip

    def write(self, name: str, content: bytes, media_type: str, *, sync: bool = True) -> None:
        """Write a file that is not there; of one that is, the time alone changes."""
        place = f"{self.address}/{name}"
        with contextlib.suppress(OSError):
            if os.stat(place).st_size == len(content):
                os.utime(place)  # a sweep that renamed it meanwhile makes this fail
                if sync:  # it may have been written without
                    sync_file(Path(place))
                    sync_folder(Path(place).parent)
                return
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, sync=sync) as partial:
            partial.write_bytes(content)

    def read(self, name: str) -> bytes:
        """Its content. Raises FileNotFoundError."""
        return (self.folder / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """A stream of its content. Raises FileNotFoundError."""
        return (self.folder / name).open("rb")

    def size(self, name: str) -> int | None:
        """Bytes; None where there is no such file."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).stat().st_size
        return None

    def delete(self, name: str, before: datetime | None = None) -> bool:
        """Delete it; with ``before`` only if it was not written since. False where there is nothing to delete.

        A file is renamed before its time is looked at again: a ``write`` of the same content that came first has set a new
        time, and the file comes back; one that comes later finds no file and writes it anew.
        """
        path = self.folder / name
        try:
            if before is None:
                path.unlink()
                return True
            if path.stat().st_mtime >= before.timestamp():
                return False
            doomed = path.with_name(f"{_DOOMED}{path.name}")
            os.rename(path, doomed)
            if doomed.stat().st_mtime >= before.timestamp():
                os.rename(doomed, path)
                return False
            doomed.unlink()
        except FileNotFoundError:
            return False
        return True

    def names(self, before: datetime | None = None) -> Iterator[str]:
        """Names of all files but thumbnails; with ``before`` those that were not written since."""
        limit = float("inf") if before is None else before.timestamp()
        for shard in SHARDS:
            with contextlib.suppress(FileNotFoundError), os.scandir(self.folder / shard) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        if entry.name.startswith(_DOOMED):  # of a process that was killed in ``delete``
                            os.rename(entry.path, self.folder / shard / entry.name.removeprefix(_DOOMED))
                        elif _SHA.fullmatch(entry.name) and entry.stat().st_mtime < limit:
                            yield f"{shard}/{entry.name}"


class RemoteFiles:
    """Files below an address that fsspec opens, such as ``s3://bucket/images``.

    Between the look at a file's time and its deletion another machine may give the same content again; a retention is
    therefore at least a day longer than the longest request, and ``write`` uploads what is older than half a day anew.
    """

    _FRESH_S = 12 * 3600.0

    def __init__(self, uri: str) -> None:
        self._store = RemoteStore(uri.rstrip("/"))
        self.address = self._store.redacted
        if self._store.scheme in ("http", "https", "hf", "ftp"):
            raise StoreError(
                f"{self.address}: images cannot be written there", expected="a folder, s3://, gs:// or az://"
            )

    def write(self, name: str, content: bytes, media_type: str, *, sync: bool = True) -> None:
        """Upload a file, unless it was uploaded lately."""
        with self._store.explain_errors(f"{self.address}/{name}"):
            info = self._info(name)
            if info and info.get("size") == len(content):
                modified = _modified(info)
                if modified and (utc_now() - modified).total_seconds() < self._FRESH_S:
                    return
            options = {"ContentType": media_type} if media_type and self._store.package == "s3fs" else {}
            self._store.fs.pipe_file(self._path(name), content, **options)

    def read(self, name: str) -> bytes:
        """Its content. Raises FileNotFoundError."""
        with self._explain(name):
            return bytes(self._store.fs.cat_file(self._path(name)))

    def open(self, name: str) -> BinaryIO:
        """A stream of its content. Raises FileNotFoundError."""
        with self._explain(name):
            stream: BinaryIO = self._store.fs.open(self._path(name), "rb")
            return stream

    def size(self, name: str) -> int | None:
        """Bytes; None where there is no such file."""
        with self._explain(name):
            info = self._info(name)
            return None if info is None else int(info["size"])

    def delete(self, name: str, before: datetime | None = None) -> bool:
        """Delete it; with ``before`` only if it was not written since. False where there is nothing to delete."""
        with self._explain(name):
            info = self._info(name)
            modified = _modified(info) if info else None
            if info is None or (before is not None and (modified is None or modified >= before)):
                return False
            try:
                self._store.fs.rm_file(self._path(name))
            except FileNotFoundError:
                return False
        return True

    def names(self, before: datetime | None = None) -> Iterator[str]:
        """Names of all files but thumbnails; with ``before`` those that were not written since."""
        with self._store.explain_errors():
            try:
                folders = self._store.fs.ls(self._store.path.rstrip("/"), detail=False)
            except FileNotFoundError:
                return
        for shard in sorted({str(name).rstrip("/").rpartition("/")[2] for name in folders} & set(SHARDS)):
            with self._store.explain_errors():
                try:
                    listing = self._store.fs.find(self._path(shard), detail=True)
                except FileNotFoundError:  # emptied meanwhile
                    continue
            for path, info in listing.items():
                sha, modified = path.rpartition("/")[2], _modified(info)
                if _SHA.fullmatch(sha) and (before is None or (modified is not None and modified < before)):
                    yield f"{shard}/{sha}"

    def _path(self, name: str) -> str:
        return f"{self._store.path.rstrip('/')}/{name}"

    def _info(self, name: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._store.fs.info(self._path(name))
        except FileNotFoundError:
            return None
        return info if info.get("type", "file") == "file" else None

    @contextlib.contextmanager
    def _explain(self, name: str) -> Iterator[None]:
        try:
            with self._store.explain_errors(f"{self.address}/{name}"):
                yield
        except DataError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise


class ImageStore:
    """Images by content hash.

    Args:
        place: a folder, or an address such as ``s3://bucket/images``.

    Raises:
        StoreError: the folder cannot be written.
    """

    def __init__(self, place: str | Path) -> None:
        uri = uri_of(place)
        self.files: Files = RemoteFiles(uri) if uri else LocalFiles(Path(os.path.abspath(expand_home(place))))

    @property
    def address(self) -> str:
        """Where they are, without what gives access."""
        return self.files.address

    @property
    def is_local(self) -> bool:
        """Whether they are files of this machine: a new one is written in 0.2 ms where no disk is waited for."""
        return isinstance(self.files, LocalFiles)

    def put(self, content: bytes, media_type: str = "", *, sync: bool = True, sha: str | None = None) -> str:
        """Keep an image. The same content is kept once.

        Args:
            content: the file as it came; the caller bounds its size.
            media_type: its type, for stores that keep one; by default that of its first bytes.
            sync: wait for the disk, so that it survives a loss of power too; it always survives a kill. In a folder a new
                image takes 7.7 ms with it, and 1.3 without (own measurement, 2026-11-29).
            sha: the SHA-256 of the content where the caller has it, in hex digits.

        Returns:
            The SHA-256 of the content, in hex digits.

        Raises:
            StoreError: it cannot be written.
        """
        sha = content_sha256(content) if sha is None else sha
        with self._explain(sha):
            self.files.write(_name(sha), content, media_type or media_type_of(content), sync=sync)
        return sha

    def get(self, sha: str) -> bytes:
        """The content of an image.

        Raises:
            NoSuchImage: the store does not have it.
            StoreError: it is damaged, or cannot be read.
        """
        with self._explain(sha):
            content = self.files.read(_name(sha))
        if content_sha256(content) != sha:
            raise StoreError(f"image {sha} in {self.address} is damaged", expected="content of that SHA-256",
                             remedy="restore it from a backup")  # fmt: skip
        return content

    def open(self, sha: str) -> BinaryIO:
        """A stream of an image, which the caller closes. Raises as ``get``, but damage is not looked for."""
        with self._explain(sha):
            return self.files.open(_name(sha))

    def exists(self, sha: str) -> bool:
        """Whether the store has an image."""
        with self._explain(sha):
            return self.files.size(_name(sha)) is not None

    def delete(self, sha: str, before: datetime | None = None) -> bool:
        """Delete an image and its thumbnails.

        Args:
            sha: its content hash.
            before: only if it was not given again since.

        Returns:
            Whether there was something to delete.
        """
        with self._explain(sha):
            is_gone = self.files.delete(_name(sha), before)
            if is_gone or before is None:
                for side in SIDES:
                    self.files.delete(_thumbnail_name(sha, side))
            return is_gone

    def thumbnail(self, sha: str, side: int = 256, *, max_pixels: int = MAX_PIXELS) -> bytes:
        """A small picture of an image, upright, in RGB, as JPEG. It is made once and kept.

        Args:
            sha: its content hash.
            side: longest side in pixels; rounded up to one of ``SIDES``.
            max_pixels: larger images are refused by their header.

        Raises:
            NoSuchImage: the store does not have it.
            UnreadableImage: it cannot be decoded.
            StoreError: it cannot be read or written.
        """
        side = next((size for size in SIDES if size >= side), SIDES[-1])
        with self._explain(sha), contextlib.suppress(FileNotFoundError):
            return self.files.read(_thumbnail_name(sha, side))
        picture = open_image(self.get(sha), min_size=(side, side), max_pixels=max_pixels)
        picture.thumbnail((side, side))
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=JPEG_QUALITY)
        content = stream.getvalue()
        with self._explain(sha):
            # Not waiting for the disk: what a loss of power takes can be made again.
            self.files.write(_thumbnail_name(sha, side), content, "image/jpeg", sync=False)
            if self.files.size(_name(sha)) is None:  # deleted meanwhile: nothing of it may stay
                self.files.delete(_thumbnail_name(sha, side))
        return content

    def hashes(self, before: datetime | None = None) -> Iterator[str]:
        """Content hashes of all images; with ``before`` of those that were not given again since."""
        with self._explain(""):
            for name in self.files.names(before):
                yield name.rpartition("/")[2]

    @contextlib.contextmanager
    def _explain(self, sha: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NoSuchImage(f"no image {sha} in {self.address}", expected="the content hash of an image that is kept",
                              remedy="its retention may have ended") from error  # fmt: skip
        except OSError as error:
            raise StoreError(f"image {sha} in {self.address}: {reason(error)}") from error


def media_type_of(content: bytes) -> str:
    """The media type of an image by its first bytes; an empty string for one of another format."""
    for prefix, media_type in _MAGIC:
        if content.startswith(prefix):
            return media_type
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return _BRANDS.get(content[8:12], "") if content[4:8] == b"ftyp" else ""


def check_sha(sha: str) -> str:
    """The content hash itself. Raises NoSuchImage for anything else, such as a path."""
    if not _SHA.fullmatch(sha):
        raise NoSuchImage("no content hash of an image", expected="64 hexadecimal digits")
    return sha


def _name(sha: str) -> str:
    return f"{check_sha(sha)[:2]}/{sha}"


def _thumbnail_name(sha: str, side: int) -> str:
    return f"{THUMBNAILS}/{side}/{check_sha(sha)[:2]}/{sha}.jpg"


def _modified(info: dict[str, Any]) -> datetime | None:
    for key in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = info.get(key)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    return None
