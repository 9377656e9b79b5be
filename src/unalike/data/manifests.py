"""Reading and writing of manifests: CSV and Parquet tables with columns path, label, split, group."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from unalike.errors import DataError, closest, missing_extra
from unalike.sanitize import from_csv_cell, redact
from unalike.storage.csv_file import write_csv
from unalike.storage.fetch import fetch_files, uri_of

MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")
COLUMNS = {"path": "path", "label": "label", "split": "split", "group": "group"}
MAX_ROWS_NAMED = 3


@dataclass(frozen=True)
class ManifestRows:
    """The columns of a manifest, one entry a row; ``splits`` and ``groups`` are None where the manifest has none.

    Paths are local: joined with the manifest's folder where they were relative, fetched where they were URIs.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...] | None
    groups: tuple[str, ...] | None


def read_manifest(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    labeled: bool = True,
    uri: str = "",
    cache_dir: Path | None = None,
) -> ManifestRows:
    """Read a manifest.

    Args:
        path: A local file. Relative paths in it are relative to its folder.
        columns: Column names by the keys of ``COLUMNS``. Columns that are named here must exist.
        labeled: Whether every row needs a label. A path is always needed.
        uri: Where the manifest was fetched from; relative paths are then relative to that and are fetched.
        cache_dir: Where fetched files are kept.

    Raises:
        DataError: A missing column, an empty cell, no rows; rows are counted from 1 below the header.
        MissingExtra: Parquet without pyarrow.
    """
    names = _column_names(columns)
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    needed = ["path", *(["label"] if labeled else [])]
    needed += [key for key in ("split", "group") if names[key] != COLUMNS[key]]
    for key in needed:
        if names[key] not in table:
            raise DataError(
                f"{path}: no column {names[key]!r} among {', '.join(table) or 'none'}",
                expected=f"a column {names[key]!r}",
                remedy=closest(names[key], table) or f"name it with dataset.manifest_columns.{key}",
            )
        if key in ("path", "label"):
            _refuse_empty_cells(path, names[key], table[names[key]])
    paths = table[names["path"]]
    if not paths:
        raise DataError(f"{path}: no rows", expected="one row an image")
    labels = table.get(names["label"], [""] * len(paths))
    splits, groups = table.get(names["split"]), table.get(names["group"])
    return ManifestRows(
        _local_paths(path, paths, uri, cache_dir),
        tuple(labels),
        None if splits is None else tuple(splits),
        None if groups is None else tuple(groups),
    )


def _column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    unknown = sorted(set(columns or {}) - set(COLUMNS))
    if unknown:
        raise DataError(f"manifest_columns {', '.join(unknown)}", expected=", ".join(COLUMNS))
    return {**COLUMNS, **(columns or {})}


def _read_csv(path: Path) -> dict[str, list[str]]:
    try:
        # surrogateescape: file names need not be valid UTF-8; utf-8-sig: spreadsheets put a mark in front
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            head = file.readline()
            file.seek(0)
            delimiter = max(",\t;", key=head.count)
            lines = [
                [from_csv_cell(cell) for cell in row] for row in csv.reader(file, delimiter=delimiter, strict=True)
            ]
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    if not lines:
        raise DataError(f"{path}: empty", expected="a header line with path and label")
    header = [name.strip() for name in lines[0]]
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates:
        raise DataError(f"{path}: column {', '.join(duplicates)} occurs twice")
    rows = [line for line in lines[1:] if line]
    for number, line in enumerate(rows, 1):
        if len(line) != len(header):
            raise DataError(
                f"{path}: row {number} has {len(line)} fields",
                expected=f"{len(header)} ({', '.join(header)})",
                remedy="put fields that hold the separator in quotes",
            )
    return {name: [line[i].strip() for line in rows] for i, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[str]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", f"reading {path}") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    return {name: [_text(value) for value in table.column(name).to_pylist()] for name in table.column_names}


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _refuse_empty_cells(path: Path, column: str, values: Sequence[str]) -> None:
    empty = [number for number, value in enumerate(values, 1) if not value]
    if empty:
        first = ", ".join(str(number) for number in empty[:MAX_ROWS_NAMED])
        raise DataError(
            f"{path}: column {column!r} is empty in {len(empty)} row{'s' if len(empty) > 1 else ''}, first {first}",
            expected="a value in every row",
        )


def _local_paths(path: Path, values: Sequence[str], uri: str, cache_dir: Path | None) -> tuple[Path, ...]:
    """The local path of each row's file; remote files are fetched together."""
    base = urlsplit(uri)
    addresses = []
    for number, value in enumerate(values, 1):
        address = uri_of(value)
        if not address and uri and not Path(value).expanduser().is_absolute():
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(base.path).lstrip("/"), value))
            if inner.startswith(".."):
                raise DataError(f"{redact(uri)}: row {number}, {value!r}, is outside {base.scheme}://{base.netloc}")
            address = f"{base.scheme}://{base.netloc}/{inner}"
        addresses.append(address)
    remote = [address for address in addresses if address]
    fetched = fetch_files(remote, redact(uri) or str(path), cache_dir) if remote else {}
    return tuple(
        fetched[address] if address else path.parent / Path(value).expanduser()
        for address, value in zip(addresses, values, strict=True)
    )


def write_manifest_rows(path: Path, rows: Sequence[tuple[Path, str, str, str]], *, with_groups: bool) -> Path:
    """Write a manifest as CSV, atomically.

    Args:
        path: The file to write. Images below its folder are written relative to it, so that the folder can be moved;
            others as absolute paths.
        rows: (path, label, split, group).
        with_groups: Whether there is a group column.

    Returns:
        ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.absolute()

    def written_name(file: Path) -> str:
        file = file.absolute()
        return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()

    lines = ((written_name(file), *rest[: 3 if with_groups else 2]) for file, *rest in rows)
    return write_csv(path, lines, list(COLUMNS)[: 4 if with_groups else 3])
