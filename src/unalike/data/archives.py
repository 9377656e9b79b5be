"""Unpacking of image archives (tar, zip) into a cache folder named by their content.

Paths that leave the folder, links, devices, encrypted members and decompression bombs are refused with the member's name.
An archive is unpacked under a temporary name and renamed when complete, so that a folder in the cache is always complete,
whatever was killed and however many processes unpack at once.
"""

from __future__ import annotations

import errno
import gzip
import io
import re
import shutil
import stat
import tarfile
import tempfile
import time
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tarfile import ReadError
from typing import Any

from unalike.data.zip_names import ZipNames
from unalike.errors import DataError
from unalike.progress import say
from unalike.sanitize import redact
from unalike.source_names import register_archive
from unalike.storage.cache import CACHE_VARIABLE, CacheEntry, cache_failures, default_cache_dir, folder_size, make_room
from unalike.storage.digests import file_sha256
from unalike.storage.fetch import local_path, uri_of
from unalike.storage.file_lock import file_lock, is_locked
from unalike.storage.outside_files import open_file, reader_errors, reason

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
# Limits against decompression bombs. An archive may unpack to this many times its own size (photographs hardly shrink when
# packed, uncompressed bitmaps by some tens), and to the floor in any case.
MAX_RATIO = 100
RATIO_FLOOR_BYTES = 1 << 30
MAX_MEMBERS = 10_000_000
MEMBER_BYTES = 4096  # what a member takes on a disk beside its content, counted too: ten million empty files are a bomb
MAX_HEADER_BYTES = 1 << 20  # the headers of one member of a tar file: long names, pax records, maps of sparse files
STALE_SECONDS = 24 * 3600
_COPY_BYTES = 1 << 20
_MEMBER_NAME = re.compile(r"(.+?(?:\.tar|\.tar\.gz|\.tgz|\.zip))!(.+)", re.DOTALL | re.IGNORECASE)
_NAME_ERRORS = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_InvalidHeader: type[Exception] = tarfile.InvalidHeaderError  # type: ignore[attr-defined]
_TruncatedHeader: type[Exception] = tarfile.TruncatedHeaderError  # type: ignore[attr-defined]
_EmptyHeader: type[Exception] = tarfile.EmptyHeaderError  # type: ignore[attr-defined]
_EndHeader: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_endless: weakref.WeakSet[tarfile.TarFile] = weakref.WeakSet()
_joined: weakref.WeakSet[tarfile.TarFile] = weakref.WeakSet()
_TAIL_BYTES = (
    1 << 16
)  # behind the end of a tar file, where another one would begin: programs fill records of 10 KiB with zeros
_ENCRYPTED = 1 << 0  # a flag of a member of a zip archive
_LONG_NUMBER = re.compile(rb"\d{256}")  # longer than a file's name


def is_archive(path: str | Path) -> bool:
    """Whether the name has the suffix of an archive that ``open_archive`` reads."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES)


def split_member(name: str | Path) -> tuple[str, str] | None:
    """Split ``archive!member``, as results name images of archives, into its parts; None for any other name."""
    match = _MEMBER_NAME.fullmatch(str(name))
    return (match[1], match[2]) if match else None


def unpack_source(source: str | Path, cache_dir: Path | None = None, *, local_file: Path | None = None) -> Path:
    """Fetch an archive where it is remote, unpack it, and register its name for results (``source_names``).

    Args:
        source: A local file or an address.
        cache_dir: Root of the cache.
        local_file: Its local path, where that is known.

    Returns:
        The folder that holds the archive's content.

    Raises:
        DataError: As ``open_archive``, or the archive cannot be fetched.
    """
    folder = open_archive(local_file or local_path(source, cache_dir), cache_dir)
    register_archive(folder, redact(str(uri_of(source) or source)))
    return folder


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
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}", expected="a file that can be read") from error
    target = entry.path
    with cache_failures(cache):
        entry.lock_shared()
        if target.is_dir():
            return target
        archives.mkdir(parents=True, exist_ok=True)
        _remove_stale(archives)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=archives))
    try:
        say(f"unpacking {path} into {target}")
        with cache_failures(cache), file_lock(partial), open_file(path) as file, archive_errors(path):
            (_unpack_zip if path.name.lower().endswith(".zip") else _unpack_tar)(path, file, partial)
        with cache_failures(cache):
            partial.chmod(0o755)
            _rename_into_place(partial, target)
            entry.set_size(folder_size(target))
            make_room(cache)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _rename_into_place(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():  # else another process unpacked the same content meanwhile
            raise


def _content_hash(path: Path) -> str:
    with open_file(path) as file:
        return file_sha256(file)[:40]


def _remove_stale(archives: Path) -> None:
    """Remove folders that killed processes left incomplete, once they are too old to be in use.

    Of a clock that jumps nobody knows how old a folder is: one that its process has locked stays.
    """
    for partial in archives.glob(".partial-*"):
        try:
            is_stale = time.time() - partial.stat().st_mtime > STALE_SECONDS
        except OSError:
            continue  # its process has just finished
        if is_stale and not is_locked(partial):
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def archive_errors(path: str | Path) -> Iterator[None]:
    """While inside, turn whatever a reader of archives raises into a DataError; failures of the disk pass."""
    with reader_errors(
        f"{path}: damaged or truncated",
        expected=f"a complete archive ({', '.join(ARCHIVE_SUFFIXES)})",
        remedy="copy or download it again",
    ):
        try:
            yield
        except tarfile.FilterError as error:
            raise DataError(f"{path}: {error}", remedy="pack the images again, with plain relative names") from error
        except (NotImplementedError, RuntimeError) as error:  # zipfile: unknown compression, encryption
            if isinstance(error, RecursionError):
                raise
            raise DataError(f"{path}: {error}", expected="a plain zip archive without a password") from error
        except OSError as error:
            if isinstance(error, gzip.BadGzipFile) or error.errno is None:
                raise
            raise DataError(f"{path}: cannot be unpacked: {reason(error)}", expected="free space in the cache",
                            remedy=f"set {CACHE_VARIABLE} to another folder") from error  # fmt: skip


class _UnpackLimit:
    """Counts bytes and members while unpacking and raises DataError beyond the limits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.limit = max(RATIO_FLOOR_BYTES, MAX_RATIO * path.stat().st_size)
        self.bytes = self.members = 0

    def count(self, size: int, members: int = 1) -> None:
        self.bytes += size + members * MEMBER_BYTES
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

    Attributes:
        allowed: Bytes that may still be read for the current member; tarfile keeps headers of any declared size in memory.
    """

    def __init__(self, path: Path, file: io.BufferedReader, limit: _UnpackLimit) -> None:
        is_gzip = file.peek(2)[:2] == b"\x1f\x8b"
        self._path, self._limit = path, limit
        self._source: io.BufferedReader | gzip.GzipFile = gzip.GzipFile(fileobj=file) if is_gzip else file
        self.allowed = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._limit.count(len(data), members=0)
        self.allowed -= len(data)
        if self.allowed < 0:
            raise DataError(
                f"{self._path}: a header of more than {MAX_HEADER_BYTES >> 20} MiB",
                expected="names and attributes of a few kilobytes",
                remedy="pack the images again",
            )
        return data


class CheckedMember(tarfile.TarInfo):
    """A member of a tar file. Damaged headers are errors, and pax records are checked before tarfile reads them.

    tarfile takes a damaged header in the middle of a file for its end, and what stands behind it is lost without a word.

    tarfile searches pax records with patterns that take quadratic time on long runs of digits (CVE-2024-6232, mended in Python
    3.11.10) and on records of wrong length. Where a later Python has no ``_proc_pax``, the check does not happen.

    Attributes:
        header_crc: CRC-32 of the block of 512 bytes before the member's content.
    """

    header_crc = 0

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> CheckedMember:
        """As ``TarInfo.frombuf``."""
        member = super().frombuf(buf, encoding, errors)
        member.header_crc = zlib.crc32(buf)
        return member

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> CheckedMember:
        """As ``TarInfo.fromtarfile``, but a damaged header is a ReadError wherever it is."""
        try:
            return super().fromtarfile(tarfile)
        except (_InvalidHeader, _TruncatedHeader) as error:
            raise ReadError(f"at byte {tarfile.offset}: {error}") from error
        except _EmptyHeader:
            _endless.add(tarfile)
            raise
        except _EndHeader:
            source: Any = tarfile.fileobj
            if source.read(_TAIL_BYTES).strip(b"\0"):
                _joined.add(tarfile)
            raise

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        source: Any = archive.fileobj
        records = source.read(-(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        _check_pax_records(records[: self.size])
        archive.fileobj = _Replay(records, source)  # type: ignore[assignment]
        try:
            member: tarfile.TarInfo = super()._proc_pax(archive)  # type: ignore[misc]
        finally:
            archive.fileobj = source
        return member


def has_end(archive: tarfile.TarFile) -> bool:
    """Whether a tar file that was read to its end ends with the block of zeros that every complete one has."""
    return archive not in _endless


def has_rest(archive: tarfile.TarFile) -> bool:
    """Whether data follow the end of a tar file that was read to it, as where archives were joined (``cat a.tar b.tar``)."""
    return archive in _joined


def rest_line(name: str | Path) -> str:
    """What to say of a tar file with further data behind its end."""
    return (f"{name}: data follow the end of the archive, as where archives were joined (cat a.tar b.tar): what is behind it is not "
            "read; join them by tar --concatenate, or unpack with tar -i and pack again")  # fmt: skip


def cut_off_line(name: str | Path, last: str) -> str:
    """What to say of a tar file without its end."""
    return f"{name}: its last block is missing: if it was cut off, files after {last!r} are lost; copy or download it again"


class _Replay:
    """A stream whose first read gives bytes that were read before."""

    def __init__(self, content: bytes, source: Any) -> None:
        self._content, self._source = content, source

    def read(self, size: int) -> bytes:
        if not self._content:
            return bytes(self._source.read(size))
        content, self._content = self._content, b""
        return content

    def tell(self) -> int:
        return int(self._source.tell())


def _check_pax_records(records: bytes) -> None:
    """Raise ValueError unless ``records`` are lines ``LENGTH KEY=VALUE`` of that length without long runs of digits."""
    start = 0
    while start < len(records) and records[start]:
        space = records.find(b" ", start, start + 12)
        end = start + int(records[start : max(space, start)])
        if records.find(b"=", space, end) < 0 or records[end - 1 : end] != b"\n":
            raise ValueError("pax records of wrong length")
        start = end
    if _LONG_NUMBER.search(records):
        raise ValueError("pax records of long numbers")


def _unpack_tar(path: Path, file: io.BufferedReader, folder: Path) -> None:
    members, content = _UnpackLimit(path), _UnpackLimit(path)
    stream = _Stream(path, file, content)
    # one pass: seeking back in a compressed file means reading it again
    duplicates = _Duplicates(path)
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=CheckedMember) as tar:  # type: ignore[call-overload]
        for member in tar:
            if member.issym() or member.islnk():
                raise link_error(path, member)
            if member.name.startswith("/"):  # else its first folder becomes a class
                raise outside_error(path, member.name)
            members.count(member.size)
            if not member.isdir():
                duplicates.count(folder / member.name, member.name)
            stream.allowed = member.size + MAX_HEADER_BYTES  # its content and the next one's headers
            with _named_failures(path, member.name):
                tar.extract(member, folder, set_attrs=False, filter="data")
            tar.members = []  # else a list of all headers grows in memory
        if not has_end(tar):
            say(cut_off_line(path, member.name))
        if has_rest(tar):
            say(rest_line(path))
    stream.allowed = content.limit
    while stream.read(_COPY_BYTES):  # the checksum comes at the very end
        pass
    duplicates.say()


def _unpack_zip(path: Path, file: io.BufferedReader, folder: Path) -> None:
    limit, duplicates, names = _UnpackLimit(path), _Duplicates(path), ZipNames(path)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            # some programs on Windows write backslashes, which the standard forbids
            name = names.name_of(info).replace("\\", "/")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise link_error(path, name)
            if info.flag_bits & _ENCRYPTED:
                raise DataError(f"{path}: member {name!r} is encrypted", expected="a zip archive without a password",
                                remedy="unpack it with its password, and give the folder")  # fmt: skip
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
                raise outside_error(path, name)
            limit.count(info.file_size)
            target = folder.joinpath(*parts)
            with _named_failures(path, name):
                if name.endswith("/"):
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                duplicates.count(target, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out, _COPY_BYTES)  # zipfile stops at the declared size
    duplicates.say()
    names.say()


class _Duplicates:
    """Counts members that stand in an archive more than once; the last of each replaces the others."""

    def __init__(self, path: Path) -> None:
        self._path, self._first, self._number = path, "", 0

    def count(self, target: Path, name: str) -> None:
        """Count a member that is about to be written to ``target``."""
        if target.is_file():
            self._first, self._number = self._first or name, self._number + 1

    def say(self) -> None:
        """Print one line where there were any."""
        if self._number:
            members = "1 member" if self._number == 1 else f"{self._number} members"
            say(f"{self._path}: {members} (the first: {self._first!r}) stood there before under the same name, and the later "
                "one was taken, as tar does; pack it again if both are meant")  # fmt: skip


@contextmanager
def _named_failures(path: Path, name: str) -> Iterator[None]:
    """While inside, failures that are due to a member's name carry it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NAME_ERRORS:
            raise
        raise DataError(
            f"{path}: member {name!r}: {reason(error)}",
            expected="names that one folder can hold, none of them both a file and a folder",
            remedy="pack the images again",
        ) from error


def outside_error(path: str | Path, name: str) -> DataError:
    """The error for a member whose name leads out of the archive."""
    return DataError(
        f"{path}: member {name!r} would be written outside its folder",
        remedy="pack the images again, with plain relative names (tar -C FOLDER -cf images.tar .)",
    )


def link_error(path: str | Path, member: str | tarfile.TarInfo) -> DataError:
    """The error for a link in an archive."""
    name = member if isinstance(member, str) else member.name
    is_hard = isinstance(member, tarfile.TarInfo) and member.islnk()
    option = "--hard-dereference" if is_hard else "-h"
    return DataError(
        f"{path}: member {name!r} is a {'hard ' if is_hard else ''}link",
        expected="plain files",
        remedy=f"pack it again with {'each link as a file' if is_hard else 'links followed'} (tar {option})",
    )
