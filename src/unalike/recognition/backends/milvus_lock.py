"""The lock of a gallery in Milvus: who changes it holds its register, and says so again while that takes long.

A lock that is not renewed for ``LEASE_S`` seconds, or whose process has ended on this machine, is taken over. Who lost it can
commit nothing: the commit is a renaming of the register under the name that it had. What they may still write reaches no
reader: rows of their attempt are left out of every later state, and the collection of vectors has another name by then.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from unalike.errors import DatabaseUnavailable, DataError, closest
from unalike.recognition.backends.milvus_connection import WRITE_TIMEOUT_S, CollectionGone, MilvusConnection
from unalike.recognition.backends.milvus_names import Listing, Register, gallery_names, vectors_name

LEASE_S, RENEWAL_S = 30.0, 5.0
LOCK_TIMEOUT_S = 600.0
# After a lock was taken over: writes of who had it are answered or given up by then (a repetition may begin just in time).
QUIET_S = 2 * WRITE_TIMEOUT_S + 1
LISTINGS = 3  # of collections, before a gallery counts as missing
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.2


def read_listing(connection: MilvusConnection) -> Listing:
    """The collections of the address's gallery now."""
    return Listing.of(connection.names(), connection.address.gallery)


def read_register(connection: MilvusConnection) -> tuple[Register, Listing]:
    """The register of a gallery that must exist. Raises DataError where there is none."""
    gallery, display, registers, names = connection.address.gallery, connection.address.shown, [], list[str]()
    for _ in range(LISTINGS):  # a server may list names while one of them changes
        names = connection.names()
        listing = Listing.of(names, gallery)
        registers = [register for register in listing.registers if register.commit]
        if len(registers) == 1:
            return registers[0], listing
    if registers:
        raise DataError(f"{display} is damaged: it has {len(registers)} registers", remedy="restore it from a copy")
    raise DataError(f"there is no gallery {gallery!r} in {display}",
                    remedy=closest(gallery, gallery_names(names)) or "make it with unalike gallery build")  # fmt: skip


def move(connection: MilvusConnection, register: Register, new: Register) -> bool:
    """Rename a register, if that is still its name.

    Returns:
        Whether it now bears the new name, or did so; False where it had another name before.

    Raises:
        DataError: that is not known, since the server no longer answers.
    """
    try:
        connection.rename(register.name, new.name)
        return True
    except DataError as error:  # the answer may be lost, and the collection renamed all the same
        names = connection.names()
        if new.name in names:
            return True
        if register.name in names and not isinstance(error, CollectionGone):
            raise
        return False


class GalleryLock:
    """A register that this process holds. ``acquire`` makes one.

    Args:
        connection: to the server.
        register: as it is held.
    """

    def __init__(self, connection: MilvusConnection, register: Register) -> None:
        self._connection, self.register = connection, register
        self._renewed, self._lock, self._ended = time.monotonic(), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew_again_and_again, daemon=True)
        self._thread.start()

    def _renew_again_and_again(self) -> None:
        while not self._ended.wait(RENEWAL_S):
            try:
                self.check(0.0)
            except DatabaseUnavailable:
                continue
            except DataError:  # the change finds out
                return

    def check(self, age_s: float = LEASE_S / 2) -> None:
        """Renew the lock where that was so many seconds ago; raise DataError where it was lost."""
        with self._lock:
            if self._ended.is_set() or time.monotonic() - self._renewed < age_s:
                return
            began = time.monotonic()
            if not self._move(Register.renewed):
                raise lost_lock(self._connection)
            self._renewed = began

    def _move(self, change: Callable[[Register], Register]) -> bool:
        """Rename the register; once more where it was renewed without an answer. Whether it was still held."""
        for _ in range(2):
            new = change(self.register)
            if move(self._connection, self.register, new):
                self.register = new
                return True
            present = read_listing(self._connection).register
            if present is None or not present.is_held or present.owner != self.register.owner:
                return False
            self.register = present
        return False

    def finish(self, commit: int, attempt: int) -> bool:
        """Free the register under another commit or the same one; whether it was still held."""
        return self.pass_on(lambda register: register.freed(commit, attempt))

    def pass_on(self, change: Callable[[Register], Register]) -> bool:
        """Give the register another name for good; whether it was still held."""
        with self._lock:
            self._ended.set()
            return self._move(change)


def lost_lock(connection: MilvusConnection) -> DataError:
    """The error of a change that another process ended."""
    return DataError(
        f"{connection.address.shown}: this change took too long without an answer of the server, and another process took its "
        "place; nothing was changed",
        remedy="repeat the change",
    )


def acquire(connection: MilvusConnection, timeout_s: float | None = None) -> GalleryLock:
    """Wait until nobody changes the gallery, and hold its register.

    Raises:
        DataError: there is no gallery, or another program changes it for ten minutes.
    """
    began, last_name, since = time.monotonic(), "", 0.0
    timeout_s = LOCK_TIMEOUT_S if timeout_s is None else timeout_s
    pause_s = _SHORTEST_PAUSE_S
    while True:
        register, listing = read_register(connection)
        if register.name != last_name:
            last_name, since = register.name, time.monotonic()
        if not register.is_held:
            own = register.taken()
            if move(connection, register, own):
                return _fence(GalleryLock(connection, own), connection, listing)
        elif register.is_abandoned() or time.monotonic() - since > LEASE_S:
            own = register.taken_over()
            if move(connection, register, own):
                return _fence(GalleryLock(connection, own), connection, listing)
        if time.monotonic() - began > timeout_s:
            raise DataError(f"{connection.address.shown}: another program changes this gallery for more than {timeout_s:.0f} s",
                            remedy="wait for it, or end it")  # fmt: skip
        time.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s = min(_LONGEST_PAUSE_S, 1.5 * pause_s)


def _fence(lock: GalleryLock, connection: MilvusConnection, listing: Listing) -> GalleryLock:
    """After a lock was taken over: give the vectors' collection the name of the new epoch, and wait for writes under the former."""
    register = lock.register
    present, name = listing.vectors.get(register.uid), vectors_name(register.prefix, register.uid, register.epoch)
    if present in (None, name):
        return lock
    try:
        connection.rename(present, name)
        connection.load(name)
        wait(QUIET_S, lock.check)
    except BaseException:
        lock.finish(register.commit, register.attempt)
        raise
    return lock


def wait(seconds: float, check: Callable[[], None]) -> None:
    """Sleep, and renew a lock meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))
        check()
