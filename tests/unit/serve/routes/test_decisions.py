"""The record of decisions: listed, filtered, with image and feedback."""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.serving import COLORS, files, picture, run, running


def test_every_answer_is_recorded_with_its_image(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            content = picture("red", side=400)
            answer = (await it.client.post("/v1/identify", files=files(content))).json()["answers"][0]
            record = (await it.client.get(f"/v1/decisions/{answer['id']}")).json()
            assert (record["kind"], record["resource"], record["label"], record["actor"]) == (
                "identify",
                "colors",
                "red",
                "anonymous",
            )
            assert record["result"]["neighbours"] == answer["neighbours"] and record["score"] == answer["score"]
            response = await it.client.get(f"/v1/decisions/{answer['id']}/image")
            assert response.content == content and response.headers["content-type"] == "image/png"
            small = await it.client.get(f"/v1/decisions/{answer['id']}/image?side=64")
            assert (
                Image.open(io.BytesIO(small.content)).size == (64, 64) and small.headers["content-type"] == "image/jpeg"
            )

    run(scenario())


def test_a_decision_keeps_the_name_of_its_file_without_the_clients_folder(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            forms: list[tuple[dict[str, Any], str | None]] = [
                ({"files": {"image": ("C:\\Users\\Ann\\photo.png", picture("red"), "image/png")}}, "photo.png"),
                ({"json": {"image": {"content": b64encode(picture("red")).decode(), "name": "a/b\u202e.png"}}}, "b\\u202e.png"),
                ({"content": picture("red"), "headers": {"content-type": "image/png"}}, None),
            ]  # fmt: skip
            for form, name in forms:
                answer = (await it.client.post("/v1/identify", **form)).json()["answers"][0]
                record = (await it.client.get(f"/v1/decisions/{answer['id']}")).json()
                assert record["file"] == name
            listed = (await it.client.get("/v1/decisions")).json()["decisions"]
            assert [record["file"] for record in reversed(listed)] == [name for _, name in forms]
            schema = (await it.client.get("/openapi.json")).json()["components"]["schemas"]["DecisionModel"]
            assert "file" in schema["properties"]

    run(scenario())


def test_decisions_are_filtered_and_paged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for color in (*COLORS, "red"):
                await it.client.post("/v1/identify", files=files(picture(color)))

            async def labels(query: str) -> list[str]:
                return [entry["label"] for entry in (await it.client.get(f"/v1/decisions?{query}")).json()["decisions"]]

            assert await labels("") == ["red", "blue", "green", "red"]
            assert await labels("label=red&limit=5") == ["red", "red"]
            assert (
                await labels("until=2020-01-01") == []
                and len(await labels("since=2020-01-01T00:00:00Z&min_score=0.5")) == 4
            )
            assert await labels("max_score=-1") == [] and await labels("decision=unknown") == []
            page = (await it.client.get("/v1/decisions?limit=3")).json()
            assert await labels(f"after={page['next']}") == ["red"] and page["next"]
            for query in ("limit=0", "since=yesterday", "after=x", "kind=x", "verdict=x", "other=1", "min_score=a"):
                assert (await it.client.get(f"/v1/decisions?{query}")).status_code == 422, query

    run(scenario())


def test_feedback_is_kept_with_the_decision(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            answer = (await it.client.post("/v1/identify", files=files(picture("red")))).json()["answers"][0]
            path = f"/v1/decisions/{answer['id']}/feedback"
            response = await it.client.post(path, json={"verdict": "wrong", "label": "crimson", "note": "faded"})
            remark = response.json()["feedback"][0]
            assert (remark["verdict"], remark["label"], remark["note"], remark["actor"]) == (
                "wrong",
                "crimson",
                "faded",
                "anonymous",
            )
            again = {"json": {"verdict": "confirmed"}, "headers": {"idempotency-key": "f1"}}
            for _ in range(2):
                assert len((await it.client.post(path, **again)).json()["feedback"]) == 2
            assert (await it.client.post(path, json={"verdict": "wrong"}, headers=again["headers"])).status_code == 422
            await it.client.post(path, json={"verdict": "wrong"})
            assert len((await it.client.get("/v1/decisions?verdict=wrong")).json()["decisions"]) == 1
            for body in (
                {},
                {"verdict": "maybe"},
                {"verdict": "confirmed", "label": "x"},
                {"verdict": "new class"},
                {"verdict": 1},
            ):
                assert (await it.client.post(path, json=body)).status_code == 422, body
            missing = "/v1/decisions/01a226f0-c428-73b6-add8-9975fcc80346/feedback"
            assert (await it.client.post(missing, json={"verdict": "confirmed"})).status_code == 404

    run(scenario())


def test_feedback_that_is_withdrawn_stays_in_the_record_and_counts_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            answer = (await it.client.post("/v1/identify", files=files(picture("red")))).json()["answers"][0]
            path = f"/v1/decisions/{answer['id']}/feedback"
            await it.client.post(path, json={"verdict": "wrong", "label": "crimson"})
            assert (await it.client.post(path, json={"verdict": "withdrawn", "label": "x"})).status_code == 422
            record = (await it.client.post(path, json={"verdict": "withdrawn"})).json()
            assert [remark["verdict"] for remark in record["feedback"]] == ["wrong", "withdrawn"]
            assert not (await it.client.get("/v1/decisions?verdict=wrong")).json()["decisions"]
            assert len((await it.client.get("/v1/decisions?verdict=none")).json()["decisions"]) == 1
            assert (await it.client.get("/v1/decisions?verdict=withdrawn")).status_code == 422

    run(scenario())


def test_without_keeping_images_there_is_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, keep_images=False) as it:
            answer = (await it.client.post("/v1/identify", files=files(picture("red")))).json()["answers"][0]
            assert (await it.client.get(f"/v1/decisions/{answer['id']}")).json()["image"] is None
            assert (await it.client.get(f"/v1/decisions/{answer['id']}/image")).status_code == 404
            assert not list(it.service.store.images.hashes())

    run(scenario())
