"""Endpoints of candidates: compare, refuse, promote while requests are answered, return; a restart serves what was promoted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.learning import NAME, TASK_PATIENCE_S, finished, hue_picture, make_scene, run_tasks, serving
from tests.support.postgres import new_database
from tests.support.serving import files
from unalike.recognition.gallery import Gallery
from unalike.serve.store import open_store

MARKUP = "<img src=x onerror=alert(1)>"


async def labels(it: SimpleNamespace) -> list[str]:
    """What the service says of the four colors."""
    response = await it.client.post("/v1/identify", files=files(*(hue_picture(number, 77) for number in range(4))))
    return [answer["nearest"] for answer in response.json()["answers"]]


async def network(it: SimpleNamespace) -> str:
    (model,) = (await it.client.get("/v1/models")).json()["models"]
    return str(model["network"])


async def until_network(it: SimpleNamespace, key: str) -> None:
    async with asyncio.timeout(TASK_PATIENCE_S):
        while await network(it) != key:
            await asyncio.sleep(0.05)


def test_a_candidate_is_compared_promoted_and_taken_back(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray", calibrated=True)
    for shade in range(24):
        scene.correct(shade % 4, shade)
    candidate = scene.add_candidate("color")
    right = [f"color {number}" for number in range(4)]

    async def scenario() -> None:
        async with serving(scene) as it:
            first, before = await network(it), await labels(it)
            assert before != right
            address = f"/v1/candidates/{candidate.id}"
            refused = await it.client.post(f"{address}/promotion", json={})
            assert refused.status_code == 409 and refused.json()["type"].endswith("not-compared")
            await finished(it, await it.client.post(f"{address}/comparison"))
            shown = (await it.client.get(address)).json()
            result = shown["comparison"]["result"]
            assert result["verdict"]["decision"] == "promote" and result["images"] == 24 and result["changes"]
            assert (
                "file" not in shown
                and "changes"
                not in (await it.client.get("/v1/candidates")).json()["candidates"][0]["comparison"]["result"]
            )

            answers: list[list[str]] = []

            async def ask() -> None:
                while True:
                    answers.append(await labels(it))

            asking = asyncio.create_task(ask())
            await finished(it, await it.client.post(f"{address}/promotion", json={}))
            await until_network(it, candidate.network)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert {tuple(answer) for answer in answers} <= {tuple(before), tuple(right)}  # the old or the new, whole
            assert await labels(it) == right
            listed = (await it.client.get("/v1/candidates")).json()
            assert listed["can_roll_back"] and listed["candidates"][0]["in_service"]
            again = await it.client.post(f"{address}/promotion", json={})
            assert again.status_code == 409 and again.json()["type"].endswith("in-service")
            enrolled = await it.client.post("/v1/references", files=files(hue_picture(6, 6)), data={"label": MARKUP})
            assert enrolled.status_code == 201
            (promotion,) = (await it.client.get("/v1/promotions")).json()["promotions"]
            assert promotion["model"] == candidate.id and promotion["details"]["verdict"]["decision"] == "promote"
        async with serving(scene) as it:
            assert await network(it) == candidate.network and await labels(it) == right
            await finished(it, await it.client.post("/v1/rollback", json={}))
            await until_network(it, first)
            classes = {entry["label"] for entry in (await it.client.get("/v1/classes")).json()["classes"]}
            assert MARKUP in classes and len(await labels(it)) == 4
            assert (await it.client.post("/v1/rollback", json={})).status_code == 409
            actions = [entry["action"] for entry in (await it.client.get("/v1/audit")).json()["entries"]]
            assert actions[0] == "model.rollback" and "model.promote" in actions
        async with serving(scene) as it:
            assert await network(it) == first

    run_tasks(scenario())


def test_one_comparison_of_a_candidate_waits_or_runs_at_a_time(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray")
    one, other = scene.add_candidate("color"), scene.add_candidate("gray")

    async def scenario() -> None:
        async with serving(scene) as it:
            answers = await asyncio.gather(
                *(it.client.post(f"/v1/candidates/{one.id}/comparison") for _ in range(3)),
                it.client.post(f"/v1/candidates/{other.id}/comparison"),
            )
            assert sorted(answer.status_code for answer in answers[:3]) == [202, 409, 409]
            assert answers[3].status_code == 202, "another candidate may be compared beside it"
            refused = next(answer for answer in answers if answer.status_code == 409)
            assert refused.json()["type"].endswith("task-open")
            page = (await it.client.get("/train/state")).text
            assert f'id="candidate-{one.id}-compare" data-act="compare" disabled>It is being compared' in page
            begun = next(answer for answer in answers[:3] if answer.status_code == 202)
            assert begun.json()["id"] in refused.json()["detail"]
            await it.client.post(f"/v1/tasks/{begun.json()['id']}/cancel")
            again = await it.client.post(f"/v1/candidates/{one.id}/comparison")
            assert again.status_code == 202, "one that is over holds up no other"
            for answer in (again, answers[3]):
                await it.client.post(f"/v1/tasks/{answer.json()['id']}/cancel")

    run_tasks(scenario())


def test_a_bad_candidate_needs_an_override_with_a_reason(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="color")
    for shade in range(8):
        scene.correct(shade % 4, shade)
    bad = scene.add_candidate("gray")

    async def scenario() -> None:
        async with serving(scene) as it:
            address = f"/v1/candidates/{bad.id}"
            await finished(it, await it.client.post(f"{address}/comparison"))
            refused = await it.client.post(f"{address}/promotion", json={})
            assert refused.status_code == 409 and "the candidate is worse" in refused.json()["detail"]
            assert (await it.client.post(f"{address}/promotion", json={"override": True})).status_code == 422
            body = {"override": True, "reason": f"a drill {MARKUP}"}
            await finished(it, await it.client.post(f"{address}/promotion", json=body))
            await until_network(it, bad.network)
            entry = (await it.client.get("/v1/audit", params={"action": "model.promote"})).json()["entries"][0]
            assert entry["details"]["override"] is True and entry["details"]["reason"] == body["reason"]

    run_tasks(scenario())


def test_references_without_a_picture_are_listed_and_a_folder_is_named(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(hue_picture(6, 1))
    recognizer = scene.place.open(str(tmp_path / "service.onnx"))
    with Gallery.edit(scene.place.address) as gallery:
        gallery.enrol(recognizer.encode([hue_picture(6, 1)]), ["color 6"], ["/gone/a.png"])
    candidate = scene.add_candidate("color")

    async def scenario() -> None:
        async with serving(scene, train_folders=[f"pictures={tmp_path / 'pictures'}"]) as it:
            address = f"/v1/candidates/{candidate.id}/promotion"
            body: dict[str, Any] = {"override": True, "reason": "x"}
            refused = await it.client.post(address, json=body)
            assert refused.status_code == 409 and "/gone/a.png" in refused.json()["detail"]
            assert (await it.client.post(address, json={**body, "folder": str(tmp_path)})).status_code == 422
            await finished(it, await it.client.post(address, json={**body, "folder": "pictures"}))
            await until_network(it, candidate.network)

    run_tasks(scenario())


@pytest.mark.slow
def test_replicas_of_one_database_take_a_promoted_model_over_without_a_failed_request(tmp_path: Path) -> None:
    """Two services, one store and one gallery in PostgreSQL: each answer is of the old or the new model, none is refused."""
    pytest.importorskip("psycopg")
    url = new_database()
    scene = make_scene(tmp_path, address=f"{url}&gallery=colors", store_url=url)
    candidate = scene.add_candidate("color")
    right = [f"color {number}" for number in range(4)]
    other = replace(scene, store=open_store(url, scene.store.folder))
    statuses: list[int] = []

    async def ask(it: SimpleNamespace) -> None:
        while True:
            response = await it.client.post("/v1/identify", files=files(*(hue_picture(n, 77) for n in range(4))))
            statuses.append(response.status_code)

    async def scenario() -> None:
        async with serving(scene, store=url) as one, serving(other, store=url) as two:
            first = await network(one)
            asking = [asyncio.create_task(ask(it)) for it in (one, two)]
            body = {"override": True, "reason": "x"}
            await finished(one, await one.client.post(f"/v1/candidates/{candidate.id}/promotion", json=body))
            await asyncio.gather(*(until_network(it, candidate.network) for it in (one, two)))
            assert await labels(one) == await labels(two) == right
            enrolled = await two.client.post("/v1/references", files=files(hue_picture(6, 6)), data={"label": MARKUP})
            assert enrolled.status_code == 201
            await finished(two, await two.client.post("/v1/rollback", json={}))
            await asyncio.gather(*(until_network(it, first) for it in (one, two)))
            for it in (one, two):
                classes = {entry["label"] for entry in (await it.client.get("/v1/classes")).json()["classes"]}
                assert MARKUP in classes
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            assert set(statuses) == {200}

    run_tasks(scenario())


def test_keys_see_the_candidates_of_their_gallery_and_need_the_role(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    candidate = scene.add_candidate("color")

    async def scenario() -> None:
        async with serving(scene) as it:
            keys = it.service.store.keys
            viewer, other = keys.add("viewer", "view")[1], keys.add("other", "admin", "line")[1]
            it.service.access.refresh()
            path = f"/v1/candidates/{candidate.id}"
            assert (await it.client.get(path, headers={"x-api-key": viewer})).status_code == 200
            assert (await it.client.post(f"{path}/comparison", headers={"x-api-key": viewer})).status_code == 403
            assert (await it.client.post("/v1/rollback", headers={"x-api-key": viewer})).status_code == 403
            assert (await it.client.get(path, headers={"x-api-key": other})).status_code == 404
            assert (
                await it.client.get(f"/v1/galleries/{NAME}/candidates", headers={"x-api-key": other})
            ).status_code in (403, 404)

    run_tasks(scenario())


@pytest.mark.parametrize("path", ["comparison", "promotion"])
def test_there_is_no_such_candidate(tmp_path: Path, path: str) -> None:
    scene = make_scene(tmp_path)

    async def scenario() -> None:
        async with serving(scene) as it:
            assert (await it.client.post(f"/v1/candidates/none/{path}", json={})).status_code == 404
            assert (await it.client.get("/v1/candidates/none")).status_code == 404

    run_tasks(scenario())
