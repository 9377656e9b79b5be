"""Work in a child process."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.serving import run, until
from unalike.errors import RunError
from unalike.serve import child_process
from unalike.serve.child_process import open_child, run_child
from unalike.serve.task_runner import Progress


def write_module(name: str, lines: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that a child finds."""
    (folder / f"{name}.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module whose ``main`` does what its argument says."""
    lines = [
        "import os, sys, time", "from pathlib import Path", "def main():", "    place = Path(sys.argv[2])",
        "    if sys.argv[1] == 'fail': sys.exit('error: no such network')",
        "    if sys.argv[1] == 'die': os._exit(7)",
        "    if sys.argv[1] == 'wait':", "        place.write_text(str(os.getpid())); time.sleep(600)",
        "    if sys.argv[1] == 'tell':", "        [print(line, flush=True) for line in ('one', '', 'zwei \\u00e4')]; sys.exit('error: too late')",
        "    time.sleep(0.2); place.write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))",
    ]  # fmt: skip
    write_module("standin_work", lines, tmp_path, monkeypatch)
    return "standin_work"


def test_it_runs_at_the_lowest_priority(module: str, tmp_path: Path) -> None:
    run(run_child(module, ["work", str(tmp_path / "out")]))
    assert int((tmp_path / "out").read_text()) == child_process.LOWEST_PRIORITY


def test_it_does_not_keep_what_the_service_has_open(module: str, tmp_path: Path) -> None:
    """uvloop closes nothing: a socket that is inheritable for workers would stay open in the child."""
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.set_inheritable(True)
        address = listener.getsockname()
        place = tmp_path / "pid"
        task = asyncio.create_task(run_child(module, ["wait", str(place)]))
        await until(lambda: place.exists() and place.read_text() != "")
        listener.close()
        socket.create_server(address, reuse_port=False).close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_a_failure_says_the_last_line_or_the_code(module: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="^no such network$"):
        run(run_child(module, ["fail", ""]))
    with pytest.raises(RunError, match="code 7"):
        run(run_child(module, ["die", ""]))


def test_its_lines_are_told_while_it_runs_and_an_error_in_that_ends_it(module: str, tmp_path: Path) -> None:
    lines: list[str] = []

    async def note(line: str) -> None:
        lines.append(line)

    with pytest.raises(RunError, match="^too late$"):
        run(run_child(module, ["tell", ""], note))
    assert lines == ["one", "", "zwei ä"]

    async def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="^one$"):
        run(run_child(module, ["tell", ""], refuse))


def test_it_is_killed_when_its_task_is_cancelled(module: str, tmp_path: Path) -> None:
    async def scenario() -> int:
        place = tmp_path / "pid"
        task = asyncio.create_task(run_child(module, ["wait", str(place)]))
        await until(lambda: place.exists() and place.read_text() != "")
        pid = int(place.read_text())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    with pytest.raises(ProcessLookupError):
        os.kill(run(scenario()), 0)


def test_an_open_child_is_asked_and_ends_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["import os, sys", "def main():", "    print(os.getpid(), os.getpriority(os.PRIO_PROCESS, 0), flush=True)",
             "    for line in sys.stdin: print(line.strip().upper(), flush=True)"]  # fmt: skip
    write_module("standin_talk", lines, tmp_path, monkeypatch)

    async def scenario() -> int:
        async with open_child("standin_talk", b"order") as (requests, answers):
            pid, _ = (await answers.readline()).split()
            assert await answers.readline() == b"ORDER\n"
            requests.write(b"one\ntwo\n")
            assert [await answers.readline() for _ in range(2)] == [b"ONE\n", b"TWO\n"]
            assert os.getpriority(os.PRIO_PROCESS, int(pid)) == child_process.LOWEST_PRIORITY
        return int(pid)

    with pytest.raises(ProcessLookupError):
        os.kill(run(scenario()), 0)


def test_with_a_log_its_lines_are_told_and_its_errors_are_kept(module: str, tmp_path: Path) -> None:
    lines: list[str] = []

    async def note(line: str) -> None:
        lines.append(line)

    log = tmp_path / "log.txt"
    with pytest.raises(RunError, match="^too late$"):
        run(run_child(module, ["tell", ""], note, log=log))
    assert lines == ["one", "", "zwei ä"] and log.read_text() == "error: too late\n"


def test_the_errors_of_an_open_child_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module("standin_fault", ["import sys", "def main(): sys.exit('why')"], tmp_path, monkeypatch)

    async def scenario() -> bytes:
        with tempfile.TemporaryFile() as errors:
            async with open_child("standin_fault", b"order", errors=errors) as (_, answers):
                assert await answers.readline() == b""
            return child_process.read_tail(errors)

    assert run(scenario()) == b"why\n"


def test_a_child_tells_how_far_its_work_is_and_other_lines_go_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "from unalike.progress import begin_step, progress", "from unalike.serve.child_process import tell_progress", "def main():",
        "    tell_progress()", "    print('a word of a library', flush=True)",
        "    with progress('sampling', 1000) as advance:", "        for _ in range(1000): advance()",
        "    begin_step('exporting')",
    ]  # fmt: skip
    write_module("standin_steps", lines, tmp_path, monkeypatch)
    told, state = [], Progress()

    async def take(line: str) -> None:
        await state.take(line)
        told.append(state.values)

    run(run_child("standin_steps", [], take, log=tmp_path / "log.txt"))
    assert told[0] == ("sampling", 0, 1000) and told[-2:] == [("sampling", 1000, 1000), ("exporting", 0, 0)]
    assert len(told) < 100  # not each step
    assert "a word of a library" in (tmp_path / "log.txt").read_text()
