"""The moment at which the program was started, from which the time budget of its action counts."""

from __future__ import annotations

import time

_is_program = False


def mark_program() -> None:
    """Note that this process is the command line, which runs one action: its budget includes the imports."""
    global _is_program
    _is_program = True


def take_start() -> float:
    """Return ``time.monotonic()`` of the action's start: of the process for the program's first action, else the present."""
    global _is_program
    now = time.monotonic()
    if not _is_program:
        return now
    _is_program = False
    from unalike.runs.processes import process_age

    return now - process_age()
