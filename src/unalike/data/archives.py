"""Archives of images: unpacked once, safely, into a cache named by their content.

What is refused, with the member's name: paths that leave the folder, links, devices, encrypted members, and more
bytes than an archive of images can honestly hold. An archive is unpacked under a temporary name and renamed when
complete, so that a folder in the cache is always whole, whatever was killed and however many unpack at once.
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
from unalike.storage.cache import Entry, default_cache_dir, folder_size, make_room

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
# Photographs hardly shrink when packed; uncompressed bitmaps shrink by some tens. An archive may unpack to this many
# times its own size, and to the floor in any case.
MAX_RATIO = 100
RATIO_FLOOR_BYTES = 1 << 30
MAX_MEMBERS = 10_000_000
STALE_SECONDS = 24 * 3600
_COPY_BYTES = 1 << 20


def is_archive(path: str | Path) -> bool:
    """Whether the name ends like an archive that ``open_archive`` reads."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES)


def open_archive(path: str | Path, cache_dir: Path | None = None) -> Path:
    """The folder that holds the archive's content, unpacked now unless the same content was unpacked before.

    Raises ``DataError`` for an archive that is damaged, truncated, unsafe or too large, or when the cache cannot be
    written.
    """
    path = Path(path)
    cache = cache_dir or default_cache_dir()
    shelf = cache / "archives"
    try:
        entry = Entry(cache, "archives", _content_hash(path))
        target = entry.path
        entry.hold()
        if target.is_dir():
            return target
        shelf.mkdir(parents=True, exist_ok=True)
        _sweep(shelf)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=shelf))
    except OSError as fault:
        raise DataError(f"{path}: {_reason(fault)}", remedy=f"is it readable, and {shelf} writable?") from fault
    try:
        say(f"unpacking {path} into {target}")
        _unpack(path, partial)
        partial.chmod(0o755)
        _put(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    entry.set_size(folder_size(target))
    make_room(cache)
    return target


def _put(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():  # not another process that was quicker with the same content
            raise


def _content_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:40]


def _sweep(shelf: Path) -> None:
    """Remove what killed runs left half unpacked, once it is too old to be at work."""
    for left in shelf.glob(".partial-*"):
        try:
            old = time.time() - left.stat().st_mtime > STALE_SECONDS
        except OSError:
            continue  # its owner finished this moment
        if old:
            shutil.rmtree(left, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> None:
    try:
        if path.name.lower().endswith(".zip"):
            _unpack_zip(path, folder)
        else:
            _unpack_tar(path, folder)
    except tarfile.FilterError as fault:
        raise DataError(f"{path}: {fault}", remedy="pack the images again, with plain relative names") from fault
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise _damaged(path, fault) from fault
    except (NotImplementedError, RuntimeError) as fault:  # zipfile: unknown compression, encryption
        raise DataError(f"{path}: {fault}", expected="a plain zip archive without a password") from fault
    except OSError as fault:
        raise DataError(f"{path}: cannot be unpacked into {folder.parent}: {_reason(fault)}") from fault


class _Allowance:
    """What an archive may still unpack to; raises once it is spent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.limit = max(RATIO_FLOOR_BYTES, MAX_RATIO * path.stat().st_size)
        self.bytes = self.members = 0

    def spend(self, size: int, members: int = 1) -> None:
        self.bytes += size
        self.members += members
        if self.bytes > self.limit or self.members > MAX_MEMBERS:
            raise DataError(
                f"{self.path}: unpacks to more than {self.limit / 2**30:.1f} GiB or {MAX_MEMBERS} members",
                expected=f"at most {MAX_RATIO} times its own size (and 1 GiB in any case)",
                remedy="unpack it yourself and give the folder, if you trust it",
            )


class _Stream:
    """A tar file's bytes, unzipped where they are zipped, whatever its name says, and counted.

    gzip is read here because tarfile's own stream does not compare its checksum (Python 3.11, seen 2026-11-23).
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        zipped = file.peek(2)[:2] == b"\x1f\x8b" if isinstance(file, io.BufferedReader) else False
        self._source: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if zipped else file
        self._allowance = _Allowance(path)

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._allowance.spend(len(data), members=0)
        return data


def _unpack_tar(path: Path, folder: Path) -> None:
    allowance = _Allowance(path)
    with path.open("rb") as file:
        stream = _Stream(path, file)
        # one pass: seeking back in a compressed file means reading it again
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                if member.issym() or member.islnk():
                    raise _link(path, member.name)
                allowance.spend(member.size)
                tar.extract(member, folder, set_attrs=False, filter="data")
        while stream.read(_COPY_BYTES):  # the checksum stands at the very end
            pass


def _unpack_zip(path: Path, folder: Path) -> None:
    allowance = _Allowance(path)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # some packers of Windows write backslashes, which the standard forbids
            name = info.filename.replace("\\", "/")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link(path, name)
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
                raise DataError(
                    f"{path}: member {name!r} would be written outside its folder",
                    remedy="pack the images again, with plain relative names",
                )
            allowance.spend(info.file_size)
            target = folder.joinpath(*parts)
            if name.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, _COPY_BYTES)  # zipfile stops at the declared size


def _link(path: Path, name: str) -> DataError:
    return DataError(
        f"{path}: member {name!r} is a link",
        expected="plain files",
        remedy="pack it again with links followed (tar -h)",
    )


def _damaged(path: Path, fault: Exception) -> DataError:
    return DataError(
        f"{path}: damaged or truncated ({fault or type(fault).__name__})",
        expected=f"a whole archive ({', '.join(ARCHIVE_SUFFIXES)})",
        remedy="copy or download it again",
    )


def _reason(fault: OSError) -> str:
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return fault.strerror or str(fault)
