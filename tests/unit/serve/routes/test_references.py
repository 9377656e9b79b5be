"""References: enrolled with their pictures, durable before they are acknowledged, once under a key."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.serving import files, picture, run, running
from unalike.recognition.gallery import Gallery
from unalike.serve.store import New
from unalike.storage.digests import content_sha256

GOLD = (200, 180, 20)


def test_an_enrolled_reference_is_found_listed_shown_and_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            content = picture(GOLD, side=300)
            response = await it.client.post("/v1/references", files=files(content), data={"label": "gold"})
            assert response.status_code == 201 and response.json()["images"] == 4
            reference = response.json()["references"][0]
            assert reference["name"].startswith(f"sha256:{content_sha256(content)}/") and reference["label"] == "gold"
            # Another process that opens the file sees it: it was durable before the answer.
            assert Gallery.load(it.service.resources.gallery().address).counts()["gold"] == 1
            answer = (await it.client.post("/v1/identify", files=files(picture(GOLD)))).json()["answers"][0]
            assert answer["label"] == "gold" and answer["neighbours"][0]["name"] == reference["name"]
            assert (await it.client.get(reference["image"])).content == content
            small = await it.client.get(f"{reference['image']}?side=64")
            assert max(Image.open(io.BytesIO(small.content)).size) == 64
            listing = (await it.client.get("/v1/references?label=gold")).json()
            assert listing["references"] == [reference] and listing["next"] is None
            assert (await it.client.get(f"/v1/references/{reference['id']}")).json() == reference
            assert (await it.client.delete(f"/v1/references/{reference['id']}")).json()["images"] == 1
            assert (await it.client.get(f"/v1/references/{reference['id']}")).status_code == 404
            assert (await it.client.delete(f"/v1/references/{reference['id']}")).status_code == 404
            assert "gold" not in Gallery.load(it.service.resources.gallery().address).counts()

    run(scenario())


def test_pages_follow_ids(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            page = (await it.client.get("/v1/references?limit=2")).json()
            assert [entry["label"] for entry in page["references"]] == ["red", "green"]
            rest = (await it.client.get(f"/v1/references?after={page['next']}")).json()
            assert [entry["label"] for entry in rest["references"]] == ["blue"] and rest["next"] is None
            assert (await it.client.get("/v1/references?label=none")).status_code == 404

    run(scenario())


def test_of_several_images_all_are_enrolled_or_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post("/v1/references", files=files(picture(GOLD), b"x"), data={"label": "gold"})
            assert response.status_code == 422 and len(it.service.resources.gallery().gallery) == 3
            for data in ({}, {"label": " "}, {"label": "x" * 501}):
                assert (
                    await it.client.post("/v1/references", files=files(picture(GOLD)), data=data)
                ).status_code == 422
            import base64

            images = [base64.b64encode(picture(color)).decode() for color in (GOLD, (1, 2, 3))]
            response = await it.client.post("/v1/references", json={"image": images, "labels": ["gold", "black"]})
            assert [entry["label"] for entry in response.json()["references"]] == ["gold", "black"]
            assert (
                await it.client.post("/v1/references", json={"image": images, "labels": ["gold"]})
            ).status_code == 422

    run(scenario())


def test_a_class_that_must_exist_is_not_made_where_it_was_renamed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            data = {"label": "red", "require_class": "true"}
            answer = await it.client.post("/v1/references", files=files(picture(GOLD)), data=data)
            assert answer.status_code == 201
            renamed = await it.client.post("/v1/classes/rename", json={"label": "red", "new": "ruby"})
            assert renamed.status_code == 200
            refused = await it.client.post("/v1/references", files=files(picture((1, 2, 3))), data=data)
            assert refused.status_code == 404 and refused.json()["type"].endswith("no-class")
            counts = it.service.resources.gallery().gallery.counts()
            assert counts == {"ruby": 2, "green": 1, "blue": 1}
            made = await it.client.post("/v1/references", files=files(picture((1, 2, 3))), data={"label": "red"})
            assert made.status_code == 201

    run(scenario())


def test_an_image_that_is_a_reference_of_its_class_is_not_added_again_where_that_was_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            gold, black = picture(GOLD), picture((1, 2, 3))
            data = {"label": "gold", "skip_known": "true"}
            first = (await it.client.post("/v1/references", files=files(gold, gold), data=data)).json()
            assert len(first["references"]) == 1 and first["already_there"] == 1
            headers = {"idempotency-key": "k2"}
            second = await it.client.post("/v1/references", files=files(gold, black), data=data, headers=headers)
            assert second.status_code == 201 and second.json()["already_there"] == 1
            (added,) = second.json()["references"]
            assert added["name"].startswith(f"sha256:{content_sha256(black)}/")
            again = await it.client.post("/v1/references", files=files(gold, black), data=data, headers=headers)
            assert again.json() == second.json()
            none = (await it.client.post("/v1/references", files=files(gold), data=data)).json()
            assert none["references"] == [] and none["already_there"] == 1 and none["images"] == 5
            other = await it.client.post("/v1/references", files=files(gold), data={**data, "label": "brass"})
            assert len(other.json()["references"]) == 1, "it may be a reference of another class"
            twice = await it.client.post("/v1/references", files=files(gold), data={"label": "gold"})
            assert len(twice.json()["references"]) == 1 and twice.json()["already_there"] == 0

    run(scenario())


def test_a_repeated_request_is_carried_out_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            headers = {"idempotency-key": "k1"}
            request = {"files": files(picture(GOLD)), "data": {"label": "gold"}, "headers": headers}
            first = await it.client.post("/v1/references", **request)
            again = await it.client.post("/v1/references", **request)
            assert (
                again.status_code == 201
                and again.json() == first.json()
                and again.headers["idempotency-replayed"] == "true"
            )
            assert len(it.service.resources.gallery().gallery) == 4
            other = await it.client.post(
                "/v1/references", files=files(picture(GOLD)), data={"label": "brass"}, headers=headers
            )
            assert other.status_code == 422 and other.json()["type"].endswith("key-conflict")

    run(scenario())


def test_a_request_that_failed_may_be_repeated_under_its_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            headers = {"idempotency-key": "k1"}
            for _ in range(2):
                response = await it.client.post(
                    "/v1/references", files=files(b"x"), data={"label": "gold"}, headers=headers
                )
                assert response.status_code == 422 and response.json()["type"].endswith("unreadable-image")

    run(scenario())


def test_after_a_kill_between_change_and_answer_the_repeated_request_finds_what_was_applied(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            headers, store = {"idempotency-key": "k1"}, it.service.store
            request = {"files": files(picture(GOLD)), "data": {"label": "gold"}, "headers": headers}
            complete = store.idempotency.complete
            store.idempotency.complete = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed"))  # type: ignore[method-assign]
            assert (await it.client.post("/v1/references", **request)).status_code == 500
            store.idempotency.complete = complete  # type: ignore[method-assign]
            assert (
                await it.client.post("/v1/references", **request)
            ).status_code == 409  # the claim of the killed one holds
            claim = store.idempotency.claim
            store.idempotency.claim = lambda key, actor, digest: _retried(claim, key, actor, digest)  # type: ignore[method-assign]
            response = await it.client.post("/v1/references", **request)
            assert response.status_code == 201 and len(it.service.resources.gallery().gallery) == 4

    run(scenario())


def _retried(claim: object, key: str, actor: str, digest: str) -> New:
    """The claim of the killed process has ended, and this caller takes it over."""
    return New(key, actor, "t", is_retry=True)


def test_the_audit_log_says_who_did_what(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            await it.client.post("/v1/references", files=files(picture(GOLD)), data={"label": "gold"})
            await it.client.delete("/v1/references/999")
            entries = it.service.store.audit.find().items
            assert [(entry.action, entry.outcome) for entry in entries] == [
                ("references.remove", "failed"),
                ("references.add", "done"),
            ]
            assert entries[1].details["labels"] == ["gold"] and entries[1].actor == "anonymous"

    run(scenario())


def test_the_image_of_a_decision_is_enrolled_without_sending_it_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            content = picture(GOLD)
            decision = (await it.client.post("/v1/identify", files=files(content))).json()["answers"][0]["id"]
            body, headers = {"decision": decision, "label": "gold"}, {"idempotency-key": "k1"}
            response = await it.client.post("/v1/references", json=body, headers=headers)
            assert response.status_code == 201
            reference = response.json()["references"][0]
            assert reference["name"].startswith(f"sha256:{content_sha256(content)}/")
            assert (await it.client.post("/v1/references", json=body, headers=headers)).json() == response.json()
            assert (await it.client.get(reference["image"])).content == content
            assert (await it.client.post("/v1/references", data=body)).status_code == 415  # a form without files
            for wrong, status in (({**body, "decision": "none"}, 404), ({"decision": decision}, 422)):
                assert (await it.client.post("/v1/references", json=wrong)).status_code == status
            both = await it.client.post("/v1/references", files=files(content), data=body)
            assert both.status_code == 422 and "a decision" in both.json()["detail"]
            it.service.store.images.delete(content_sha256(content))
            assert (await it.client.post("/v1/references", json=body)).status_code == 404

    run(scenario())


def test_the_image_of_another_gallerys_decision_is_for_no_key_of_this_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            decision = (await it.client.post("/v1/identify", files=files(picture(GOLD)))).json()["answers"][0]["id"]
            headers = {"x-api-key": it.service.store.keys.add("till", "operate", "others")[1]}
            it.service.access.refresh()
            body = {"decision": decision, "label": "gold"}
            assert (await it.client.post("/v1/references", json=body, headers=headers)).status_code == 404

    run(scenario())


def test_an_image_that_was_not_kept_cannot_be_enrolled_by_its_decision(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, keep_images=False) as it:
            decision = (await it.client.post("/v1/identify", files=files(picture(GOLD)))).json()["answers"][0]["id"]
            response = await it.client.post("/v1/references", json={"decision": decision, "label": "gold"})
            assert response.status_code == 404 and "not kept" in response.json()["detail"]

    run(scenario())


def test_references_are_enrolled_with_attributes(tmp_path: Path) -> None:
    """The same picture at another site is another reference; a repeated request gets the same answer."""

    async def scenario() -> None:
        async with running(tmp_path) as it:

            async def enroll(attributes: str, **values: str) -> dict[str, Any]:
                data = {"label": "gold", "attributes": attributes, "skip_known": "true"}
                response = await it.client.post("/v1/references", files=files(picture(GOLD)), data=data, headers=values)
                return {"status": response.status_code, **response.json()}

            first = await enroll('{"site": "berlin"}', **{"Idempotency-Key": "1"})
            assert first["references"][0]["attributes"] == {"site": "berlin"}
            assert await enroll('{"site": "berlin"}', **{"Idempotency-Key": "1"}) == first
            assert (await enroll('{"site": "berlin"}'))["already_there"] == 1
            assert (await enroll("{}"))["already_there"] == 1  # whatever attributes it has
            assert len((await enroll('{"site": "lyon"}'))["references"]) == 1
            for bad in ('{"Site": "x"}', '{"site": 1}', "x", "[]"):
                assert (await enroll(bad))["status"] == 422
            path = f"/v1/references/{first['references'][0]['id']}"
            assert (await it.client.get(path)).json()["attributes"] == {"site": "berlin"}
            gallery = Gallery.load(it.service.resources.gallery().address)
            assert gallery.attributes() == {"site": {"berlin": 1, "lyon": 1}}

    run(scenario())
