"""Processes: which one a number means, whether it runs, start and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from unalike.runs.environment import usable_cores
from unalike.runs.processes import (
    ProcessId,
    is_alive,
    process_age,
    process_start,
    signal_group,
    signal_process,
    start_detached,
    this_boot,
)

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@linux
def test_the_start_is_the_kernel_s_in_ticks() -> None:
    """Locks and job stores of earlier versions hold the kernel's number."""
    process = subprocess.Popen(SLEEPER)
    try:
        for pid in (1, os.getpid(), os.getppid(), process.pid):
            assert process_start(pid) == Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        assert this_boot().endswith(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    finally:
        process.kill()
        process.wait()
    assert process_start(process.pid) == ""


def test_a_zombie_and_another_process_of_the_number_are_not_alive() -> None:
    process = subprocess.Popen(SLEEPER)
    start = process_start(process.pid)
    assert is_alive(process.pid) and is_alive(process.pid, start) and not is_alive(process.pid, "1")
    signal_process(process.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while is_alive(process.pid, start):  # a zombie soon, which nobody has waited for
        assert time.monotonic() < end
        time.sleep(0.01)
    process.wait()
    assert not is_alive(process.pid, start) and not is_alive(None) and not is_alive(0)
    signal_process(process.pid)
    signal_group(process.pid, signal.SIGTERM)


def test_a_detached_process_leads_a_group_of_its_own(tmp_path: Path) -> None:
    made = start_detached(SLEEPER, cwd=tmp_path, log=tmp_path / "log.txt", env={"NAME": "value"})
    assert made == ProcessId.of(made.pid) and os.getpgid(made.pid) == made.pid != os.getpgid(0)
    signal_group(made.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while is_alive(made.pid, made.start):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_usable_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    assert usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@linux
def test_a_clock_that_is_set_changes_no_process_s_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil gives times of the day: a lock would count as one of another process after the clock was set."""
    start, age = process_start(os.getpid()), process_age()
    hour = iter(range(0, 10**6, 3600))
    monkeypatch.setattr(psutil, "boot_time", lambda: float(next(hour)))
    monkeypatch.setattr(time, "time", lambda: float(next(hour)))
    assert process_start(os.getpid()) == start and is_alive(os.getpid(), start)
    assert age <= process_age() < age + 600
