"""The process of a task: does what its order says, writes the result, and ends when the service does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.learning import Scene, make_scene, run_tasks
from unalike.errors import RunError
from unalike.serve.child_process import run_child
from unalike.serve.learning import worker
from unalike.serve.learning.candidate import TrainingOptions
from unalike.serve.learning.worker import Order, carry_out
from unalike.serve.store.learning import COMPARE, PROMOTE, TRAIN, ModelRecord

MODULE = "unalike.serve.learning.worker"


def order_for(scene: Scene, kind: str, **options: object) -> Order:
    """The order of a task that a process has begun."""
    place = scene.place
    scene.store.tasks.add(kind, place.name, options, actor="chief")
    task = scene.store.tasks.claim((kind,))
    assert task is not None
    return Order(
        task.id, str(place.folder), None, None, place.name, place.address, None, "onnxruntime", "auto", 1, 10**8, None, None,
        str(scene.folder / "work"),
    )  # fmt: skip


def test_a_comparison_is_written_into_the_store(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    scene.correct(0, 1)
    candidate = scene.add_candidate("color")
    order = order_for(scene, COMPARE, model=candidate.id)
    run_tasks(run_child(MODULE, [], order=order.to_line(), log=tmp_path / "log.txt"))
    task = scene.store.tasks.get(order.task)
    comparison = scene.store.learning.comparison(candidate.id)
    assert task is not None and comparison is not None and task.result == {"comparison": comparison.id}
    assert "comparing on 1 withheld images" in (tmp_path / "log.txt").read_text()


def test_a_refusal_is_its_last_line(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="color")
    candidate = scene.add_candidate("gray")
    order = order_for(scene, PROMOTE, model=candidate.id)
    with pytest.raises(RunError, match="not promoted: no held-out image"):
        run_tasks(run_child(MODULE, [], order=order.to_line(), log=tmp_path / "log.txt"))
    assert scene.store.audit.find().items[0].actor == "chief"


def test_a_training_that_is_begun_again_starts_from_nothing_and_makes_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path)
    order = order_for(scene, TRAIN, name="second")
    task, folder = scene.store.tasks.get(order.task), tmp_path / "work"
    assert task is not None
    (folder / "run").mkdir(parents=True)
    for name in ("run/status.json", "training.csv", "log.txt"):
        (folder / name).write_text("of the former process")
    seen: list[list[str]] = []

    def train(
        place: object, options: TrainingOptions, target: Path, *, task: str
    ) -> tuple[ModelRecord, dict[str, object]]:
        seen.append(sorted(path.name for path in target.iterdir()))
        record = replace(
            scene.add_candidate("color"), id="m2", task=task, name=options.name, facts={"figures": {"R@1": 0.5}}
        )
        scene.store.learning.add_model(record)
        return record, {"figures": {"R@1": 0.5}}

    monkeypatch.setattr(worker, "train_candidate", train)
    for _ in range(2):  # the second process finds what the first made before it ended
        assert carry_out(task, scene.place, order) == {"figures": {"R@1": 0.5}, "model": "m2"}
    assert seen == [["log.txt"]]


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
