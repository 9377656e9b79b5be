"""Files from outside are regular, of bounded size, and fail in one line."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from unalike.errors import DataError, SpecError
from unalike.storage import outside_files
from unalike.storage.outside_files import (
    expand_home,
    find_other_case,
    is_file_address,
    open_file,
    path_remedy,
    read_bytes,
    read_settled,
    reader_errors,
    reason,
    require_file,
)


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bytes(tmp_path / "a", 3) == b"abc"
    require_file(tmp_path / "a")
    with pytest.raises(SpecError, match="has 3 bytes; expected at most 2 bytes"):
        read_bytes(tmp_path / "a", 2, error=SpecError)


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device", "nothing", "loop", "nul"])
def test_anything_else_is_refused_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
    elif kind == "device":
        path = os.devnull
    elif kind == "loop":
        os.symlink(path, path)
    elif kind == "nul":
        path = "a\0b"
    for read in (open_file, require_file):
        with pytest.raises(DataError, match="."):
            read(path)


def test_every_exception_of_a_reader_becomes_one_line() -> None:
    for failure in (
        ValueError("a\nb"),
        KeyError("a"),
        OSError(2, "no"),
        RecursionError("x"),
        RuntimeError(),
        EOFError(),
    ):
        with (
            pytest.raises(SpecError, match=r"^a\.x: damaged \([^\n]+\); expected b; c$"),
            reader_errors("a.x: damaged", expected="b", remedy="c", error=SpecError),
        ):
            raise failure
    with pytest.raises(DataError, match="^own$"), reader_errors("a.x", error=SpecError):
        raise DataError("own")
    with pytest.raises(MemoryError), reader_errors("a.x"):
        raise MemoryError
    assert len(reason(ValueError("x" * 5000))) <= 200


def test_a_home_that_nobody_has_stays_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert expand_home("~/a") == Path("/h/a")
    assert expand_home("~nobodyhere/a") == Path("~nobodyhere/a")


def test_addresses_of_files_are_paths(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "c%20d").touch()
    for address in (f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a%20b", f"FILE:{tmp_path}/a b"):
        assert expand_home(address) == tmp_path / "a b" and is_file_address(address)
    assert expand_home(Path(f"file://{tmp_path}/a b/c%20d")) == tmp_path / "a b" / "c%20d"  # a file of that name
    assert not is_file_address("file.txt") and expand_home("file:x") == Path("file:x")
    with pytest.raises(DataError, match="the machine server.*mounted"):
        expand_home("file://server/share/a.png")


def test_what_is_there_is_not_suggested_in_place_of_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert path_remedy(tmp_path / "loop") == "it is a symbolic link to loop, which leads to nothing"
    assert path_remedy("/dev/null") == "it is there, and is neither a regular file nor a folder"


def test_a_path_in_another_case_is_named(tmp_path: Path) -> None:
    (tmp_path / "Folder").mkdir()
    (tmp_path / "Folder" / "Möhre.PNG").touch()
    other = tmp_path / "Folder" / "Möhre.PNG"
    if (tmp_path / "folder").exists():
        pytest.skip("this file system does not tell case apart")
    assert find_other_case(tmp_path / "folder" / "möhre.png") == other
    assert (
        path_remedy(tmp_path / "folder" / "MÖHRE.png")
        == f"did you mean {str(other)!r}? Upper and lower case, or invisible characters, differ"
    )
    assert find_other_case(tmp_path / "folder" / "more.png") is None and find_other_case("/nothing/here") is None


def test_a_file_that_is_written_over_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    path, readings = tmp_path / "f", 0
    path.write_bytes(b"old")

    def read() -> bytes:
        nonlocal readings
        readings += 1
        content = path.read_bytes()
        if readings < 3:
            path.write_bytes(b"new" * readings)  # in place
        if readings == 1:
            raise DataError("half")
        return content

    assert read_settled(path, read) == b"newnew" and readings == 3


def test_a_file_that_is_renamed_over_another_one_is_read_once(tmp_path: Path) -> None:
    path, readings = tmp_path / "f", 0
    path.write_bytes(b"old")

    def read() -> bytes:
        nonlocal readings
        readings += 1
        content = path.read_bytes()
        (tmp_path / "new").write_bytes(b"new")
        os.replace(tmp_path / "new", path)
        return content

    assert read_settled(path, read) == b"old" and readings == 1


def test_a_failure_that_nobody_caused_meanwhile_is_raised_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, readings = tmp_path / "f", 0
    path.write_bytes(b"x")

    def fail() -> None:
        nonlocal readings
        readings += 1
        raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        read_settled(path, fail)
    with pytest.raises(DataError, match="damaged"):
        read_settled(tmp_path / "nothing", fail)
    assert readings == 2
    monkeypatch.setattr(outside_files, "WRITING_S", 0.2)
    with pytest.raises(SpecError, match="written to again and again while it is read.*mv"):
        read_settled(path, lambda: path.write_bytes(path.read_bytes() + b"x"), error=SpecError)
