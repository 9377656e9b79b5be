"""Processes of this machine: which one a number means, whether it runs, starting it detached, signals.

psutil is imported where it is used: a run takes its lock some 30 ms sooner without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Detached processes that this one started; polled now and then, so that ended ones do not stay as zombies.
_started: list[subprocess.Popen[bytes]] = []
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@cache
def this_boot() -> str:
    """The machine's name and the id of its present boot; process numbers mean nothing beyond it.

    The kernel's id of the boot, since the time of the boot (psutil) moves when the clock is set.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"


def process_start(pid: int) -> str:
    """When a process began, in clock ticks after the boot; empty when there is none. Tells a reused number from its owner.

    The kernel's own count where there is one: a time of the day minus the time of the boot moves when the clock is set.
    """
    if os.path.isdir("/proc/self/task"):
        try:
            return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
        except (OSError, IndexError):
            return ""
    import psutil

    try:
        seconds = psutil.Process(pid).create_time() - psutil.boot_time()
    except psutil.Error:
        return ""
    return str(round(seconds * _TICKS_PER_SECOND))


def process_age() -> float:
    """Seconds since this process began, by a clock that nobody sets."""
    start = process_start(os.getpid())
    if start and hasattr(time, "CLOCK_BOOTTIME"):
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(start) / _TICKS_PER_SECOND)
    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


def is_alive(pid: int | None, start: str | None = "") -> bool:
    """Whether process ``pid`` of this boot runs; one that ended and was not waited for yet (a zombie) does not.

    Args:
        pid: The process's number.
        start: ``process_start`` of the process that is meant; empty to accept any process of that number.
    """
    if not pid:
        return False
    import psutil

    try:
        if psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return False
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # somebody else's process
    return not start or process_start(pid) in (start, "")


class ProcessId(NamedTuple):
    """The identity of a process, which a later process of the same number does not have."""

    boot: str
    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this number now, on this machine."""
        return cls(this_boot(), pid, process_start(pid))


def child_command(grace_s: int) -> list[str]:
    """The beginning of the command line of a process that ends when its parent is killed; the command follows.

    Args:
        grace_s: Seconds that the process has to save and end after its parent was killed; with 0 it ends at once.
    """
    return [sys.executable, "-m", "unalike.cli.child_process", str(grace_s)]


def start_detached(command: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str] | None = None) -> ProcessId:
    """Start a process in a session of its own, which neither Ctrl-C nor the end of the shell reaches.

    Args:
        command: Program and arguments.
        cwd: Its working directory.
        log: The file to which its output is appended.
        env: Variables added to this process's environment.
    """
    reap()
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, start_new_session=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    _started.append(process)
    return ProcessId.of(process.pid)


def reap() -> None:
    """Forget the detached processes that have ended."""
    _started[:] = [process for process in _started if process.poll() is None]


def signal_group(pid: int, number: int) -> None:
    """Signal all processes of the group that ``pid`` leads; its leader may have ended already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def signal_process(pid: int, number: int = signal.SIGTERM) -> None:
    """Signal one process; nothing happens when it has ended."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        psutil.Process(pid).send_signal(number)
