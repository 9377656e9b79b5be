"""Tables of images: CSV (also tab or semicolon) and Parquet with columns path, label, split, group."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from unalike.errors import DataError, closest, missing_extra, redact
from unalike.storage.atomic import replacing
from unalike.storage.fetch import fetch_files, uri_of

MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")
COLUMNS = {"path": "path", "label": "label", "split": "split", "group": "group"}
SHOWN_ROWS = 3


@dataclass(frozen=True)
class Rows:
    """A manifest's columns, one entry a row; absolute or manifest-relative paths already joined."""

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
) -> Rows:
    """Read a manifest; relative paths are relative to its folder, in the store where ``uri`` says that it came from one.

    Rows may be URIs: those files are fetched.

    ``path`` is needed in every row, ``label`` too when ``labeled``; ``split`` and ``group`` may be absent, unless
    ``columns`` names them otherwise than by default. Raises ``DataError`` that names row (the first below the header
    is 1) and column; ``MissingExtra`` for Parquet without pyarrow.
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
            _refuse_gaps(path, names[key], table[names[key]])
    paths = table[names["path"]]
    if not paths:
        raise DataError(f"{path}: no rows", expected="one row an image")
    labels = table.get(names["label"], [""] * len(paths))
    splits, groups = table.get(names["split"]), table.get(names["group"])
    return Rows(
        _local(path, paths, uri, cache_dir),
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
            lines = list(csv.reader(file, delimiter=delimiter, strict=True))
    except (OSError, csv.Error) as fault:
        raise DataError(f"{path}: cannot be read as CSV ({fault})") from fault
    if not lines:
        raise DataError(f"{path}: empty", expected="a header line with path and label")
    header = [name.strip() for name in lines[0]]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: column {', '.join(repeated)} stands there twice")
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
    except ImportError as fault:
        raise missing_extra("pyarrow", "parquet", f"reading {path}") from fault
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as fault:
        raise DataError(f"{path}: cannot be read as Parquet ({str(fault).splitlines()[0]})") from fault
    return {name: [_text(value) for value in table.column(name).to_pylist()] for name in table.column_names}


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _refuse_gaps(path: Path, column: str, values: Sequence[str]) -> None:
    gaps = [number for number, value in enumerate(values, 1) if not value]
    if gaps:
        first = ", ".join(str(number) for number in gaps[:SHOWN_ROWS])
        raise DataError(
            f"{path}: column {column!r} is empty in {len(gaps)} row{'s' if len(gaps) > 1 else ''}, first {first}",
            expected="a value in every row",
        )


def _local(path: Path, values: Sequence[str], uri: str, cache_dir: Path | None) -> tuple[Path, ...]:
    """Each row's file on this machine; remote ones are fetched together."""
    base = urlsplit(uri)
    addresses = []
    for number, value in enumerate(values, 1):
        address = uri_of(value)
        if not address and uri and not Path(value).expanduser().is_absolute():
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(base.path).lstrip("/"), value))
            if inner.startswith(".."):
                raise DataError(f"{redact(uri)}: row {number}, {value!r}, lies outside {base.scheme}://{base.netloc}")
            address = f"{base.scheme}://{base.netloc}/{inner}"
        addresses.append(address)
    wanted = [address for address in addresses if address]
    found = fetch_files(wanted, redact(uri) or str(path), cache_dir) if wanted else {}
    return tuple(
        found[address] if address else path.parent / Path(value).expanduser()
        for address, value in zip(addresses, values, strict=True)
    )


def write_manifest_rows(path: Path, rows: Sequence[tuple[Path, str, str, str]], *, with_groups: bool) -> Path:
    """Write (path, label, split, group) rows as CSV, complete or not at all; returns the path.

    Files below the manifest's folder are written relative to it, so that the folder can be moved; others absolute.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.absolute()
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out,
    ):
        writer = csv.writer(out)
        writer.writerow(list(COLUMNS)[: 4 if with_groups else 3])
        for file, *rest in rows:
            file = file.absolute()
            shown = file.relative_to(folder) if file.is_relative_to(folder) else file
            writer.writerow((shown.as_posix(), *rest[: 3 if with_groups else 2]))
    return path
