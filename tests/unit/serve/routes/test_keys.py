"""API keys over HTTP: made by administrators, shown once, revoked at once, and never the last one that may all."""

from __future__ import annotations

from pathlib import Path

from tests.support.serving import run, running


def test_the_first_key_is_one_that_may_all_and_its_secret_is_told_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            post = it.client.post
            response = await post("/v1/keys", json={"name": "till", "role": "operate"})
            assert response.status_code == 409 and response.json()["type"].endswith(":last-admin")
            headers = {"Idempotency-Key": "first"}
            response = await post("/v1/keys", json={"name": "chief", "role": "admin"}, headers=headers)
            assert response.status_code == 201
            key = response.json()
            admin = {"x-api-key": key["secret"]}
            assert (await it.client.get("/v1/keys")).status_code == 401, "at once nobody does anything without a key"
            listing = (await it.client.get("/v1/keys", headers=admin)).json()["keys"]
            assert (
                [entry["name"] for entry in listing] == ["chief"]
                and "secret" not in listing[0]
                and "digest" not in listing[0]
            )
            with it.service.store.database.reading() as connection:
                rows = connection.exec_driver_sql("SELECT body FROM idempotency").scalars().all()
                dump = "\n".join(
                    str(row)
                    for table in ("keys", "audit")
                    for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
                )
            assert len(rows) == 1 and key["secret"] not in rows[0] + dump and '"secret": null' in rows[0]

    run(scenario())


def test_keys_are_made_and_revoked_by_administrators_of_all_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            store = it.service.store
            chief = {"x-api-key": store.keys.add("chief", "admin")[1]}
            local = {"x-api-key": store.keys.add("local", "admin", "others")[1]}
            till = {"x-api-key": store.keys.add("till", "operate")[1]}
            it.service.access.refresh()
            for headers, status in ((local, 403), (till, 403), (chief, 200)):
                assert (await it.client.get("/v1/keys", headers=headers)).status_code == status
                answer = await it.client.post("/v1/keys", json={"name": f"new {status}"}, headers=headers)
                assert answer.status_code == (201 if status == 200 else status)
            new = answer.json()
            assert (new["role"], new["gallery"]) == ("operate", None)
            assert (await it.client.get("/v1/classes", headers={"x-api-key": new["secret"]})).status_code == 200
            for body, status in (({"name": "new 200"}, 422), ({"name": " "}, 422), ({}, 422), ({"name": "a", "role": "x"}, 422),
                                 ({"name": "a", "gallery": "none"}, 404), ({"name": "a://b:c@d"}, 422), ({"name": "a", "other": 1}, 422)):  # fmt: skip
                assert (await it.client.post("/v1/keys", json=body, headers=chief)).status_code == status, body
            path = f"/v1/keys/{new['id']}"
            for headers, status in ((local, 403), (till, 403), (chief, 200), (chief, 422)):
                assert (await it.client.delete(path, headers=headers)).status_code == status
            assert (await it.client.delete("/v1/keys/none", headers=chief)).status_code == 404
            chief_id = next(key.id for key in store.keys.list() if key.name == "chief")
            response = await it.client.delete(f"/v1/keys/{chief_id}", headers=chief)
            assert response.status_code == 409 and response.json()["type"].endswith(":last-admin")
            entries = store.audit.find(action="keys.revoke").items
            assert [(entry.actor, entry.resource, entry.outcome) for entry in entries] == [("chief", "new 200", "done")]
            assert entries[0].request_id

    run(scenario())


def test_a_repeated_revocation_is_answered_as_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            chief = {"x-api-key": it.service.store.keys.add("chief", "admin")[1]}
            till = it.service.store.keys.add("till", "view")[0]
            it.service.access.refresh()
            headers = {**chief, "Idempotency-Key": "x"}
            first, second = [await it.client.delete(f"/v1/keys/{till.id}", headers=headers) for _ in range(2)]
            assert first.status_code == second.status_code == 200 and first.json() == second.json()
            assert first.json()["revoked"] and second.headers["idempotency-replayed"] == "true"

    run(scenario())
