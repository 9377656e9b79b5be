"""Sources of sharded embedding: folders, prefixes of stores, manifests and tar files, listed without reading an image.

A folder and a prefix are listed in memory; the rows of a Parquet manifest and the names of tar files are drawn as needed.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from unalike.data.class_names import normalize_class_name
from unalike.data.folders import is_image
from unalike.data.imageset import load_images
from unalike.data.manifests import BOX, COLUMNS, MANIFEST_SUFFIXES, find_file
from unalike.data.notices import Notices
from unalike.data.regions import parse_box, region_name
from unalike.data.tables import read_table
from unalike.data.tar_stream import expand_range, is_tar
from unalike.errors import DataError, missing_extra
from unalike.sanitize import redact
from unalike.source_names import absolute_source_name
from unalike.storage.fetch import local_path
from unalike.storage.filesystems import RemoteFile, RemoteStore, is_hidden, safe_parts, uri_of
from unalike.storage.outside_files import expand_home, reader_errors

FILES, TARS = "images", "tars"
_BATCH_ROWS = 16384
_CELLS = ("path", "label", *BOX)


class Item(NamedTuple):
    """What a worker reads at once: an image file, or a whole tar file.

    ``path`` is absolute or an address, ``label`` empty where there is none, ``mark`` changes with the content as far as a
    listing tells (size, and a store's checksum); empty for a manifest, whose files are not looked at.
    """

    path: str
    label: str
    mark: str


@dataclass(frozen=True)
class ShardSource:
    """A source of images.

    Attributes:
        name: The source for messages, without passwords.
        kind: ``images``: an item is an image; ``tars``: a tar file.
        count: Number of items, where it is known before they are drawn; else 0.
    """

    name: str
    kind: str
    count: int
    _items: Sequence[Item] = ()
    _manifest: str = ""
    _labeled: bool = False

    def items(self) -> Iterator[Item]:
        """The items, in the same order each time."""
        return iter(self._items) if not self._manifest else _manifest_items(self._manifest, self._labeled)


def open_source(source: str, *, labeled: bool, notices: Notices) -> ShardSource:
    """List a source: a folder, a prefix such as ``s3://bucket/photographs``, a manifest, or tar files.

    Tar files are one, a pattern such as ``part-{000..127}.tar``, or a folder or prefix that holds tars and no images.

    Args:
        source: Path or address.
        labeled: Whether each image has a class: its folder, the manifest's column ``label``, or a tar's ``.cls``.
        notices: Receives files that are left out.

    Raises:
        DataError: Nothing usable is there, or an address that holds a password or a signature.
    """
    uri = uri_of(source)
    if redact(uri) != uri:
        raise DataError(f"{redact(uri)}: an address that holds a password or a signature, which the plan of the shards "
                        "would keep", expected="credentials in the environment")  # fmt: skip
    path = uri or os.path.abspath(expand_home(source))
    name = uri or str(source)
    if is_tar(path):
        return _tar_source(name, expand_range(path))
    if os.path.splitext(path)[1].lower() in MANIFEST_SUFFIXES:
        return ShardSource(name, FILES, 0, _manifest=path, _labeled=labeled)
    if uri:
        return _prefix_source(name, uri, labeled, notices)
    tars = _folder_tars(Path(path))
    return _tar_source(name, tars) if tars else _folder_source(name, path, labeled, notices)


def _tar_source(name: str, paths: Sequence[str]) -> ShardSource:
    items = [Item(path, "", _file_mark(path)) for path in paths]
    return ShardSource(name, TARS, len(items), items)


def _file_mark(path: str) -> str:
    """Size of a file, and the checksum or time that its store keeps. Raises DataError where there is no such file."""
    if uri_of(path):
        store = RemoteStore(path)
        with store.explain_errors():
            file = store.file()
        return f"{file.size}:{file.tag}"
    try:
        return str(os.stat(path).st_size)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}", expected="tar files that exist") from error


def _folder_tars(folder: Path) -> list[str]:
    """The tar files of a folder that holds no image and no folder beside them."""
    if not folder.is_dir():
        return []
    names = [name for name in sorted(os.listdir(folder)) if not is_hidden(name)]
    if any(is_image(name) or (folder / name).is_dir() for name in names):
        return []
    return [str(folder / name) for name in names if is_tar(name)]


def _folder_source(name: str, path: str, labeled: bool, notices: Notices) -> ShardSource:
    images = load_images(path, labeled=labeled, notices=notices)
    unpacked = next((str(p) for p in images.paths[:1] if absolute_source_name(p) != str(p)), "")
    if unpacked:
        raise DataError(f"{name}: an archive of this kind is not read as a stream",
                        expected="a folder, a prefix, a manifest (.csv, .parquet) or tar files",
                        remedy="unpack it, or pack its files as .tar")  # fmt: skip
    labels = images.label_names() if labeled else [""] * len(images)
    items = [Item(str(p), label, str(_size(p))) for p, label in zip(images.paths, labels, strict=True)]
    return ShardSource(name, FILES, len(items), items)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # it is listed as unreadable when its turn comes
        return -1


def _prefix_source(name: str, uri: str, labeled: bool, notices: Notices) -> ShardSource:
    store = RemoteStore(uri)
    listing = store.listing()
    if isinstance(listing, RemoteFile):
        if not is_image(uri):
            raise DataError(f"{name}: unknown kind of data", expected="a prefix, a manifest, tar files or an image")
        return ShardSource(name, FILES, 1, [Item(uri, "", f"{listing.size}:{listing.tag}")])
    root = uri.rstrip("/")
    files = {}
    for inner, file in sorted(listing.items()):
        if not any(map(is_hidden, safe_parts(inner, f"{root}/{inner}"))):
            files[inner] = file
    images = [inner for inner in files if is_image(inner)]
    if not images:
        tars = [inner for inner in files if is_tar(inner)]
        if not tars:
            raise DataError(f"{name} holds no images", expected="images, or tar files of images")
        items = [Item(f"{root}/{inner}", "", f"{files[inner].size}:{files[inner].tag}") for inner in tars]
        return ShardSource(name, TARS, len(items), items)
    items = []
    for inner in images:
        folder, _, base = inner.rpartition("/")
        if labeled and not folder:
            notices.add("root-image", base)
            continue
        label = normalize_class_name(folder.partition("/")[0]) if labeled else ""
        items.append(Item(f"{root}/{inner}", label, f"{files[inner].size}:{files[inner].tag}"))
    for inner in files:
        if not is_image(inner):
            notices.add("nested-archive" if is_tar(inner) else "stray", inner)
    if not items:
        raise DataError(f"{name} holds no class folders with images", expected="folders below the prefix")
    return ShardSource(name, FILES, len(items), items)


# ---- manifests ----


def _manifest_items(path: str, labeled: bool) -> Iterator[Item]:
    """The rows of a manifest: columns path and, with ``labeled``, label; and boxes where it has them."""
    file = local_path(path)
    batches = _parquet_rows(file) if file.suffix.lower() == ".parquet" else iter([_csv_rows(file)])
    uri = uri_of(path)
    number = 0
    for columns in batches:
        for name in ("path", "label") if labeled else ("path",):
            if name not in columns:
                raise DataError(f"{redact(path)}: no column {name!r}", expected=f"a column {name!r}")
        boxes = zip(*(columns[name] for name in BOX), strict=True) if all(name in columns for name in BOX) else None
        labels = columns["label"] if labeled else [""] * len(columns["path"])
        for cell, label in zip(columns["path"], labels, strict=True):
            number += 1
            where = f"{redact(path)}: row {number}"
            if not cell or (labeled and not label):
                raise DataError(f"{where}: an empty cell", expected="a path and, with --labeled, a label in every row")
            image = _absolute(cell, file.parent, uri, where)
            if boxes is not None:
                image = _region(image, next(boxes), where)
            yield Item(image, normalize_class_name(label) if labeled else "", "")


def _absolute(cell: str, folder: Path, uri: str, where: str) -> str:
    """The path or address that a cell of a manifest names; relative ones are relative to the manifest."""
    address = uri_of(cell)
    if address:
        if redact(address) != address:
            raise DataError(f"{where}: {redact(address)} holds a password or a signature, which the plan would keep",
                            expected="addresses without, and credentials in the environment")  # fmt: skip
        return address
    if uri and not os.path.isabs(cell):
        scheme, _, rest = posixpath.dirname(uri).partition("://")
        inner = posixpath.normpath(posixpath.join(rest, cell.replace("\\", "/")))
        if inner.split("/")[0] != rest.split("/")[0]:
            raise DataError(f"{where}: {cell!r} is outside of {scheme}://{rest.split('/')[0]}")
        return f"{scheme}://{inner}"
    return os.path.abspath(find_file(folder, cell))


def _region(path: str, cells: tuple[str, str, str, str], where: str) -> str:
    try:
        box = parse_box(cells)
    except ValueError as error:
        raise DataError(
            f"{where}, box {', '.join(cells)}: {error}", expected="x, y, width, height in pixels"
        ) from error
    return path if box is None else f"{path}#{','.join(map(str, box))}" if uri_of(path) else str(region_name(path, box))


def _csv_rows(file: Path) -> dict[str, list[str]]:
    return dict(read_table(file, [COLUMNS[name] for name in _CELLS], path_columns=["path"]).columns)


def _parquet_rows(file: Path) -> Iterator[dict[str, list[str]]]:
    """The columns of a Parquet file as texts, some thousand rows at a time, whatever its size."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", "reading .parquet") from error
    fault = f"{file}: damaged, or no Parquet file"
    with reader_errors(fault, expected="a table with a column path"), pq.ParquetFile(file) as table:
        names = [name for name in _CELLS if name in table.schema_arrow.names]
        for batch in table.iter_batches(_BATCH_ROWS, columns=names):
            yield {
                name: ["" if value is None else str(value) for value in batch.column(name).to_pylist()]
                for name in names
            }
