"""Unpacking of image archives (tar, zip) into a cache folder named by their content.

Paths that leave the folder, links, devices, encrypted members and decompression bombs are refused with the member's name.
An archive is unpacked under a temporary name and renamed when complete, so that a folder in the cache is always complete,
whatever was killed and however many processes unpack at once.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from unalike.errors import DataError
from unalike.progress import say
from unalike.storage.cache import CacheEntry, default_cache_dir, folder_size, make_room

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
# Limits against decompression bombs. An archive may unpack to this many times its own size (photographs hardly shrink when
# packed, uncompressed bitmaps by some tens), and to the floor in any case.
MAX_RATIO = 100
RATIO_FLOOR_BYTES = 1 << 30
MAX_MEMBERS = 10_000_000
STALE_SECONDS = 24 * 3600
_COPY_BYTES = 1 << 20


def is_archive(path: str | Path) -> bool:
    """Whether the name has the suffix of an archive that ``open_archive`` reads."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES)


def open_archive(path: str | Path, cache_dir: Path | None = None) -> Path:
    """Unpack an archive, unless the same content was unpacked before.

    Args:
        path: A local file.
        cache_dir: Root of the cache; by default ``storage.cache.default_cache_dir()``.

    Returns:
        The folder that holds the archive's content.

    Raises:
        DataError: An archive that is damaged, truncated, unsafe or too large, or a cache that cannot be written.
    """
    path = Path(path)
    cache = cache_dir or default_cache_dir()
    archives = cache / "archives"
    try:
        entry = CacheEntry(cache, "archives", _content_hash(path))
        target = entry.path
        entry.lock_shared()
        if target.is_dir():
            return target
        archives.mkdir(parents=True, exist_ok=True)
        _remove_stale(archives)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=archives))
    except OSError as error:
        raise DataError(f"{path}: {_reason(error)}", remedy=f"is it readable, and {archives} writable?") from error
    try:
        say(f"unpacking {path} into {target}")
        _unpack(path, partial)
        partial.chmod(0o755)
        _rename_into_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    entry.set_size(folder_size(target))
    make_room(cache)
    return target


def _rename_into_place(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():  # else another process unpacked the same content meanwhile
            raise


def _content_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:40]


def _remove_stale(archives: Path) -> None:
    """Remove folders that killed processes left incomplete, once they are too old to be in use."""
    for partial in archives.glob(".partial-*"):
        try:
            is_stale = time.time() - partial.stat().st_mtime > STALE_SECONDS
        except OSError:
            continue  # its process has just finished
        if is_stale:
            shutil.rmtree(partial, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> None:
    try:
        if path.name.lower().endswith(".zip"):
            _unpack_zip(path, folder)
        else:
            _unpack_tar(path, folder)
    except tarfile.FilterError as error:
        raise DataError(f"{path}: {error}", remedy="pack the images again, with plain relative names") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged_error(path, error) from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile: unknown compression, encryption
        raise DataError(f"{path}: {error}", expected="a plain zip archive without a password") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be unpacked into {folder.parent}: {_reason(error)}") from error


class _UnpackLimit:
    """Counts bytes and members while unpacking and raises DataError beyond the limits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.limit = max(RATIO_FLOOR_BYTES, MAX_RATIO * path.stat().st_size)
        self.bytes = self.members = 0

    def count(self, size: int, members: int = 1) -> None:
        self.bytes += size
        self.members += members
        if self.bytes > self.limit or self.members > MAX_MEMBERS:
            raise DataError(
                f"{self.path}: unpacks to more than {self.limit / 2**30:.1f} GiB or {MAX_MEMBERS} members",
                expected=f"at most {MAX_RATIO} times its own size (and 1 GiB in any case)",
                remedy="unpack it yourself and give the folder, if you trust it",
            )


class _Stream:
    """The content of a tar file, decompressed where it is gzip (whatever the file's name), and counted.

    gzip is decompressed here because tarfile's own stream does not compare its checksum (Python 3.11, seen 2026-11-23).
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        is_gzip = file.peek(2)[:2] == b"\x1f\x8b" if isinstance(file, io.BufferedReader) else False
        self._source: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if is_gzip else file
        self._limit = _UnpackLimit(path)

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._limit.count(len(data), members=0)
        return data


def _unpack_tar(path: Path, folder: Path) -> None:
    limit = _UnpackLimit(path)
    with path.open("rb") as file:
        stream = _Stream(path, file)
        # one pass: seeking back in a compressed file means reading it again
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                if member.issym() or member.islnk():
                    raise _link_error(path, member.name)
                limit.count(member.size)
                tar.extract(member, folder, set_attrs=False, filter="data")
        while stream.read(_COPY_BYTES):  # the checksum comes at the very end
            pass


def _unpack_zip(path: Path, folder: Path) -> None:
    limit = _UnpackLimit(path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # some programs on Windows write backslashes, which the standard forbids
            name = info.filename.replace("\\", "/")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link_error(path, name)
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
                raise DataError(
                    f"{path}: member {name!r} would be written outside its folder",
                    remedy="pack the images again, with plain relative names",
                )
            limit.count(info.file_size)
            target = folder.joinpath(*parts)
            if name.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, _COPY_BYTES)  # zipfile stops at the declared size


def _link_error(path: Path, name: str) -> DataError:
    return DataError(
        f"{path}: member {name!r} is a link",
        expected="plain files",
        remedy="pack it again with links followed (tar -h)",
    )


def _damaged_error(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: damaged or truncated ({error or type(error).__name__})",
        expected=f"a complete archive ({', '.join(ARCHIVE_SUFFIXES)})",
        remedy="copy or download it again",
    )


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return error.strerror or str(error)
