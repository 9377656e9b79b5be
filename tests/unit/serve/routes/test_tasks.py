"""Endpoints of tasks: fits and trainings in one list, what is told of them, and who may see and cancel which."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.learning import NAME, make_scene, run_tasks, serving
from unalike.serve.inspector_fits import KIND as FIT
from unalike.serve.model_files import LOG_FILE, task_folder
from unalike.serve.store.learning import COMPARE, PROMOTE, TRAIN
from unalike.serve.task_runner import TaskRunner


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks wait: no process does them."""

    async def look(self: TaskRunner) -> None:
        return None

    monkeypatch.setattr(TaskRunner, "look", look)


def test_fits_and_trainings_are_in_one_list_without_paths(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    tasks = scene.store.tasks
    fit = tasks.add(
        FIT,
        "<b>part</b>",
        {"images": [{}, {}], "defects": [], "rate": 0.5, "target": "/x", "network": "/y"},
        actor="ann",
    )
    training = tasks.add(TRAIN, NAME, {"minutes": 2.0, "data": "/old"}, actor="bob")
    tasks.add(TRAIN, "other", {})
    folder = task_folder(scene.store.folder, fit.id)
    folder.mkdir(parents=True)
    (folder / LOG_FILE).write_text("a line\n")

    async def scenario() -> None:
        async with serving(scene) as it:
            page = (await it.client.get("/v1/tasks", params={"limit": 2})).json()
            assert [task["resource"] for task in page["tasks"]] == ["other", NAME]
            rest = (await it.client.get("/v1/tasks", params={"after": page["next"]})).json()
            assert [task["id"] for task in rest["tasks"]] == [fit.id] and rest["next"] is None
            task = (await it.client.get(f"/v1/tasks/{fit.id}")).json()
            assert task == rest["tasks"][0] and task["options"] == {"images": 2, "defects": 0, "rate": 0.5}
            assert "token" not in task and "lease_end" not in task
            assert (await it.client.get(f"/v1/tasks/{training.id}")).json()["options"] == {"minutes": 2.0}
            for query, count in (
                ({"kind": FIT}, 1),
                ({"kind": TRAIN}, 2),
                ({"resource": NAME}, 1),
                ({"kind": COMPARE}, 0),
            ):
                assert len((await it.client.get("/v1/tasks", params=query)).json()["tasks"]) == count, query
            for query in ({"kind": "dream"}, {"limit": 0}, {"x": 1}):
                assert (await it.client.get("/v1/tasks", params=query)).status_code == 422, query
            assert (await it.client.get(f"/v1/tasks/{fit.id}/log")).text == "a line\n"
            assert (await it.client.get(f"/v1/tasks/{training.id}/log")).text == ""
            assert (await it.client.get("/v1/tasks/none")).status_code == 404

    run_tasks(scenario())


def test_a_task_is_canceled_once_and_that_is_audited(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    training, promotion = scene.store.tasks.add(TRAIN, NAME, {}), scene.store.tasks.add(PROMOTE, NAME, {})

    async def scenario() -> None:
        async with serving(scene) as it:
            address, headers = f"/v1/tasks/{training.id}/cancel", {"Idempotency-Key": "one"}
            first = await it.client.post(address, headers=headers)
            assert first.json()["state"] == "canceled" and first.json()["finished"] is not None
            assert (await it.client.post(address, headers=headers)).json() == first.json()
            again = await it.client.post(address)
            assert again.status_code == 409 and again.json()["type"].endswith("task-over")
            refused = await it.client.post(f"/v1/tasks/{promotion.id}/cancel")
            assert refused.status_code == 409 and refused.json()["type"].endswith("not-cancelable")
            (entry,) = (await it.client.get("/v1/audit", params={"action": "tasks.cancel"})).json()["entries"]
            assert entry["resource"] == NAME and entry["details"] == {"id": training.id, "kind": TRAIN}

    run_tasks(scenario())


def test_a_key_sees_and_cancels_what_it_may(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    tasks = scene.store.tasks
    fit, own, other = tasks.add(FIT, NAME, {}), tasks.add(TRAIN, NAME, {}), tasks.add(TRAIN, "other", {})

    async def scenario() -> None:
        async with serving(scene) as it:
            keys = {
                role: {"x-api-key": it.service.store.keys.add(role, role)[1]} for role in ("view", "operate", "admin")
            }
            only = {"x-api-key": it.service.store.keys.add("only", "admin", gallery=NAME)[1]}
            it.service.access.refresh()
            for role, statuses in (("view", (403, 403)), ("operate", (200, 403))):
                answers = [
                    await it.client.post(f"/v1/tasks/{task.id}/cancel", headers=keys[role]) for task in (fit, own)
                ]
                assert tuple(answer.status_code for answer in answers) == statuses, role
                assert len((await it.client.get("/v1/tasks", headers=keys[role])).json()["tasks"]) == 3
                assert (await it.client.get(f"/v1/tasks/{own.id}/log", headers=keys[role])).status_code == 403
            # The fit has the name of the gallery, and is another thing.
            assert [task["id"] for task in (await it.client.get("/v1/tasks", headers=only)).json()["tasks"]] == [own.id]
            assert (await it.client.get("/v1/tasks", params={"kind": FIT}, headers=only)).json()["tasks"] == []
            for task, status in ((fit, 404), (other, 404), (own, 200)):
                assert (await it.client.get(f"/v1/tasks/{task.id}", headers=only)).status_code == status
            assert (await it.client.post(f"/v1/tasks/{own.id}/cancel", headers=only)).status_code == 200
            assert (await it.client.post(f"/v1/tasks/{other.id}/cancel", headers=keys["admin"])).status_code == 200

    run_tasks(scenario())


def test_a_task_is_asked_for_once_and_that_is_audited(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)

    async def scenario() -> None:
        async with serving(scene) as it:
            first = await it.client.post("/v1/trainings", json={"minutes": 2}, headers={"Idempotency-Key": "one"})
            again = await it.client.post("/v1/trainings", json={"minutes": 2}, headers={"Idempotency-Key": "one"})
            assert first.status_code == 202 and again.json() == first.json() and first.json()["state"] == "waiting"
            assert len((await it.client.get("/v1/tasks")).json()["tasks"]) == 1
            (entry,) = (await it.client.get("/v1/audit", params={"action": "tasks.begin"})).json()["entries"]
            assert entry["resource"] == NAME and entry["details"] == {"kind": TRAIN} and entry["outcome"] == "done"

    run_tasks(scenario())
