"""Sets of images in tar files that are read where they are, listed as a folder of the same content would be.

One uncompressed tar file, several (``part-{000..127}.tar``, or a folder or prefix of them), here or in a store. An image of a sample with
``.cls`` or ``.json`` lies in the folder of its class, whatever its name.

Shape letters: N images of the set.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from unalike.data.archives import is_archive, split_member
from unalike.data.class_names import normalize_class_name
from unalike.data.folders import FolderListing, PathParts, sort_key
from unalike.data.notices import Notices
from unalike.data.shard_files import RANGE_SCHEMES, LocalShard, RemoteShard, is_compressed
from unalike.data.tar_members import OpenedTar, open_tar
from unalike.data.tar_stream import expand_range, is_tar
from unalike.errors import DataError, UnalikeError
from unalike.progress import progress, say
from unalike.sanitize import redact
from unalike.source_names import register_shard
from unalike.storage.cache import cache_failures, default_cache_dir, limit_bytes, make_room
from unalike.storage.fetch import local_path
from unalike.storage.filesystems import RemoteStore, is_hidden, uri_of
from unalike.storage.outside_files import expand_home

# Share of the cache that tar files of a store may take; larger sets are read in parts, and each image is fetched when it is used.
FETCHED_SHARE = 0.5
_PARALLEL_INDEXES = 8  # tar files whose headers are read at once


class MemberPaths(Sequence[Path]):
    """Paths of images in tar files (``part-000.tar!class/1.jpg``), made when they are asked for: 8 bytes an image.

    Args:
        tars: The tar files.
        tar_N: uint32, the tar file of each image.
        row_N: uint32, its row in the index of that.
    """

    def __init__(self, tars: Sequence[OpenedTar], tar_N: np.ndarray, row_N: np.ndarray) -> None:
        self.tars, self.tar_N, self.row_N = tuple(tars), tar_N.astype(np.uint32), row_N.astype(np.uint32)

    def __len__(self) -> int:
        return len(self.tar_N)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> MemberPaths: ...
    def __getitem__(self, index: int | slice) -> Path | MemberPaths:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        tar = self.tars[self.tar_N[index]]
        return Path(f"{tar.path}!{tar.index.name(int(self.row_N[index]))}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemberPaths):
            return NotImplemented
        if [tar.path for tar in self.tars] != [tar.path for tar in other.tars]:
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return np.array_equal(self.tar_N, other.tar_N) and np.array_equal(self.row_N, other.row_N)

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: np.ndarray) -> MemberPaths:
        """The paths of these rows, in that order."""
        return MemberPaths(self.tars, self.tar_N[rows], self.row_N[rows])

    def names_and_sizes(self) -> Iterable[tuple[str, int]]:
        """(name in its tar file, bytes) of each image."""
        for tar, row in zip(self.tar_N.tolist(), self.row_N.tolist(), strict=True):
            index = self.tars[tar].index
            yield index.name(row), int(index.sizes_M[row])


@dataclass(frozen=True)
class TarSource:
    """Tar files that make one set.

    Attributes:
        tars: The files.
        folder: The folder in them that holds the set; empty for all of it.
    """

    tars: tuple[OpenedTar, ...]
    folder: str = ""


@dataclass(frozen=True)
class TarListing:
    """What tar files hold, as a folder of the same content would be listed.

    Attributes:
        listing: Images and folders, sorted.
        paths: The paths of ``listing.images``.
        wrapper: The folders that only wrap the class folders, which were left out of the names.
    """

    listing: FolderListing
    paths: MemberPaths
    wrapper: str


def find_tars(source: str | Path, cache_dir: Path | None = None) -> TarSource | None:
    """Open the tar files that a source names, if they can be read where they are.

    Args:
        source: An uncompressed tar file, a folder in one (``photographs.tar!known``), a pattern such as ``part-{000..127}.tar``,
            or a folder or prefix that holds tar files and nothing else; a path or an address.
        cache_dir: Root of the cache, for the indexes.

    Returns:
        The tar files; None for any other source, and for a compressed tar file.

    Raises:
        DataError: Tar files that do not exist, are damaged, or of which some are compressed.
    """
    uri, text = uri_of(source), str(source)
    if is_tar(text):
        pattern = uri or str(expand_home(text))
        names = expand_range(pattern) if "{" in pattern and not os.path.lexists(pattern) else [pattern]
        if len(names) == 1 and not (names[0].lower().endswith(".tar") if uri else is_read_in_place(names[0])):
            return None
        if uri:
            names = _fetch(names, cache_dir)
            if len(names) == 1 and not uri_of(names[0]) and not is_read_in_place(names[0]):
                return None
        return TarSource(_open_all(names, redact(uri or text), cache_dir))
    if uri:
        names = _tars_of_prefix(uri)
        return TarSource(_open_all(_fetch(names, cache_dir), redact(uri), cache_dir)) if names else None
    member = None if os.path.lexists(expand_home(text)) else split_member(expand_home(text))
    if member is not None and is_read_in_place(member[0]):
        tars = _open_all([member[0]], member[0], cache_dir)
        folder = member[1].strip("/")
        has_images = any(tars[0].index.name(row).startswith(f"{folder}/") for row in range(len(tars[0].index)))
        return TarSource(tars, folder) if has_images else None
    names = _tars_of_folder(expand_home(text))
    return TarSource(_open_all(names, text, cache_dir)) if names else None


def is_read_in_place(name: str) -> bool:
    """Whether this is the path of a tar file that is not compressed."""
    return is_tar(name) and os.path.isfile(name) and not is_compressed(LocalShard(Path(name)))


def _tars_of_folder(folder: Path) -> list[str]:
    """The tar files of a folder that holds nothing else; none where all of them are compressed."""
    if not folder.is_dir():
        return []
    names = [name for name in sorted(os.listdir(folder)) if not is_hidden(name)]
    if not all(is_tar(name) and (folder / name).is_file() for name in names):
        return []
    paths = [str(folder / name) for name in names]
    return paths if any(map(is_read_in_place, paths)) else []


def _tars_of_prefix(uri: str) -> list[str]:
    """The addresses of the uncompressed tar files of a store's prefix that holds nothing else; none where it cannot be listed,
    which its reader explains."""
    if uri.partition("://")[0] not in RANGE_SCHEMES:
        return []
    try:
        store = RemoteStore(uri)
        with store.explain_errors():
            entries = store.fs.ls(store.path, detail=True)
    except UnalikeError:
        return []
    root = store.path.strip("/")
    names = {entry["name"].strip("/").removeprefix(root).strip("/"): entry.get("type") for entry in entries}
    names = {
        name: kind for name, kind in names.items() if name and not is_hidden(name)
    }  # a store's mark of a folder has no name
    if not all(kind == "file" and name.lower().endswith(".tar") and "/" not in name for name, kind in names.items()):
        return []
    return [f"{uri.rstrip('/')}/{name}" for name in sorted(names)]


def _fetch(uris: Sequence[str], cache_dir: Path | None) -> list[str]:
    """Where tar files of a store are read: as copies in the cache, or in parts where they would take much of it."""
    names = [str(Path(uri)) for uri in uris]
    cache = cache_dir or default_cache_dir()
    in_parts = all(uri.partition("://")[0] in RANGE_SCHEMES for uri in uris)
    if in_parts:
        with ThreadPoolExecutor(_PARALLEL_INDEXES) as pool:
            size = sum(pool.map(lambda uri: RemoteShard(uri).size, uris))
        with cache_failures(cache):
            cache.mkdir(parents=True, exist_ok=True)
            in_parts = size > FETCHED_SHARE * limit_bytes(cache)
    if not in_parts:
        names = [str(local_path(uri, cache_dir)) for uri in uris]
    for uri, name in zip(uris, names, strict=True):
        register_shard(name, redact(uri))
    return names


def _open_all(names: Sequence[str], description: str, cache_dir: Path | None) -> tuple[OpenedTar, ...]:
    entries = []
    with (
        progress("reading the headers of tar files", len(names), "files") as advance,
        ThreadPoolExecutor(_PARALLEL_INDEXES) as pool,
    ):
        for entry in pool.map(lambda path: open_tar(path, cache_dir), names):
            entries.append(entry)
            advance(1)
    if any(is_new for _, is_new in entries):
        make_room(cache_dir or default_cache_dir())
    count, size = sum(len(tar.index) for tar, _ in entries), sum(tar.file.size for tar, _ in entries)
    say(f"{description}: {count:,} images in {len(entries)} tar file{'s' if len(entries) > 1 else ''}, {_size_text(size)}, read where "
        f"{'they are' if len(entries) > 1 else 'it is'}: nothing is unpacked", once=True)  # fmt: skip
    return tuple(tar for tar, _ in entries)


def _size_text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10**8 else f"{size / 1e6:.2f} MB"


def list_tars(source: TarSource, notices: Notices, *, labeled: bool) -> TarListing:
    """List the images of tar files in the order in which a folder of the same content would be listed.

    Args:
        source: The tar files.
        notices: Receives wrapper folders and files that are no images.
        labeled: Whether folders that only wrap class folders are left out, and images with a class of their own lie in its
            folder.

    Raises:
        DataError: More images in one tar file than an index holds.
    """
    images: list[PathParts] = []
    folders: set[PathParts] = set()
    strays: list[PathParts] = []
    tar_N, row_N = [], []
    for number, tar in enumerate(source.tars):
        index = tar.index
        if len(index) > np.iinfo(np.uint32).max:
            raise DataError(f"{tar.path}: {len(index)} images", expected="fewer in one tar file", remedy="divide it")
        for row in range(len(index)):
            parts = _inside(index.name(row), source.folder)
            label = normalize_class_name(index.label(row)) if labeled and index.labels_M[row] >= 0 else ""
            if parts is not None:
                images.append((label, "/".join(parts)) if label else parts)
                tar_N.append(number)
                row_N.append(row)
        folders |= {parts for name in index.folders if (parts := _inside(name, source.folder))}
        strays += [parts for name in index.strays if (parts := _inside(name, source.folder))]
    wrapper = _find_wrapper(images, folders) if labeled else ()
    for name in wrapper:
        notices.add("wrapper", name)
    for parts in strays:
        if parts[: len(wrapper)] == wrapper:
            name = "/".join(parts[len(wrapper) :])
            notices.add("nested-archive" if is_archive(name) else "stray", name)
    folders |= {parts[:depth] for parts in images for depth in range(1, len(parts))}
    images = [parts[len(wrapper) :] for parts in images]
    inner = {
        parts[len(wrapper) :] for parts in folders if parts[: len(wrapper)] == wrapper and len(parts) > len(wrapper)
    }
    keys = [sort_key(parts) for parts in images]
    order = sorted(range(len(images)), key=keys.__getitem__)
    paths = MemberPaths(source.tars, np.array(tar_N, np.uint32)[order], np.array(row_N, np.uint32)[order])
    return TarListing(FolderListing([images[i] for i in order], sorted(inner, key=sort_key)), paths, "/".join(wrapper))


def _inside(name: str, folder: str) -> PathParts | None:
    """The parts of a name below a folder; None for a name outside of it."""
    if not folder:
        return tuple(name.split("/"))
    return tuple(name[len(folder) + 1 :].split("/")) if name.startswith(f"{folder}/") else None


def _find_wrapper(images: Sequence[PathParts], folders: Iterable[PathParts]) -> PathParts:
    """The folders that only wrap the class folders: the rule of ``folders.skip_wrapper_folders``."""
    prefix: PathParts = ()
    while True:
        depth = len(prefix)
        if any(len(parts) == depth + 1 for parts in images):
            return prefix
        inner = {parts[depth] for parts in images} | {parts[depth] for parts in folders if len(parts) > depth}
        if len(inner) != 1 or any(len(parts) == depth + 2 for parts in images):
            return prefix
        if not images and not any(len(parts) > depth + 1 for parts in folders):
            return prefix
        prefix = (*prefix, *inner)
