"""Copies into PostgreSQL in steps: an interrupted one goes on, a changed source begins again, nobody sees half of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.postgres import new_database
from unalike.errors import DataError
from unalike.recognition.backends import postgres_copy
from unalike.recognition.backends.address import copy_gallery, delete_gallery, open_gallery, save_gallery
from unalike.recognition.backends.conformance_copies import require_same
from unalike.recognition.backends.conformance_oracle import DIM, enrol, random_vectors
from unalike.recognition.backends.database_address import DatabaseAddress
from unalike.recognition.backends.postgres_connections import Connections
from unalike.recognition.gallery import Gallery

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("pgvector")


@pytest.fixture(scope="module")
def database() -> str:
    return new_database()


@pytest.fixture
def address(database: str, request: pytest.FixtureRequest) -> str:
    return f"{database}&gallery={request.node.name}"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A gallery of 100 references in a file."""
    gallery = Gallery(DIM)
    labels, names = [f"class {row % 7}" for row in range(101)], [f"{row}.jpg" for row in range(101)]
    gallery.enrol(
        random_vectors(101), labels, names, [{"site": f"site {row // 25}"} if row > 12 else {} for row in range(101)]
    )
    gallery.remove(ids=[50])
    return gallery.save(tmp_path / "shop.gallery")


def hidden(address: str) -> list[tuple[str, int]]:
    """Names and numbers of vectors of all rows that begin with a gallery's name."""
    parsed = DatabaseAddress.parse(address)
    with Connections(parsed).reading() as connection:
        return connection.execute(
            b"SELECT name, vectors FROM unalike_galleries WHERE starts_with(name, %s) ORDER BY id", [parsed.gallery]
        ).fetchall()


def interrupted(shop: Path, address: str, batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a copy that fails after some batches of ten."""
    copy_batch, calls = postgres_copy._copy_batch, []

    def fail_later(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return copy_batch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(postgres_copy, "_copy_batch", fail_later)
        with pytest.raises(KeyboardInterrupt):
            copy_gallery(shop, address)


def test_an_interrupted_copy_goes_on_and_is_not_seen_before_it_is_complete(
    shop: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(postgres_copy, "BATCH", 10)
    interrupted(shop, address, 3, monkeypatch)
    with pytest.raises(DataError, match="there is no gallery") as caught:
        open_gallery(address)
    assert "copy" not in caught.value.remedy, "the hidden name is not offered"
    ((name, vectors),) = hidden(address)
    assert vectors == 30
    interrupted(shop, address, 2, monkeypatch)
    assert hidden(address) == [(name, 50)]
    copy = copy_gallery(shop, address)
    assert "goes on at 50 of 100 references" in capsys.readouterr().err
    require_same(copy, open_gallery(shop))
    require_same(open_gallery(address, verify=True), open_gallery(shop))
    assert len(hidden(address)) == 1 and enrol(copy, random_vectors(1), ["new"]) == [101]


def test_a_changed_source_begins_again(shop: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_copy, "BATCH", 10)
    interrupted(shop, address, 3, monkeypatch)
    with Gallery.edit(shop) as gallery:
        gallery.enrol(random_vectors(1, seed=8), ["more"], ["more.jpg"])
    require_same(copy_gallery(shop, address), open_gallery(shop))
    assert len(hidden(address)) == 1, "the tables of the first copy are gone"


def test_other_vectors_under_the_same_names_are_another_source(
    shop: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_copy, "BATCH", 10)
    interrupted(shop, address, 3, monkeypatch)
    gallery = Gallery(DIM)
    gallery.enrol(
        random_vectors(101, seed=1), [f"class {row % 7}" for row in range(101)], [f"{row}.jpg" for row in range(101)]
    )
    gallery.remove(ids=[50])
    gallery.save(shop)
    require_same(copy_gallery(shop, address), open_gallery(shop))


def test_the_gallery_that_is_replaced_is_read_until_the_copy_is_complete(
    shop: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_copy, "BATCH", 10)
    other = Gallery(DIM)
    other.enrol(random_vectors(2), ["x", "y"])
    save_gallery(other, address)
    copy_batch = postgres_copy._copy_batch

    def look(*arguments: Any) -> Any:
        assert open_gallery(address).counts() == {"x": 1, "y": 1}
        return copy_batch(*arguments)

    monkeypatch.setattr(postgres_copy, "_copy_batch", look)
    require_same(copy_gallery(shop, address, overwrite=True), open_gallery(shop))


def test_a_deleted_gallery_leaves_no_copy(shop: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_copy, "BATCH", 10)
    save_gallery(Gallery(DIM), address)
    with monkeypatch.context() as patch:
        patch.setattr(postgres_copy, "_copy_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            copy_gallery(shop, address, overwrite=True)
    assert len(hidden(address)) == 2
    delete_gallery(address)
    assert hidden(address) == []


def test_from_a_database_into_a_file_and_back(shop: Path, address: str, tmp_path: Path) -> None:
    copy_gallery(shop, address)
    file = copy_gallery(address, tmp_path / "back.gallery")
    require_same(file, open_gallery(shop))
    require_same(Gallery.load(tmp_path / "back.gallery", verify=True), open_gallery(address))


def test_a_copy_that_is_killed_goes_on(address: str, tmp_path: Path) -> None:
    """SIGKILL in the middle of 60,000 references."""
    gallery = Gallery(64)
    rng = np.random.default_rng(0)
    gallery.enrol(rng.normal(size=(60_000, 64)).astype(np.float32), [f"class {row % 50}" for row in range(60_000)])
    path = gallery.save(tmp_path / "large.gallery")
    code = (
        "import sys; from unalike.recognition.backends import postgres_copy; postgres_copy.BATCH = 500; "
        "from unalike.recognition.backends.address import copy_gallery; copy_gallery(sys.argv[1], sys.argv[2])"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(path), address], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not _copied(address):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    count = _copied(address)
    assert 0 < count < 60_000 and count % 500 == 0, "killed too late to show anything"
    require_same(copy_gallery(path, address), gallery)


def _copied(address: str) -> int:
    try:
        return sum(vectors for _, vectors in hidden(address))
    except DataError:  # the tables are not there yet
        return 0
