"""Texts as PostgreSQL can hold them, and galleries of a newer release or a damaged database."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.postgres import new_database
from unalike.errors import DataError
from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.conformance_oracle import create
from unalike.recognition.backends.postgres_tables import decode_text, encode_text


@pytest.mark.parametrize(
    "text", ["", "a/ü 名前", "\x00", "\udcff.jpg", "\x1a", "\x1a0000", "a\x1a\x00\ud800b", "\\x00"]
)
def test_every_text_comes_back(text: str) -> None:
    encoded = encode_text(text)
    encoded.encode("utf-8")
    assert "\x00" not in encoded and decode_text(encoded) == text
    assert encoded == text or any(character in text for character in "\x00\x1a\udcff\ud800")


def test_a_newer_and_a_damaged_gallery_are_one_line() -> None:
    database = new_database()
    create(f"{database}&gallery=a")
    for change, message in (
        ("format = 3", "format version 3; update unalike"),
        ("format = 1, network = '[]'", "is damaged, or another program wrote it"),
        ("network = '{', calibration = NULL", "is damaged, or another program wrote it"),
    ):
        with psycopg.connect(database) as connection:
            connection.execute(f"UPDATE unalike_galleries SET {change}")
        with pytest.raises(DataError, match=message):
            open_gallery(f"{database}&gallery=a")
