"""Tables are read as spreadsheets save them, in bounded time and memory, or refused with a reason."""

from __future__ import annotations

import time
import tracemalloc
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.mutations import mutated
from unalike.data import tables
from unalike.data.tables import read_table
from unalike.errors import DataError

ROWS = (("Möhre/0.png", "Möhre"), ("Möhre/1.png", "Möhre"), ("k/0.png", "k"))
COLUMNS = ("path", "label")


def table_text(delimiter: str = ",", end: str = "\n", rows: tuple[tuple[str, str], ...] = ROWS) -> str:
    return end.join(delimiter.join(row) for row in (COLUMNS, *rows)) + end


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, _ in ROWS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


def read(path: Path) -> list[tuple[str, str]]:
    columns = read_table(path, COLUMNS, path_columns=("path",)).columns
    return list(zip(columns["path"], columns["label"], strict=True))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp850", "mac_roman"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_save(folder: Path, encoding: str, delimiter: str) -> None:
    (folder / "t.csv").write_bytes(table_text(delimiter, "\r\n").encode(encoding))
    assert read(folder / "t.csv") == list(ROWS)


@pytest.mark.parametrize(
    ("encoding", "name"), [("cp1251", "Морковь"), ("cp932", "にんじん"), ("gb18030", "胡萝卜"), ("cp949", "당근")]
)
def test_encodings_of_other_languages_are_told_by_the_files(tmp_path: Path, encoding: str, name: str) -> None:
    (tmp_path / f"{name}.png").touch()
    (tmp_path / "t.csv").write_bytes(table_text(rows=((f"{name}.png", name),)).encode(encoding))
    assert read(tmp_path / "t.csv") == [(f"{name}.png", name)]


def test_an_encoding_that_no_file_tells_is_refused(folder: Path) -> None:
    (folder / "t.csv").write_bytes(table_text(rows=(("k/0.png", "Möhre"),)).encode("cp1252"))
    with pytest.raises(DataError, match="column 'label', row 1: .* is not UTF-8; .*encoding.*CSV UTF-8"):
        read(folder / "t.csv")
    (folder / "t.csv").write_bytes(table_text(rows=(("k/Ü.png", "k"),)).encode("cp1252"))
    with pytest.raises(DataError, match="is not UTF-8"):
        read(folder / "t.csv")


def test_names_of_files_that_are_no_unicode_stay(tmp_path: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system takes no such names")
    (tmp_path / "t.csv").write_bytes(b"path,label\ncaf\xe9.png,k\n")
    assert read(tmp_path / "t.csv") == [(name, "k")]


def test_excels_separator_line_and_empty_rows(folder: Path) -> None:
    (folder / "t.csv").write_text("sep=;\r\npath;label;;\r\nk/0.png;a,b;;\r\n;;;\r\n;;;\r\n")
    assert read(folder / "t.csv") == [("k/0.png", "a,b")]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\n\n", "empty"), (b"path,label\na,b,c\n", "row 1 has 3 fields"), (b"path,label,path\na,b,c", "occurs twice"),
     (b"path,label\n" + b"\x80\x81\xff,k\n", "not UTF-8"), (b"path,label\na\x00b,k\n", "NUL"),
     (b"path,label\n\"a,k\n" + b"x,y\n" * 20_000, "quotation mark"), (b"path,label\n" + b"a" * 200_000 + b",k\n", "field larger"),
     (b"path,label" + b"," * 300_000 + b"\n", "300002 columns"), (b"," * 3_000_000, "a row of more than"),
     (b"\xff\xfe\x00\xd8\x00\xd8", "UTF-16"), (b"path,label\na\"b\"c,\"d\"e\n", "CSV")],
)  # fmt: skip
def test_damaged_tables_are_refused_in_bounded_time(folder: Path, content: bytes, message: str) -> None:
    (folder / "t.csv").write_bytes(content)
    start = time.process_time()
    with pytest.raises(DataError, match=message) as caught:
        read(folder / "t.csv")
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
    assert time.process_time() - start < 2


def test_only_the_columns_that_are_wanted_take_memory(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label" + ",more" * 100 + "\n" + ("p,l" + ",value" * 100 + "\n") * 5000)
    tracemalloc.start()
    table = read_table(tmp_path / "t.csv", COLUMNS)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(table.columns["path"]) == 5000 and used < 2_000_000


def test_too_many_rows_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    (folder / "t.csv").write_text(table_text())
    with pytest.raises(DataError, match="more than 2 rows"):
        read(folder / "t.csv")


# ---- Parquet ----


def write_parquet(file: Path, **columns: list[object]) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), file)
    return file


def test_numbers_of_parquet_are_texts_as_people_write_them(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "t.parquet", whole=[1.0, 2.0, 7.0], part=[1.5, 2.0, float("inf")], missing=[1.0, float("nan"), None],
        exact=[Decimal("1.00"), Decimal("2.50"), None], integer=[1, 2, None], text=[" a ", None, "nan"], raw=[b"caf\xe9", b"a", None],
        truth=[True, False, None],
    )  # fmt: skip
    columns = read_table(
        path, ["whole", "part", "missing", "exact", "integer", "text", "raw", "truth", "nothing"]
    ).columns
    assert columns == {
        "whole": ["1", "2", "7"], "part": ["1.5", "2", "inf"], "missing": ["1", "", ""], "exact": ["1", "2.50", ""],
        "integer": ["1", "2", ""], "text": ["a", "", "nan"], "raw": ["caf\udce9", "a", ""], "truth": ["True", "False", ""],
    }  # fmt: skip


def test_lists_and_too_much_text_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="holds lists"):
        read_table(write_parquet(tmp_path / "l.parquet", path=[["a"], ["b"]]), ["path"])
    repeated = write_parquet(tmp_path / "r.parquet", path=["x" * 1000] * 100_000)
    assert repeated.stat().st_size < 20_000
    monkeypatch.setattr(tables, "MAX_TEXT_BYTES", 10 << 20)
    with pytest.raises(DataError, match="of text"):
        read_table(repeated, ["path"])
    monkeypatch.setattr(tables, "MAX_ROWS", 1000)
    with pytest.raises(DataError, match="100000 rows"):
        read_table(repeated, ["path"])


@pytest.mark.parametrize(
    "seeds", [range(300), pytest.param(range(300, 20_000), marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_fuzzed_tables_are_read_or_refused(folder: Path, seeds: range) -> None:
    texts = [table_text(";", "\r\n").encode(e) for e in ("utf-8", "utf-16", "cp1252")]
    for seed in seeds:
        (folder / "t.csv").write_bytes(mutated(texts[seed % 3], seed))
        try:
            read_table(folder / "t.csv", COLUMNS, path_columns=("path",))
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500, seed


# ---- files of other programs, and what spreadsheets do to texts ----


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04" + b"\0" * 100, "a workbook of Excel .*CSV UTF-8"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an older Excel"),
     (b"PAR1" + b"\0" * 20, "a Parquet file.*suffix"), (b"<!DOCTYPE html>\n<html>", "a page in HTML"),
     (b'[\n  {"path": "a.png"}]', "JSON"), (b"SQLite format 3\0", "SQLite"), (b"\x89PNG\r\n\x1a\n", "a picture"),
     (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"), (b"<?xml version", "XML"), (b"{\\rtf1", "RTF"), (b"\x1f\x8b\x08\0", "gzip")],
)  # fmt: skip
def test_files_of_other_programs_are_named(folder: Path, content: bytes, message: str) -> None:
    (folder / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(folder / "t.csv")


def test_texts_that_a_spreadsheet_keeps_as_formulas(folder: Path) -> None:
    (folder / "t.csv").write_text(
        'path,label\nk/0.png,"=""007"""\nk/0.png,="7"\nk/0.png,"=""a""""b"""\nk/0.png,\'=1\nk/0.png,\'="7"\n'
    )
    assert [label for _, label in read(folder / "t.csv")] == ["007", "7", 'a"b', "=1", '="7"']


def test_pipes_and_the_end_of_a_file_of_dos(folder: Path) -> None:
    (folder / "t.csv").write_bytes(b"path|label\r\nk/0.png|a, b\r\n\x1a")
    assert read(folder / "t.csv") == [("k/0.png", "a, b")]


def test_a_line_above_the_names_of_columns_is_told(folder: Path) -> None:
    (folder / "t.csv").write_text("# exported today\npath,label\nk/0.png,k\n")
    with pytest.raises(DataError, match="the first line must hold the names of the columns"):
        read(folder / "t.csv")


def test_columns_of_parquet_in_any_case(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", Path=["a.png"], LABEL=["k"])
    assert read(path) == [("a.png", "k")]


def test_separators_behind_the_last_column_and_rows_of_blanks(folder: Path) -> None:
    (folder / "t.csv").write_text("path,label\nk/0.png,k,,\n   \n\t\nk/0.png,l\n")
    assert read(folder / "t.csv") == [("k/0.png", "k"), ("k/0.png", "l")]
