"""Run the action of a job's order in a process of its own, and record how it ended.

The local runner calls ``supervise``; SLURM, Ray and Kubernetes start ``python -m unalike.jobs.supervisor FOLDER``. The
action's process leads a group of its own and holds the other end of a pipe, so that it saves and ends when the supervisor
is killed. A first SIGTERM is passed on (the action saves a checkpoint); an action that does not end within ``GRACE_S`` is
killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from unalike.errors import UnalikeError
from unalike.jobs.attempt import LOG_FILE, AttemptRecord, JobOrder, failure_reason
from unalike.runs.processes import ProcessId, signal_group

GRACE_S = 120.0  # for a step, a validation and a checkpoint
POLL_S = 0.1
# Nothing, save and end, or end at once.
StopRequest = Literal["", "stop", "kill"]


def supervise(
    folder: Path, *, stop_request: Callable[[], StopRequest] = lambda: "",
    on_start: Callable[[ProcessId], None] = lambda process: None, grace: float = GRACE_S,
) -> AttemptRecord:  # fmt: skip
    """Run the order of a job's folder to its end.

    Args:
        folder: The job's folder.
        stop_request: Polled; returns whether the action is to stop.
        on_start: Called with the action's process.
        grace: Seconds from the request to stop until the action is killed.

    Returns:
        The record of the attempt, which is also written into the folder.
    """
    order = JobOrder.read(folder)
    with _stop_signals() as stop_signal:
        start_time, start_clock = time.time(), time.monotonic()
        with open(folder / LOG_FILE, "ab") as log:
            process = subprocess.Popen(
                [*order.program, *order.arguments], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                cwd=order.cwd or None, env={**os.environ, **order.environment}, start_new_session=True,
            )  # fmt: skip
        action = ProcessId.of(process.pid)
        record = AttemptRecord.start(order.attempt, action, start_time)
        record.write(folder)
        on_start(action)
        exit_code = _wait(process, lambda: stop_request() or ("stop" if stop_signal.is_set() else ""), grace)
    signal_group(process.pid, signal.SIGKILL)  # remaining workers of the action would keep its devices in use
    # The clock may have been set back meanwhile: what the run wrote would seem older than its start, and its end earlier.
    start_time = min(start_time, time.time() - (time.monotonic() - start_clock))
    error = "" if exit_code == 0 else failure_reason(folder, Path(order.run_dir), exit_code, start_time)
    record = replace(record, started=start_time).finish(time.time(), exit_code, error)
    record.write(folder)
    return record


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """While inside, a signal that asks this process to end sets the event; only the main thread can receive signals."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    former = {number: signal.signal(number, lambda *_: event.set()) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _wait(process: subprocess.Popen[bytes], stop_request: Callable[[], StopRequest], grace: float) -> int:
    """Wait for the action, passing on a request to stop once; its exit code, 128 + the number of a signal."""
    deadline: float | None = None
    while (code := process.poll()) is None:
        request = stop_request()
        if request and deadline is None:
            signal_group(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + grace
        if deadline is not None and (request == "kill" or time.monotonic() > deadline):
            signal_group(process.pid, signal.SIGKILL)
        time.sleep(POLL_S)
    if process.stdin is not None:
        process.stdin.close()
    return 128 - code if code < 0 else code


def main(arguments: list[str] | None = None) -> int:
    """Supervise the order of the folder that is the only argument; the action's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if len(arguments) != 1:
            raise UnalikeError(f"{len(arguments)} arguments", expected="python -m unalike.jobs.supervisor FOLDER")
        record = supervise(Path(arguments[0]))
    except UnalikeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if record.error:
        print(f"error: {record.error}", file=sys.stderr)
    return record.exit_code or 0


if __name__ == "__main__":
    sys.exit(main())
