"""A lock that a forked process finds free: of the threads of its parent it has only the one that forked."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import MethodType

_all: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


class ProcessLock:
    """A reentrant lock of threads, for ``with``, which is new in a process that was forked while another thread held it.

    Args:
        recover: called in such a process: what the lock guards may be half changed. A method is referred to weakly.
    """

    def __init__(self, recover: Callable[[], None] | None = None) -> None:
        self._lock = threading.RLock()
        self._recover = weakref.WeakMethod(recover) if isinstance(recover, MethodType) else lambda: recover
        _all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def take_over(self) -> None:
        """In a forked process: become free, unless this thread itself holds it."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return
        self._lock = threading.RLock()
        recover = self._recover()
        if recover is not None:
            recover()


def _in_forked_process() -> None:
    for lock in list(_all):
        lock.take_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)
