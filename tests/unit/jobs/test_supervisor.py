"""The supervisor of an attempt: it starts, stops and records one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unalike.errors import RunError
from unalike.jobs.attempt import AttemptRecord, JobOrder, failure_reason
from unalike.jobs.supervisor import main, supervise
from unalike.runs.processes import is_alive, this_boot


def order(folder: Path, program: str) -> Path:
    folder.mkdir(exist_ok=True)
    JobOrder("aa11", 2, str(folder), str(folder / "run"), [sys.executable, "-c"], [program], {"NAME": "value"}).write(
        folder
    )
    return folder


def test_the_order_is_run_in_its_folder_with_its_environment_and_recorded(tmp_path: Path) -> None:
    folder = order(tmp_path / "job", "import os; print(os.getcwd(), os.environ['NAME'])")
    assert json.loads((folder / "order.json").read_text())["format_version"] == 1
    started = []
    record = supervise(folder, on_start=started.append)
    assert (record.attempt, record.exit_code, record.error) == (2, 0, "") and record.ended >= record.started
    assert record.boot == this_boot() and [process.pid for process in started] == [record.pid]
    assert (folder / "log.txt").read_text() == f"{folder} value\n"
    assert AttemptRecord.read(folder, 2) == record and AttemptRecord.read(folder, 1) is None
    order(folder, "pass")
    assert AttemptRecord.read(folder, 2) is None  # a new order has no record yet


def test_failures_are_told_by_exit_code_signal_and_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = order(tmp_path / "a", "import sys; print('error: bad'); sys.exit(3)")
    assert main([str(folder)]) == 3 and capsys.readouterr().err == "error: bad\n"
    record = supervise(order(tmp_path / "b", "import os; os.kill(os.getpid(), 9)"))
    assert record.exit_code == 137 and "ended by SIGKILL (the machine may have run out of memory)" in record.error
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "status.json").write_text('{"status": "FAILURE", "message": "no data"}\n{"torn')
    assert failure_reason(tmp_path, tmp_path / "run", 1, time.time()) == "no data"
    assert failure_reason(tmp_path, tmp_path / "run", 1, time.time() + 60) == "exit code 1"  # an earlier attempt's line
    assert main([]) == 2 and main([str(tmp_path / "none")]) == 2
    with pytest.raises(RunError, match="holds no order"):
        supervise(tmp_path / "none")


@pytest.mark.parametrize(("request_", "grace", "code"), [("stop", 60.0, 143), ("stop", 0.3, 137), ("kill", 60.0, 137)])
def test_a_request_to_stop_is_passed_on_and_enforced(tmp_path: Path, request_: str, grace: float, code: int) -> None:
    handler = "lambda *_: None" if code == 137 else "lambda *_: sys.exit(143)"
    folder = order(tmp_path / "job", f"import signal, sys, time; signal.signal(signal.SIGTERM, {handler});"
                   "open('up', 'w').close(); time.sleep(600)")  # fmt: skip
    record = supervise(folder, stop_request=lambda: request_ if (folder / "up").exists() else "", grace=grace)
    assert record.exit_code == code and not is_alive(record.pid)


def test_the_program_passes_sigterm_on_as_a_cluster_sends_it(tmp_path: Path) -> None:
    folder = order(tmp_path / "job", "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143));"
                   "open('up', 'w').close(); time.sleep(600)")  # fmt: skip
    program = subprocess.Popen(
        [sys.executable, "-m", "unalike.jobs.supervisor", str(folder)], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while not (folder / "up").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(program.pid, signal.SIGTERM)
    assert program.wait(60) == 143
    record = AttemptRecord.read(folder, 2)
    assert record is not None and record.exit_code == 143 and not is_alive(record.pid)


def test_a_clock_that_is_set_back_hides_nothing_that_the_run_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``status.json`` is written an hour before the attempt began, by the clock of its end."""
    status = tmp_path / "job" / "run" / "status.json"
    folder = order(tmp_path / "job", f"import os, sys; os.mkdir('run'); open({str(status)!r}, 'w').write("
                   """'{"status": "FAILURE", "message": "no data"}'); sys.exit(1)""")  # fmt: skip
    real, ahead = time.time, [3600.0]

    def clock() -> float:
        ahead[0] = 0.0 if status.exists() else ahead[0]
        return real() + ahead[0]

    monkeypatch.setattr(time, "time", clock)
    record = supervise(folder)
    assert record.error == "no data" and record.started <= record.ended <= real()
