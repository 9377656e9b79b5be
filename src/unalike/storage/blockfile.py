"""A file of named arrays (blocks): versioned, with checksums, read by memory map, written atomically.

    0   8 bytes    magic bytes of the kind of file, such as ``UNALIKEG`` for a gallery
    8   uint32     format version, little-endian as every number here
    12  uint32     0
    16  uint64     offset of the header
    24  uint64     length of the header in bytes
    32  32 bytes   SHA-256 of bytes 0 to 31 and of the header
    64  blocks     each begins at a multiple of 64
    ..  header     JSON: the writer's own fields, and for each block dtype, shape, offset and a CRC-32 for each MiB

Opening a file checks the header and that all blocks lie inside the file. A block is checked MiB by MiB when it is first
read (``Block.check``): a gallery of a gigabyte opens at once, and no unchecked number is used. CRC-32 finds damage; it
does not protect from forged files. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from unalike.errors import DataError
from unalike.storage.atomic import atomic_write

MAGIC, FORMAT_VERSION = b"UNALIKEG", 2  # version 1 was a zip archive
CHUNK_BYTES = 2**20  # a checksum each
_PREAMBLE = struct.Struct("<8sIIQQ")
_DIGEST_BYTES, _ALIGNMENT = 32, 64
_DTYPES = ("float32", "float16", "int32", "int64", "uint8")
_REMEDY = "take a copy, or enrol again"


class Block:
    """An array in a file: ``array`` is a read-only memory map, ``check`` compares it with its checksums."""

    def __init__(self, array: np.ndarray, checksums: Sequence[int], path: str) -> None:
        self.array, self._checksums, self._path = array, checksums, path
        self._unchecked = np.ones(len(checksums), np.bool_)

    def check(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Check the chunks of ``array[first:last]`` that were not checked before, and return that slice.

        Any number of threads may call it; at worst two of them check the same chunk. Raises DataError for damage.
        """
        if self._unchecked.any():
            row_bytes = self.array.strides[0] if self.array.ndim and len(self.array) else 1
            stop = len(self.array) if last is None else min(last, len(self.array))
            content = self.array.reshape(-1).view(np.uint8).data
            chunks = np.arange(first * row_bytes // CHUNK_BYTES, -(-stop * row_bytes // CHUNK_BYTES))
            for chunk in chunks[self._unchecked[chunks]]:
                if zlib.crc32(content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]) != self._checksums[chunk]:
                    raise DataError(f"{self._path} is damaged: a checksum differs", remedy=_REMEDY)
                self._unchecked[chunk] = False
        return self.array[first:last]


def write_blocks(
    path: Path, header: Mapping[str, Any], blocks: Mapping[str, Iterable[np.ndarray]], magic: bytes = MAGIC
) -> None:
    """Write a file of blocks atomically; its folder is created.

    Args:
        path: The file.
        header: Fields of the writer, as plain data.
        blocks: Each block by name, as one or more arrays that follow one another along the first axis; a block without
            rows is one array without rows.
        magic: Eight bytes that name the kind of file.

    Raises:
        DataError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path) as partial, partial.open("wb") as file:
            file.write(bytes(_ALIGNMENT))
            table = {name: _write_block(file, arrays) for name, arrays in blocks.items()}
            text = json.dumps({**header, "blocks": table}, ensure_ascii=False, allow_nan=False)
            encoded = text.encode("utf-8", "surrogatepass")
            preamble = _PREAMBLE.pack(magic, FORMAT_VERSION, 0, file.tell(), len(encoded))
            file.write(encoded)
            file.seek(0)
            file.write(preamble + hashlib.sha256(preamble + encoded).digest())
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
    if not path.is_file():
        raise DataError(f"there is no {kind} {path}")
    with path.open("rb") as file:
        preamble = file.read(_PREAMBLE.size)
        digest = file.read(_DIGEST_BYTES)
        if magic == MAGIC and preamble[:4] == b"PK\x03\x04":
            raise DataError(f"{path} has format version 1", remedy="an earlier release wrote it: enrol again")
        if len(digest) < _DIGEST_BYTES or preamble[:8] != magic:
            remedy = _REMEDY if magic == MAGIC else "take a copy"
            raise DataError(f"{path} is no {kind}, or damaged", remedy=remedy)
        _, version, _, offset, length = _PREAMBLE.unpack(preamble)
        if version > FORMAT_VERSION:
            raise DataError(f"{path} has format version {version}", remedy="update unalike")
        size = path.stat().st_size
        if offset + length > size:
            raise DataError(f"{path} is damaged: it has {size} bytes of {offset + length}", remedy=_REMEDY)
        file.seek(offset)
        encoded = file.read(length)
    if hashlib.sha256(preamble + encoded).digest() != digest:
        raise DataError(f"{path} is damaged: the checksum of its header differs", remedy=_REMEDY)
    header = json.loads(encoded.decode("utf-8", "surrogatepass"))
    return header, {name: _map_block(path, name, entry, offset) for name, entry in header.pop("blocks").items()}


def _map_block(path: Path, name: str, entry: Mapping[str, Any], end: int) -> Block:
    shape, dtype = tuple(entry["shape"]), str(entry["type"])
    if dtype not in _DTYPES or entry["offset"] + math.prod(shape) * np.dtype(dtype).itemsize > end:
        raise DataError(f"{path} is damaged: block {name} of {dtype} {shape}", remedy=_REMEDY)
    if 0 in shape:
        return Block(np.empty(shape, dtype), entry["sums"], str(path))
    array = np.memmap(path, dtype=dtype, mode="r", offset=entry["offset"], shape=shape)
    # A plain view: slices of a memmap cost microseconds each for keeping track of the file.
    return Block(array.view(np.ndarray), entry["sums"], str(path))


class PackedTexts(Sequence[str]):
    """Many short texts as one array of bytes: a million names open in no time, and are decoded one by one.

    File names that are not valid Unicode come back unchanged (surrogates are kept).
    """

    def __init__(self, content: Block, ends: Block) -> None:
        self._content, self._ends = content, ends

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
        return len(self._ends.array)

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
        return self._content.check(start, end)[: end - start].tobytes().decode("utf-8", "surrogatepass")

    def unpack(self) -> list[str]:
        """Decode all texts."""
        content, ends = self._content.check().tobytes(), self._ends.check().tolist()
        starts = [0, *ends[:-1]]
        return [content[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)]
