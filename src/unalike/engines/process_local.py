"""What each process makes for itself: compiled networks and sessions, whose threads a forked process does not have."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from unalike.errors import ModelError

Value = TypeVar("Value")

_all: weakref.WeakSet[ProcessLocal[Any]] = weakref.WeakSet()
_lock = threading.RLock()


class ProcessLocal(Generic[Value]):
    """A value that is created again when the process was forked since.

    A forked process has the memory of its parent, but of its threads only the one that forked: a runtime that hands work to
    its other threads waits for ever (OpenVINO; seen 2026-11-28), and so does its destructor. A forked process therefore
    keeps the old value untouched and creates its own at the first use.
    """

    def __init__(self) -> None:
        self._values: list[Value] = []
        _all.add(self)

    def set(self, value: Value) -> None:
        """Set the value of this process."""
        self._values = [value]

    def get(self, create: Callable[[], Value]) -> Value:
        """The value of this process, which ``create`` makes where there is none."""
        values = self._values
        if not values:
            with _lock:
                if not self._values:
                    self._values = [create()]
                values = self._values
        return values[0]

    def abandon(self) -> None:
        """Forget the value, which is never destroyed, not even at the end of the process."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._values))
        self._values = []


class ForkCheck:
    """Whether the process was forked since this object was made."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __bool__(self) -> bool:
        return os.getpid() != self._pid

    def __reduce__(self) -> tuple[Any, ...]:
        return ForkCheck, ()  # what was pickled is made anew


def limit_faiss_threads(check: ForkCheck) -> None:
    """Let faiss compute in one thread in a forked process: OpenMP would wait for threads that it does not have."""
    if check:
        import faiss

        faiss.omp_set_num_threads(1)


class ModelSource:
    """Where a network was read from, so that it can be read again.

    Args:
        model: its file, or its content.
    """

    def __init__(self, model: str | Path | bytes) -> None:
        self.model = model if isinstance(model, bytes) else os.path.abspath(model)
        self._status = self._read_status()

    def check(self) -> None:
        """Raise ModelError when the file is another one by now: a process must not mix two networks."""
        if self._read_status() != self._status:
            raise ModelError(
                f"{self.model!s} was changed since it was loaded, and a forked process cannot read it again",
                remedy="load it in the new process, or end both and start again",
            )

    def _read_status(self) -> tuple[int, int] | None:
        if isinstance(self.model, bytes):
            return None
        try:
            status = os.stat(self.model)
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns


def _in_forked_process() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it
    for local in list(_all):
        local.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)
