"""Deferring of signals while a library writes that cannot be interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_signals() -> Iterator[None]:
    """While inside, SIGINT, SIGTERM and SIGHUP are noted; the first one is sent again at the end, to the handler of before.

    A handler that raises in the middle of ``torch.save`` does so within its C++ code, which then ends the process (SIGABRT).
    Handlers run in the main thread alone: elsewhere nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        numbers.append(number)

    former = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and callable(signal.getsignal(number)):  # what ends or ignores does not raise
            former[number] = signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if numbers:
            signal.raise_signal(numbers[0])
