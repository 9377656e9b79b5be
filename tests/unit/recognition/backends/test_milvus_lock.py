"""The lock of a gallery in Milvus: waited for, renewed, and taken from who does not renew it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from tests.support.milvus import milvus_server
from unalike.errors import DataError
from unalike.recognition.backends import milvus_lock
from unalike.recognition.backends.conformance_oracle import create, enrol, random_vectors
from unalike.recognition.backends.milvus import MilvusGallery
from unalike.recognition.backends.milvus_connection import MilvusConnection
from unalike.recognition.backends.milvus_lock import acquire, move, read_register
from unalike.recognition.backends.milvus_names import Register

pytestmark = pytest.mark.slow
pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture
def connection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MilvusConnection:
    monkeypatch.setattr(milvus_lock, "QUIET_S", 0.0)
    gallery = create(f"{milvus_server()}?gallery={request.node.name}")
    assert isinstance(gallery, MilvusGallery)
    return gallery._connection


def test_one_of_many_gets_the_register(connection: MilvusConnection) -> None:
    register, _ = read_register(connection)
    outcomes: list[bool] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(move(connection, register, register.taken()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]


def test_who_waits_longer_than_it_will_is_told(connection: MilvusConnection) -> None:
    lock = acquire(connection)
    with pytest.raises(DataError, match="another program changes this gallery for more than 0 s"):
        acquire(connection, 0.1)
    assert lock.finish(1, 1)
    assert acquire(connection, 0.1).finish(1, 1)


def test_a_lock_that_is_renewed_is_not_taken(connection: MilvusConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_lock, "LEASE_S", 0.6)
    monkeypatch.setattr(milvus_lock, "RENEWAL_S", 0.1)
    lock = acquire(connection)
    with pytest.raises(DataError, match="another program"):
        acquire(connection, 2.0)
    assert lock.finish(1, 1)


def test_a_lock_that_is_not_renewed_is_taken_over(
    connection: MilvusConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = acquire(connection)
    monkeypatch.setattr(milvus_lock, "LEASE_S", 0.3)
    began = time.monotonic()
    other = acquire(connection, 10.0)
    assert time.monotonic() - began > 0.3
    with pytest.raises(DataError, match="another process took its place"):
        lock.check(0.0)
    assert not lock.finish(2, 2)
    register, listing = read_register(connection)
    assert (register.commit, register.attempt, register.epoch) == (1, 3, 1)
    assert listing.vectors[register.uid].endswith("_1")
    assert other.finish(1, 2), "the attempt of who lost it is not used again"
    gallery = MilvusGallery.open(connection.address)
    assert enrol(gallery, random_vectors(1), ["a"]) == [0]
    assert (gallery._state.commit, gallery._state.aborted) == (3, (2,))


def test_a_renewal_whose_answer_was_lost_keeps_the_lock(
    connection: MilvusConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = acquire(connection)
    assert move(connection, lock.register, lock.register.renewed())
    lock.check(0.0)
    assert move(connection, lock.register, lock.register.renewed())
    assert lock.finish(1, 1) and not read_register(connection)[0].is_held


def test_the_vectors_get_their_name_also_after_a_taker_that_failed(
    connection: MilvusConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire(connection)
    with monkeypatch.context() as patch:
        patch.setattr(Register, "is_abandoned", lambda self: self.is_held)
        patch.setattr(MilvusConnection, "load", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        patch.setattr(MilvusConnection, "rename", _rename_registers_alone(MilvusConnection.rename))
        with pytest.raises(KeyboardInterrupt):
            acquire(connection)
    lock = acquire(connection)
    assert read_register(connection)[1].vectors[lock.register.uid].endswith("_1")
    assert lock.finish(1, 3)


def test_a_view_goes_on_after_the_vectors_got_another_name(connection: MilvusConnection) -> None:
    gallery = MilvusGallery.open(connection.address)
    enrol(gallery, random_vectors(3), list("abc"))
    view = gallery.view()
    acquire(connection)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Register, "is_abandoned", lambda self: self.is_held)
        enrol(gallery, random_vectors(1), ["d"])
    assert len(view.search(random_vectors(1), 9).entries_QK[0]) == 3
    assert [entry.label for entry in view.entries()] == list("abc")


def _rename_registers_alone(rename):
    def renamed(self: MilvusConnection, name: str, new: str) -> None:
        if "v_" in name.rpartition("_0")[2]:
            raise KeyboardInterrupt
        rename(self, name, new)

    return renamed


KILLED_WRITER = """
import sys, time
from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.conformance_oracle import random_vectors
with open_gallery(sys.argv[1]).change() as change:
    change.enrol(random_vectors(2), ["lost"] * 2)
    change.remove(ids=[0])
    print("inside", flush=True)
    time.sleep(100)
"""


def test_a_writer_that_is_killed_inside_a_change_is_followed_at_once(connection: MilvusConnection) -> None:
    """Another process on this machine sees that it has ended; nothing of its change is there."""
    gallery = MilvusGallery.open(connection.address)
    enrol(gallery, random_vectors(3), list("abc"))
    command = [sys.executable, "-c", KILLED_WRITER, connection.address.shown]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "inside\n"
    process.kill()
    process.wait()
    assert gallery.counts() == {"a": 1, "b": 1, "c": 1} and not gallery.refresh()
    began = time.monotonic()
    assert enrol(gallery, random_vectors(1), ["d"]) == [3]
    assert time.monotonic() - began < milvus_lock.LEASE_S
    assert MilvusGallery.open(connection.address, verify=True).counts() == {"a": 1, "b": 1, "c": 1, "d": 1}
