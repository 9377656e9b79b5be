"""A journal at the end of a file of blocks: changes are appended, so that a large file need not be written again for each.

    0   4 bytes    ``OPEN`` while the record is being written, ``DONE`` when all of it is on the disk
    4   uint32     0
    8   uint64     length of the content in bytes, little-endian
    16  32 bytes   SHA-256 of the previous record's digest (of the header's, for the first one), bytes 8 to 15 and the content
    48  content

The first record begins where the header of the file ends, each other one where the one before it ends. A process that is
killed while it appends leaves an ``OPEN`` record, which readers ignore and the next writer cuts off; nobody was told that it was
stored. A record that is ``DONE`` and does not fit its digest is damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unalike.errors import DataError
from unalike.storage.blockfile import OpenBlockFile

_OPEN, _DONE = b"OPEN", b"DONE"
_PREAMBLE = struct.Struct("<4sIQ")
_RECORD_BYTES = _PREAMBLE.size + 32  # beside the content


@dataclass(frozen=True)
class JournalEnd:
    """Where the next record goes, and what the file holds before it.

    Attributes:
        offset: of the next record.
        digest: of the last record, or of the header where there is none: it names the content of the file up to here.
        last: offset of the last record; None where there is none.
    """

    offset: int
    digest: bytes
    last: int | None = None

    @classmethod
    def of(cls, file: OpenBlockFile) -> JournalEnd:
        """The end of a journal without records."""
        return cls(file.end, file.generation)


def read_records(file: OpenBlockFile, end: JournalEnd) -> Iterator[tuple[bytes, JournalEnd]]:
    """Yield the content of each record after ``end``, with the end of the journal after it.

    Raises:
        DataError: A record is damaged, or cut off.
    """
    while True:
        preamble, size = _read_preamble(file, end.offset)
        if not preamble:
            return
        length = _PREAMBLE.unpack_from(preamble)[2]
        start = end.offset + _RECORD_BYTES
        if start + length > size:
            raise file.damage(f"its last change ends at byte {start + length} of {size}")
        content = file.read(start, length)
        digest = _digest(end.digest, content)
        if digest != preamble[_PREAMBLE.size :]:
            raise file.damage(f"the checksum of the change at byte {end.offset} differs")
        end = JournalEnd(start + length, digest, end.offset)
        yield content, end


def append_record(path: Path, end: JournalEnd, content: bytes) -> JournalEnd:
    """Append a record, whose content is on the disk when this returns; the lock on the file is held by the caller.

    Args:
        path: The file.
        end: The end of its journal; what lies behind was never finished, and is cut off.
        content: Of the record.

    Raises:
        DataError: It cannot be written; the file is as it was before.
    """
    digest = _digest(end.digest, content)
    try:
        with path.open("r+b", buffering=0) as file:
            try:
                file.truncate(end.offset)
                file.seek(end.offset)
                _write(file.fileno(), _PREAMBLE.pack(_OPEN, 0, len(content)) + digest + content)
                os.fsync(file.fileno())
                file.seek(end.offset)
                _write(file.fileno(), _DONE)
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(end.offset)
                raise
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
    return JournalEnd(end.offset + _RECORD_BYTES + len(content), digest, end.offset)


def is_beginning(file: OpenBlockFile, end: JournalEnd, header_digest: bytes) -> bool:
    """Whether a file begins with this content: this header, and the records up to ``end``; one that was cut off does not."""
    if os.fstat(file.descriptor).st_size < end.offset or file.read_digest() != header_digest:
        return False
    if end.last is None:
        return True
    last = file.read(end.last, _RECORD_BYTES)
    return last[:4] == _DONE and last[_PREAMBLE.size :] == end.digest


def is_end(path: Path, end: JournalEnd, header_digest: bytes) -> bool:
    """Whether the file at ``path`` has this very content: no finished record comes after ``end``."""
    try:
        file = OpenBlockFile(path)
        return is_beginning(file, end, header_digest) and file.read(end.offset, len(_DONE)) != _DONE
    except OSError:  # such as a folder under its name
        return False


def _read_preamble(file: OpenBlockFile, offset: int) -> tuple[bytes, int]:
    """The preamble of the finished record that begins here, empty where there is none, and the size of the file after that.

    Raises:
        DataError: A record that was not finished is not the last thing in the file.
    """
    while True:
        preamble = file.read(offset, _RECORD_BYTES)
        size = os.fstat(file.descriptor).st_size  # afterwards: another process may be appending
        if preamble[:4] == _DONE and len(preamble) == _RECORD_BYTES:
            return preamble, size
        if preamble[:4] == _OPEN[: len(preamble)]:
            length = _PREAMBLE.unpack_from(preamble)[2] if len(preamble) >= _PREAMBLE.size else 0
            if len(preamble) < _RECORD_BYTES or offset + _RECORD_BYTES + length >= size:
                return b"", size
        elif not any(preamble):  # a machine that lost its power may leave zeros
            return b"", size
        if file.read(offset, _RECORD_BYTES) == preamble:
            raise file.damage(f"there is no change at byte {offset}")
        # It was finished, and another one appended, between the two looks: look again.


def _digest(previous: bytes, content: bytes) -> bytes:
    return hashlib.sha256(previous + struct.pack("<Q", len(content)) + content).digest()


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
