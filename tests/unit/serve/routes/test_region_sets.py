"""Sets of regions over HTTP: kept, replaced, removed, with what they were before; audited; hostile names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import run, running

NAME = "<b onclick=alert(1)>\"'&"
SET = {"frame": [100, 200], "boxes": [[1, 2, 30, 40]]}


def test_a_set_is_kept_replaced_and_removed_and_says_what_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            path = "/v1/region-sets"
            headers = {"Idempotency-Key": "k"}
            for _ in range(2):
                response = await it.client.post(path, json={"name": f"  {NAME} ", **SET}, headers=headers)
                assert response.json() == {"name": NAME, **SET, "former": None}
            latter = {"frame": [100, 200], "boxes": [[0, 0, 200, 100]]}
            assert (await it.client.post(path, json={"name": NAME, **latter})).json()["former"] == SET
        async with running(tmp_path) as it:
            assert (await it.client.get(path)).json() == {"sets": [{"name": NAME, **latter}]}
            for _ in range(2):
                removed = await it.client.delete(path, params={"name": NAME}, headers={"Idempotency-Key": "d"})
                assert removed.json()["former"] == latter
            assert (await it.client.get(path)).json() == {"sets": []}
            assert (await it.client.delete(path, params={"name": NAME})).status_code == 404
            entries = (await it.client.get("/v1/audit", params={"resource": NAME})).json()["entries"]
            assert [entry["action"] for entry in entries] == [
                "region-sets.remove",
                "region-sets.keep",
                "region-sets.keep",
            ]

    run(scenario())


@pytest.mark.parametrize("change", [
    {"name": ""}, {"name": "photo\u202egnp"}, {"name": "x" * 101}, {"boxes": []}, {"boxes": [[0, 0, 201, 9]]}, {"boxes": [[0, 0, 9, 101]]},
    {"frame": [100]}, {"frame": [0, 5]}, {"frame": None}, {"boxes": None}, {"more": 1},
])  # fmt: skip
def test_what_is_no_set_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post("/v1/region-sets", json={"name": "clock", **SET, **change})
            assert response.status_code == 422, response.text
            assert it.service.store.settings.all("regions") == {}

    run(scenario())


def test_who_may_only_look_keeps_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            keys = [it.service.store.keys.add("eye", "view")[1], it.service.store.keys.add("hand", "operate")[1]]
            it.service.access.refresh()
            for key, statuses in zip(keys, ((200, 403, 403), (200, 200, 200)), strict=True):
                headers = {"Authorization": f"Bearer {key}"}
                responses = [
                    await it.client.get("/v1/region-sets", headers=headers),
                    await it.client.post("/v1/region-sets", json={"name": "clock", **SET}, headers=headers),
                    await it.client.delete("/v1/region-sets?name=clock", headers=headers),
                ]
                assert tuple(response.status_code for response in responses) == statuses

    run(scenario())
