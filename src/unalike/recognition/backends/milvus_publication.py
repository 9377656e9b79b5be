"""Galleries that are made in Milvus: filled under a number of their own, and made known by one renaming of the register."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.errors import DataError
from unalike.progress import progress, say
from unalike.recognition.backends.milvus_change import check_label
from unalike.recognition.backends.milvus_connection import MilvusConnection
from unalike.recognition.backends.milvus_lock import (
    LEASE_S,
    LOCK_TIMEOUT_S,
    GalleryLock,
    acquire,
    lost_lock,
    read_listing,
)
from unalike.recognition.backends.milvus_names import Listing, Register, log_name, new_uid, prefix_of, vectors_name
from unalike.recognition.backends.milvus_rows import WRITE_BYTES, batches, new_row, row_fields, row_indexes, stored_row
from unalike.recognition.backends.milvus_state import (
    LOG_FIELDS,
    LOG_INDEXES,
    MilvusState,
    class_rows,
    document_rows,
    read_state,
)
from unalike.recognition.snapshot_view import SnapshotView

if TYPE_CHECKING:
    from unalike.recognition.snapshot import GallerySnapshot

FIRST = 1  # number of the attempt that fills a gallery
BATCH = 4096  # references that are read at a time
REGISTER_FIELDS = LOG_FIELDS[:1] + LOG_FIELDS[-1:]


def fill(connection: MilvusConnection, view: SnapshotView, uid: str, *, has_index: bool = False) -> MilvusState:
    """Write what a view holds into collections that nobody knows yet; ``publish`` makes them the gallery.

    Args:
        connection: to the server.
        view: what is kept.
        uid: number of the gallery (``choose_uid``).
        has_index: write the vectors into an index for approximate search too.

    Returns:
        The state, whose document ``publish`` writes.

    Raises:
        DataError: Milvus cannot hold it.
    """
    snapshot, counts = view.snapshot(), view.counts()
    fields = row_fields(view.dim, has_index)
    for label in counts:
        check_label(label)
    prefix = prefix_of(connection.address.gallery)
    vectors, log = vectors_name(prefix, uid, 0), log_name(prefix, uid)
    listing = read_listing(connection)
    connection.create(log, LOG_FIELDS, LOG_INDEXES, is_there=uid in listing.logs)
    connection.create(vectors, fields, row_indexes(has_index), is_there=uid in listing.vectors)
    number_of = {label: number for number, label in enumerate(counts)}
    lines: list[dict[str, Any]] = [
        {"n": number_of[label], "l": label, "v": count, "t": None} for label, count in counts.items()
    ]
    attributes = snapshot.attributes  # the numbers of their sets begin with 1
    if attributes is not None:
        counts_S = np.bincount(attributes.codes_N[attributes.codes_N >= 0], minlength=len(attributes.sets)).tolist()
        sets = enumerate(zip(attributes.sets, counts_S, strict=True), 1)
        lines += [{"s": number, "a": dict(each), "v": count} for number, (each, count) in sets]
    for part in batches(class_rows(FIRST, lines, 0), 0):
        connection.upsert(log, part)
    _copy_vectors(connection, vectors, snapshot, number_of, has_index=has_index, is_again=uid in listing.vectors)
    total, classes = view.size
    return MilvusState(
        uid=uid, commit=FIRST, dim=view.dim, half=snapshot.half, vectors=total, classes=classes, revision=view.revision,
        next_id=snapshot.next_id, next_class=len(counts), next_set=1 if attributes is None else len(attributes.sets) + 1,
        model_identity=view.model_identity, calibration=view.calibration, search_index={} if has_index else None,
    )  # fmt: skip


def choose_uid(connection: MilvusConnection, key: str = "") -> str:
    """A number for a gallery; with the hexadecimal digest of a copy the same one again, if no gallery that is read has it."""
    if not key:
        return new_uid()
    if connection.address.index:  # other fields: a copy without an index cannot go on with one
        key = hashlib.sha256(f"{key} {connection.address.index}".encode()).hexdigest()
    listing = read_listing(connection)
    live = set() if listing.register is None else {listing.register.uid}
    for number in range(256):
        uid = f"{key[:14]}{number:02x}"
        if uid not in live and not _is_former(connection, listing, uid):
            return uid
    raise DataError(
        f"{connection.address.shown} was copied from this source too often", remedy="delete the gallery first"
    )


def _is_former(connection: MilvusConnection, listing: Listing, uid: str) -> bool:
    register = listing.register
    if register is None or uid not in listing.vectors:
        return False
    return uid in read_state(connection, listing.logs[register.uid], register.uid, register.commit).formers


def _copy_vectors(
    connection: MilvusConnection, vectors: str, snapshot: GallerySnapshot, number_of: dict[str, int], *, has_index: bool,
    is_again: bool,
) -> None:  # fmt: skip
    """Write the references of a snapshot in their order; those that an earlier call wrote are passed over."""
    total, read_part = len(snapshot), snapshot.reader()
    names = snapshot.names.unpack()
    codes_N = np.full(total, -1) if snapshot.attributes is None else snapshot.attributes.codes_N
    # Rows come in order, and at most one call ended in the middle.
    start = max(0, connection.count(vectors, "added > 0") - WRITE_BYTES // (4 * snapshot.dim) - 1) if is_again else 0
    if start:
        say(f"{connection.address.shown}: the copy goes on at {start} of {total} references")
    with progress("copying", total - start, "references") as advance:
        for first in range(start, total, BATCH):
            last = min(first + BATCH, total)
            rows = [
                stored_row(
                    new_row(
                        FIRST,
                        n,
                        int(snapshot.ids_N[n]),
                        number_of[snapshot.classes[snapshot.codes_N[n]]],
                        names[n],
                        vector_D,
                        int(codes_N[n]) + 1,
                    ),
                    has_index,
                )
                for n, vector_D in zip(range(first, last), read_part(first, last), strict=True)
            ]
            for part in batches(rows, snapshot.dim):
                connection.upsert(vectors, part)
            advance(last - first)
    if (count := connection.count(vectors, "added > 0")) != total:
        raise DataError(f"{connection.address.shown}: {count} of {total} references were written",
                        remedy="another program writes to its collections: copy again")  # fmt: skip


def publish(
    connection: MilvusConnection,
    state: MilvusState,
    check: Callable[[Register | None], bool],
    on_replace: Callable[[], None] | None = None,
    *,
    keep_former: bool = False,
) -> MilvusState | None:
    """Make what ``fill`` wrote the gallery of its name, while nobody else changes that.

    Args:
        connection: to the server.
        state: that ``fill`` returned.
        check: called with the register of the gallery that is replaced, or None; may raise; False gives up.
        on_replace: called just before.
        keep_former: keep the gallery that is replaced for those who read it.

    Returns:
        The state; None where ``check`` gave up.

    Raises:
        DataError: as ``check`` says, or the server does not answer.
    """
    lock = _lock_or_create(connection)
    register, is_first = lock.register, lock.register.commit == 0
    try:
        if not check(None if is_first else register):
            _give_up(connection, lock)
            return None
        listing = read_listing(connection)
        if keep_former and not is_first:
            old = read_state(connection, listing.logs[register.uid], register.uid, register.commit)
            state = replace(state, formers={**old.formers, register.uid: (register.commit, time.time())})
        if on_replace is not None:
            on_replace()
        log, first = listing.logs[state.uid], 1 << 31  # behind the lines of classes
        lock.check(0.0)
        connection.delete(log, "kind == 0")  # of a copy that was interrupted here
        for part in batches(document_rows(state, first), 0):
            connection.upsert(log, part)
    except BaseException:
        _give_up(connection, lock)
        raise
    uid = state.uid
    if not lock.pass_on(lambda own: replace(own.freed(FIRST, FIRST), uid=uid, epoch=0)):
        present = read_listing(connection).register
        if present is None or present.uid != uid:
            raise lost_lock(connection)
    with suppress(DataError):  # what stays there is dropped by the next one
        drop_others(connection, {uid, *state.formers})
    return state


def _give_up(connection: MilvusConnection, lock: GalleryLock) -> None:
    register = lock.register
    with suppress(DataError):
        if register.commit:
            lock.finish(register.commit, register.attempt - 1)
        else:
            lock.pass_on(lambda own: own.freed(0, 0))
            connection.drop(lock.register.name)


def _lock_or_create(connection: MilvusConnection) -> GalleryLock:
    """The lock of a gallery; of one that does not exist yet, a new register that no other process makes at the same time."""
    prefix, began, since_of = prefix_of(connection.address.gallery), time.monotonic(), dict[str, float]()
    while time.monotonic() - began < LOCK_TIMEOUT_S:
        listing = read_listing(connection)
        if listing.register is not None:
            try:
                return acquire(connection)
            except DataError:
                if read_listing(connection).register is not None:
                    raise
                continue  # it was deleted meanwhile
        for other in listing.registers:
            since = since_of.setdefault(other.name, time.monotonic())
            if other.is_abandoned() or not other.is_held or time.monotonic() - since > LEASE_S:
                connection.drop(other.name)
        own = Register(prefix, new_uid(), 0, 0, 0, False, "").taken()
        connection.create(own.name, REGISTER_FIELDS, {})
        if [other.name for other in read_listing(connection).registers] == [own.name]:
            return GalleryLock(connection, own)
        connection.drop(own.name)
        time.sleep(random.uniform(0.02, 0.3))  # both may have withdrawn: not again at the same time
    raise DataError(
        f"{connection.address.shown}: other programs make this gallery", remedy="wait for them, and try again"
    )


def drop_others(connection: MilvusConnection, others_than: set[str]) -> None:
    """Drop the collections of a gallery that belong to none of some numbers."""
    listing = read_listing(connection)
    for collections in (listing.vectors, listing.logs):
        for uid, name in collections.items():
            if uid not in others_than:
                connection.drop(name)


def drop_unless_known(connection: MilvusConnection, uid: str) -> None:
    """Drop what was written for a gallery that did not become one."""
    listing = read_listing(connection)
    register = listing.register
    if register is None or (register.uid != uid and not _is_former(connection, listing, uid)):
        for name in (listing.vectors.get(uid), listing.logs.get(uid)):
            if name is not None:
                connection.drop(name)


def delete(connection: MilvusConnection) -> None:
    """Delete a gallery with all that was kept of it. Raises DataError where there is none."""
    lock = acquire(connection)
    if not lock.pass_on(lambda own: own.freed(0, 0)):
        raise lost_lock(connection)
    connection.drop(lock.register.name)
    drop_others(connection, set())
