"""Reading of tables that others wrote: CSV and Parquet as columns of texts, in any encoding that a spreadsheet saves.

Limits: ``MAX_TABLE_BYTES`` a file, ``MAX_ROWS`` rows, ``MAX_COLUMNS`` columns, ``MAX_LINE`` characters a line.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from unalike.data.class_names import plain_name
from unalike.errors import DataError, missing_extra
from unalike.progress import say
from unalike.sanitize import from_csv_cell
from unalike.storage.outside_files import read_bytes, reader_errors, require_file, shorten

MAX_TABLE_BYTES = 1 << 30
MAX_TEXT_BYTES = 4 << 30  # of the cells that are kept: Parquet stores a value that repeats once
MAX_ROWS = 20_000_000
MAX_COLUMNS = 10_000
MAX_LINE = 1 << 20
MAX_LINES_A_ROW = 10_000
_BATCH_ROWS = 4096
# What spreadsheets write in place of UTF-8, each system and language its own. Bytes alone do not tell which: one is taken
# only where a path of the table, so read, names a file.
_LEGACY_ENCODINGS = (
    "cp1252", "mac_roman", "cp850", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "cp949", "big5",
)  # fmt: skip
_UTF8_REMEDY = "save it as 'CSV UTF-8', or convert it: iconv -f WINDOWS-1252 -t UTF-8"
# Beginnings of files, in lower case, that people take for tables -> what they are, what to do with them.
_OTHER_FILES = {
    b"pk\x03\x04": ("a workbook of Excel (or another ZIP archive)", "open it and save it as 'CSV UTF-8'"),
    b"\xd0\xcf\x11\xe0": ("a workbook of an older Excel", "open it and save it as 'CSV UTF-8'"),
    b"sqliteformat3": ("a database of SQLite", "export its table as CSV"),
    **dict.fromkeys((b"\x89png", b"\xff\xd8\xff", b"gif8"), ("a picture", "give it the suffix of its format")),
    b"versionhttps://git-lfs": ("a pointer of Git LFS without the file's content", "fetch it: git lfs pull"),
    **dict.fromkeys((b"<?xml", b"<!--"), ("XML or HTML", "write it as CSV, one row an image, such as path,label")),
    b"{\\rtf": ("a document in RTF", "save its table as 'CSV UTF-8'"),
    b"par1": ("a Parquet file", "give its name the suffix .parquet"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it first: gunzip"),
    b"%pdf": ("a PDF document", "export its table as CSV"),
    **dict.fromkeys((b"<html", b"<!doctypehtml", b"<table"), ("a page in HTML", "download the table itself, not the page that shows it")),
    **dict.fromkeys((b'{"', b"[{", b"[[", b"{}", b"[]"), ("JSON", "write it as CSV, one row an image, such as path,label")),
}  # fmt: skip
_TEXT_FORMULA = re.compile(r'="((?:[^"]|"")*)"')  # which spreadsheets write so that 007 stays a text
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # which Excel writes and understands


@dataclass(frozen=True)
class Table:
    """Columns of texts of equal length.

    Attributes:
        names: Names of all columns of the file.
        columns: Cells of those columns that were asked for, by the names that were asked for, without blanks around them.
    """

    names: tuple[str, ...]
    columns: Mapping[str, list[str]]


ColumnNames = Sequence[str] | Callable[[Sequence[str]], Sequence[str]]


def read_table(path: Path, columns: ColumnNames, *, path_columns: Sequence[str] = ()) -> Table:
    """Read some columns of a table.

    Args:
        path: A local file; ``.parquet`` is Parquet, anything else CSV, separated by comma, semicolon, tab or ``|``.
        columns: Names of the columns to read, or a function that chooses them by the names of all; those that the file lacks
            are left out. Where no column has exactly a name, the one that differs only in case, blanks or invisible
            characters is it.
        path_columns: Columns that hold paths relative to the table's folder, by which the encoding of a CSV that is not
            UTF-8 is recognized.

    Raises:
        DataError: A file that is damaged, too large, or in an unknown encoding; a row of another length than the header.
        MissingExtra: Parquet without pyarrow.
    """
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, columns)
    with reader_errors(f"{path}: cannot be read as CSV", expected="a table in UTF-8 with a header line"):
        return _read_csv(path, columns, path_columns)


# ---- CSV ----


def _read_csv(path: Path, names_to_read: ColumnNames, path_columns: Sequence[str]) -> Table:
    content = read_bytes(path, MAX_TABLE_BYTES)
    _refuse_other_files(path, content[:64])
    text, is_utf8 = _decode(path, content)
    separator = _SEPARATOR_LINE.match(text)
    start = separator.end() if separator else 0
    delimiter = separator[1] if separator else max(",\t;|", key=text[: text.find("\n") % (len(text) + 1)].count)
    lines = _Lines(path, text[start:] if start else text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = [from_csv_cell(name).strip() for name in next(reader, [])]
    if not any(header):
        raise DataError(f"{path}: empty", expected="a header line with column names")
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{path}: {len(header)} columns", expected=f"at most {MAX_COLUMNS}")
    indices = _find_columns(path, header, names_to_read)
    columns: dict[str, list[str]] = {name: [] for name in indices}
    for number, row in enumerate(_filled_rows(reader, lines), 1):
        if len(row) > len(header) and not any(cell.strip() for cell in row[len(header) :]):
            row = row[: len(header)]  # a separator behind the last column
        if len(row) != len(header):
            raise DataError(
                f"{path}: row {number} has {len(row)} fields",
                expected=f"{len(header)} ({shorten(', '.join(header))})",
                remedy="put fields that hold the separator in quotes"
                if indices
                else "the first line must hold the names of the columns: remove what stands above it",
            )
        if number > MAX_ROWS:
            raise DataError(f"{path}: more than {MAX_ROWS} rows", expected="several tables of fewer rows")
        for name, index in indices.items():
            columns[name].append(_plain_cell(row[index]))
    if not is_utf8:
        columns = _with_encoding(path, columns, path_columns)
    return Table(tuple(header), columns)


def _refuse_other_files(path: Path, head: bytes) -> None:
    """Raise DataError for a file of another program under the name of a table."""
    for beginning, (kind, remedy) in _OTHER_FILES.items():
        if b"".join(head.lower().split()).startswith(beginning):
            raise DataError(f"{path} is {kind}, whatever its name", expected="a table as CSV or Parquet", remedy=remedy)


def _find_columns(path: Path, header: Sequence[str], names_to_read: ColumnNames) -> dict[str, int]:
    """The index of each column to read that the table has, by the name that was asked for."""
    by_plain_name: dict[str, list[int]] = {}
    for index, name in enumerate(header):
        by_plain_name.setdefault(plain_name(name), []).append(index)
    indices = {}
    for name in names_to_read(header) if callable(names_to_read) else names_to_read:
        exact = [index for index, other in enumerate(header) if other == name]
        places = exact or by_plain_name.get(plain_name(name), [])
        if len(places) > 1:
            others = dict.fromkeys(header[index] for index in places)
            raise DataError(
                f"{path}: column {name} occurs twice" + ("" if exact else f", as {' and '.join(map(repr, others))}"),
                expected="one column of each name", remedy="rename or remove one of them",
            )  # fmt: skip
        if places:
            indices[name] = places[0]
    return indices


def _plain_cell(text: str) -> str:
    """A cell as its author sees it: without blanks around it, of a formula that holds a text (``="007"``) the text."""
    formula = _TEXT_FORMULA.fullmatch(text.strip())
    return formula[1].replace('""', '"').strip() if formula else from_csv_cell(text).strip()


def _filled_rows(reader: Iterable[list[str]], lines: _Lines) -> Iterator[list[str]]:
    """Rows with a cell that is not empty: spreadsheets leave rows of separators behind their last one."""
    for row in reader:
        lines.start_row()
        if any(cell.strip() for cell in row):
            yield row


class _Lines:
    """The lines of a text, refused where one line, or one quoted cell over many lines, is too long."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text, self._in_row = path, io.StringIO(text, newline=""), 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE + 1)
        self._in_row += 1
        if len(line) > MAX_LINE or self._in_row > MAX_LINES_A_ROW:
            raise DataError(
                f"{self._path}: a row of more than {MAX_LINE} characters or {MAX_LINES_A_ROW} lines",
                expected="one short row an image",
                remedy="is a quotation mark missing?",
            )
        if not line:
            raise StopIteration
        return line

    def start_row(self) -> None:
        """Begin to count the lines of the next row."""
        self._in_row = 0


def _decode(path: Path, content: bytes) -> tuple[str, bool]:
    """The text of a table, and whether it is Unicode; if not, bytes beyond ASCII are kept as surrogates."""
    head = content[:4096]
    encoding = ""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in head:  # no text in UTF-8 holds NUL; of ASCII in UTF-16 every second byte is
        encoding = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    try:
        text = content.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        if not encoding:
            return content.decode("utf-8-sig", "surrogateescape"), False
        raise DataError(f"{path}: holds NUL bytes and is not {encoding.upper()[:6]} either", expected="a table in UTF-8",
                        remedy=_UTF8_REMEDY) from error  # fmt: skip
    text = text.removesuffix("\x1a")  # the end of a file in DOS
    if "\0" in text:
        raise DataError(f"{path}: holds NUL characters", expected="a table in UTF-8", remedy=_UTF8_REMEDY)
    return text, True


def _with_encoding(path: Path, columns: dict[str, list[str]], path_columns: Sequence[str]) -> dict[str, list[str]]:
    """The cells of a table that is not UTF-8, in the encoding by which its paths name files.

    Raises:
        DataError: No encoding does.
    """
    odd = [(name, row, cell) for name, cells in columns.items() for row, cell in enumerate(cells, 1) if _is_bytes(cell)]
    if not odd:
        return columns  # in other columns alone
    paths = [cell for name, _, cell in odd if name in path_columns][:100]
    if any(os.path.exists(path.parent / cell.replace("\\", "/")) for cell in paths):
        return columns  # names of files that are no Unicode themselves
    for encoding in _LEGACY_ENCODINGS:
        decoded = [_in_encoding(cell, encoding) for cell in paths]
        if any(cell is not None and os.path.exists(path.parent / cell.replace("\\", "/")) for cell in decoded):
            say(f"{path} is not UTF-8: read as {encoding}, by which its paths name files")
            with reader_errors(f"{path}: not all of it is {encoding}", remedy=_UTF8_REMEDY):
                return {name: [_strictly(cell, encoding) for cell in cells] for name, cells in columns.items()}
    name, row, cell = odd[0]
    raise DataError(
        f"{path}: column {name!r}, row {row}: {cell!r} is not UTF-8",
        expected="a table in UTF-8; its encoding cannot be detected",
        remedy=_UTF8_REMEDY,
    )


def _is_bytes(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell)


def _strictly(cell: str, encoding: str) -> str:
    return cell if cell.isascii() else cell.encode("utf-8", "surrogateescape").decode(encoding)


def _in_encoding(cell: str, encoding: str) -> str | None:
    try:
        return _strictly(cell, encoding)
    except UnicodeError:
        return None


# ---- Parquet ----


def _read_parquet(path: Path, names_to_read: ColumnNames) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", f"reading {path}") from error
    require_file(path)
    with reader_errors(f"{path}: cannot be read as Parquet"), pyarrow.parquet.ParquetFile(path) as file:
        names = tuple(file.schema_arrow.names)
        if file.metadata.num_rows > MAX_ROWS or len(names) > MAX_COLUMNS:
            raise DataError(f"{path}: {file.metadata.num_rows} rows of {len(names)} columns",
                            expected=f"at most {MAX_ROWS} and {MAX_COLUMNS}")  # fmt: skip
        indices = _find_columns(path, names, names_to_read)
        columns: dict[str, list[str]] = {name: [] for name in indices}
        own_names = {name: names[index] for name, index in indices.items()}
        size = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(own_names.values())), use_threads=False):
            size += batch.nbytes
            if size > MAX_TEXT_BYTES:
                raise DataError(f"{path}: more than {MAX_TEXT_BYTES >> 30} GiB of text", expected="one path a row")
            for name, own_name in own_names.items():
                columns[name] += [_to_text(path, name, value) for value in batch.column(own_name).to_pylist()]
    return Table(names, columns)


def _to_text(path: Path, column: str, value: Any) -> str:
    """A cell as text: a number that is whole without a fraction (pandas makes 1.0 of 1), a missing one empty."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape").strip()
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return ""
        if math.isfinite(value) and value == int(value):
            return str(int(value))
    if isinstance(value, list | dict | tuple):
        raise DataError(f"{path}: column {column!r} holds lists", expected="one text or number a row")
    return str(value).strip()
