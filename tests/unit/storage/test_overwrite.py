"""Outputs that exist are refused in one form."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from unalike.errors import DataError, RunError
from unalike.storage.overwrite import refuse_address, refuse_existing, refuse_unchangeable


def test_a_file_that_exists_is_refused_unless_the_user_asked(tmp_path):
    file = tmp_path / "a.onnx"
    refuse_existing(file)
    file.touch()
    with pytest.raises(
        RunError, match=re.escape(f"{file} exists; expected a new file; choose another name or delete it")
    ):
        refuse_existing(file)
    with pytest.raises(RunError, match="choose another name or add --overwrite"):
        refuse_existing(str(file), False)
    with pytest.raises(RunError, match="^export.onnx_file: .*choose another name, use gallery add or add --overwrite"):
        refuse_existing(file, False, field="export.onnx_file", alternative="use gallery add")
    refuse_existing(file, True)


def test_a_folder_may_exist_when_it_is_empty(tmp_path):
    folder = tmp_path / "out"
    for _ in range(2):
        refuse_existing(folder, folder=True)
        folder.mkdir(exist_ok=True)
    (folder / "a").touch()
    with pytest.raises(RunError, match="is not empty; expected a new or an empty folder; .* add --overwrite"):
        refuse_existing(folder, False, folder=True)
    refuse_existing(folder, True, folder=True)
    with pytest.raises(RunError, match="is a file; expected a folder"):
        refuse_existing(folder / "a", True, folder=True)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of POSIX")
def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    """Root may write anywhere: the answer of ``os.access`` is that of another user."""
    locked = tmp_path / "locked"
    locked.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(locked)))
    for path in (locked / "a.npz", locked / "new" / "a.npz"):
        with pytest.raises(RunError, match=f"a.npz cannot be written: no right to create files in {locked}; expected"):
            refuse_existing(path, True)
    refuse_existing(tmp_path / "new" / "a.npz")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) == str(locked))
    refuse_existing(locked, folder=True)  # the folder's own rights count, not those of the one above
    with pytest.raises(RunError, match="no right to create files in"):
        refuse_existing(tmp_path / "other", folder=True)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is no folder"):
        refuse_existing(tmp_path / "file" / "a.npz")


def test_a_file_that_cannot_be_changed_is_refused_before_the_work(tmp_path, monkeypatch):
    gallery = tmp_path / "g"
    refuse_unchangeable(gallery)  # what is missing is told by who opens it
    gallery.touch()
    refuse_unchangeable(gallery)
    writable = set()
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) in writable)
    with pytest.raises(
        RunError, match=f"g cannot be written: no right to change it, nor to create files in {tmp_path}"
    ):
        refuse_unchangeable(gallery)
    for place in (gallery, tmp_path):  # appended to, or replaced
        writable.clear()
        writable.add(str(place))
        refuse_unchangeable(gallery)


@pytest.mark.parametrize("scheme", ["s3", "mysql", "file", "postgresql+psycopg", "' HTTP"])
def test_an_address_is_no_file_here_and_its_password_is_not_repeated(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for written in (Path(f"{scheme}://u:1/hunter2@h/x.npz"), f"{scheme}://hunter2@h/x.npz"):
        with pytest.raises(DataError, match="is an address") as caught:
            refuse_existing(written, error=DataError)
        assert "hunter2" not in str(caught.value)
    for path in (
        Path("c:/x"),
        Path("a b: c/x"),
        Path("x:"),
        Path("12:30/x"),
        tmp_path / "s3:" / "x",
        Path("./x/s3:/y"),
    ):
        refuse_address(path)
