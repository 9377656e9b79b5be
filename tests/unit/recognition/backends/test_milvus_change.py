"""Changes of a gallery in Milvus that are cut off at any call of the server: they are made whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.milvus import milvus_server
from unalike.errors import DatabaseUnavailable, DataError
from unalike.recognition.backends import milvus_lock
from unalike.recognition.backends.address import open_gallery, save_gallery
from unalike.recognition.backends.conformance_oracle import DIM, create, enrol, listed, random_vectors
from unalike.recognition.backends.milvus import MilvusGallery
from unalike.recognition.backends.milvus_connection import MilvusConnection
from unalike.recognition.backends.milvus_names import Register, log_name, prefix_of
from unalike.recognition.backends.milvus_state import ClassTable
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.gallery import Gallery

pytestmark = pytest.mark.slow
pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")
WRITES = ("rename", "upsert", "delete")
CALLS = 5  # of the change below: the lock, a removal, an enrollment, the state, the commit


class Killed(BaseException):
    """What a process does not survive."""


class FaultyConnection(MilvusConnection):
    """A connection whose ``n``-th writing call fails, before or after it reached the server."""

    def __init__(self, connection: MilvusConnection, n: int, error: BaseException, *, reaches: bool) -> None:
        super().__init__(connection.address)
        self.left, self.error, self.reaches, self.is_dead = n, error, reaches, False

    def _call(self, name: str, *arguments: Any) -> None:
        if self.is_dead:
            raise self.error
        self.left -= 1
        if self.left != 0:
            getattr(MilvusConnection, name)(self, *arguments)
            return
        self.is_dead = isinstance(self.error, Killed)
        if self.reaches:
            getattr(MilvusConnection, name)(self, *arguments)
        raise self.error

    def rename(self, name: str, new: str) -> None:
        self._call("rename", name, new)

    def upsert(self, name: str, rows: Any) -> None:
        self._call("upsert", name, rows)

    def delete(self, name: str, condition: str) -> None:
        self._call("delete", name, condition)


@pytest.fixture
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(milvus_lock, "QUIET_S", 0.0)
    return f"{milvus_server()}?gallery={request.node.name.replace('[', '.').replace(']', '')}"


def make_change(gallery: GalleryBackend) -> None:
    with gallery.change() as change:
        change.remove(ids=[1])
        change.enrol(random_vectors(2, seed=3), ["c", "d"], ["new", "newer"])
        change.merge(["a"], "b")
        change.rename("c", "e")


def start(address: str) -> tuple[MilvusGallery, list[Any], list[Any]]:
    """A gallery, and what it holds before and after the change."""
    gallery = create(address)
    enrol(gallery, random_vectors(4), list("aabb"), list("0123"))
    memory = Gallery(DIM)
    memory.enrol(random_vectors(4), list("aabb"), list("0123"))
    before = listed(memory)
    make_change(memory)
    assert isinstance(gallery, MilvusGallery)
    return gallery, before, listed(memory)


def check_whole(address: str, states: tuple[list[Any], ...]) -> list[Any]:
    """Require one of some states, whose counters, searches and lists agree, and that the gallery can be changed; the state."""
    gallery = open_gallery(address, verify=True)
    entries = listed(gallery)
    assert entries in states
    for later in (0, 1):
        with gallery.view() as view:
            neighbors = view.search(random_vectors(1, seed=9), 100).entries_QK[0]
        assert (
            sorted(neighbors) == listed(gallery)
            and sum(gallery.counts().values()) == len(neighbors) == len(entries) + later
        )
        if not later:
            (id,) = enrol(gallery, random_vectors(1), ["later"])
            assert id not in [entry.id for entry in entries]
    return entries


def test_the_change_makes_so_many_calls(address: str) -> None:
    gallery, _, after = start(address)
    gallery._connection = connection = FaultyConnection(gallery._connection, 100, Killed(), reaches=False)
    make_change(gallery)
    assert connection.left == 100 - CALLS and check_whole(address, (after,)) == after


@pytest.mark.parametrize("reaches", [False, True], ids=["unsent", "unanswered"])
@pytest.mark.parametrize("n", range(1, CALLS + 1))
def test_a_process_that_is_killed_at_any_call(
    n: int, reaches: bool, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, before, after = start(address)
    gallery._connection = FaultyConnection(gallery._connection, n, Killed(), reaches=reaches)
    with pytest.raises(Killed):
        make_change(gallery)
    monkeypatch.setattr(Register, "is_abandoned", lambda self: self.is_held)
    assert check_whole(address, (before, after)) == (after if n == CALLS and reaches else before)


@pytest.mark.parametrize("reaches", [False, True], ids=["unsent", "unanswered"])
@pytest.mark.parametrize("n", range(1, CALLS + 1))
def test_a_server_that_does_not_answer_once(n: int, reaches: bool, address: str) -> None:
    """Where the answer to a renaming is lost, the name tells whether it took place; a lost write ends the change."""
    gallery, before, after = start(address)
    gallery._connection = FaultyConnection(gallery._connection, n, DatabaseUnavailable("no answer"), reaches=reaches)
    try:
        make_change(gallery)
        outcome = after
    except DatabaseUnavailable as error:
        assert ("not known whether it was made" in str(error)) == (n == CALLS)
        outcome = before
    if n == CALLS and not reaches:  # nobody knows: whoever still has the lock is waited for
        assert outcome == before
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Register, "is_abandoned", lambda self: self.is_held)
            check_whole(address, (before,))
        return
    assert check_whole(address, (outcome,)) == outcome
    assert (outcome == after) == (reaches and n in (1, CALLS))


def overtaken(address: str, act: Callable[[GalleryBackend], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """Let another object take the lock from a change in the middle, then go on with the change; its error."""
    gallery, _, _ = start(address)
    other = open_gallery(address)
    with pytest.raises(DataError) as caught, gallery.change() as change:
        change.remove(ids=[0])
        with monkeypatch.context() as patch:
            patch.setattr(Register, "is_abandoned", lambda self: self.is_held)
            with other.change() as second:
                assert second.enrol(random_vectors(1, seed=7), ["x"], ["x"]) == [4]
                second.remove(ids=[3])
        act(change)
    entries = listed(open_gallery(address, verify=True))
    assert [entry.name for entry in entries] == ["0", "1", "2", "x"]
    with gallery.view() as view:
        assert sorted(view.search(random_vectors(1), 9).entries_QK[0]) == entries
    assert enrol(gallery, random_vectors(1), ["y"]) == [5] and len(gallery) == 5
    assert open_gallery(address, verify=True).counts() == {"a": 2, "b": 1, "x": 1, "y": 1}
    return str(caught.value)


def test_who_lost_the_lock_commits_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "another process took its place; nothing was changed" in overtaken(address, len, monkeypatch)


@pytest.mark.parametrize("act", [
    lambda change: change.enrol(random_vectors(1, seed=1), ["lost"], ["lost"]), lambda change: change.remove(ids=[3]),
], ids=["enrollment", "removal"])  # fmt: skip
def test_who_lost_the_lock_writes_into_no_collection(
    act: Callable[[GalleryBackend], object], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writes go to a name that does not exist any more: a removal by the other change stays."""
    assert "does not exist" in overtaken(address, act, monkeypatch)


def test_a_write_that_failed_inside_a_change_undoes_all_of_it(address: str) -> None:
    """Also where the caller goes on: what was written in part must not be committed."""
    gallery, before, _ = start(address)
    gallery._connection = FaultyConnection(gallery._connection, 3, DatabaseUnavailable("no answer"), reaches=True)
    with pytest.raises(DataError, match="a write of this change failed"), gallery.change() as change:
        change.remove(ids=[0])
        with pytest.raises(DatabaseUnavailable):
            change.enrol(random_vectors(2), ["x", "y"])
    check_whole(address, (before,))


def test_refused_and_empty_changes_leave_no_trace(address: str) -> None:
    """Names of attempts do not grow, and no state lists them."""
    gallery, _, _ = start(address)
    for _ in range(3):
        with gallery.change():
            pass
        with pytest.raises(KeyboardInterrupt), gallery.change() as change:
            change.enrol(random_vectors(2), ["x", "y"])
            change.remove(labels=["a"])
            raise KeyboardInterrupt
    enrol(gallery, random_vectors(1), ["z"])
    assert gallery._state.aborted == () and gallery._state.commit == 3
    assert check_whole(address, (listed(gallery),))


def test_what_nobody_reads_any_more_is_deleted(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were removed, old states, and lines of the table of classes; an older view is refused by then."""
    from unalike.recognition.backends import milvus_change, milvus_view

    gallery, _, _ = start(address)
    for name, value in (("KEPT_S", -1.0), ("HISTORY_S", 0.0), ("OLD_LINES", -1000)):
        monkeypatch.setattr(milvus_change, name, value)
    with gallery.change() as change:
        change.remove(labels=["a"])
    for number in range(4):
        enrol(gallery, random_vectors(1, seed=number), [f"{number}"])
    view, state = gallery.view(), gallery._state
    rows = gallery._connection.query(view.collection, "id >= 0", ["id"])
    assert sorted(row["id"] for row in rows) == [2, 3, 4, 5, 6, 7], "the rows that were removed are gone"
    log = log_name(prefix_of(gallery._connection.address.gallery), state.uid)
    assert gallery._connection.count(log, "kind == 0") == 2, "documents of this commit and of the one before"
    assert gallery._connection.count(log, "kind == 1 and added < 6") == 0, "lines that were written anew"
    assert (state.commit, state.rewritten) == (7, 7)
    assert open_gallery(address, verify=True).counts() == {"b": 2, "0": 1, "1": 1, "2": 1, "3": 1}
    stale = MilvusGallery.open(gallery._connection.address)
    stale._table = (state.uid, table_of({0: ("a", 2), 1: ("b", 2)}, 2))
    assert stale.counts() == gallery.counts(), (
        "an old table of classes, whose successors' lines are gone, is not built upon"
    )
    monkeypatch.setattr(milvus_view, "LIFETIME_S", -1.0)
    with pytest.raises(DataError, match="older than an hour"):
        view.search(random_vectors(1), 1)


def table_of(classes: dict[int, tuple[str, int]], commit: int) -> ClassTable:
    table = ClassTable()
    table.classes, table.commit = classes, commit
    return table


def test_wide_equal_and_many_neighbors(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More equal vectors, and more neighbors, than the server gives: they come from memory, in the order of ids."""
    from unalike.recognition.backends import milvus_view

    monkeypatch.setattr(milvus_view, "MOST_ROWS", 40)
    memory = Gallery(DIM)
    equal_ND = np.repeat(random_vectors(1), 70, axis=0)
    attributes = [{"site": "a"} if row % 2 else {} for row in range(100)]
    vectors_ND = np.concatenate([equal_ND, random_vectors(30, seed=4)])
    memory.enrol(vectors_ND, [f"{row % 3}" for row in range(100)], None, attributes)
    gallery = save_gallery(memory, address)
    with gallery.view() as view, memory.view() as other:
        for k in (1, 5, 39, 60, 100):
            result, reference = view.search(random_vectors(2), k), other.search(random_vectors(2), k)
            assert result.ids_QK[0].tolist() == reference.ids_QK[0].tolist()
            assert np.allclose(result.scores_QK, reference.scores_QK, atol=2e-6)
            filtered, reference = (each.search(random_vectors(2), k, where={"site": "a"}) for each in (view, other))
            assert filtered.entries_QK == reference.entries_QK and len(filtered.entries_QK[0]) == min(k, 50)
        assert view.search_others(random_vectors(1), "0").ids_QK.tolist() == [[1]]
