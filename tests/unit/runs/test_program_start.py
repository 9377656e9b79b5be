"""The start from which a time budget counts: of the process for the program's one action, else the moment of the call."""

from __future__ import annotations

import time
from types import SimpleNamespace

import psutil
import pytest

from unalike.runs import program_start


def test_the_first_action_of_the_program_starts_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_start, "_is_program", False)
    monkeypatch.setattr(program_start, "time", SimpleNamespace(monotonic=lambda: 100.0, time=lambda: 1007.5))
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(create_time=lambda: 1000.0))
    assert program_start.take_start() == 100.0  # a call from Python
    program_start.mark_program()
    assert program_start.take_start() == 92.5
    assert program_start.take_start() == 100.0  # another action in the same process


def test_a_clock_that_was_set_back_does_not_lengthen_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    program_start.mark_program()
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(create_time=lambda: time.time() + 60))
    assert program_start.take_start() <= time.monotonic()
