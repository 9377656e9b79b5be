"""Images in tar files that are read where they are: opened tar files of this process, and reading of a member by its name.

Such an image is named ``photographs.tar!class/1.jpg``, as images of archives are. The tar file is opened by whatever process
first reads from it, by the index in the cache.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from unalike.data.archives import split_member
from unalike.data.regions import image_file
from unalike.data.shard_files import LocalShard, RemoteShard, changed_error, is_compressed, open_shard_file
from unalike.data.tar_index import TarIndex, load_index
from unalike.data.tar_stream import MAX_IMAGE_BYTES
from unalike.errors import DataError, UnreadableImage
from unalike.storage.filesystems import uri_of
from unalike.storage.process_lock import ProcessLock


@dataclass(frozen=True, eq=False)
class OpenedTar:
    """A tar file and its index.

    Attributes:
        path: As paths of its images begin.
        file: The file.
        index: Where its images are.
    """

    path: str
    file: LocalShard | RemoteShard
    index: TarIndex

    def read(self, row: int) -> bytes:
        """The content of an image, with no other read than that of its header and content.

        Raises:
            UnreadableImage: More than a gigabyte.
            DataError: The tar file was changed or cut off since its headers were read, or cannot be reached.
        """
        index, size = self.index, int(self.index.sizes_M[row])
        if size > MAX_IMAGE_BYTES:
            raise UnreadableImage(f"{self.path}!{index.name(row)}: {size} bytes", expected=f"at most {MAX_IMAGE_BYTES}")
        data = self.file.read_at(int(index.offsets_M[row]) - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE + size)
        if len(data) < tarfile.BLOCKSIZE + size or zlib.crc32(data[: tarfile.BLOCKSIZE]) != index.crcs_M[row]:
            raise changed_error(f"{self.file.name}!{index.name(row)}")
        return data[tarfile.BLOCKSIZE :]


_tars: dict[str, OpenedTar] = {}
_lock = ProcessLock()


def open_tar(path: str | Path, cache_dir: Path | None = None) -> tuple[OpenedTar, bool]:
    """Open a tar file, unless it is open and unchanged; its index is taken from the cache or made.

    Args:
        path: A local file, or an address.
        cache_dir: Root of the cache.

    Returns:
        The tar file, and whether its index was made now.

    Raises:
        DataError: No such file, a compressed one, or one that is damaged, truncated or unsafe.
    """
    text = str(Path(path))
    file = open_shard_file(Path(path))
    present = _tars.get(text)
    if present is not None and (present.file.size, present.file.mark) == (file.size, file.mark):
        return present, False
    if is_compressed(file):
        raise DataError(f"{file.name}: compressed, so that single images cannot be read from it", expected="tar files that are not compressed",
                        remedy="decompress it (gunzip), or give it alone, so that it is unpacked")  # fmt: skip
    identity = file.name if isinstance(file, RemoteShard) else os.path.realpath(text)
    index, is_new = load_index(file, identity, cache_dir)
    with _lock:
        tar = _tars[text] = OpenedTar(text, file, index)
    return tar, is_new


def find_member(path: str | Path) -> tuple[OpenedTar, int] | None:
    """The tar file and row of an image ``archive.tar!name``; None for any other path, and for members that do not exist."""
    text = os.fspath(path)
    member = split_member(text) if "!" in text else None
    if member is None:
        return None
    tar = _tars.get(member[0])
    if tar is None:
        if not uri_of(member[0]) and not os.path.isfile(member[0]):
            return None
        if not uri_of(member[0]) and is_compressed(LocalShard(Path(member[0]))):
            return None
        tar = open_tar(member[0])[0]
    row = tar.index.find(member[1])
    return None if row is None else (tar, row)


def read_member(path: str | Path) -> bytes | None:
    """The content of an image ``archive.tar!name``; None for a path that names none. Raises as ``OpenedTar.read``."""
    member = find_member(path)
    return None if member is None else member[0].read(member[1])


def member_size(path: str | Path) -> int:
    """Bytes of an image ``archive.tar!name``, or of the file that a region lies in; -1 where there is none."""
    member = find_member(image_file(path))
    return -1 if member is None else int(member[0].index.sizes_M[member[1]])
