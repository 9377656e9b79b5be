"""Reading and writing of manifests: CSV and Parquet tables with columns path, label, split, group, and boxes of objects."""

from __future__ import annotations

import difflib
import os
import posixpath
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unalike.data.archives import split_member, unpack_source
from unalike.data.box_columns import BoxColumns, find_box_columns, find_partial_box
from unalike.data.class_names import check_class_name, plain_name
from unalike.data.decode import IMAGE_SUFFIXES
from unalike.data.notices import Notices
from unalike.data.regions import image_file, parse_box, region_name
from unalike.data.tables import Table, read_table
from unalike.data.tar_members import open_tar
from unalike.data.tar_sets import is_read_in_place
from unalike.errors import DataError, closest
from unalike.sanitize import redact
from unalike.source_names import absolute_source_name, register_shard
from unalike.storage.csv_file import write_csv
from unalike.storage.fetch import fetch_files, local_path, uri_of
from unalike.storage.filesystems import split_address
from unalike.storage.outside_files import expand_home, shorten

MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")
COLUMNS = {name: name for name in ("path", "label", "split", "group", "x", "y", "width", "height")}
BOX = ("x", "y", "width", "height")
MAX_ROWS_NAMED = 3
SPREADSHEET_ERRORS = ("#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#NV", "#BEZUG!", "#WERT!")
# Names that other tools give to columns, as ``plain_name`` makes them; named in a remedy, never taken by themselves.
_OTHER_NAMES = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "imagepath", "img", "img_path",
             "image_name", "image_file", "image_id", "uri", "url"),
    "label": ("class", "class_name", "classname", "category", "category_name", "target", "labels", "label_name",
              "species", "name", "y"),
    "split": ("subset", "set", "fold", "partition"),
    "group": ("groups", "series", "scene", "part"),
}  # fmt: skip
# Values of the split column that this program looks for, in whatever case a table has them.
SPLITS = ("train", "val", "valid", "validation", "test", "query", "reference")


@dataclass(frozen=True)
class ManifestRows:
    """The columns of a manifest, one entry a row; ``splits`` and ``groups`` are None where the manifest has none.

    ``cells`` are those of further columns that were asked for.

    Paths are local: joined with the manifest's folder where they were relative, fetched where they were URIs. Rows with a box
    give the region of an image (``data.regions``); without a group column, regions of one image share a group.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    cells: tuple[tuple[str, ...], ...] | None = None


def read_manifest(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    labeled: bool = True,
    uri: str = "",
    cache_dir: Path | None = None,
    notices: Notices | None = None,
    further: Sequence[str] = (),
    in_place: bool = False,
) -> ManifestRows:
    """Read a manifest.

    Args:
        path: A local file. Relative paths in it are relative to its folder.
        columns: Column names by the keys of ``COLUMNS``. Columns that are named here must exist. None: the caller has no
            setting for them, so that no remedy may name one.
        labeled: Whether every row needs a label. A path is always needed.
        uri: Where the manifest was fetched from; relative paths are then relative to that and are fetched.
        cache_dir: Where fetched files are kept.
        notices: Receives columns of boxes that are read by other names, or not at all.
        further: Names of further columns, which must exist.
        in_place: Whether tar files that are not compressed are read where they are; else they are unpacked.

    Raises:
        DataError: A missing column, an empty cell, no rows; rows are counted from 1 below the header.
        MissingExtra: Parquet without pyarrow.
    """
    names = _column_names(columns)
    boxes: list[BoxColumns] = []

    def choose(header: Sequence[str]) -> list[str]:
        boxes.extend(_box_columns(path, names, header, notices))
        return [
            *(names[key] for key in COLUMNS if key not in BOX),
            *(name for box in boxes for name in box.names),
            *further,
        ]

    table = read_table(path, choose, path_columns=() if uri else (names["path"],))
    _check_columns(path, table, names, further, labeled=labeled, has_setting=columns is not None)
    cells = table.columns[names["path"]]
    if not cells:
        raise DataError(f"{path}: no rows", expected="one row an image, or one an object with the columns "
                        + ", ".join(BOX))  # fmt: skip
    paths = _local_paths(path, cells, uri, cache_dir, in_place)
    splits, groups = table.columns.get(names["split"]), table.columns.get(names["group"])
    if splits is not None:
        splits = [plain_split(name) for name in splits]
    if boxes:
        regions = _regions(path, paths, table, boxes[0])
        if groups is None and regions != paths:
            groups = [str(file) for file in paths]  # objects of one image belong together
        paths = regions
    return ManifestRows(
        paths,
        tuple(table.columns.get(names["label"], [""] * len(paths))),
        None if splits is None else tuple(splits),
        None if groups is None else tuple(groups),
        tuple(zip(*(table.columns[name] for name in further), strict=True)) if further else None,
    )


def _check_columns(
    path: Path, table: Table, names: Mapping[str, str], further: Sequence[str], *, labeled: bool, has_setting: bool
) -> None:
    """Raise DataError for a column that is missing, an empty cell of a path or a label, and a label that no class can have."""
    required = ["path", *(["label"] if labeled else [])]
    own_box = any(names[key] != key for key in BOX)  # then all four must exist
    required += [key for key in COLUMNS if key not in required and (names[key] != key or own_box and key in BOX)]
    for key in required:
        if names[key] not in table.columns:
            raise DataError(
                f"{path}: no column {names[key]!r} among {shorten(', '.join(table.names)) or 'none'}",
                expected=f"a column {names[key]!r}",
                remedy=_column_remedy(key, names[key], table.names, has_setting=has_setting),
            )
        if key in ("path", "label"):
            _refuse_empty_cells(path, names[key], table.columns[names[key]])
        if key == "label":
            _check_labels(path, names[key], table.columns[names[key]])
    for name in further:
        if name not in table.columns:
            raise DataError(f"{path}: no column {name!r} among {shorten(', '.join(table.names)) or 'none'}",
                            expected=f"a column {name!r}", remedy=closest(name, table.names))  # fmt: skip


def select_distinct_rows(rows: ManifestRows, notices: Notices) -> ManifestRows:
    """Take each of several equal rows once, and name images that have more than one label or split.

    Both rows of an image with two labels stay, as a copy of it in two class folders does: which is wrong cannot be told.
    """
    every_column = (rows.paths, rows.labels, rows.splits, rows.groups, rows.cells)
    columns: list[tuple[object, ...]] = [column for column in every_column if column is not None]
    first_rows: dict[tuple[object, ...], int] = {}
    for index, row in enumerate(zip(*columns, strict=True)):
        if first_rows.setdefault(row, index) != index:
            notices.add("repeated-row", rows.paths[index])
    for kind, values in (
        ("several-labels", rows.labels), ("several-splits", rows.splits or ()), ("several-groups", rows.groups or ()),
    ):  # fmt: skip
        by_path: dict[Path, dict[str, None]] = {}
        for image, value in zip(rows.paths, values, strict=False):
            by_path.setdefault(image, {})[value] = None
        for image, names in by_path.items():
            if len(names) > 1:
                notices.add(kind, image, " and ".join(map(repr, names)))
    if len(first_rows) == len(rows.paths):
        return rows
    indices = list(first_rows.values())
    return ManifestRows(
        tuple(rows.paths[i] for i in indices),
        tuple(rows.labels[i] for i in indices),
        None if rows.splits is None else tuple(rows.splits[i] for i in indices),
        None if rows.groups is None else tuple(rows.groups[i] for i in indices),
        None if rows.cells is None else tuple(rows.cells[i] for i in indices),
    )


def plain_split(name: str) -> str:
    """The name of a split in lower case, where it is one of ``SPLITS``; any other as it is."""
    return name.casefold() if name.casefold() in SPLITS else name


def _box_columns(
    path: Path, names: Mapping[str, str], header: Sequence[str], notices: Notices | None
) -> list[BoxColumns]:
    """The columns of boxes, or none; those that are named otherwise than ``BOX``, or are incomplete, go to ``notices``."""
    own = (names["x"], names["y"], names["width"], names["height"])
    others = {plain_name(names[key]) for key in COLUMNS if key not in BOX}  # such as a label in a column y
    header = [name for name in header if plain_name(name) not in others]
    if own != BOX or {plain_name(name) for name in BOX} <= {plain_name(name) for name in header}:
        return [BoxColumns(own)]  # the user's own must exist
    columns = find_box_columns(header)
    if columns is not None:
        if notices is not None:
            notices.add("box-columns", path, f"{', '.join(columns.names)}; rename them if they are no boxes in pixels")
        return [columns]
    partial = find_partial_box(header)
    if partial and notices is not None:
        notices.add("partial-box", path, f"{shorten(', '.join(partial))}; expected {', '.join(BOX)}, or xmin, ymin, xmax, ymax, "
                    "in pixels")  # fmt: skip
    return []


def _regions(path: Path, paths: tuple[Path, ...], table: Table, columns: BoxColumns) -> tuple[Path, ...]:
    """The regions of images that the box columns name; the images themselves in rows without a box."""
    regions = []
    boxes = zip(*(table.columns[name] for name in columns.names), strict=True)
    for number, (file, cells) in enumerate(zip(paths, boxes, strict=True), 1):
        try:
            box = parse_box(cells, columns.to_sizes)
        except ValueError as error:
            raise DataError(
                f"{path}: row {number}, box {shorten(', '.join(cells))}: {error}",
                expected=f"{', '.join(columns.names)} in pixels of the upright image, or four empty cells for all of it",
            ) from error
        regions.append(file if box is None else region_name(file, box))
    return tuple(regions)


def _column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    unknown = sorted(set(columns or {}) - set(COLUMNS))
    if unknown:
        raise DataError(f"manifest_columns {', '.join(unknown)}", expected=", ".join(COLUMNS))
    return {**COLUMNS, **(columns or {})}


def _column_remedy(key: str, name: str, names: Sequence[str], *, has_setting: bool) -> str:
    """What to do where a table has no column of a name.

    Args:
        key: The key of ``COLUMNS``.
        name: The name that was looked for.
        names: The columns of the table.
        has_setting: Whether the caller takes ``dataset.manifest_columns``.
    """
    if any(os.path.splitext(image_file(name))[1].lower() in IMAGE_SUFFIXES for name in names):  # the header is a row
        return "its first line names an image: write a line of column names above it, such as path,label"
    if len(names) == 1 and key in names[0].lower():
        return (
            "separate the columns by comma, semicolon, tab or |, or write the separator in a first line such as sep=;"
        )
    if name != key:  # the user's own name
        return closest(name, names) or f"name one of its columns in dataset.manifest_columns.{key}"
    near = [
        other for word in _OTHER_NAMES.get(key, ()) for other in names if plain_name(other).replace(" ", "_") == word
    ]
    near = near or difflib.get_close_matches(name, names, n=1)
    if has_setting:
        return f"say which column it is: dataset.manifest_columns.{key}={near[0] if near else 'NAME'}"
    return f"rename the column {near[0]!r} to {key!r}" if near else f"rename the column that holds it to {key!r}"


def _refuse_empty_cells(path: Path, column: str, values: Sequence[str]) -> None:
    empty = [number for number, value in enumerate(values, 1) if not value]
    if empty:
        first = ", ".join(str(number) for number in empty[:MAX_ROWS_NAMED])
        raise DataError(
            f"{path}: column {column!r} is empty in {len(empty)} row{'s' if len(empty) > 1 else ''}, first {first}",
            expected="a value in every row",
        )


def _check_labels(path: Path, column: str, labels: Sequence[str]) -> None:
    """Raise DataError for the first row whose label shows nothing."""
    for label in dict.fromkeys(labels):
        try:
            if label in SPREADSHEET_ERRORS:
                raise DataError(f"{label}, the error of a formula in a spreadsheet", expected="the name of a class")
            check_class_name(label)
        except DataError as error:
            raise DataError(f"{path}: column {column!r}, row {labels.index(label) + 1}: {error.found}", expected=error.expected,
                            remedy="correct that label") from error  # fmt: skip


def _local_paths(
    path: Path, values: Sequence[str], uri: str, cache_dir: Path | None, in_place: bool
) -> tuple[Path, ...]:
    """The local path of each row's file; remote files are fetched together, archives of ``archive!member`` unpacked.

    With ``in_place`` tar files that are not compressed are read where they are.
    """
    base = split_address(uri)
    addresses, members = [], []
    for number, value in enumerate(values, 1):
        address = uri_of(value)
        with _row_named(path, number):
            expand_home(value)
        if not address and uri and not expand_home(value).is_absolute():
            value = value.replace("\\", "/")
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(base.path).lstrip("/"), value))
            if inner.startswith(".."):
                raise DataError(f"{redact(uri)}: row {number}, {value!r}, is outside {base.scheme}://{base.netloc}")
            address = f"{base.scheme}://{base.netloc}/{inner}"
        members.append(split_member(address or value))
        addresses.append("" if members[-1] else address)
    remote = [address for address in addresses if address]
    local_files = fetch_files(remote, redact(uri) or str(path), cache_dir) if remote else {}
    archives = dict.fromkeys(member[0] for member in members if member)
    folders = {}
    for name in archives:
        archive = local_path(name, cache_dir) if uri_of(name) else find_file(path.parent, name)
        if in_place and is_read_in_place(str(archive)):
            open_tar(archive, cache_dir)
            if uri_of(name):
                register_shard(str(archive), redact(name))
            folders[name] = f"{archive}!"
        else:
            folders[name] = os.path.join(
                unpack_source(name if uri_of(name) else archive, cache_dir, local_file=archive), ""
            )
    return tuple(
        Path(folders[member[0]] + member[1])
        if member
        else local_files[address]
        if address
        else find_file(path.parent, value)
        for address, member, value in zip(addresses, members, values, strict=True)
    )


@contextmanager
def _row_named(path: Path, number: int) -> Iterator[None]:
    """While inside, let an error of an address name its row."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: row {number}: {error.found}", expected=error.expected, remedy=error.remedy) from error


def find_file(folder: Path, value: str) -> Path:
    """Find the file that a cell names: as it is written, or where there is no such file, as another system wrote it.

    Windows separates folders by backslashes; macOS writes names in Unicode's decomposed form.
    """
    path = folder / expand_home(value)
    if (value.isascii() and "\\" not in value) or os.path.exists(image_file(path)):
        return path
    slashes = value.replace("\\", "/")
    others = [slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD"))]
    return next((folder / other for other in others if os.path.exists(image_file(folder / other))), path)


def write_manifest_rows(
    path: Path, rows: Sequence[tuple[Path, str, str, str]], *, with_groups: bool, by_source: bool = True
) -> Path:
    """Write a manifest as CSV, atomically.

    Args:
        path: The file to write. Images below its folder are written relative to it, so that the folder can be moved;
            others as absolute paths.
        rows: (path, label, split, group).
        with_groups: Whether there is a group column.
        by_source: Name files in the cache by their source, for the user; a file that this program reads again names the files.

    Returns:
        ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.absolute()

    def written_name(file: Path) -> str:
        if by_source and "://" in (name := absolute_source_name(file)):
            return name
        file = Path(name) if by_source else file.absolute()
        return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()

    lines = ((written_name(file), *rest[: 3 if with_groups else 2]) for file, *rest in rows)
    return write_csv(path, lines, list(COLUMNS)[: 4 if with_groups else 3])
