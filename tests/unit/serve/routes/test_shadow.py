"""Endpoint ``shadow``: begun, read, ended; answers of the service stay as they are; it survives a restart and a promotion ends it."""

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
from unalike.metrics.intervals import wilson_interval
from unalike.recognition.backends.address import edit_gallery
from unalike.serve.store import open_store

MARKUP = "<img src=x onerror=alert(1)>\"'&"


async def read(it: SimpleNamespace) -> dict[str, Any]:
    """The shadow."""
    shadow: dict[str, Any] = (await it.client.get("/v1/shadow")).json()["shadow"]
    return shadow


async def until_shadow(it: SimpleNamespace, **values: Any) -> dict[str, Any]:
    """The shadow when it has these values."""
    async with asyncio.timeout(TASK_PATIENCE_S):
        while True:
            shadow = await read(it)
            if all(shadow[name] == value for name, value in values.items()):
                return shadow
            await asyncio.sleep(0.05)


async def identify(it: SimpleNamespace, *numbers: int, shade: int = 77) -> list[dict[str, Any]]:
    response = await it.client.post("/v1/identify", files=files(*(hue_picture(n, shade) for n in numbers)))
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["answers"]
    return answers


def test_a_candidate_is_shadowed_read_and_ended(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray")
    candidate = scene.add_candidate("color")

    async def scenario() -> None:
        async with serving(scene) as it:
            assert (await it.client.get("/v1/shadow")).json() == {"gallery": NAME, "shadow": None}
            before = await identify(it, 0, 1, 2, 3)
            body = {"candidate": candidate.id, "share": 1}
            begun = await it.client.post(f"/v1/galleries/{NAME}/shadow", json=body)
            assert begun.status_code == 201 and begun.json()["shadow"]["state"] == "preparing"
            again = await it.client.post("/v1/shadow", json=body)
            assert again.status_code == 409 and again.json()["type"].endswith("shadow-runs")
            shadow = await until_shadow(it, state="running")
            assert (shadow["references"], shadow["left_out"], shadow["candidate"]) == (12, 0, candidate.id)
            answers = await identify(it, 0, 1, 2, 3)
            assert [answer["label"] for answer in answers] == [answer["label"] for answer in before]
            scores = [[answer["score"] for answer in some] for some in (answers, before)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-6)  # batches of other sizes round otherwise
            shadow = await until_shadow(it, sampled=4)
            same = sum(answer["label"] == f"color {number}" for number, answer in enumerate(answers))
            interval = wilson_interval(same, 4)
            assert shadow["agreement"] == {
                "count": same, "n": 4, "share": same / 4, "low": interval.low, "high": interval.high,
            }  # fmt: skip
            assert same < 4 and len(shadow["differences"]) == 4 - same
            difference = shadow["differences"][-1]
            number = next(n for n, answer in enumerate(answers) if answer["id"] == difference["id"])
            assert difference["in_service"]["label"] == answers[number]["label"]
            assert difference["candidate"]["label"] == f"color {number}" != answers[number]["label"]
            assert (await it.client.get(difference["image"])).status_code == 200
            remark = {"verdict": "wrong", "label": f"color {number}"}
            await it.client.post(f"/v1/decisions/{difference['id']}/feedback", json=remark)
            corrected = (await read(it))["corrected"]
            assert corrected == {
                "n": 1, "in_service": {"right": 0, "wrong": 1}, "candidate": {"right": 1, "wrong": 0},
            }  # fmt: skip
            first = (await it.client.get("/v1/shadow", params={"limit": 1})).json()["shadow"]
            if 4 - same > 1:
                assert first["next"] == first["differences"][0]["id"]
            metrics = (await it.client.get("/metrics")).text
            assert f'unalike_shadow_images_total{{gallery="{NAME}",outcome="computed"}} 4.0' in metrics
            ended = await it.client.delete("/v1/shadow")
            assert ended.status_code == 200 and ended.json()["shadow"]["state"] == "ended"
            assert ended.json()["shadow"]["ended"] == (await read(it))["ended"] is not None
            assert (await it.client.delete("/v1/shadow")).json()["type"].endswith("no-shadow")
            async with asyncio.timeout(TASK_PATIENCE_S):
                while it.service.shadows.has_shadow(NAME):
                    await asyncio.sleep(0.05)
            await identify(it, 0)
            assert (await read(it))["sampled"] == 4
            entries = (await it.client.get("/v1/audit")).json()["entries"]
            assert [entry["action"] for entry in entries[:2]] == ["shadow.end", "shadow.begin"]
            assert entries[1]["details"]["share"] == 1 and entries[1]["details"]["model"] == candidate.id

    run_tasks(scenario())


def test_a_shadow_goes_on_after_a_restart_and_ends_with_a_promotion(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray")
    candidate = scene.add_candidate("color")
    reopened = replace(scene)

    async def scenario() -> None:
        async with serving(scene) as it:
            await it.client.post("/v1/shadow", json={"candidate": candidate.id, "share": 0.5})
        reopened.store = open_store(None, scene.store.folder)
        async with serving(reopened) as it:
            await until_shadow(it, state="running", share=0.5)
            body = {"override": True, "reason": "x"}
            await finished(it, await it.client.post(f"/v1/candidates/{candidate.id}/promotion", json=body))
            shadow = await until_shadow(it, state="ended")
            assert shadow["message"] == "another model is in service"
            refused = await it.client.post("/v1/shadow", json={"candidate": candidate.id, "share": 0.5})
            assert refused.status_code == 409 and refused.json()["type"].endswith("in-service")

    run_tasks(scenario())


def test_what_cannot_be_shadowed_is_refused(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    candidate = scene.add_candidate("color")

    async def scenario() -> None:
        async with serving(scene) as it:
            for body in ({}, {"candidate": candidate.id}, {"candidate": candidate.id, "share": 0},
                         {"candidate": candidate.id, "share": 1.5}, {"candidate": candidate.id, "share": 1, "x": 1}):  # fmt: skip
                assert (await it.client.post("/v1/shadow", json=body)).status_code == 422
            assert (await it.client.post("/v1/shadow", json={"candidate": "none", "share": 1})).status_code == 404
            keys = it.service.store.keys
            secrets = {role: keys.add(role, role)[1] for role in ("view", "operate", "admin")}
            it.service.access.refresh()
            body = {"candidate": candidate.id, "share": 1}
            for role, status in (("view", 403), ("operate", 403), ("admin", 201)):
                response = await it.client.post("/v1/shadow", json=body, headers={"x-api-key": secrets[role]})
                assert response.status_code == status
            for role, status in (("view", 403), ("operate", 403), ("admin", 200)):
                assert (await it.client.get("/v1/shadow", headers={"x-api-key": secrets[role]})).status_code == 200
                response = await it.client.delete("/v1/shadow", headers={"x-api-key": secrets[role]})
                assert response.status_code == status

    run_tasks(scenario())


def test_replicas_of_one_store_shadow_each_their_own_traffic(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = new_database()
    scene = make_scene(tmp_path, address=f"{url}&gallery=colors", store_url=url)
    candidate = scene.add_candidate("color")
    other = replace(scene, store=open_store(url, scene.store.folder))

    async def scenario() -> None:
        async with serving(scene, store=url) as one, serving(other, store=url) as two:
            await one.client.post("/v1/shadow", json={"candidate": candidate.id, "share": 1})
            async with asyncio.timeout(TASK_PATIENCE_S):
                while not all(
                    any(runner._is_ready for runner in it.service.shadows._runners.values()) for it in (one, two)
                ):
                    await asyncio.sleep(0.05)
            await identify(one, 0, 1)
            await identify(two, 2)
            await until_shadow(two, sampled=3)
            await two.client.delete("/v1/shadow")
            async with asyncio.timeout(TASK_PATIENCE_S):
                while any(it.service.shadows.has_shadow(NAME) for it in (one, two)):
                    await asyncio.sleep(0.05)
            shadow = await read(one)
            assert shadow == await read(two) and shadow["ended"] is not None
            assert (shadow["state"], shadow["sampled"], shadow["dropped"]) == ("ended", 3, 0)

    run_tasks(scenario())


def test_the_page_shows_numbers_and_hostile_names_as_text(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, kind="gray")
    with edit_gallery(scene.place.address) as gallery:
        for number in range(4):
            gallery.rename(f"color {number}", f"{MARKUP} {number}")
    candidate = scene.add_candidate("color")

    async def scenario() -> None:
        async with serving(scene) as it:
            text = (await it.client.get("/train")).text
            assert (
                f'id="candidate-{candidate.id}-shadow"' in text
                and 'data-runs="no"' in text
                and "end-shadow" not in text
            )
            await it.client.post("/v1/shadow", json={"candidate": candidate.id, "share": 1})
            await until_shadow(it, state="running")
            await identify(it, 0, 1, 2, 3)
            await until_shadow(it, sampled=4)
            text = (await it.client.get("/train")).text
            assert 'data-act="shadow"' not in text and 'id="end-shadow"' in text and 'data-runs="yes"' in text
            part = (await it.client.get("/train/shadow")).text
            assert "<html" not in part and "image?side=128" in part and "95 % interval" in part
            assert "<img src=x" not in part and "&lt;img src=x" in part and "style=" not in part
            viewer = it.service.store.keys.add("viewer", "view")[1]
            it.service.access.refresh()
            part = (await it.client.get("/train/shadow", headers={"x-api-key": viewer})).text
            assert 'id="shadow-sampled"' in part and "end-shadow" not in part

    run_tasks(scenario())


def test_one_that_somebody_else_ended_is_not_ended_twice_and_the_state_needs_no_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path)
    candidate = scene.add_candidate("color")
    shadows = scene.store.shadows

    async def scenario() -> None:
        async with serving(scene) as it:
            await it.client.post("/v1/shadow", json={"candidate": candidate.id, "share": 1})
            active = shadows.active(NAME)
            with monkeypatch.context() as patch:
                patch.delattr(type(shadows), "summary")
                part = await it.client.get("/train/state")
                assert part.status_code == 200 and 'data-act="shadow"' not in part.text
            assert (await it.client.delete("/v1/shadow")).status_code == 200
            with monkeypatch.context() as patch:
                patch.setattr(shadows, "active", lambda gallery=None: active if gallery else [])
                again = await it.client.delete("/v1/shadow")
            assert again.status_code == 409 and again.json()["type"].endswith("no-shadow")
            entries = (await it.client.get("/v1/audit")).json()["entries"]
            assert [entry["action"] for entry in entries].count("shadow.end") == 1

    run_tasks(scenario())
