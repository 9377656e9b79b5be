"""A gallery in Milvus, whose server many readers and writers on many machines share.

Milvus has no transactions. A change writes rows that no reader takes into account, then a document, and is made by one renaming
of the gallery's register, which fails where another change came before (``milvus_names``). A view reads one commit by an
expression, with the consistency level Strong.

Shape letters: M enrolled vectors, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unalike.errors import DataError, ModelError
from unalike.recognition.backends.database_gallery import DatabaseGallery
from unalike.recognition.backends.milvus_address import MilvusAddress
from unalike.recognition.backends.milvus_change import MilvusChange
from unalike.recognition.backends.milvus_connection import CollectionGone, MilvusConnection
from unalike.recognition.backends.milvus_index import MilvusIndex, check_index, measure
from unalike.recognition.backends.milvus_lock import acquire, read_listing, read_register
from unalike.recognition.backends.milvus_names import Listing, Register
from unalike.recognition.backends.milvus_publication import (
    choose_uid,
    delete,
    drop_others,
    drop_unless_known,
    fill,
    publish,
)
from unalike.recognition.backends.milvus_state import ClassTable, MilvusState, read_classes, read_state
from unalike.recognition.backends.milvus_view import MilvusView
from unalike.recognition.snapshot import GallerySnapshot
from unalike.storage.process_lock import ProcessLock

if TYPE_CHECKING:
    from unalike.recognition.gallery import Gallery

TRIES = 5  # to read a gallery that is replaced again and again


class MilvusGallery(DatabaseGallery):
    """A gallery in Milvus. ``open`` and ``create`` make one.

    Args:
        connection: to its server.
        state: as it was read last.
    """

    def __init__(self, connection: MilvusConnection, state: MilvusState) -> None:
        super().__init__(state)
        self._connection, self._state = connection, state
        self._lock = ProcessLock()
        self._latest = state  # of the commit that was read last
        self._table: tuple[str, ClassTable] | None = None  # of a gallery's number
        self._vectors_in_memory: tuple[str, int, GallerySnapshot] | None = None  # of a gallery's number and revision
        self._change: MilvusChange | None = None

    @classmethod
    def open(cls, address: MilvusAddress, *, verify: bool = False) -> MilvusGallery:
        """Open a gallery that exists.

        Args:
            address: of the gallery.
            verify: compare its counters with its collections.

        Raises:
            DataError: there is none, the server cannot be reached, or its counters are wrong.
            MissingExtra: pymilvus is not installed.
        """
        connection = MilvusConnection(address)
        gallery = cls(connection, _present(connection))
        if address.index and not gallery.state.has_index:
            raise DataError(f"{address.shown} was made without an index", expected=f"one of kind {address.index}",
                            remedy=f"leave out index={address.index}, or copy it to an address with it")  # fmt: skip
        if verify:
            with gallery.view() as view:
                view.read_snapshot()
        return gallery

    @classmethod
    def create(
        cls, address: MilvusAddress, source: Gallery, *, overwrite: bool = False, key: str = ""
    ) -> MilvusGallery:
        """Keep a gallery in Milvus, with its ids and its calibration.

        Args:
            address: of the gallery.
            source: what is kept.
            overwrite: replace the gallery of that name.
            key: hexadecimal digest of it, by which a copy that was interrupted is known again.

        Raises:
            DataError: there is one, or Milvus cannot hold it.
        """
        connection = MilvusConnection(address)

        def check(register: Register | None) -> bool:
            if register is not None and not overwrite:
                raise DataError(f"{address.shown} exists", expected="a new gallery",
                                remedy="choose another name or overwrite it")  # fmt: skip
            return True

        check(read_listing(connection).register)
        uid, has_index = choose_uid(connection, key), bool(address.index)
        try:
            state = publish(connection, fill(connection, source.view(), uid, has_index=has_index), check)
        except BaseException as error:
            if not key:
                drop_unless_known(connection, uid)
            if isinstance(error, CollectionGone):  # who makes a gallery drops what others began
                check(read_listing(connection).register)
            raise
        assert state is not None
        return cls(connection, state)

    @classmethod
    def copy(cls, address: MilvusAddress, source: Gallery, key: str, *, overwrite: bool = False) -> MilvusGallery:
        """As ``create``; a copy that was interrupted goes on, and nobody sees it before it is complete."""
        return cls.create(address, source, overwrite=overwrite, key=key)

    @classmethod
    def replace(
        cls, address: MilvusAddress, source: Gallery, before: MilvusView, on_replace: Callable[[], None] | None = None
    ) -> bool:  # fmt: skip
        """Put a gallery of another network in the place of one, where that was not changed since a view.

        Whoever has the former one open goes on reading it until ``drop_former``.

        Args:
            address: of the gallery.
            source: what is kept, with its ids and its calibration.
            before: a view of the gallery that ``source`` was made from; it may be closed.
            on_replace: called just before, while nobody else can change the gallery.

        Returns:
            False where it was changed since; nothing is replaced then.

        Raises:
            DataError: there is no such gallery, or Milvus cannot hold the new one.
        """
        connection = MilvusConnection(address)
        read_register(connection)
        uid, is_replaced = choose_uid(connection), False

        def check(register: Register | None) -> bool:
            return register is not None and before.is_of(register.uid, register.commit)

        try:
            has_index = before.state.has_index
            state = fill(connection, source.view(), uid, has_index=has_index)  # before others have to wait
            is_replaced = publish(connection, state, check, on_replace, keep_former=True) is not None
        finally:
            if not is_replaced:
                drop_unless_known(connection, uid)
            connection.close()
        return is_replaced

    @classmethod
    def delete(cls, address: MilvusAddress) -> None:
        """Delete a gallery with its collections. Raises DataError where there is none."""
        connection = MilvusConnection(address)
        delete(connection)
        connection.close()

    @classmethod
    def check_new(cls, address: MilvusAddress, *, overwrite: bool = False) -> None:
        """Find out whether a gallery can be created; errors as of ``create``."""
        connection = MilvusConnection(address)
        if read_listing(connection).register is not None and not overwrite:
            raise DataError(f"{address.shown} exists", expected="a new gallery",
                            remedy="choose another name or overwrite it")  # fmt: skip
        connection.close()

    # ---- what it is ----

    @property
    def address(self) -> str:
        """The address without secrets."""
        return self._connection.address.shown

    @property
    def state(self) -> MilvusState:
        """The gallery as it was read last. Vectors of half precision are kept in single precision all the same."""
        return self._state

    def _accept(self, state: MilvusState) -> None:
        """Take over a state of the gallery, which may have been replaced. Raises ModelError for another network."""
        if state.dim != self._state.dim:
            raise ModelError(f"{self.address} now has width {state.dim}, not {self._state.dim}",
                             remedy="start again with the network that it was made with")  # fmt: skip
        if state.uid != self._state.uid:
            state.model_identity.check_compatible(self._identity)
        if not state.model_identity.equals(self._state.model_identity):
            self._identity = state.model_identity
        self._state = state

    # ---- reading ----

    def view(self) -> MilvusView:
        """The present state."""
        if self._change is not None:
            return self._change.view()
        for _ in range(TRIES):
            register, listing = read_register(self._connection)
            try:
                state = self._read(register.uid, register.commit, listing)
                if state.uid != self._state.uid:
                    former = self._former(state, listing)
                    if former is None:
                        self._accept(state)
                    else:
                        state = former
                return self._view_of(state, listing)
            except (CollectionGone, KeyError):
                continue
        raise DataError(f"{self.address} is replaced again and again", remedy="try again")

    def _read(self, uid: str, commit: int, listing: Listing) -> MilvusState:
        with self._lock:
            if (self._latest.uid, self._latest.commit) != (uid, commit):
                self._latest = read_state(self._connection, listing.logs[uid], uid, commit)
            return self._latest

    def _former(self, state: MilvusState, listing: Listing) -> MilvusState | None:
        """The state of this object's gallery where one of another network replaced it, and it is kept; else None."""
        own = self._state
        try:
            state.model_identity.check_compatible(self._identity)
            is_other = state.dim != own.dim
        except ModelError:
            is_other = True
        if not is_other or own.uid not in state.formers:
            return None
        return read_state(self._connection, listing.logs[own.uid], own.uid, state.formers[own.uid][0])

    def _view_of(self, state: MilvusState, listing: Listing) -> MilvusView:
        log, vectors = listing.logs[state.uid], listing.vectors[state.uid]
        return MilvusView(self._connection, vectors, state, lambda: self._classes(state, log), self._snapshot)

    def _classes(self, state: MilvusState, log: str) -> ClassTable:
        with self._lock:
            earlier = self._table if self._table is not None and self._table[0] == state.uid else None
            if earlier is not None and earlier[1].commit == state.commit:
                return earlier[1]
            table = read_classes(self._connection, log, state, None if earlier is None else earlier[1])
            if earlier is None or earlier[1].commit < state.commit:
                self._table = (state.uid, table)
            return table

    def _snapshot(self, view: MilvusView) -> GallerySnapshot:
        key, cache = (view.state.uid, view.state.commit), self._vectors_in_memory
        if cache is not None and cache[:2] == key:
            return cache[2]
        snapshot = view.read_snapshot()
        self._vectors_in_memory = (*key, snapshot)
        return snapshot

    def refresh(self) -> bool:
        """Whether others changed the gallery since; answers always come from its present state."""
        register, listing = read_register(self._connection)
        if (register.uid, register.commit) == (self._state.uid, self._state.commit):
            return False
        self._accept(self._read(register.uid, register.commit, listing))
        return True

    def drop_former(self, least_s: float = 0.0) -> None:
        """Drop the galleries of another network that this one replaced so many seconds ago or earlier."""
        with self._changing() as change:
            formers, until = dict(change.state.formers), time.time() - least_s
            rest = {uid: (commit, since) for uid, (commit, since) in formers.items() if since > until}
            if rest != formers:
                change.state = replace(change.state, formers=rest)
        if rest != formers:
            drop_others(self._connection, {change.state.uid, *rest})

    # ---- changes ----

    @contextmanager
    def _changing(self) -> Iterator[MilvusChange]:
        """One attempt, which is committed at the end; or the one that ``change`` began."""
        if self._change is not None:
            yield self._change
            return
        lock = acquire(self._connection)
        change: MilvusChange | None = None
        try:
            register, listing = lock.register, read_listing(self._connection)
            state = self._read(register.uid, register.commit, listing)
            is_current = (self._state.uid, self._state.commit) == (state.uid, state.commit)
            if state.uid != self._state.uid:
                self._accept(state)
            log = listing.logs[state.uid]
            change = MilvusChange(
                self._connection, lock, state, self._classes(state, log), listing.vectors[state.uid], log
            )
            self._complete_identity(change, state.model_identity)
            yield change
            if change.is_changed:
                after = change.commit()
            else:
                after = state
                change.abort()
        except BaseException:
            if change is None:
                lock.finish(lock.register.commit, lock.register.attempt - 1)
            else:
                change.abort()
            raise
        # What others changed before stays unknown to this object, so that ``refresh`` tells it.
        if is_current:
            self._state, self._identity = after, after.model_identity

    @contextmanager
    def change(self) -> Iterator[MilvusGallery]:
        """Make several changes one, while others who change the gallery wait.

        Yields:
            The gallery to change, for this thread and inside the block alone.
        """
        with self._changing() as change:
            draft = MilvusGallery(self._connection, change.state)
            draft._change = change
            yield draft

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        self._connection.close()

    def open_index(self) -> MilvusIndex:
        """The HNSW index, measured where it was not yet. Raises DataError for a gallery that was made without one."""
        with self.view() as view:
            check_index(view.state, self.address)
            index = MilvusIndex.of(view.state)
            if index is not None:
                return index
            self._connection.flush(view.collection)
            index = measure(view)
        with self._changing() as change:
            change.set_index(index.to_dict())
        return index

    def __getstate__(self) -> dict[str, Any]:
        self._require_no_change()
        return {"address": self._connection.address, "state": self._state, "identity": self._identity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(MilvusConnection(state["address"]), state["state"])  # type: ignore[misc]
        self._identity = state["identity"]


def _present(connection: MilvusConnection) -> MilvusState:
    """The present state of a gallery. Raises DataError where there is none."""
    for _ in range(TRIES):
        register, listing = read_register(connection)
        try:
            return read_state(connection, listing.logs[register.uid], register.uid, register.commit)
        except (CollectionGone, KeyError):
            continue
    raise DataError(f"{connection.address.shown} is replaced again and again", remedy="try again")
