"""Files from outside are regular, of bounded size, and fail in one line."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from unalike.errors import DataError, SpecError
from unalike.storage.outside_files import expand_home, open_file, read_bytes, reader_errors, reason, require_file


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
