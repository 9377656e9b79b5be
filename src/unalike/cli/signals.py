"""SIGTERM and SIGHUP end a command as Ctrl-C does: temporary files are removed, one line says why, the exit code is 128 + n."""

from __future__ import annotations

import os
import signal
from types import FrameType


class Terminated(KeyboardInterrupt):
    """Raised by a signal that asks the program to end.

    Attributes:
        signal_number: the signal's.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


def end_in_order() -> None:
    """Raise ``Terminated`` in the main thread at SIGTERM and SIGHUP, where nobody handles or ignores them.

    The first process of a container has no default action for signals: without a handler ``docker stop`` would wait ten
    seconds and kill it. A run (``runs.run``) has handlers of its own while it is open.
    """
    process = os.getpid()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker inherits the handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, on_signal)
