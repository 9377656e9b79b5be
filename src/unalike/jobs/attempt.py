"""Files of one attempt at a job: the order (command line, environment) and the record of its end.

A machine of a cluster needs nothing but this folder: ``order.json`` holds the command line, ``outcome.json`` the record,
``log.txt`` what the action printed.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from unalike.errors import RunError
from unalike.jobs.outputs import last_status
from unalike.runs.processes import ProcessId
from unalike.runs.record import read_json
from unalike.storage.atomic import write_text

FORMAT_VERSION = 1
ORDER_FILE, RECORD_FILE, LOG_FILE, SPEC_FILE = "order.json", "outcome.json", "log.txt", "spec.yaml"


def job_folder(workspace: Path, job_id: str) -> Path:
    """A job's own folder; a trial's is that of its search."""
    return workspace / job_id.partition(".")[0]


@dataclass(frozen=True)
class JobOrder:
    """What an attempt runs.

    Attributes:
        id: The job's id.
        attempt: Number of the attempt, from 1.
        cwd: Working directory of the action; empty for the present one.
        run_dir: Folder in which the action writes.
        program: Program and first arguments of the action's process.
        arguments: The action's command line.
        environment: Variables added to the environment.
    """

    id: str
    attempt: int
    cwd: str
    run_dir: str
    program: Sequence[str]
    arguments: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the order of a job's folder. Raises RunError."""
        content = read_json(folder / ORDER_FILE)
        if content.pop("format_version", None) != FORMAT_VERSION:
            raise RunError(
                f"{folder} holds no order for this unalike", expected=f"{ORDER_FILE} of version {FORMAT_VERSION}"
            )
        return cls(**content)

    def write(self, folder: Path) -> None:
        """Write the order into a job's folder, and delete the record of an earlier attempt."""
        (folder / RECORD_FILE).unlink(missing_ok=True)
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        write_text(folder / ORDER_FILE, json.dumps(content, indent=1, ensure_ascii=True) + "\n")


@dataclass(frozen=True)
class AttemptRecord:
    """How an attempt went; ``ended`` and ``exit_code`` are None while the action runs. Times are seconds since 1970."""

    attempt: int
    host: str
    boot: str
    pid: int
    started: float
    ended: float | None = None
    exit_code: int | None = None
    error: str = ""

    @classmethod
    def start(cls, attempt: int, process: ProcessId, start_time: float) -> Self:
        """The record of an attempt whose action has started."""
        return cls(attempt, process.boot.partition("/")[0], process.boot, process.pid, start_time)

    @classmethod
    def read(cls, folder: Path, attempt: int) -> Self | None:
        """Read the record of this attempt from a job's folder; None where there is none."""
        content = read_json(folder / RECORD_FILE)
        if content.pop("format_version", None) != FORMAT_VERSION or content.get("attempt") != attempt:
            return None
        return cls(**content)

    def finish(self, end_time: float, exit_code: int, error: str) -> Self:
        """The record of the attempt after its action has ended."""
        return replace(self, ended=end_time, exit_code=exit_code, error=error)

    def write(self, folder: Path) -> None:
        """Write the record into a job's folder."""
        write_text(folder / RECORD_FILE, json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}) + "\n")


def failure_reason(folder: Path, run_dir: Path, exit_code: int, since: float) -> str:
    """Why an action failed, in one line: the run's FAILURE message, a signal's name, or the last line of the log.

    Args:
        folder: The job's folder.
        run_dir: The folder in which the action wrote.
        exit_code: Not 0; 128 + the number of a signal.
        since: When the action started; what the run wrote before is not of this attempt.
    """
    status = last_status(run_dir, since)
    if status.get("status") == "FAILURE" and status.get("message"):
        return str(status["message"])
    if exit_code > 128 and exit_code - 128 in {int(number) for number in signal.Signals}:
        hint = " (the machine may have run out of memory)" if exit_code == 128 + signal.SIGKILL else ""
        return f"the action was ended by {signal.Signals(exit_code - 128).name}{hint}"
    try:
        with open(folder / LOG_FILE, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return (lines[-1] if lines else f"exit code {exit_code}").removeprefix("error: ")
