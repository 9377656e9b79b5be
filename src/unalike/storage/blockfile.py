"""One file of named blocks: versioned, checksummed, read by memory map, and replaced whole or not at all.

    0   8 bytes    the mark ``UNALIKEG`` (a gallery; other kinds of files have their own)
    8   uint32     format version, little-endian as every number here
    12  uint32     0
    16  uint64     where the head begins
    24  uint64     its length in bytes
    32  32 bytes   SHA-256 of bytes 0 to 31 and of the head
    64  blocks     each begins at a multiple of 64
    ..  head       JSON: what the writer says, and for each block type, shape, place and CRC-32s, one for each MiB

The head is checked whenever a file is opened, and that all blocks lie inside the file. A block is checked MiB by MiB when
it is first read (``Block.check``): a gallery of a gigabyte opens at once, and no number counts that was not checked.
CRC-32 finds damage; it is no protection from someone who forges a file. Nothing in a file is run.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.storage.atomic import replacing

MARK, FORMAT_VERSION = b"UNALIKEG", 2  # 1 was a zip archive that was read whole
PIECE = 2**20
_START = struct.Struct("<8sIIQQ")
_DIGEST, _FIRST = 32, 64
_TYPES = ("float32", "float16", "int32", "int64", "uint8")
_REMEDY = "take a copy, or enrol again"


class Block:
    """An array in a file: ``array`` is a read-only map of it, and ``check`` says whether it is what was written."""

    def __init__(self, array: np.ndarray, sums: Sequence[int], name: str) -> None:
        self.array, self._sums, self._name = array, sums, name
        self._pending = np.ones(len(sums), np.bool_)

    def check(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """``array[first:last]``, after checking those of its pieces that were never checked. Raises DataError.

        Any number of threads may call it; at worst two of them check the same piece.
        """
        if self._pending.any():
            size = self.array.strides[0] if self.array.ndim and len(self.array) else 1
            stop = len(self.array) if last is None else min(last, len(self.array))
            content = self.array.reshape(-1).view(np.uint8).data
            here = np.arange(first * size // PIECE, -(-stop * size // PIECE))
            for piece in here[self._pending[here]]:
                if zlib.crc32(content[piece * PIECE : (piece + 1) * PIECE]) != self._sums[piece]:
                    raise DataError(f"{self._name} is damaged: a checksum differs", remedy=_REMEDY)
                self._pending[piece] = False
        return self.array[first:last]


def write_blocks(
    path: Path, said: Mapping[str, Any], blocks: Mapping[str, Iterable[np.ndarray]], mark: bytes = MARK
) -> None:
    """Write ``said`` (plain data) and the blocks, each given as parts that follow one another along the first axis.

    A kill leaves the old file whole. A block without parts
    cannot be written; one of no rows is a part of no rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            file.write(bytes(_FIRST))
            table = {name: _write_block(file, parts) for name, parts in blocks.items()}
            head = json.dumps({**said, "blocks": table}, ensure_ascii=False, allow_nan=False).encode(
                "utf-8", "surrogatepass"
            )
            start = _START.pack(mark, FORMAT_VERSION, 0, file.tell(), len(head))
            file.write(head)
            file.seek(0)
            file.write(start + hashlib.sha256(start + head).digest())
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def _write_block(file: Any, parts: Iterable[np.ndarray]) -> dict[str, Any]:
    file.write(bytes(-file.tell() % _FIRST))
    offset, rows, sums, rest, part = file.tell(), 0, [], b"", None
    for part in parts:
        part = np.ascontiguousarray(part)
        rows += len(part)
        content = part.reshape(-1).view(np.uint8).data if part.size else memoryview(b"")
        file.write(content)
        if rest:  # the piece that the last part left open
            fill = min(PIECE - len(rest), len(content))
            rest, content = rest + bytes(content[:fill]), content[fill:]
            if len(rest) < PIECE:
                continue
            sums.append(zlib.crc32(rest))
        whole = len(content) // PIECE * PIECE
        sums += [zlib.crc32(content[start : start + PIECE]) for start in range(0, whole, PIECE)]
        rest = bytes(content[whole:])
    if part is None:
        raise ValueError("a block without parts")
    sums += [zlib.crc32(rest)] if rest else []
    return {"type": part.dtype.name, "shape": [rows, *part.shape[1:]], "offset": offset, "sums": sums}


def read_blocks(path: Path, mark: bytes = MARK, what: str = "gallery") -> tuple[dict[str, Any], dict[str, Block]]:
    """What the writer said, and the blocks, as maps of the file. Raises DataError: missing, damaged, another version.

    ``mark`` is the kind of file that is wanted, ``what`` its name in words.
    """
    if not path.is_file():
        raise DataError(f"there is no {what} {path}")
    with path.open("rb") as file:
        start = file.read(_START.size)
        digest = file.read(_DIGEST)
        if mark == MARK and start[:4] == b"PK\x03\x04":
            raise DataError(f"{path} has format version 1", remedy="it is of an earlier release: enrol again")
        if len(digest) < _DIGEST or start[:8] != mark:
            raise DataError(f"{path} is no {what}, or damaged", remedy=_REMEDY if mark == MARK else "take a copy")
        _, version, _, offset, length = _START.unpack(start)
        if version > FORMAT_VERSION:
            raise DataError(f"{path} has format version {version}", remedy="update unalike")
        size = path.stat().st_size
        if offset + length > size:
            raise DataError(f"{path} is damaged: it has {size} bytes of {offset + length}", remedy=_REMEDY)
        file.seek(offset)
        head = file.read(length)
    if hashlib.sha256(start + head).digest() != digest:
        raise DataError(f"{path} is damaged: the checksum of its head differs", remedy=_REMEDY)
    said = json.loads(head.decode("utf-8", "surrogatepass"))
    return said, {name: _map_block(path, name, entry, offset) for name, entry in said.pop("blocks").items()}


def _map_block(path: Path, name: str, entry: Mapping[str, Any], end: int) -> Block:
    shape, dtype = tuple(entry["shape"]), str(entry["type"])
    if dtype not in _TYPES or entry["offset"] + math.prod(shape) * np.dtype(dtype).itemsize > end:
        raise DataError(f"{path} is damaged: block {name} of {dtype} {shape}", remedy=_REMEDY)
    if 0 in shape:
        return Block(np.empty(shape, dtype), entry["sums"], str(path))
    array = np.memmap(path, dtype=dtype, mode="r", offset=entry["offset"], shape=shape)
    # A plain view: slices of a memmap cost microseconds each for keeping track of the file.
    return Block(array.view(np.ndarray), entry["sums"], str(path))


class Texts(Sequence[str]):
    """Many short texts as one array of bytes: a million names open in no time, and are decoded one by one.

    File names that are not valid Unicode come back as they were (surrogates are kept).
    """

    def __init__(self, content: Block, ends: Block) -> None:
        self._content, self._ends = content, ends

    @staticmethod
    def pack(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """(bytes, where each text ends) for ``write_blocks``."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64) if encoded else np.empty(0, np.int64)
        return np.frombuffer(b"".join(encoded), np.uint8), ends

    def __len__(self) -> int:
        return len(self._ends.array)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        ends = self._ends.check(max(0, index - 1), index + 1)
        start = int(ends[0]) if index else 0
        return (
            self._content.check(start, int(ends[-1]))[: int(ends[-1]) - start]
            .tobytes()
            .decode("utf-8", "surrogatepass")
        )

    def unpack(self) -> list[str]:
        """All of them as a list."""
        content, ends = self._content.check().tobytes(), self._ends.check().tolist()
        starts = [0, *ends[:-1]]
        return [content[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)]
