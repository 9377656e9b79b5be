"""What each process makes for itself: compiled networks and sessions, whose threads a forked process does not have."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from unalike.engines.checksum import ModelContent, read_model_file
from unalike.errors import ModelError


class HasSource(Protocol):
    """An engine, or a part of one, that knows where its network was read from."""

    source: ModelSource


Value = TypeVar("Value")
Engine = TypeVar("Engine", bound=HasSource)

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

    Attributes:
        model: its file, by its absolute path, or its content.
        name: for messages.
        sha256: digest of the file as it was read, in 64 hexadecimal digits; empty before, and for a content.
    """

    def __init__(self, model: str | Path | bytes) -> None:
        self.model = model if isinstance(model, bytes) else os.path.abspath(model)
        self.name = "the model in memory" if isinstance(model, bytes) else str(model)
        self.sha256 = ""

    def read(self) -> ModelContent:
        """The content, checked.

        Raises:
            ModelError: the file is missing or damaged, or another one than at the first reading: a process must not mix two
                networks.
        """
        if isinstance(self.model, bytes):
            return ModelContent(self.model, b"", "")
        content = read_model_file(Path(self.model))
        self.require(content.sha256)
        self.sha256 = content.sha256
        return content

    def require(self, sha256: str) -> None:
        """Raise ModelError unless the content that was read is that of a digest; nothing where one of both is not known."""
        if self.sha256 and sha256 and sha256 != self.sha256:
            raise ModelError(
                f"{self.name} was changed since it was loaded, and is another network now",
                remedy="load it again; another process needs the file that the first one loaded",
            )


def restore_engine(kind: Callable[..., Engine], arguments: tuple[Any, ...], sha256: str) -> Engine:
    """An engine that was pickled, by the path of its file. Raises ModelError where that is another network by now."""
    engine = kind(*arguments)
    engine.source.require(sha256)
    return engine


def _in_forked_process() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it
    for local in list(_all):
        local.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)
