"""Digests equal those of published test vectors (FIPS 180-2) and of coreutils' sha256sum."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from unalike.storage.digests import content_sha256, file_sha256, text_sha256

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_published_digests(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == content_sha256(b"abc") == text_sha256("abc") == ABC
    assert file_sha256(io.BytesIO(b"")) == content_sha256(b"") == EMPTY


def test_an_opened_file_is_read_from_its_position(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"xyzabc")
    with (tmp_path / "file").open("rb") as file:
        file.seek(3)
        assert file_sha256(file) == ABC


def test_digits_and_names_that_are_no_utf8() -> None:
    assert text_sha256("abc", 16) == ABC[:16]
    name = os.fsdecode(b"K\xe4se")
    assert text_sha256(name) == content_sha256(b"K\xe4se") != text_sha256("Käse")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "missing")
