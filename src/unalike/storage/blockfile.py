"""A file of named arrays (blocks): versioned, with checksums, read when needed, written atomically.

    0   8 bytes    magic bytes of the kind of file, such as ``UNALIKEG`` for a gallery
    8   uint32     format version, little-endian as every number here
    12  uint32     0
    16  uint64     offset of the header
    24  uint64     length of the header in bytes
    32  32 bytes   SHA-256 of bytes 0 to 31 and of the header
    64  blocks     each begins at a multiple of 64
    ..  header     JSON: the writer's own fields, and for each block dtype, shape, offset and a CRC-32 for each MiB

A journal may follow (``storage.journal``) where the format version is 3 or 4.

Opening a file checks the header and that all blocks lie inside the file. A block is checked MiB by MiB when it is first
read (``Block.check``): a gallery of a gigabyte opens at once, and no unchecked number is used. CRC-32 finds damage; it
does not protect from forged files, whose readers work inside of ``content_errors``. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from unalike.errors import DataError
from unalike.storage.atomic import atomic_write
from unalike.storage.outside_files import path_remedy, reader_errors

MAGIC, FORMAT_VERSION = b"UNALIKEG", 2  # version 1 was a zip archive
JOURNAL_VERSION = 3  # of files to which changes may be appended: earlier releases would not see them
ATTRIBUTE_VERSION = 4  # as 3, of galleries whose references have attributes: earlier releases would lose them
CHUNK_BYTES = 2**20  # a checksum each
LARGE_BYTES = 2**28  # blocks of larger files are mapped, not read
MAX_HEADER_BYTES = 2**28
_PREAMBLE = struct.Struct("<8sIIQQ")
_DIGEST_BYTES, _ALIGNMENT = 32, 64
_DTYPES = ("float32", "float16", "int32", "int64", "uint8")
_REMEDY = "take a copy, or enrol again"


class OpenBlockFile:
    """A file of blocks that is open for reading: all its blocks are read through one descriptor.

    A file that is replaced (renamed over) meanwhile stays readable, since the descriptor keeps the old one. One that is
    written over in place (``cp``) is noticed: content that was read stays as it was, other content is an error.

    Attributes:
        path: as it was given.
        generation: SHA-256 of its header, which holds the checksums of all blocks: it names their content.
        version: its format version.
        end: where the header ends.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.generation, self.version, self.end = path, b"", 0, 0
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._status = os.fstat(self.descriptor)
        self._mapping: mmap.mmap | None = None
        self._overwrites = 0

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    @property
    def status(self) -> os.stat_result:
        """Inode, size and times when it was opened."""
        return self._status

    @property
    def size(self) -> int:
        """Size in bytes when it was opened."""
        return self._status.st_size

    @property
    def is_large(self) -> bool:
        """Whether its blocks are mapped: more would be copied than a process should hold alone."""
        return self.size > LARGE_BYTES or not hasattr(os, "pread")

    def mapping(self) -> mmap.mmap:
        """A map of all of it, for large files."""
        if self._mapping is None:
            self._mapping = mmap.mmap(self.descriptor, self.size, access=mmap.ACCESS_READ)
        return self._mapping

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; fewer where it ends."""
        if not hasattr(os, "pread"):
            return self.mapping()[offset : offset + size]
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(self.descriptor, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def read_digest(self) -> bytes:
        """The SHA-256 that stands before the blocks now."""
        return self.read(_PREAMBLE.size, _DIGEST_BYTES)

    def was_overwritten(self) -> bool:
        """Whether the open file was written to since it was opened."""
        return _changed(self._status, os.fstat(self.descriptor))

    def check_unchanged(self) -> int:
        """Return how often the same content was written over the open file: 0, where nobody does such things.

        A file that only grew was appended to.

        Raises:
            DataError: Other content was written, or less.
        """
        status = os.fstat(self.descriptor)
        if _changed(self._status, status):
            grew = status.st_size > self.size and self.version >= JOURNAL_VERSION
            if not (grew or status.st_size == self.size) or self.read_digest() != self.generation:
                raise self.damage("")
            self._overwrites += not grew
            self._status = status
        return self._overwrites

    def damage(self, detail: str) -> DataError:
        """The error for content that does not fit its checksum."""
        if self.was_overwritten():
            return DataError(
                f"{self.path} was overwritten while it was in use",
                remedy="load it again (reload); to replace a file in use, write another one and rename it (mv)",
            )
        return DataError(f"{self.path} is damaged: {detail}", remedy=_REMEDY)


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    # The time of the last modification can be set, and is by ``cp -p``; that of the last change cannot.
    return any(getattr(before, name) != getattr(after, name) for name in ("st_size", "st_mtime_ns", "st_ctime_ns"))


class Block:
    """An array in a file, of which each MiB is checked when it is first used.

    Of a small file it is read into memory then; of a large one (``LARGE_BYTES``) it is mapped, which processes share. A
    map is read anew at every access: when somebody shortens the file in that very moment, the process ends (SIGBUS).

    Attributes:
        shape, dtype: of the array.
        file: the file.
        checksums: CRC-32 of each MiB.
    """

    def __init__(
        self, file: OpenBlockFile, shape: tuple[int, ...], dtype: str, offset: int, checksums: Sequence[int]
    ) -> None:
        self.file, self.shape, self.dtype = file, shape, np.dtype(dtype)
        self._offset, self.checksums = offset, list(checksums)
        self._size = math.prod(shape) * self.dtype.itemsize
        self._row_bytes = self._size // shape[0] if shape and shape[0] else 1
        self._is_mapped = bool(self._size) and file.is_large
        if self._is_mapped:
            count = math.prod(shape)
            self._array = np.frombuffer(file.mapping(), self.dtype, count, offset).reshape(shape)
        else:
            self._array = np.empty(shape, self.dtype)  # takes no memory before it is written to
        self._bytes = self._array.reshape(-1).view(np.uint8)
        self._array.flags.writeable = False
        self._unchecked, self._overwrites = np.ones(len(checksums), np.bool_), 0

    def __len__(self) -> int:
        return self.shape[0]

    def check(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Return ``array[first:last]``, read-only, after its chunks were checked.

        Any number of threads may call it; at worst two of them check the same chunk. Raises DataError for damage, and for
        a file that was overwritten.
        """
        if self._is_mapped and (overwrites := self.file.check_unchanged()) != self._overwrites:
            self._unchecked[:], self._overwrites = True, overwrites
        if self._unchecked.any():
            stop = len(self) if last is None else min(last, len(self))
            chunks = np.arange(first * self._row_bytes // CHUNK_BYTES, -(-stop * self._row_bytes // CHUNK_BYTES))
            for chunk in chunks[self._unchecked[chunks]].tolist():
                if self._is_mapped:
                    self._compare(chunk, self._bytes[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES].data)
                else:
                    content = self._read(chunk)
                    start = chunk * CHUNK_BYTES  # only checked content reaches the array, which others may be reading
                    self._bytes[start : start + len(content)] = np.frombuffer(content, np.uint8)
                self._unchecked[chunk] = False
        return self._array[first:last]

    def copy(self, first: int, last: int) -> np.ndarray:
        """Return ``array[first:last]`` as ``check`` does, of which nothing stays in memory where the file is large."""
        if not self._is_mapped:
            return self.check(first, last)
        if (overwrites := self.file.check_unchanged()) != self._overwrites:
            self._unchecked[:], self._overwrites = True, overwrites
        start, stop = first * self._row_bytes, min(last, len(self)) * self._row_bytes
        chunks = np.arange(start // CHUNK_BYTES, -(-stop // CHUNK_BYTES))
        for chunk in chunks[self._unchecked[chunks]].tolist():
            self._read(chunk)
            self._unchecked[chunk] = False
        content = self.file.read(self._offset + start, stop - start)
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])

    def load(self) -> np.ndarray:
        """Return all of it as an array of its own in memory, checked: the file may be written over or shortened then."""
        array = np.empty(self.shape, self.dtype)
        content = array.reshape(-1).view(np.uint8)
        for chunk in range(len(self.checksums)):
            content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES] = np.frombuffer(self._read(chunk), np.uint8)
        return array

    def rows(self) -> Iterator[np.ndarray]:
        """All rows in order, checked, about 1 MiB at a time; none of them stays in memory. At least one array."""
        rest = b""
        for chunk in range(len(self.checksums)):
            rest += self._read(chunk)
            count = len(rest) // self._row_bytes
            yield np.frombuffer(rest, self.dtype, count * self._row_bytes // self.dtype.itemsize).reshape(
                count, *self.shape[1:]
            )
            rest = rest[count * self._row_bytes :]
        if not self.checksums:
            yield self._array

    def _read(self, chunk: int) -> bytes:
        size = min(CHUNK_BYTES, self._size - chunk * CHUNK_BYTES)
        content = self.file.read(self._offset + chunk * CHUNK_BYTES, size)
        self._compare(chunk, content)
        return content

    def _compare(self, chunk: int, content: bytes | memoryview) -> None:
        if zlib.crc32(content) != self.checksums[chunk]:
            raise self.file.damage("a checksum differs")


def write_blocks(
    path: Path,
    header: Mapping[str, Any],
    blocks: Mapping[str, Iterable[np.ndarray]],
    magic: bytes = MAGIC,
    version: int = FORMAT_VERSION,
) -> bytes:
    """Write a file of blocks atomically; its folder is created.

    Args:
        path: The file.
        header: Fields of the writer, as plain data.
        blocks: Each block by name, as one or more arrays that follow one another along the first axis; a block without
            rows is one array without rows.
        magic: Eight bytes that name the kind of file.
        version: ``JOURNAL_VERSION`` or ``ATTRIBUTE_VERSION`` for a file to which changes may be appended.

    Returns:
        The file's generation (``OpenBlockFile``).

    Raises:
        DataError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, partial.open("wb") as file:
            file.write(bytes(_ALIGNMENT))
            table = {name: _write_block(file, arrays) for name, arrays in blocks.items()}
            text = json.dumps({**header, "blocks": table}, ensure_ascii=False, allow_nan=False)
            encoded = text.encode("utf-8", "surrogatepass")
            preamble = _PREAMBLE.pack(magic, version, 0, file.tell(), len(encoded))
            file.write(encoded)
            file.seek(0)
            digest = hashlib.sha256(preamble + encoded).digest()
            file.write(preamble + digest)
        return digest
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def _write_block(file: BinaryIO, arrays: Iterable[np.ndarray]) -> dict[str, Any]:
    """Write one block at the next aligned offset; its entry in the header."""
    file.write(bytes(-file.tell() % _ALIGNMENT))
    offset, rows, checksums, open_chunk, array = file.tell(), 0, [], b"", None
    for array in arrays:
        array = np.ascontiguousarray(array)
        rows += len(array)
        content = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
        file.write(content)
        if open_chunk:  # the previous array ended inside a chunk
            fill = min(CHUNK_BYTES - len(open_chunk), len(content))
            open_chunk, content = open_chunk + bytes(content[:fill]), content[fill:]
            if len(open_chunk) < CHUNK_BYTES:
                continue
            checksums.append(zlib.crc32(open_chunk))
        complete = len(content) // CHUNK_BYTES * CHUNK_BYTES
        checksums += [zlib.crc32(content[start : start + CHUNK_BYTES]) for start in range(0, complete, CHUNK_BYTES)]
        open_chunk = bytes(content[complete:])
    if array is None:
        raise ValueError("a block without arrays")
    checksums += [zlib.crc32(open_chunk)] if open_chunk else []
    return {"type": array.dtype.name, "shape": [rows, *array.shape[1:]], "offset": offset, "sums": checksums}


def read_blocks(path: Path, magic: bytes = MAGIC, kind: str = "gallery") -> tuple[dict[str, Any], dict[str, Block]]:
    """Read the header of a file of blocks and map its blocks.

    Args:
        path: The file.
        magic: Magic bytes of the kind of file that is expected.
        kind: Name of that kind, for messages.

    Returns:
        The writer's fields, and the blocks by name.

    Raises:
        DataError: The file is missing, damaged, of another kind, or of another version.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, no {kind}", expected=f"the file of a {kind}")
    if not path.is_file():
        raise DataError(f"there is no {kind} {path}", remedy=path_remedy(path))
    try:
        file = OpenBlockFile(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    preamble, digest = file.read(0, _PREAMBLE.size), file.read_digest()
    if magic == MAGIC and preamble[:4] == b"PK\x03\x04":
        raise DataError(f"{path} has format version 1", remedy="an earlier release wrote it: enrol again")
    if len(digest) < _DIGEST_BYTES or preamble[:8] != magic:
        remedy = _REMEDY if magic == MAGIC else "take a copy"
        raise DataError(f"{path} is no {kind}, or damaged", remedy=remedy)
    _, version, _, offset, length = _PREAMBLE.unpack(preamble)
    if version > ATTRIBUTE_VERSION:
        raise DataError(f"{path} has format version {version}", remedy="update unalike")
    if offset + length > file.size:
        raise file.damage(f"it has {file.size} bytes of {offset + length}")
    if length > MAX_HEADER_BYTES:
        raise file.damage(f"its header has {length} bytes")
    encoded = file.read(offset, length)
    if hashlib.sha256(preamble + encoded).digest() != digest:
        raise file.damage("the checksum of its header differs")
    file.generation, file.version, file.end = digest, version, offset + length
    with content_errors(path):
        header = dict(json.loads(encoded.decode("utf-8", "surrogatepass")))
        return header, {name: _open_block(file, entry, offset) for name, entry in header.pop("blocks").items()}


def content_errors(path: str | Path) -> AbstractContextManager[None]:
    """While inside, whatever the content of a file of blocks raises is a DataError: its checksums do not keep a forger out."""
    return reader_errors(f"{path} is damaged, or another program wrote it", remedy=_REMEDY)


def _open_block(file: OpenBlockFile, entry: Mapping[str, Any], end: int) -> Block:
    shape, dtype, offset, sums = tuple(entry["shape"]), entry["type"], entry["offset"], list(entry["sums"])
    if dtype not in _DTYPES or not all(type(number) is int and number >= 0 for number in (*shape, offset, *sums)):
        raise ValueError(f"a block of {dtype} {shape} at {offset}")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not shape or offset % _ALIGNMENT or offset + size > end or len(sums) != -(-size // CHUNK_BYTES):
        raise ValueError(f"a block of {dtype} {shape} at {offset} with {len(sums)} checksums")
    return Block(file, shape, dtype, offset, sums)


class PackedTexts(Sequence[str]):
    """Many short texts as one array of bytes: a million names open in no time, and are decoded one by one.

    File names that are not valid Unicode come back unchanged (surrogates are kept).
    """

    def __init__(self, content: Block, ends: Block) -> None:
        self._content, self._ends = content, ends

    def packed(self) -> tuple[Iterator[np.ndarray], np.ndarray]:
        """As ``pack`` gives it, the bytes in parts."""
        return self._content.rows(), self._ends.check()

    @staticmethod
    def pack(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode texts for ``write_blocks``.

        Returns:
            The bytes of all texts, uint8, and the offset at which each text ends, int64.
        """
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64) if encoded else np.empty(0, np.int64)
        return np.frombuffer(b"".join(encoded), np.uint8), ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        ends = self._ends.check(max(0, index - 1), index + 1)
        start, end = int(ends[0]) if index else 0, int(ends[-1])
        with content_errors(self._content.file.path):
            if not 0 <= start <= end <= len(self._content):
                raise ValueError("names that overlap")
            return self._content.check(start, end)[: end - start].tobytes().decode("utf-8", "surrogatepass")

    def find(self, text: str) -> list[int]:
        """Indices of the texts that equal ``text``; the bytes of all are searched, none is decoded."""
        content, ends = self._content.check().tobytes(), self._ends.check()
        encoded = text.encode("utf-8", "surrogatepass")
        if not encoded:
            return np.flatnonzero(np.diff(ends, prepend=0) == 0).tolist()
        indices, position = [], content.find(encoded)
        with content_errors(self._content.file.path):
            while position >= 0:
                index = int(np.searchsorted(ends, position, side="right"))  # of the text that this byte lies in
                starts_here = position == (int(ends[index - 1]) if index else 0)
                if starts_here and position + len(encoded) == int(ends[index]):
                    indices.append(index)
                position = content.find(encoded, position + 1)
        return indices

    def unpack(self) -> list[str]:
        """Decode all texts."""
        content, ends = self._content.check().tobytes(), self._ends.check().tolist()
        starts = [0, *ends][: len(ends)]  # none where there is no text
        with content_errors(self._content.file.path):
            if any(start > end for start, end in zip(starts, ends, strict=True)) or (ends and ends[-1] > len(content)):
                raise ValueError("names that overlap")
            return [content[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)]
