"""Signals are deferred, not lost, and not deferred where their action is to end the process or nothing.

The signals are raised in processes of their own: in one of several workers of a test run they would end it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

BEGIN = """
import signal, threading
from unalike.storage.deferred_signals import deferred_signals

seen = []
def handler(number, frame):
    seen.append(number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, handler)
"""


def run(program: str) -> int:
    """The exit code of a program after BEGIN; what it prints on standard error is part of a failure's message."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program], check=False, capture_output=True, text=True, timeout=60
    )
    assert "Error" not in done.stderr, done.stderr
    return done.returncode


def test_the_first_signal_comes_at_the_end() -> None:
    assert run("""
with deferred_signals():
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert seen == []
assert seen == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is handler and signal.getsignal(signal.SIGINT) is handler
""") == 0  # fmt: skip


def test_an_error_inside_gives_the_handlers_back() -> None:
    assert run("""
try:
    with deferred_signals():
        raise OSError
except OSError:
    pass
else:
    raise AssertionError
assert seen == [] and signal.getsignal(signal.SIGINT) is handler
""") == 0  # fmt: skip


def test_ignored_signals_stay_ignored_and_other_threads_are_left_alone() -> None:
    assert run("""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with deferred_signals():
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    signal.raise_signal(signal.SIGTERM)
failures = []
def write():
    try:
        with deferred_signals():
            pass
    except ValueError as failure:  # only the main thread may set handlers
        failures.append(failure)
thread = threading.Thread(target=write)
thread.start()
thread.join()
assert not failures and seen == []
""") == 0  # fmt: skip


def test_a_signal_that_ends_the_process_does_so_at_once() -> None:
    assert run("""
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with deferred_signals():
    signal.raise_signal(signal.SIGTERM)
""") == -signal.SIGTERM  # fmt: skip
