"""One attempt at a job, carried out by the order in its folder: ``python -m unalike.jobs.attempt FOLDER``.

The action runs as a process of its own, in a group of its own; it holds the other end of a pipe, so that it saves and
ends when this process is gone. A first SIGTERM is handed on (the action saves a checkpoint); one that does not end in
``GRACE_S`` is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unalike.errors import RunError
from unalike.jobs.command import FORMAT_VERSION, LOG, ORDER, OUTCOME
from unalike.jobs.outputs import last_word, read_json
from unalike.storage.atomic import write_text
from unalike.storage.processes import signal_group, this_boot

GRACE_S = 120.0  # for a step, a validation and a checkpoint
PACE_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """How an attempt stands; ``ended`` and ``exit_code`` are None while it goes on."""

    attempt: int
    host: str
    boot: str
    pid: int
    started: float
    ended: float | None = None
    exit_code: int | None = None
    error: str = ""

    @classmethod
    def read(cls, folder: Path, attempt: int) -> Outcome | None:
        """What the folder says of this attempt, or None where it says nothing of it."""
        found = read_json(folder / OUTCOME)
        if found.pop("format_version", None) != FORMAT_VERSION or found.get("attempt") != attempt:
            return None
        return cls(**found)

    def write(self, folder: Path) -> None:
        """Write it down, whole or not at all."""
        write_text(folder / OUTCOME, json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}) + "\n")


def read_order(folder: Path) -> dict[str, Any]:
    """The order of a job's folder. Raises RunError."""
    order = read_json(folder / ORDER)
    if order.get("format_version") != FORMAT_VERSION:
        raise RunError(f"{folder} holds no order for this unalike", expected=f"{ORDER} of version {FORMAT_VERSION}")
    return order


def perform(
    folder: Path, *, stop: Callable[[], str] = lambda: "", begun: Callable[[int], None] = lambda pid: None,
    grace: float = GRACE_S,
) -> Outcome:  # fmt: skip
    """Carry out the order and give its outcome, which is also in the folder.

    ``begun`` gets the action's process number; ``stop`` is asked for ``"stop"`` (save and end) or ``"now"`` (end).
    """
    order = read_order(folder)
    asked = threading.Event()
    restore = _hear_signals(asked)
    began = time.time()
    try:
        with open(folder / LOG, "ab") as log:
            process = subprocess.Popen(
                [*order["program"], *order["arguments"]], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                cwd=order["cwd"] or None, env={**os.environ, **order["environment"]}, start_new_session=True,
            )  # fmt: skip
        outcome = Outcome(order["attempt"], socket.gethostname(), this_boot(), process.pid, began)
        outcome.write(folder)
        begun(process.pid)
        code = _see_through(process, lambda: stop() or ("stop" if asked.is_set() else ""), grace)
    finally:
        restore()
    signal_group(process.pid, signal.SIGKILL)  # workers that the action left behind would hold its devices
    code = 128 - code if code < 0 else code
    error = "" if code == 0 else reason(folder, Path(order["run_dir"]), code, began)
    outcome = Outcome(order["attempt"], outcome.host, outcome.boot, process.pid, began, time.time(), code, error)
    outcome.write(folder)
    return outcome


def _hear_signals(asked: threading.Event) -> Callable[[], None]:
    """Until the returned function is called, a request to end sets ``asked``; only the main thread may listen."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    former = {n: signal.signal(n, lambda *_: asked.set()) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    return restore


def _see_through(process: subprocess.Popen[bytes], stop: Callable[[], str], grace: float) -> int:
    """Wait for the action, and hand a request to stop on to it, once."""
    until: float | None = None
    while True:
        code = process.poll()
        if code is not None:
            break
        word = stop()
        if word and until is None:
            signal_group(process.pid, signal.SIGTERM)
            until = time.monotonic() + grace
        if until is not None and (word == "now" or time.monotonic() > until):
            signal_group(process.pid, signal.SIGKILL)
        time.sleep(PACE_S)
    if process.stdin is not None:
        process.stdin.close()
    return code


def reason(folder: Path, run_dir: Path, code: int, since: float) -> str:
    """Why an action failed, in one line: the run's own word, a signal's name, or the last line of the log."""
    told = last_word(run_dir, since)
    if told.get("status") == "FAILURE" and told.get("message"):
        return str(told["message"])
    if code > 128 and code - 128 in {int(s) for s in signal.Signals}:
        hint = " (the machine may have run out of memory)" if code == 128 + signal.SIGKILL else ""
        return f"the action was ended by {signal.Signals(code - 128).name}{hint}"
    try:
        with open(folder / LOG, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return (lines[-1] if lines else f"exit code {code}").removeprefix("error: ")


def main(argv: list[str] | None = None) -> int:
    """Carry out the order of a folder; the action's exit code."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 1:
        print("error: attempt without a job's folder; expected python -m unalike.jobs.attempt FOLDER", file=sys.stderr)
        return 2
    outcome = perform(Path(words[0]))
    if outcome.error:
        print(f"error: {outcome.error}", file=sys.stderr)
    return outcome.exit_code or 0


if __name__ == "__main__":
    sys.exit(main())
