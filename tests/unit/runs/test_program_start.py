"""The start from which a time budget counts: of the process for the program's one action, else the moment of the call."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from unalike.runs import processes, program_start


def test_the_first_action_of_the_program_starts_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_start, "_is_program", False)
    monkeypatch.setattr(program_start, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(processes, "process_age", lambda: 7.5)
    assert program_start.take_start() == 100.0  # a call from Python
    program_start.mark_program()
    assert program_start.take_start() == 92.5
    assert program_start.take_start() == 100.0  # another action in the same process
