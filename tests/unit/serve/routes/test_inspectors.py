"""Inspectors over HTTP: what is set for one counts at once, is audited, undone, and lasts; one that was fitted here is removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.inspected_parts import fitted_inspector
from tests.support.inspection_service import inspect, inspecting, part_picture
from tests.support.serving import run

PATH = "/v1/inspectors/part"


def test_a_threshold_counts_at_once_and_after_a_restart_and_is_audited(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            before = (await it.client.get(PATH)).json()
            assert before["frame"] == [64, 64] and before["images"] == 24 and len(before["good_scores"]) == 24
            assert before["threshold"] is None and before["alarm"] == before["fitted"] and not before["is_own"]
            (answer,) = await inspect(it, part_picture(100, is_scratched=True))
            assert answer["decision"] == "defective" and answer["size"] == [64, 64]
            high = answer["score"] * 2
            headers = {"Idempotency-Key": "k1"}
            for _ in range(2):  # a repeated request is carried out once
                changed = (await it.client.post(f"{PATH}/threshold", json={"threshold": high}, headers=headers)).json()
                assert changed["threshold"] == changed["alarm"]["threshold"] == high
                assert changed["former"] == {"threshold": None, "fitted": None, "ignore_boxes": []}
            (answer,) = await inspect(it, part_picture(100, is_scratched=True))
            assert (answer["decision"], answer["threshold"]) == ("good", high)
            entries = (await it.client.get("/v1/audit", params={"action": "inspectors.threshold"})).json()["entries"]
            assert [(e["resource"], e["details"], e["outcome"]) for e in entries] == [
                ("part", {"threshold": high}, "done")
            ]
        async with inspecting(tmp_path) as it:
            assert (await it.client.get(PATH)).json()["threshold"] == high
            back = (await it.client.post(f"{PATH}/threshold", json={"threshold": None})).json()
            assert (
                back["threshold"] is None and back["former"]["threshold"] == high and back["alarm"] == before["alarm"]
            )
            (answer,) = await inspect(it, part_picture(100, is_scratched=True))
            assert answer["decision"] == "defective"

    run(scenario())


def test_a_threshold_for_another_fit_does_not_count(tmp_path: Path) -> None:
    async def scenario() -> dict[str, Any]:
        async with inspecting(tmp_path) as it:
            content = {"threshold": 9.0, "fitted": 1.0, "ignore_boxes": []}
            it.service.store.settings.set("inspector", "part", content, "ann")
            await it.service.inspectors.refresh()
            return dict((await it.client.get(PATH)).json())

    described = run(scenario())
    assert described["stale"] and described["threshold"] == 9.0 and described["alarm"] == described["fitted"]


def test_ignored_regions_count_and_keep_the_threshold(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            (before,) = await inspect(it, part_picture(100, is_scratched=True))
            await it.client.post(f"{PATH}/threshold", json={"threshold": 0.5})
            response = await it.client.post(f"{PATH}/ignored-regions", json={"boxes": [[32, 32, 64, 64]]})
            changed = response.json()
            assert changed["ignore_boxes"] == [[32, 32, 64, 64]] and changed["threshold"] == 0.5
            (after,) = await inspect(it, part_picture(100, is_scratched=True))
            assert after["score"] < before["score"]
            undone = (
                await it.client.post(f"{PATH}/ignored-regions", json={"boxes": changed["former"]["ignore_boxes"]})
            ).json()
            assert undone["ignore_boxes"] == [] and undone["threshold"] == 0.5
            assert (await inspect(it, part_picture(100, is_scratched=True)))[0]["score"] == pytest.approx(
                before["score"]
            )

    run(scenario())


@pytest.mark.parametrize(("path", "body", "status"), [
    ("threshold", {}, 422), ("threshold", {"threshold": 0}, 422), ("threshold", {"threshold": "x"}, 422),
    ("threshold", {"threshold": 1, "other": 2}, 422), ("threshold", {"threshold": True}, 422),
    ("ignored-regions", {"boxes": [[0, 0, 65, 10]]}, 422), ("ignored-regions", {"boxes": [[5, 5, 5, 9]]}, 422),
    ("ignored-regions", {"boxes": [[0, 0, 1.5, 9]]}, 422), ("ignored-regions", {"boxes": "nothing"}, 422),
    ("ignored-regions", {"boxes": [[0, 0, 9, 9]] * 101}, 422), ("ignored-regions", {"boxes": [[-1, 0, 9, 9]]}, 422),
])  # fmt: skip
def test_what_cannot_be_set_is_refused_and_nothing_is_changed(
    tmp_path: Path, path: str, body: Any, status: int
) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            assert (await it.client.post(f"{PATH}/{path}", json=body)).status_code == status
            assert (await it.client.post(f"/v1/inspectors/other/{path}", json=body)).status_code == 404
            assert it.service.store.settings.all("inspector") == {}

    run(scenario())


def test_who_may_only_look_sets_nothing_and_a_key_of_a_gallery_sees_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            keys = {role: it.service.store.keys.add(role, role)[1] for role in ("view", "operate")}
            keys["gallery"] = it.service.store.keys.add("gallery", "operate", "colors")[1]
            it.service.access.refresh()

            async def status(key: str, method: str, path: str, **options: Any) -> int:
                headers = {"Authorization": f"Bearer {keys[key]}"}
                return int((await it.client.request(method, path, headers=headers, **options)).status_code)

            body: dict[str, Any] = {"json": {"threshold": 3}}
            assert await status("view", "GET", PATH) == 200 and await status("gallery", "GET", PATH) == 403
            assert await status("view", "POST", f"{PATH}/threshold", **body) == 403
            assert await status("gallery", "POST", f"{PATH}/threshold", **body) == 403
            assert (
                await status("view", "DELETE", PATH) == 403
                and await status("gallery", "POST", f"{PATH}/restore") == 403
            )
            assert await status("operate", "POST", f"{PATH}/threshold", **body) == 200

    run(scenario())


def test_an_inspector_that_was_fitted_here_is_removed_and_restored_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            assert (await it.client.delete(PATH)).status_code == 409
            own = it.service.inspectors
            fitted_inspector().save(own.path("own"))
            await own.refresh()
            assert (await it.client.get("/v1/inspectors/own")).json()["is_own"]
            assert (await it.client.delete("/v1/inspectors/own")).json() == {"inspector": "own"}
            assert (await it.client.get("/v1/inspectors/own")).status_code == 404
            assert (await it.client.post("/v1/inspectors/own/restore")).status_code == 200
            assert (await it.client.get("/v1/inspectors/own")).status_code == 200
            assert (await it.client.post("/v1/inspectors/own/restore")).status_code == 404
            entries = (await it.client.get("/v1/audit", params={"resource": "own"})).json()["entries"]
            assert [(entry["action"], entry["outcome"]) for entry in entries] == [
                ("inspectors.restore", "failed"), ("inspectors.restore", "done"), ("inspectors.remove", "done"),
            ]  # fmt: skip

    run(scenario())
