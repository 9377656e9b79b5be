"""Addresses of galleries in PostgreSQL: what is taken apart, and that no password is shown or sent."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from unalike.errors import DataError
from unalike.recognition.backends.database_address import DatabaseAddress, display_address, is_database

SECRET = "hunter2/@x"
ADDRESSES = (
    "postgresql://anna:hunter2%2F%40x@db.example:5433/shop?gallery=parts%20%C3%BC&sslmode=require",
    "postgres://anna@db.example:5433/shop?password=hunter2/@x&gallery=parts%20%C3%BC&sslmode=require",
    "postgresql+psycopg://anna:wrong@db.example:5433/shop?gallery=parts%20%C3%BC&password=hunter2/@x&sslmode=require",
)


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_taken_apart(text: str) -> None:
    address = DatabaseAddress.parse(text)
    assert is_database(text) and address.gallery == "parts ü"
    assert address.connection == "postgresql://anna@db.example:5433/shop?sslmode=require"
    assert address.shown == "postgresql://anna@db.example:5433/shop?sslmode=require&gallery=parts%20%C3%BC"
    assert address.parameters() == {"password": SECRET}
    assert DatabaseAddress.parse(address.shown).gallery == "parts ü"


@pytest.mark.parametrize("text", ADDRESSES)
def test_a_password_is_neither_shown_nor_sent(text: str) -> None:
    address = DatabaseAddress.parse(text)
    sent = pickle.dumps(address)
    for told in (repr(address), str(address), display_address(text), repr(sent), address.connection):
        assert "hunter2" not in told
    # In the process that was given the password it is known by the rest of the address.
    assert pickle.loads(sent).parameters() == {"password": SECRET}


def test_a_socket_and_what_libpq_knows_itself() -> None:
    address = DatabaseAddress.parse(
        "postgresql://postgres:@/test?host=/tmp/a%20b/data&gallery=g&sslpassword=x&passfile=/y"
    )
    assert address.connection == "postgresql://postgres@/test?host=/tmp/a%20b/data&sslpassword=x&passfile=/y"
    assert address.shown == "postgresql://postgres@/test?host=/tmp/a%20b/data&gallery=g"
    assert address.parameters() == {}
    assert DatabaseAddress.parse("postgresql:///?gallery=g").connection == "postgresql:///"


def test_what_is_no_address_of_a_database() -> None:
    assert not any(map(is_database, ("shop.gallery", "/tmp/postgresql", "s3://bucket/shop.gallery", "postgresql")))
    # no file is written whose name holds a password, and no path is made of a scheme
    assert is_database("postgres:/anna:x@h/db") and is_database("MILVUS:h") and not is_database("./milvus:h")
    assert display_address("shop.gallery") == "shop.gallery" and not is_database(Path(ADDRESSES[0]))
    assert display_address(Path(ADDRESSES[0])) == "postgresql://..."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("postgresql://anna:hunter2@h/db", "no gallery"),
        ("postgresql://anna:hunter2@h/db?gallery=", "no gallery"),
        ("postgresql://anna:hunter2@h/db?gallery=a&gallery=b", "several galleries"),
        ("postgresql://anna:hunter2@h/db?gallery", "cannot be read"),
        ("postgresql://anna:12/hunter2@h/db?gallery=a", "behind the first / or ?"),
        ("postgresql://anna:x?hunter2@h/db?gallery=a", "behind the first / or ?"),
        ("postgres:/anna:hunter2@h/db?gallery=a", "another kind"),
        ("mysql://anna:hunter2@h/db?gallery=a", "another kind"),
    ],
)
def test_a_mistaken_address_is_one_line_without_the_password(text: str, found: str) -> None:
    with pytest.raises(DataError, match=re.escape(found)) as caught:
        DatabaseAddress.parse(text)
    assert "gallery=NAME" in str(caught.value) and "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
