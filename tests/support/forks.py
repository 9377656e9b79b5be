"""Forked processes of tests, which end even where they would wait for ever."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager


def code_in_child(function: Callable[[], bool]) -> int:
    """Exit code of a forked process: 0 where the function says yes; that of the alarm where it waits for ever."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if function() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def while_another_thread_is_inside(block: AbstractContextManager[object], function: Callable[[], int]) -> int:
    """What the function returns while another thread is inside a ``with`` block."""
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with block:
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=wait)
    thread.start()
    inside.wait(60)
    try:
        return function()
    finally:
        leave.set()
        thread.join()
