"""Endpoints of trainings: data is checked, a training runs in a process of its own, is followed and canceled."""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
from pathlib import Path

import pytest

from tests.support.learning import NAME, TASK_PATIENCE_S, finished, hue_picture, make_scene, run_tasks, serving
from tests.support.serving import until
from tests.support.standin_training import GATE
from unalike.serve.learning import desk

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MODULE", "tests.support.standin_training")


def archive(classes: int = 2, images: int = 2) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for label in range(classes):
            for number in range(images):
                file.writestr(f"color {label}/{number}.png", hue_picture(label, 500 + number))
    return stream.getvalue()


def test_the_data_is_checked_before(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (tmp_path / "old" / "color 0").mkdir(parents=True)
    (tmp_path / "old/color 0/broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "old/color 0/same.png").write_bytes(hue_picture(0, 1000))

    async def scenario() -> None:
        async with serving(scene, train_folders=[f"old={tmp_path / 'old'}"]) as it:
            assert (await it.client.get("/v1/training-data")).json() == {"folders": ["old"]}
            answer = (await it.client.post("/v1/trainings/checks", json={"folder": "old"})).json()
            assert answer["gallery"] == NAME and answer["decoded"] and answer["images"] == 12 and answer["classes"] == 4
            assert (
                answer["duplicates"] == 1
                and answer["unreadable"]["count"] == 1
                and answer["sources"] == {"reference": 12}
            )
            upload = await it.client.post(
                "/v1/training-data", content=archive(), headers={"content-type": "application/zip"}
            )
            assert upload.status_code == 201
            answer = (
                await it.client.post("/v1/trainings/checks", json={**upload.json(), "with_service": False})
            ).json()
            assert answer["images"] == 4 and answer["sources"] == {"folder": 4}
            for body, status in (({"folder": "/etc"}, 422), ({"upload": "x"}, 422), ({"gallery": "none"}, 404), ({"what": 1}, 422),
                                 ({"with_service": False}, 422)):  # fmt: skip
                assert (await it.client.post("/v1/trainings/checks", json=body)).status_code == status, body
            assert (await it.client.post("/v1/training-data", content=b"text")).status_code == 422

    run_tasks(scenario())


def test_a_training_is_followed_to_its_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(tmp_path)
    gate = tmp_path / "gate"
    monkeypatch.setenv(GATE, str(gate))

    async def scenario() -> None:
        async with serving(scene) as it:
            body = {"minutes": 0.2, "goal": "known-classes", "name": MARKUP}
            started = await it.client.post("/v1/trainings", json=body, headers={"Idempotency-Key": "one"})
            again = await it.client.post("/v1/trainings", json=body, headers={"Idempotency-Key": "one"})
            assert started.status_code == 202 and again.json() == started.json()
            address = f"/v1/trainings/{started.json()['id']}"
            async with asyncio.timeout(TASK_PATIENCE_S):
                while (
                    "training <b>began</b>"
                    not in (await it.client.get(address.replace("trainings", "tasks") + "/log")).text
                ):
                    await asyncio.sleep(0.1)
            training = (await it.client.get(address)).json()
            assert training["state"] == "running" and training["curves"]["train_loss"] == [
                [1, 1],
                [2, 0.5],
                [3, pytest.approx(1 / 3)],
            ]
            report = await it.client.get(training["report"])
            assert (
                report.headers["content-type"].startswith("text/html")
                and "sandbox" in report.headers["content-security-policy"]
                and '<main>\n<p><a href="/train?gallery=' in report.text
            )
            gate.write_text("")
            task = await finished(it, started)
            (candidate,) = (await it.client.get("/v1/candidates")).json()["candidates"]
            assert (
                candidate["id"] == task["result"]["model"]
                and candidate["name"] == MARKUP
                and not candidate["in_service"]
            )
            assert "data" not in candidate["facts"] and candidate["comparison"] is None
            assert [entry["id"] for entry in (await it.client.get("/v1/trainings")).json()["tasks"]] == [task["id"]]
            for path in ("/v1/trainings/none", "/v1/tasks/none/log", "/v1/trainings/none/report"):
                assert (await it.client.get(path)).status_code == 404

    run_tasks(scenario())


def test_what_a_request_asks_for_is_checked(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)

    async def scenario() -> None:
        async with serving(scene) as it:
            for body in (
                {"minutes": 0},
                {"minutes": "long"},
                {"goal": "fame"},
                {"share": 1},
                {"folder": "none"},
                {"name": "x" * 201},
            ):
                assert (await it.client.post("/v1/trainings", json=body)).status_code == 422, body
            assert (await it.client.get("/v1/trainings")).json() == {"tasks": [], "next": None}
            keys = {
                role: {"x-api-key": it.service.store.keys.add(role, role)[1]} for role in ("view", "operate", "admin")
            }
            it.service.access.refresh()
            for role in ("view", "operate"):
                assert (await it.client.post("/v1/trainings", json={}, headers=keys[role])).status_code == 403
                assert (await it.client.get("/v1/trainings", headers=keys[role])).status_code == 200
                assert (await it.client.get("/v1/tasks/x/log", headers=keys[role])).status_code == 403

    run_tasks(scenario())


def test_a_training_is_canceled_and_its_process_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(tmp_path)
    monkeypatch.setenv(GATE, str(tmp_path / "never"))

    async def scenario() -> None:
        async with serving(scene) as it:
            started = await it.client.post("/v1/trainings", json={})
            task_id = started.json()["id"]
            async with asyncio.timeout(TASK_PATIENCE_S):
                while "began" not in it.service.learning.log(task_id):
                    await asyncio.sleep(0.1)
            canceled = await it.client.post(f"/v1/tasks/{task_id}/cancel")
            assert canceled.status_code == 200 and canceled.json()["state"] == "canceled"
            assert (await it.client.post(f"/v1/tasks/{task_id}/cancel")).status_code == 409
            await until(lambda: it.service.learning.tasks.running != task_id)
            second = await it.client.post("/v1/trainings", json={})
            assert (await it.client.get(f"/v1/tasks/{second.json()['id']}")).json()["state"] in ("waiting", "running")
        assert scene.store.tasks.get(second.json()["id"]).state == "waiting"  # for the next start

    run_tasks(scenario())


def test_a_training_uses_the_cores_that_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(tmp_path)
    core = min(os.sched_getaffinity(0))
    seen: list[object] = []

    async def note(module: str, arguments: object, on_line: object, **options: object) -> None:
        seen.append(options["cores"])

    monkeypatch.setattr(desk, "run_child", note)

    async def scenario() -> None:
        async with serving(scene, train_cores=[core]) as it:
            await finished(it, await it.client.post("/v1/trainings", json={}))
        assert seen == [[core]]

    run_tasks(scenario())
