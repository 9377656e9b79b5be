"""Which decisions are sampled; images without a place are dropped and counted; a process that ends is started again."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.learning import NAME, Scene, make_scene
from tests.support.serving import run, until
from unalike.errors import StoreError
from unalike.serve.learning import shadow as module
from unalike.serve.learning.shadow import SampledImage, Shadowing, ShadowRunner, is_sampled
from unalike.serve.learning.shadow_worker import ShadowOrder
from unalike.serve.metrics import Metrics
from unalike.serve.store import DecisionRecord, new_id
from unalike.serve.store.learning import PromotionRecord
from unalike.serve.store.shadows import ShadowRecord

# A process that answers each image with its length; one of four bytes ends it.
STANDIN = """
import json, os, sys
def main():
    sys.stdin.buffer.readline()
    print(json.dumps({"ready": {"references": 3, "left_out": 1}}), flush=True)
    while line := sys.stdin.buffer.readline():
        content = sys.stdin.buffer.read(json.loads(line)["bytes"])
        if len(content) == 4:
            print("why it ended", file=sys.stderr, flush=True)
            os._exit(1)
        if len(content) == 6:
            sys.stdin.buffer.read()
        if len(content) == 5:
            print(json.dumps({"error": "no picture", "references": 3, "left_out": 1}), flush=True)
            continue
        answer = {"decision": "label", "label": "a", "nearest": "a", "score": float(len(content)), "threshold": None}
        print(json.dumps({"answer": answer, "references": 4, "left_out": 1}), flush=True)
"""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    (tmp_path / "standin_shadow.py").write_text(STANDIN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr(module, "MODULE", "standin_shadow")
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    return make_scene(tmp_path)


def begin(scene: Scene, share: float = 1.0) -> ShadowRecord:
    record = ShadowRecord(NAME, scene.add_candidate("color").id, share, "weights 1")
    assert scene.store.shadows.begin(record)
    return record


def make_runner(scene: Scene, record: ShadowRecord, metrics: Metrics) -> ShadowRunner:
    order = ShadowOrder(record.model, "x", None, None, NAME, "x", None, "auto", "auto", 1, 1)
    return ShadowRunner(record, order, scene.store, metrics)


def decided(scene: Scene, content: bytes) -> SampledImage:
    record = DecisionRecord("identify", NAME, "label", label="a")
    scene.store.decisions.add([record])
    return SampledImage(record.id, content)


def counted(metrics: Metrics, outcome: str) -> float:
    value = metrics.registry.get_sample_value("unalike_shadow_images_total", {"gallery": NAME, "outcome": outcome})
    return value or 0.0


def test_a_share_of_the_decisions_is_sampled_and_always_the_same() -> None:
    ids = [new_id() for _ in range(4000)]
    chosen = [id for id in ids if is_sampled(id, 0.25)]
    assert 850 < len(chosen) < 1150  # 6 standard deviations
    assert chosen == [id for id in ids if is_sampled(id, 0.25)]
    assert set(chosen) < {id for id in ids if is_sampled(id, 0.5)}, "a larger share holds the smaller one"
    assert all(is_sampled(id, 1.0) for id in ids) and not any(is_sampled(id, 0.0) for id in ids)
    assert [is_sampled(f"decision {number}", 0.3) for number in range(6)] == [True, False, False, True, True, True]


def test_sampled_images_are_answered_and_those_without_a_place_counted(scene: Scene) -> None:
    record, metrics = begin(scene), Metrics()

    async def scenario() -> None:
        runner = make_runner(scene, record, metrics)
        runner.offer([decided(scene, b"early")], is_busy=False)  # the candidate is not ready yet
        await until(lambda: runner._is_ready)
        runner.offer([decided(scene, b"x")], is_busy=True)
        runner.offer([decided(scene, b"x" * 7), decided(scene, b"wrong"), decided(scene, b"x" * 9)], is_busy=False)
        await until(lambda: counted(metrics, "computed") == 2)
        runner.offer([decided(scene, b"x" * 8) for _ in range(module.MAX_WAITING + 5)], is_busy=False)
        assert counted(metrics, "dropped") == 7
        await runner.stop()

    run(scenario())
    final = scene.store.shadows.get(record.id)
    assert final is not None and (final.state, final.reference_count, final.left_out) == ("running", 4, 1)
    summary = scene.store.shadows.summary(record.id)
    assert summary.sampled == summary.same >= 2
    assert counted(metrics, "failed") == 1
    assert final.dropped == counted(metrics, "dropped") + counted(metrics, "failed")


def test_large_images_that_wait_are_bounded_by_their_bytes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 20)
    record, metrics = begin(scene), Metrics()

    async def scenario() -> None:
        runner = make_runner(scene, record, metrics)
        await until(lambda: runner._is_ready)
        runner.offer([decided(scene, b"x" * 9) for _ in range(3)], is_busy=False)
        assert counted(metrics, "dropped") == 1
        await until(lambda: counted(metrics, "computed") == 2)
        runner.offer([decided(scene, b"x" * 9)], is_busy=False)
        await until(lambda: counted(metrics, "computed") == 3)
        await runner.stop()

    run(scenario())


def test_only_the_share_is_taken(scene: Scene) -> None:
    record, metrics = begin(scene, 0.5), Metrics()

    async def scenario() -> None:
        runner = make_runner(scene, record, metrics)
        images = [decided(scene, b"x") for _ in range(40)]
        runner.offer(images, is_busy=True)
        assert counted(metrics, "dropped") == sum(is_sampled(image.decision_id, 0.5) for image in images)
        await runner.stop()

    run(scenario())


def test_a_process_that_ends_is_started_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    record, metrics = begin(scene), Metrics()

    async def scenario() -> None:
        runner = make_runner(scene, record, metrics)
        await until(lambda: runner._is_ready)
        runner.offer([decided(scene, b"quit")], is_busy=False)
        await until(lambda: counted(metrics, "failed") == 1)
        await until(lambda: not runner._is_ready)
        await until(lambda: runner._is_ready)
        runner.offer([decided(scene, b"x")], is_busy=False)
        await until(lambda: counted(metrics, "computed") == 1)
        await runner.stop()

    run(scenario())
    final = scene.store.shadows.get(record.id)
    assert final is not None and final.state == "running" and final.message == ""
    assert "the process of the candidate ended: why it ended" in caplog.text


def test_the_image_in_hand_is_counted_when_the_service_stops(scene: Scene) -> None:
    record, metrics = begin(scene), Metrics()

    async def scenario() -> None:
        runner = make_runner(scene, record, metrics)
        await until(lambda: runner._is_ready)
        runner.offer([decided(scene, b"x" * 6)], is_busy=False)  # the candidate does not come to an end with it
        await until(lambda: runner._queue.empty())
        await runner.stop()

    run(scenario())
    assert counted(metrics, "dropped") == 1


def test_a_candidate_that_cannot_be_loaded_is_said_on_the_shadow_and_explained_in_the_log(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MODULE", "unalike.serve.learning.shadow_worker")
    record, metrics = begin(scene), Metrics()
    order = ShadowOrder(
        "none", str(scene.folder / "y"), None, None, NAME, "/none/x.gallery", None, "onnxruntime", "auto", 1, 1
    )

    def message() -> str:
        state = scene.store.shadows.get(record.id)
        return "" if state is None else state.message

    async def scenario() -> None:
        runner = ShadowRunner(record, order, scene.store, metrics)
        async with asyncio.timeout(60):
            while not message():
                await asyncio.sleep(0.05)
        await runner.stop()

    run(scenario())
    assert message() == "the candidate cannot be prepared; the service's log says why"
    assert "/none/x.gallery" in caplog.text and "Traceback" not in caplog.text


def test_one_process_that_fails_hides_no_other_that_answers(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_shadow.py").write_text("import sys\n\n\ndef main():\n    sys.exit(1)\n")
    record, metrics = begin(scene), Metrics()
    changes: list[dict[str, Any]] = []
    change = scene.store.shadows.change

    def note(*values: Any, **options: Any) -> bool:
        changes.append(options)
        return change(*values, **options)

    def state() -> str:
        final = scene.store.shadows.latest(NAME)
        return "" if final is None else final.state + final.message

    async def scenario() -> None:
        runner = make_runner(scene, record, metrics)
        await until(lambda: runner._is_ready)
        monkeypatch.setattr(module, "MODULE", "broken_shadow")
        monkeypatch.setattr(scene.store.shadows, "change", note)
        broken = make_runner(scene, record, metrics)
        await until(lambda: state() == f"preparing{module.UNPREPARED}")
        runner.offer([decided(scene, b"x")], is_busy=False)
        await until(lambda: state() == "running")
        await asyncio.sleep(0.5)  # the other one tries again and again
        assert state() == "running"
        assert sum(options.get("state") == "preparing" for options in changes) == 1
        await asyncio.gather(runner.stop(), broken.stop())

    run(scenario())


def shadowing_of(scene: Scene, network: str) -> tuple[Shadowing, Any]:
    """The shadows of a process that serves the gallery with a network."""
    identity = SimpleNamespace(network=network)
    resource = SimpleNamespace(name=NAME, address=scene.place.address, gallery=SimpleNamespace(model_identity=identity))
    order = ShadowOrder("none", "x", None, None, NAME, "x", None, "auto", "auto", 1, 1)
    shadowing = Shadowing(scene.store, Metrics(), lambda resource, record: order)
    return shadowing, SimpleNamespace(galleries={NAME: resource})


def test_a_shadow_ends_where_the_gallery_is_one_of_another_model_whatever_the_times(scene: Scene) -> None:
    network = scene.load().model_identity.network
    record = begin(scene)  # of a network that the gallery had before; no promotion is later than the shadow
    shadowing, resources = shadowing_of(scene, network)
    run(shadowing.look(resources))
    final = scene.store.shadows.latest(NAME)
    assert final is not None and (final.id, final.state) == (record.id, "ended")
    assert final.message == "another model is in service"


def test_a_process_that_serves_an_earlier_model_ends_no_shadow(scene: Scene) -> None:
    candidate = scene.add_candidate("color").id
    record = ShadowRecord(NAME, candidate, 1.0, scene.load().model_identity.network)
    assert scene.store.shadows.begin(record)
    time = record.time + timedelta(hours=1)  # by the clock of another machine
    promotion = PromotionRecord("promote", NAME, candidate, "x", "y", "chief", {}, time=time)
    scene.store.learning.add_promotion(promotion)
    shadowing, resources = shadowing_of(scene, "the earlier network")
    run(shadowing.look(resources))
    assert scene.store.shadows.active() == [record]
    Path(scene.place.address).unlink()  # what cannot be read says nothing
    run(shadowing.look(resources))
    assert scene.store.shadows.active() == [record]


def test_an_answer_that_cannot_be_written_is_counted_and_ends_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, metrics = begin(scene), Metrics()
    add = scene.store.shadows.add_answer
    starts: list[Any] = []

    def refuse(*values: Any) -> bool:
        monkeypatch.setattr(scene.store.shadows, "add_answer", add)
        raise StoreError("the disk is full")

    async def scenario() -> None:
        runner = make_runner(scene, record, metrics)
        await until(lambda: runner._is_ready)
        monkeypatch.setattr(runner, "_note", starts.append)  # of another process
        monkeypatch.setattr(scene.store.shadows, "add_answer", refuse)
        gone = SampledImage("gone", b"x")
        runner.offer([decided(scene, b"x"), gone, decided(scene, b"x")], is_busy=False)
        for _ in range(1000):
            if counted(metrics, "computed"):
                break
            await asyncio.sleep(0.01)
        await runner.stop()

    run(scenario())
    assert [counted(metrics, outcome) for outcome in ("failed", "dropped", "computed")] == [1, 1, 1] and not starts
    final = scene.store.shadows.latest(NAME)
    assert final is not None and final.dropped == 2 and scene.store.shadows.summary(record.id).sampled == 1


def test_all_processes_end_whatever_one_raises(scene: Scene) -> None:
    shadowing, _ = shadowing_of(scene, "x")
    ended: list[str] = []

    async def stop() -> None:
        ended.append("one")
        raise StoreError("the disk is full")

    shadowing._runners = {name: SimpleNamespace(stop=stop) for name in ("a", "b")}  # type: ignore[misc]
    run(shadowing.stop())
    assert len(ended) == 2 and not shadowing._runners
