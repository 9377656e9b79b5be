"""References moved and removed together: all or none, once under a key, and back again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.serving import files, picture, run, running
from unalike.recognition.gallery import Gallery
from unalike.serve.routes.reference_sets import MAX_REFERENCES
from unalike.serve.store import New

SHADES = [(200, 180, number) for number in (10, 20, 30)]


async def enroll(it: SimpleNamespace, label: str = "gold") -> list[dict[str, Any]]:
    data = {"label": label, "attributes": '{"site": "x"}'}
    response = await it.client.post("/v1/references", files=files(*map(picture, SHADES)), data=data)
    return list(response.json()["references"])


def vectors_of(it: SimpleNamespace, label: str) -> np.ndarray:
    """Vectors of a class as the file holds them, by ascending id."""
    gallery = Gallery.load(it.service.resources.gallery().address)
    with gallery.view() as view:
        snapshot = view.snapshot()
        rows = [row for row, code in enumerate(snapshot.codes_N) if snapshot.classes[code] == label]
        return snapshot.vectors(np.array(rows))


def test_references_move_with_vectors_and_pictures_and_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            references = await enroll(it)
            before = vectors_of(it, "gold")
            body = {"ids": [references[2]["id"], references[0]["id"]], "label": "brass"}
            answer = (await it.client.post("/v1/references/move", json=body)).json()
            assert answer["images"] == 6 and [entry["label"] for entry in answer["references"]] == ["brass"] * 2
            gallery = it.service.resources.gallery().gallery
            assert gallery.attributes() == {"site": {"x": 3}} and answer["references"][0]["attributes"] == {"site": "x"}
            np.testing.assert_allclose(vectors_of(it, "brass"), before[[2, 0]], atol=1e-6)
            assert (await it.client.get(answer["references"][0]["image"])).content == picture(SHADES[2])
            counts = Gallery.load(it.service.resources.gallery().address).counts()
            assert (counts["gold"], counts["brass"]) == (1, 2)
            assert (await it.client.get(f"/v1/references/{references[0]['id']}")).status_code == 404
            back = {"ids": [entry["id"] for entry in answer["references"]], "label": "gold"}
            await it.client.post("/v1/references/move", json=back)
            assert "brass" not in it.service.resources.gallery().gallery.counts()
            np.testing.assert_allclose(np.sort(vectors_of(it, "gold"), axis=0), np.sort(before, axis=0), atol=1e-6)

    run(scenario())


def test_of_ids_of_which_one_is_missing_nothing_is_changed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for path, more in (("move", {"label": "x"}), ("remove", {})):
                response = await it.client.post(f"/v1/references/{path}", json={"ids": [0, 99], **more})
                assert response.status_code == 404 and "99" in response.json()["detail"]
                for ids in ([], [0, 0], [-1], ["0"], [True], 0, None, list(range(MAX_REFERENCES + 1))):
                    response = await it.client.post(f"/v1/references/{path}", json={"ids": ids, **more})
                    assert response.status_code == 422, ids
            for label in ("", " ", None):
                assert (
                    await it.client.post("/v1/references/move", json={"ids": [0], "label": label})
                ).status_code == 422
            assert it.service.resources.gallery().gallery.counts() == {"red": 1, "green": 1, "blue": 1}

    run(scenario())


def test_removed_references_come_back_from_their_kept_pictures(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            references = await enroll(it)
            before = vectors_of(it, "gold")
            ids = [entry["id"] for entry in references]
            assert (await it.client.post("/v1/references/remove", json={"ids": ids})).json()["images"] == 3
            assert "gold" not in Gallery.load(it.service.resources.gallery().address).counts()
            hashes = [entry["name"].removeprefix("sha256:").partition("/")[0] for entry in references]
            response = await it.client.post("/v1/references", json={"pictures": hashes, "labels": ["gold"] * 3})
            assert response.status_code == 201
            np.testing.assert_allclose(vectors_of(it, "gold"), before, atol=1e-6)
            for wrong in (["0" * 64], ["x"], ["../" + "0" * 61]):
                response = await it.client.post("/v1/references", json={"pictures": wrong, "label": "gold"})
                assert response.status_code == 404, wrong
            response = await it.client.post("/v1/references", json={"pictures": hashes * 30, "label": "gold"})
            assert response.status_code == 413
            response = await it.client.post(
                "/v1/references", json={"pictures": hashes, "decision": "x", "label": "gold"}
            )
            assert response.status_code == 422

    run(scenario())


def test_a_repeated_move_is_carried_out_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            ids = [entry["id"] for entry in await enroll(it)]
            request = {"json": {"ids": ids, "label": "brass"}, "headers": {"idempotency-key": "k1"}}
            first = await it.client.post("/v1/references/move", **request)
            again = await it.client.post("/v1/references/move", **request)
            assert again.json() == first.json() and again.headers["idempotency-replayed"] == "true"

    run(scenario())


@pytest.mark.parametrize("path", ["move", "remove"])
def test_after_a_kill_between_change_and_answer_the_repeated_request_succeeds(tmp_path: Path, path: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            ids, store = [entry["id"] for entry in await enroll(it)], it.service.store
            body = {"ids": ids, **({"label": "brass"} if path == "move" else {})}
            request = {"json": body, "headers": {"idempotency-key": "k1"}}
            complete = store.idempotency.complete
            store.idempotency.complete = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed"))  # type: ignore[method-assign]
            assert (await it.client.post(f"/v1/references/{path}", **request)).status_code == 500
            store.idempotency.complete = complete  # type: ignore[method-assign]
            store.idempotency.claim = lambda key, actor, digest: New(key, actor, "t", is_retry=True)  # type: ignore[method-assign]
            response = await it.client.post(f"/v1/references/{path}", **request)
            assert response.status_code == 200
            counts = it.service.resources.gallery().gallery.counts()
            assert counts.get("brass", 0) == (3 if path == "move" else 0) and "gold" not in counts
            if path == "move":
                assert len(response.json()["references"]) == 3

    run(scenario())


def test_moving_needs_the_role_operate_and_stands_in_the_audit_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            keys = {role: {"x-api-key": it.service.store.keys.add(role, role)[1]} for role in ("view", "operate")}
            it.service.access.refresh()
            body = {"ids": [0], "label": "crimson"}
            assert (await it.client.post("/v1/references/move", json=body, headers=keys["view"])).status_code == 403
            assert (await it.client.post("/v1/references/move", json=body, headers=keys["operate"])).status_code == 200
            entry = it.service.store.audit.find().items[0]
            assert (entry.action, entry.actor, entry.details) == (
                "references.move",
                "operate",
                {"ids": ["0"], "label": "crimson"},
            )

    run(scenario())
