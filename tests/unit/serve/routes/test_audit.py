"""The audit log over HTTP."""

from __future__ import annotations

from pathlib import Path

from tests.support.serving import run, running


def test_changes_are_listed_with_who_made_them_for_admins_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            keys = {role: it.service.store.keys.add(role, role)[1] for role in ("operate", "admin")}
            it.service.access.refresh()
            admin = {"x-api-key": keys["admin"]}
            await it.client.post("/v1/classes/rename", json={"label": "red", "new": "crimson"}, headers=admin)
            await it.client.post("/v1/classes/rename", json={"label": "none", "new": "x"}, headers=admin)
            entries = (await it.client.get("/v1/audit?resource=colors", headers=admin)).json()["entries"]
            assert [(entry["action"], entry["outcome"], entry["actor"]) for entry in entries] == [
                ("classes.rename", "failed", "admin"), ("classes.rename", "done", "admin"),
            ]  # fmt: skip
            assert entries[1]["details"] == {"label": "red", "new": "crimson"} and entries[1]["finished"]
            failed = (await it.client.get("/v1/audit?outcome=failed", headers=admin)).json()["entries"]
            assert failed == entries[:1]
            assert (await it.client.get("/v1/audit?outcome=x", headers=admin)).status_code == 422
            assert (await it.client.get("/v1/audit", headers={"x-api-key": keys["operate"]})).status_code == 403

    run(scenario())
