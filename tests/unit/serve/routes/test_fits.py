"""Fits over HTTP: images are kept, an inspector is fitted to them and served, and what cannot be is refused before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.inspection_service import inspect, inspecting, part_picture
from tests.support.serving import files, picture, run
from unalike.serve.inspector_fits import KIND

PATIENCE_S = 55


async def keep(it: Any, count: int) -> list[dict[str, str]]:
    """Good images that the service keeps."""
    response = await it.client.post("/v1/images", files=files(*(part_picture(seed) for seed in range(count))))
    return [{"sha256": entry["sha256"], "name": f"good/{entry['path']}"} for entry in response.json()["images"]]


async def ended(it: Any, task: dict[str, Any]) -> dict[str, Any]:
    """A task when it is over."""
    async with asyncio.timeout(PATIENCE_S):
        while task["state"] in ("waiting", "running"):
            await asyncio.sleep(0.1)
            task = (await it.client.get(f"/v1/tasks/{task['id']}")).json()
    return task


def test_an_inspector_is_fitted_and_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            body = {"name": "new", "images": await keep(it, 20), "rate": 0.05}
            headers = {"Idempotency-Key": "k"}
            response = await it.client.post("/v1/fits", json=body, headers=headers)
            task = response.json()
            assert response.status_code == 202 and (task["state"], task["resource"], task["options"]["images"]) == (
                "waiting",
                "new",
                20,
            )
            assert (await it.client.post("/v1/fits", json=body, headers=headers)).json()["id"] == task["id"]
            assert (await it.client.post("/v1/fits", json=body)).status_code == 409
            assert "token" not in task and "target" not in task["options"] and task["options"]["rate"] == 0.05
            task = await ended(it, task)
            assert (task["state"], task["error"], task["attempts"]) == ("done", "", 1) and task["count"] == task[
                "total"
            ] > 0
            async with asyncio.timeout(PATIENCE_S):
                while "new" not in it.service.resources.inspectors:
                    await asyncio.sleep(0.05)
            described = (await it.client.get("/v1/inspectors/new")).json()
            assert (
                described["is_own"] and described["images"] == 20 and described["fitted"]["set_by"].startswith("good/")
            )
            answers = await inspect(it, part_picture(300), part_picture(100, is_scratched=True), name="new")
            assert answers[1]["decision"] == "defective" and answers[1]["score"] > 2 * answers[0]["score"]
            assert (await it.client.get("/v1/tasks", params={"kind": KIND})).json()["tasks"][0] == task
            entries = (await it.client.get("/v1/audit", params={"action": "inspectors.fit"})).json()["entries"]
            assert [(e["resource"], e["details"]["images"], e["outcome"]) for e in entries] == [("new", 20, "done")]

    run(scenario())


def test_a_fit_that_fails_says_why_and_its_name_is_free_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            images = await keep(it, 2)
            broken = picture("red")[:60] + b"x" * 40
            sha = it.service.store.images.put(broken)
            body = {"name": "new", "images": [*images, {"sha256": sha, "name": "<b>torn</b>"}], "rate": 0.5}
            for image in images[1:]:
                it.service.store.images.delete(image["sha256"])
            body["images"] = [images[0], {"sha256": sha, "name": "<b>torn</b>"}, {"sha256": sha, "name": "torn too"}]
            task = await ended(it, (await it.client.post("/v1/fits", json=body)).json())
            assert task["state"] == "failed" and "<b>torn</b>" in task["error"] and "/tmp" not in task["error"]
            assert "new" not in it.service.resources.inspectors
            assert (await it.client.post("/v1/fits", json=body)).status_code == 202

    run(scenario())


def test_a_fit_is_canceled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            body = {"name": "new", "images": await keep(it, 20), "rate": 0.05}
            task = (await it.client.post("/v1/fits", json=body)).json()
            assert (await it.client.post(f"/v1/tasks/{task['id']}/cancel")).json()["state"] == "canceled"
            assert (await ended(it, task))["state"] == "canceled"
            assert (await it.client.post(f"/v1/tasks/{task['id']}/cancel")).status_code == 409
            assert (await it.client.post("/v1/tasks/none/cancel")).status_code == 404
            assert (await it.client.get("/v1/tasks/none")).status_code == 404

    run(scenario())


@pytest.mark.parametrize(("change", "status", "word"), [
    ({"name": "part"}, 409, "there is an inspector"), ({"name": "../x"}, 422, "letters"), ({"images": []}, 422, "at least 19 images"),
    ({"images": "all"}, 422, "no list"), ({"images": [{"sha256": "x"}] * 3}, 404, "hexadecimal"), ({"rate": 0.01}, 422, "79 too few"), ({"rate": 0.01}, 422, "at least 99 images"), ({"images": [], "rate": 0.9}, 422, "at least 2 images"),
    ({"decisions": "all"}, 422, "no object"), ({"decisions": {"inspector": "prt"}}, 422, "whose decisions"),
    ({"decisions": {"inspector": "part", "since": "yesterday"}}, 422, "since"), ({"decisions": {"inspector": "part", "label": "x"}}, 422, "label"),
    ({"images": [{"sha256": "0" * 64}] * 20}, 404, "not kept"), ({"network": "other"}, 422, "whose network"), ({"light": "dim"}, 422, "even"),
    ({"surprise": 1}, 422, "surprise"), ({"ignore_boxes": [[1, 1, 1, 1]]}, 422, "boxes"),
])  # fmt: skip
def test_what_cannot_be_fitted_is_refused_at_once(
    tmp_path: Path, change: dict[str, Any], status: int, word: str
) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            body = {"name": "new", "images": await keep(it, 20), "rate": 0.05, **change}
            response = await it.client.post("/v1/fits", json=body)
            assert response.status_code == status and word in response.json()["detail"], response.text
            assert it.service.store.tasks.find().items == []

    run(scenario())


def test_images_are_kept_and_what_is_none_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            answer = (await it.client.post("/v1/images", files=files(picture("red"), b"x"))).json()
            assert it.service.store.images.get(answer["images"][0]["sha256"]) == picture("red")
            assert [entry["path"] for entry in answer["unreadable"]] == ["1.png"]
            assert (await it.client.post("/v1/images", files=files(b"x"))).status_code == 422

    run(scenario())


async def judge(it: Any, answers: list[dict[str, Any]], *, is_good: bool = True) -> None:
    """Say of answers whether their parts are good."""
    for answer in answers:
        verdict = "confirmed" if (answer["decision"] == "good") == is_good else "wrong"
        await it.client.post(f"/v1/decisions/{answer['id']}/feedback", json={"verdict": verdict})


def test_an_inspector_is_fitted_to_decisions_that_people_called_good(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            answers = await inspect(
                it, *(part_picture(seed) for seed in range(18)), part_picture(100, is_scratched=True)
            )
            await judge(it, answers[:18])
            await judge(it, answers[18:], is_good=False)
            count = (await it.client.get("/v1/inspectors/part/good-images")).json()
            assert count == {"inspector": "part", "images": 18, "not_kept": 0}
            assert (await it.client.get("/v1/good-images?until=2020-01-01")).json()["images"] == 0
            assert (await it.client.get("/v1/good-images?since=x")).status_code == 422
            assert (await it.client.get("/v1/inspectors/none/good-images")).status_code == 404
            body = {"name": "new", "rate": 0.05, "decisions": {"inspector": "part", "since": "2020-01-01"}}
            response = await it.client.post("/v1/fits", json=body)
            assert response.status_code == 422 and "18 good images: 1 too few" in response.json()["found"]
            it.service.store.images.delete(it.service.store.decisions.get(answers[0]["id"]).image)
            response = await it.client.post("/v1/fits", json=body)
            assert (
                "17 good images (1 more were called good, and their picture is not kept): 2 too few"
                in response.json()["found"]
            )
            assert it.service.store.tasks.find().items == []
            body["images"] = await keep(it, 19)  # 17 of them are pictures of the decisions
            response = await it.client.post("/v1/fits", json={**body, "decisions": None})
            task = await ended(it, (await it.client.post("/v1/fits", json={**body, "name": "both"})).json())
            assert response.status_code == 202 and (task["state"], task["error"]) == ("done", "")
            assert task["options"]["images"] == 19
            assert task["options"]["decisions"] == {"inspector": "part", "since": "2020-01-01T00:00:00+00:00"}
            entries = (await it.client.get("/v1/audit", params={"action": "inspectors.fit"})).json()["entries"]
            assert entries[0]["details"]["images"] == 19 and entries[0]["details"]["decisions"]["inspector"] == "part"

    run(scenario())
