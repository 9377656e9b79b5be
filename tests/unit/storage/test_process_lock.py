"""A forked process finds locks free, and what they guard as it was."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest

from tests.support.forks import code_in_child, while_another_thread_is_inside
from unalike.storage.process_lock import ProcessLock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")


def enter(lock: ProcessLock) -> bool:
    with lock:
        return True


def test_a_lock_of_another_thread_is_free_in_a_forked_process_and_what_it_guards_is_recovered() -> None:
    recovered: list[bool] = []
    lock = ProcessLock(lambda: recovered.append(True))
    assert while_another_thread_is_inside(lock, lambda: code_in_child(lambda: enter(lock) and recovered == [True])) == 0
    assert code_in_child(lambda: enter(lock) and recovered == []) == 0
    assert recovered == []  # nothing here


def test_a_lock_of_the_thread_that_forks_stays_its_own() -> None:
    lock = ProcessLock()
    with lock:
        assert code_in_child(lambda: enter(lock) and not can_be_taken_by_another_thread(lock)) == 0
    assert can_be_taken_by_another_thread(lock)


def can_be_taken_by_another_thread(lock: ProcessLock) -> bool:
    entered: list[bool] = []
    thread = threading.Thread(target=lambda: entered.append(enter(lock)), daemon=True)
    thread.start()
    thread.join(1)
    return bool(entered)


def test_a_lock_does_not_keep_what_it_belongs_to() -> None:
    class Owner:
        def __init__(self) -> None:
            self.lock = ProcessLock(self.recover)

        def recover(self) -> None: ...

    owner = Owner()
    reference = weakref.ref(owner)
    gc.disable()
    try:
        del owner
        assert reference() is None
    finally:
        gc.enable()
