"""Addresses of galleries in Milvus: what is taken apart, and that no secret is shown or sent."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from unalike.errors import DataError
from unalike.recognition.backends.database_address import display_address, is_database
from unalike.recognition.backends.milvus_address import MilvusAddress, is_milvus

ADDRESSES = {
    "milvus://anna:hunter2%2F%40x@db.example:19531/shop?gallery=parts%20%C3%BC": "anna:hunter2/@x",
    "MILVUS://anna@db.example:19531/shop?password=hunter2/@x&gallery=parts%20%C3%BC": "anna:hunter2/@x",
    "milvus://db.example:19531/shop?gallery=parts%20%C3%BC&token=hunter2": "hunter2",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_taken_apart(text: str) -> None:
    address = MilvusAddress.parse(text)
    assert is_milvus(text) and is_database(text) and not address.is_local
    assert (address.uri, address.database, address.gallery) == ("http://db.example:19531", "shop", "parts ü")
    assert address.shown.endswith("db.example:19531/shop?gallery=parts%20%C3%BC")
    assert address.token() == ADDRESSES[text] and MilvusAddress.parse(address.shown).gallery == "parts ü"


@pytest.mark.parametrize("text", ADDRESSES)
def test_a_secret_is_neither_shown_nor_sent(text: str) -> None:
    address = MilvusAddress.parse(text)
    sent = pickle.dumps(address)
    for told in (repr(address), str(address), display_address(text), repr(sent), address.uri, address.shown):
        assert "hunter2" not in told
    assert pickle.loads(sent).token() == ADDRESSES[text], "this process was given it"


def test_ports_encryption_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    address = MilvusAddress.parse("milvus://[::1]?gallery=g&secure=true")
    assert (address.uri, address.database, address.token()) == ("https://[::1]:19530", "", "")
    assert address.shown == "milvus://[::1]?secure=true&gallery=g"
    monkeypatch.setenv("MILVUS_USER", "anna")
    monkeypatch.setenv("MILVUS_PASSWORD", "hunter2")
    assert address.token() == "anna:hunter2"
    monkeypatch.setenv("MILVUS_TOKEN", "key")
    assert address.token() == "key"


def test_a_folder_of_milvus_lite() -> None:
    assert MilvusAddress.parse("milvus:///data/a@b/shop.db?gallery=g").uri == "/data/a@b/shop.db"
    address = MilvusAddress.parse("milvus:///data/a%20b/shop.db?gallery=g")
    assert address.is_local and (address.uri, address.database) == ("/data/a b/shop.db", "")
    assert MilvusAddress.parse(address.shown) == address


def test_what_is_no_address_of_milvus() -> None:
    assert not any(map(is_milvus, ("shop.gallery", "/tmp/milvus", "postgresql://h/d?gallery=a", "milvus")))
    assert (
        not is_milvus(Path("milvus://h?gallery=a")) and display_address(Path("milvus://h:hunter2@x")) == "milvus://..."
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("milvus://anna:hunter2@h/db", "no gallery"),
        ("milvus://anna:hunter2@h/db?gallery=", "no gallery"),
        ("milvus://anna:hunter2@h/db?gallery=a&gallery=b", "several galleries"),
        ("milvus://anna:hunter2@h/db?gallery", "cannot be read"),
        ("milvus://anna:hunter2@h:x/db?gallery=a", "no number"),
        ("milvus://anna:hunter2@h:99999/db?gallery=a", "1 to 65535"),
        ("milvus://anna:hunter2@h:\u0663/db?gallery=a", "1 to 65535"),
        ("milvus://anna:hunter2@[::1/db?gallery=a", "host in the address"),
        ("milvus://anna:hunter2@h\n/db?gallery=a", "host in the address"),
        ("milvus://anna:12/hunter2@h/db?gallery=a", "behind the first / or ?"),
        ("milvus://anna:x?hunter2@h/db?gallery=a", "behind the first / or ?"),
        ("milvus://anna:x?gallery=b&hunter2@h/db?gallery=a", "behind the first / or ?"),
        ("milvus:/anna:hunter2@h/db?gallery=a", "another kind"),
        ("milvus://anna:hunter2@h/db?gallery=a&secure=on", "secure"),
        ("milvus://anna:hunter2@h/db?gallery=a&tokn=b", "unknown parameter 'tokn'"),
        ("milvus:///shop?gallery=a", "neither a host nor a folder"),
        ("mysql://anna:hunter2@h/db?gallery=a", "another kind"),
    ],
)
def test_a_mistaken_address_is_one_line_without_the_secret(text: str, fault: str) -> None:
    with pytest.raises(DataError, match=re.escape(fault)) as caught:
        MilvusAddress.parse(text)
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
