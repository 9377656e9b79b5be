"""Index of a tar file, made of its headers alone and kept in the cache: where in the file each image is, and its class.

Shape letters: M images of the tar file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike.data.archives import (
    MAX_HEADER_BYTES,
    CheckedMember,
    archive_errors,
    cut_off_line,
    has_end,
    has_rest,
    link_error,
    outside_error,
    rest_line,
)
from unalike.data.folders import is_image
from unalike.data.shard_files import ShardFile
from unalike.data.tar_stream import sample_key, sample_label
from unalike.errors import DataError, UnalikeError
from unalike.progress import say
from unalike.storage.atomic import atomic_write
from unalike.storage.cache import CacheEntry, default_cache_dir
from unalike.storage.digests import text_sha256
from unalike.storage.filesystems import is_hidden

FORMAT_VERSION = 1
INDEX_FILE = "index.npz"
_ARRAYS = {"ends": np.int64, "offsets": np.int64, "sizes": np.int64, "crcs": np.uint32, "labels": np.int32,
           "hashes": np.uint64, "order": np.uint32}  # fmt: skip


@dataclass(frozen=True, eq=False)
class TarIndex:
    """The images of a tar file, in their order there.

    Some 90 bytes an image, of which its name takes about 40.

    Attributes:
        names: UTF-8 names, one after the other; ``ends_M`` (int64) says where each ends.
        offsets_M, sizes_M: int64, bytes of the content.
        crcs_M: uint32, CRC-32 of the header before the content, by which a change of the file is seen.
        labels_M: int32, indices into ``label_names``; -1 for an image without a class of its own (``.cls``, ``.json``).
        label_names: The classes that samples name.
        folders: Folders that stand in the file as such.
        strays: Files that are neither images nor belong to one.
        hashes_M, order_M: Hashes of the names, sorted, and the row of each.
    """

    names: bytes
    ends_M: np.ndarray
    offsets_M: np.ndarray
    sizes_M: np.ndarray
    crcs_M: np.ndarray
    labels_M: np.ndarray
    label_names: tuple[str, ...]
    folders: tuple[str, ...]
    strays: tuple[str, ...]
    hashes_M: np.ndarray
    order_M: np.ndarray

    def __len__(self) -> int:
        return len(self.ends_M)

    def name(self, row: int) -> str:
        """The name of an image, its parts separated by slashes."""
        start = int(self.ends_M[row - 1]) if row else 0
        return self.names[start : int(self.ends_M[row])].decode("utf-8", "surrogateescape")

    def find(self, name: str) -> int | None:
        """The row of the image of this name; None where there is none."""
        value = _hash(name.encode("utf-8", "surrogateescape"))
        at = int(np.searchsorted(self.hashes_M, value))
        while at < len(self.hashes_M) and self.hashes_M[at] == value:
            row = int(self.order_M[at])
            if self.name(row) == name:
                return row
            at += 1
        return None

    def label(self, row: int) -> str:
        """The class that an image's sample names; empty where it names none."""
        label = int(self.labels_M[row])
        return self.label_names[label] if label >= 0 else ""


def load_index(file: ShardFile, identity: str, cache_dir: Path | None = None) -> tuple[TarIndex, bool]:
    """The index of a tar file: from the cache, where size and time (or tag) of the file are the same, else made anew.

    Args:
        file: The tar file, not compressed.
        identity: What names it on every machine that shares the cache: its absolute path or address.
        cache_dir: Root of the cache.

    Returns:
        The index, and whether it was made now.

    Raises:
        DataError: A file that is damaged, truncated or unsafe.
    """
    key = text_sha256("\n".join((str(FORMAT_VERSION), identity, str(file.size), file.mark)), 40)
    entry = CacheEntry(cache_dir or default_cache_dir(), "indexes", key)
    path = entry.path / INDEX_FILE
    index = _read(path, file.size)
    if index is not None:
        with suppress(OSError):
            os.utime(entry.use_file)
        return index, False
    with suppress(OSError), entry.build_lock():  # without a cache that can be written it is made in each process
        index = _read(path, file.size) or build_index(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, index)
        entry.set_size(path.stat().st_size)
    return index or build_index(file), True


def build_index(file: ShardFile) -> TarIndex:
    """Read the headers of a tar file, one after the other. Raises DataError as ``load_index``."""
    columns = _Columns(file)
    with archive_errors(file.name):
        stream: Any = _Headers(file)
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=CheckedMember) as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else a list of all headers grows in memory
                columns.add(member)
        if columns.last and not has_end(tar):
            say(cut_off_line(file.name, columns.last))
        if has_rest(tar):
            say(rest_line(file.name))
    return columns.index()


class _Headers:
    """A tar file as tarfile reads it: some bytes ahead, so that a header and small contents are one read."""

    def __init__(self, file: ShardFile) -> None:
        self._file, self._position = file, 0
        self._start, self._block = 0, b""

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int) -> None:
        self._position = offset

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise DataError(f"{self._file.name}: a header of more than {MAX_HEADER_BYTES >> 20} MiB",
                            expected="names and attributes of a few kilobytes", remedy="pack the images again")  # fmt: skip
        begin = self._position - self._start
        if not 0 <= begin <= begin + size <= len(self._block):
            self._start, begin = self._position, 0
            self._block = self._file.read_at(self._position, max(size, self._file.ahead))
        content = self._block[begin : begin + size]
        self._position += len(content)
        return content


class _Columns:
    """Collects the columns of an index while headers are read."""

    def __init__(self, file: ShardFile) -> None:
        self._file, self.last = file, ""
        self._names: list[bytes] = []
        self._numbers: list[tuple[int, int, int]] = []  # offset, size, CRC
        self._labels: list[int] = []
        self._codes: dict[str, int] = {}
        self._folders: list[str] = []
        self._strays: list[str] = []
        self._sample, self._sample_start, self._label = "", 0, ""
        self._others: list[str] = []

    def add(self, member: tarfile.TarInfo) -> None:
        """Add one member, in the order of the file."""
        self.last = member.name
        if member.issym() or member.islnk():
            raise link_error(self._file.name, member)
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if member.name.startswith("/") or ".." in parts:
            raise outside_error(self._file.name, member.name)
        if any(map(is_hidden, parts)) or not parts:
            return
        name = "/".join(parts)
        if member.isdir():
            self._folders.append(name)
            return
        if not member.isfile() or member.issparse():
            raise DataError(f"{self._file.name}: member {member.name!r} is no plain file", expected="files and folders",
                            remedy="pack the images again")  # fmt: skip
        if sample_key(name) != self._sample:
            self._end_sample()
            self._sample = sample_key(name)
        if is_image(name):
            self._names.append(name.encode("utf-8", "surrogateescape"))
            self._numbers.append((member.offset_data, member.size, getattr(member, "header_crc", 0)))
            self._labels.append(-1)
            return
        self._label = sample_label(
            self._label, name, member.size, lambda: self._file.read_at(member.offset_data, member.size)
        )
        self._others.append(name)

    def _end_sample(self) -> None:
        has_image = self._sample_start < len(self._names)
        if has_image and self._label:
            code = self._codes.setdefault(self._label, len(self._codes))
            self._labels[self._sample_start :] = [code] * (len(self._names) - self._sample_start)
        if not has_image:  # files beside an image of the same name belong to it
            self._strays += self._others
        self._sample_start, self._label = len(self._names), ""
        self._others.clear()

    def index(self) -> TarIndex:
        """The index of all members."""
        self._end_sample()
        hashes_M = np.fromiter(map(_hash, self._names), np.uint64, len(self._names))
        keep_M = self._without_duplicates(hashes_M)
        numbers_M3 = np.array(self._numbers, np.int64).reshape(-1, 3)[keep_M]
        names = [self._names[row] for row in keep_M.tolist()]
        hashes_M = hashes_M[keep_M]
        order_M = np.argsort(hashes_M, kind="stable").astype(np.uint32)
        return TarIndex(
            names=b"".join(names), ends_M=np.cumsum(np.fromiter(map(len, names), np.int64, len(names))),
            offsets_M=numbers_M3[:, 0].copy(), sizes_M=numbers_M3[:, 1].copy(), crcs_M=numbers_M3[:, 2].astype(np.uint32),
            labels_M=np.array(self._labels, np.int32)[keep_M], label_names=tuple(self._codes), folders=tuple(self._folders),
            strays=tuple(self._strays), hashes_M=hashes_M[order_M], order_M=order_M,
        )  # fmt: skip

    def _without_duplicates(self, hashes_M: np.ndarray) -> np.ndarray:
        """The rows, without those of a name that stands again later, as unpacking would leave them."""
        order_M = np.argsort(hashes_M, kind="stable")
        doubtful = np.flatnonzero(hashes_M[order_M][1:] == hashes_M[order_M][:-1])
        replaced = {a for a, b in zip(order_M[doubtful].tolist(), order_M[doubtful + 1].tolist(), strict=True)
                    if self._names[a] == self._names[b]}  # fmt: skip
        if replaced:
            first = self._names[min(replaced)].decode("utf-8", "replace")
            members = "1 member" if len(replaced) == 1 else f"{len(replaced)} members"
            say(f"{self._file.name}: {members} (the first: {first!r}) stood there before under the same name, and the later one was "
                "taken, as tar does; pack it again if both are meant")  # fmt: skip
        return np.array([row for row in range(len(hashes_M)) if row not in replaced], np.int64)


def _hash(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


# ---- files in the cache ----


def _write(path: Path, index: TarIndex) -> None:
    texts = {"label_names": index.label_names, "folders": index.folders, "strays": index.strays}
    arrays = {name: getattr(index, f"{name}_M") for name in _ARRAYS}
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, names=np.frombuffer(index.names, np.uint8),
                 texts=np.frombuffer(json.dumps(texts).encode(), np.uint8), **arrays)  # fmt: skip


def _read(path: Path, size: int) -> TarIndex | None:
    """An index of the cache; None where there is none, or one that does not fit a tar file of ``size`` bytes."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            arrays = {f"{name}_M": content[name].astype(kind, copy=False) for name, kind in _ARRAYS.items()}
            names = content["names"].tobytes()
            texts: dict[str, Any] = {
                name: tuple(map(str, values)) for name, values in json.loads(content["texts"].tobytes()).items()
            }
        index = TarIndex(names=names, **arrays, **texts)
        return index if _is_sound(index, size) else None
    except (UnalikeError, MemoryError):
        raise
    except Exception:  # noqa: BLE001  numpy raises nearly anything on a damaged file; the index is made anew
        return None


def _is_sound(index: TarIndex, size: int) -> bool:
    """Whether the columns of an index belong together and lie in the file."""
    count = len(index)
    columns = [getattr(index, f"{name}_M") for name in _ARRAYS]
    if any(column.shape != (count,) for column in columns):
        return False
    if not count:
        return not index.names
    starts = index.offsets_M - tarfile.BLOCKSIZE
    return bool(
        index.ends_M[-1] == len(index.names) and (np.diff(index.ends_M) > 0).all() and index.ends_M[0] > 0
        and starts.min() >= 0 and index.sizes_M.min() >= 0 and (index.offsets_M + index.sizes_M).max() <= size
        and -1 <= index.labels_M.min() and index.labels_M.max() < len(index.label_names) and index.order_M.max() < count
        and (index.hashes_M[1:] >= index.hashes_M[:-1]).all()
    )  # fmt: skip
