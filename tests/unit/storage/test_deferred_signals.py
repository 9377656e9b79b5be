"""Signals are deferred, not lost, and not deferred where their action is to end the process or nothing."""

from __future__ import annotations

import signal
import threading

import pytest

from unalike.storage.deferred_signals import deferred_signals


@pytest.fixture
def seen():
    """The numbers that a handler of SIGTERM and SIGINT got."""
    numbers: list[int] = []
    former = {
        n: signal.signal(n, lambda number, frame: numbers.append(number)) for n in (signal.SIGTERM, signal.SIGINT)
    }
    yield numbers
    for number, handler in former.items():
        signal.signal(number, handler)


def test_the_first_signal_comes_at_the_end(seen):
    handler = signal.getsignal(signal.SIGTERM)
    with deferred_signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert seen == []
    assert seen == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is handler


def test_an_error_inside_gives_the_handlers_back(seen):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError), deferred_signals():
        raise OSError
    assert seen == [] and signal.getsignal(signal.SIGINT) is handler


def test_ignored_signals_stay_ignored_and_other_threads_are_left_alone():
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with deferred_signals():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)
    errors = []

    def write():
        try:
            with deferred_signals():
                pass
        except ValueError as error:  # only the main thread may set handlers
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert errors == []
