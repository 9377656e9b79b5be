"""The process of a task: does what its order says, writes the result, and ends when the service does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.learning import Scene, make_scene, run_tasks
from unalike.errors import RunError
from unalike.serve.child_process import run_child
from unalike.serve.learning.worker import Order
from unalike.serve.store.learning import COMPARE, PROMOTE, TaskRecord

MODULE = "unalike.serve.learning.worker"


def order_for(scene: Scene, task: TaskRecord) -> Order:
    scene.store.learning.add_task(task)
    place = scene.place
    return Order(
        task.id, str(place.folder), None, None, place.name, place.address, None, "onnxruntime", "auto", 1, 10**8, None,
        str(scene.folder / "work"),
    )  # fmt: skip


def test_a_comparison_is_written_into_the_store(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    scene.correct(0, 1)
    candidate = scene.add_candidate("color")
    order = order_for(scene, TaskRecord(COMPARE, scene.place.name, {"model": candidate.id}))
    run_tasks(run_child(MODULE, [], order=order.to_line(), log=tmp_path / "log.txt"))
    task = scene.store.learning.task(order.task)
    comparison = scene.store.learning.comparison(candidate.id)
    assert task is not None and comparison is not None and task.result == {"comparison": comparison.id}
    assert "comparing on 1 withheld images" in (tmp_path / "log.txt").read_text()


def test_a_refusal_is_its_last_line(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="color")
    candidate = scene.add_candidate("gray")
    order = order_for(scene, TaskRecord(PROMOTE, scene.place.name, {"model": candidate.id}, "chief"))
    with pytest.raises(RunError, match="not promoted: no withheld image"):
        run_tasks(run_child(MODULE, [], order=order.to_line(), log=tmp_path / "log.txt"))
    assert scene.store.audit.find().items[0].actor == "chief"


def test_it_ends_when_its_service_is_killed(tmp_path: Path) -> None:
    """A stand-in of the service starts the process and is killed; the process waits in the middle of its work."""
    place = tmp_path / "pid"
    work = "\n".join([
        "import os, sys, threading, time", "from pathlib import Path", "from unalike.serve.learning.worker import _end_with_service",
        "def main():", "    sys.stdin.buffer.readline()", "    threading.Thread(target=_end_with_service, daemon=True).start()",
        f"    Path({str(place)!r}).write_text(str(os.getpid())); time.sleep(600)",
    ])  # fmt: skip
    (tmp_path / "waiting_work.py").write_text(work)
    program = "import asyncio; from unalike.serve.child_process import run_child; asyncio.run(run_child('waiting_work', [], order=b'{}'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    service = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        end = time.monotonic() + 60
        while not place.exists() or not place.read_text():
            assert time.monotonic() < end and service.poll() is None
            time.sleep(0.05)
        pid = int(place.read_text())
    finally:
        service.kill()
        service.wait()
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < end, "the process outlives its service"
        time.sleep(0.05)
