"""Settings over HTTP: changed for good, effective without a restart, in the audit log; and what is served."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from tests.support.serving import run, running
from unalike.serve.file_watch import FileWatch, read_status
from unalike.serve.resources import AssetsResource, InspectorResource
from unalike.serve.routes.settings import describe_served
from unalike.serve.store import DecisionRecord
from unalike.serve.store.records import utc_now


def test_retention_is_changed_for_good_and_holds_at_once(tmp_path: Path) -> None:
    async def first() -> None:
        async with running(tmp_path, retention_days=10.0) as it:
            store = it.service.store
            sha = store.images.put(b"old")
            path = Path(store.images.address) / sha[:2] / sha
            os.utime(path, (time.time() - 5 * 86400,) * 2)
            store.decisions.add([DecisionRecord("identify", "colors", "label", time=utc_now() - timedelta(days=100))])
            it.service.purge(it.service.retention())
            assert store.images.exists(sha) and store.decisions.count() == 1
            response = await it.client.put("/v1/settings", json={"retention_days": 3, "decision_days": 50})
            assert response.status_code == 200
            assert response.json()["settings"]["retention_days"] == {"value": 3.0, "default": 10.0, "is_changed": True}
            it.service.purge(it.service.retention())
            assert not store.images.exists(sha) and store.decisions.count() == 0

    async def second() -> None:
        async with running(tmp_path, retention_days=10.0) as it:
            settings = (await it.client.get("/v1/settings")).json()["settings"]
            assert (settings["retention_days"]["value"], settings["decision_days"]["value"]) == (3.0, 50.0)
            headers = {"Idempotency-Key": "back"}
            answers = [
                await it.client.put("/v1/settings", json={"retention_days": None}, headers=headers) for _ in range(2)
            ]
            assert (
                answers[0].json() == answers[1].json()
                and answers[0].json()["settings"]["retention_days"]["value"] == 10.0
            )
            entries = it.service.store.audit.find(action="settings.change").items
            assert len(entries) == 2 and entries[0].details == {"retention_days": {"before": 3.0, "after": None}}
            for body in ({}, {"retention_days": -1}, {"retention_days": "x"}, {"other": 1}):
                assert (await it.client.put("/v1/settings", json=body)).status_code == 422

    run(first())
    run(second())


def test_settings_are_for_administrators_of_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            keys = {name: {"x-api-key": it.service.store.keys.add(name, role, gallery)[1]} for name, role, gallery in
                    (("chief", "admin", None), ("local", "admin", "colors"), ("till", "operate", None))}  # fmt: skip
            it.service.access.refresh()
            for name, status in (("chief", 200), ("local", 403), ("till", 403)):
                assert (await it.client.get("/v1/settings", headers=keys[name])).status_code == status
                answer = await it.client.put("/v1/settings", json={"decision_days": 1}, headers=keys[name])
                assert answer.status_code == status

    run(scenario())


def test_what_is_served_is_listed_with_files_versions_and_states(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            rows = (await it.client.get("/v1/settings")).json()["served"]
            assert [(row["kind"], row["name"]) for row in rows] == [("model", "standin.onnx"), ("gallery", "colors")]
            gallery = rows[1]
            assert (
                gallery["file"] == str(tmp_path / "colors.gallery")
                and gallery["bytes"] == (tmp_path / "colors.gallery").stat().st_size
            )
            assert gallery["modified"].endswith("Z") and gallery["version"].startswith("revision ")
            assert gallery["state"] == "3 references of 3 classes; not calibrated"
            path = tmp_path / "part.inspector"
            path.write_bytes(b"1")

            async def fail() -> None:
                raise ValueError

            resources = it.service.resources
            resources.inspectors["part"] = InspectorResource("part", str(path), None)  # type: ignore[arg-type]
            resources.assets["logo"] = AssetsResource("logo", str(tmp_path / "gone"), None)  # type: ignore[arg-type]
            watch = resources.watches["inspector part"] = FileWatch(str(path), read_status(str(path)), fail)
            states = {row["name"]: row for row in describe_served(resources)}
            assert states["part"]["state"] == "in service" and states["part"]["bytes"] == 1 and not watch.has_failed
            assert states["logo"]["bytes"] is None and states["logo"]["modified"] is None
            path.write_bytes(b"damaged")
            for _ in range(2):  # the second look sees that it is written no more
                try:
                    await watch.look()
                except ValueError:
                    pass
            assert watch.has_failed
            assert describe_served(resources)[2]["state"].startswith("its changed file cannot be loaded")

    run(scenario())
