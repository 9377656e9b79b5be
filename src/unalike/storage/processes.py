"""Processes of this machine: which one is meant, whether it lives, and how one is started that outlives its shell."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Runners that this process started; looked at now and then, so that those that ended do not stay as zombies.
_started: list[subprocess.Popen[bytes]] = []


@cache
def this_boot() -> str:
    """The id of this machine's present boot, after its name; process numbers mean nothing beyond it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"


def process_start(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where /proc does not say. Tells a reused number from its owner."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def is_alive(pid: int | None, start: str | None = "") -> bool:
    """Whether process ``pid`` of this boot is at work; one that ended and was not yet waited for (a zombie) is not."""
    if not pid:
        return False
    if os.name == "nt":
        return True  # os.kill(pid, 0) would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's process, which is alive
    fields = _stat(pid)
    if fields and fields[0] in ("Z", "X"):
        return False
    return not (start and len(fields) > 19 and fields[19] != start)


class ProcessId(NamedTuple):
    """A process that can be told from a later one of the same number."""

    boot: str
    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this number now, on this machine."""
        return cls(this_boot(), pid, process_start(pid))


def start_detached(words: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str] | None = None) -> ProcessId:
    """Start a process in a session of its own: it hears neither Ctrl-C nor the end of the shell."""
    reap()
    with open(log, "ab") as output:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, start_new_session=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    _started.append(process)
    return ProcessId.of(process.pid)


def reap() -> None:
    """Take note of the ends of processes that this one started."""
    _started[:] = [process for process in _started if process.poll() is None]


def signal_group(pid: int, number: int) -> None:
    """Signal a process that leads its group, with all of the group; nothing where it is gone."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def signal_process(pid: int, number: int = signal.SIGTERM) -> None:
    """Signal one process; nothing where it is gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def usable_cores() -> int:
    """Number of cores that this process may run on: a container's share, not the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
