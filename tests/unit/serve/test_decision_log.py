"""Group commit of decisions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from unalike.serve.decision_log import DecisionLog
from unalike.serve.store import DecisionRecord


class Decisions:
    """Keeps what is added; the first transaction waits until the test lets it end."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def add(self, records: Any) -> None:
        self.begun.set()
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        self.transactions.append([record.resource for record in records])


def record(name: str) -> DecisionRecord:
    return DecisionRecord("identify", name, "label")


def log_of(decisions: Decisions) -> DecisionLog:
    return DecisionLog(SimpleNamespace(decisions=decisions))  # type: ignore[arg-type]


def test_decisions_that_come_while_one_is_committed_share_the_next_transaction() -> None:
    decisions = Decisions()
    log = log_of(decisions)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(log.add, [record("a")])
        assert decisions.begun.wait(20)
        others = [pool.submit(log.add, [record(name)]) for name in "bcd"]
        while len(log._tickets) < 3:
            pass
        assert not any(future.done() for future in [first, *others])  # nothing is acknowledged before its commit
        decisions.gate.set()
        for future in [first, *others]:
            future.result(20)
    assert [sorted(names) for names in decisions.transactions] == [["a"], ["b", "c", "d"]]


def test_an_error_reaches_every_thread_whose_decisions_were_not_written() -> None:
    decisions = Decisions()
    decisions.error = OSError("disk full")
    decisions.gate.set()
    with pytest.raises(OSError, match="disk full"):
        log_of(decisions).add([record("a")])
    decisions.error = None
    log_of(decisions).add([record("b")])
    assert decisions.transactions == [["b"]]
