"""``identify`` and ``embed`` over HTTP: answers equal the command line's, in shared batches, within limits."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.serving import COLORS, StandInEngine, files, picture, run, running, until


def test_an_answer_is_the_recognizers_with_an_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post("/v1/identify", files=files(picture("green", shift=3)), data={"k": "2"})
            resource = it.service.resources.gallery()
            expected = resource.recognizer.identify([picture("green", shift=3)], k=2)[0].to_dict()
            answer = response.json()["answers"][0]
            assert answer.pop("path") == "0.png" and len(answer.pop("id")) == 36 and answer.pop("index") == 0
            assert answer == {**expected, "neighbours": list(expected["neighbours"])}
            assert answer["label"] == "green" and response.json()["unreadable"] == []

    run(scenario())


def test_every_form_of_a_request_gives_the_same_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            content = picture("blue")
            answers = [
                await it.client.post("/v1/identify?k=1", files=files(content)),
                await it.client.post(
                    "/v1/galleries/others/identify", files=files(content, field="images"), data={"k": "1"}
                ),
                await it.client.post("/v1/identify", json={"image": base64.b64encode(content).decode(), "k": 1}),
                await it.client.post("/v1/identify?k=1", content=content, headers={"content-type": "image/png"}),
            ]
            plain = [{**answer.json()["answers"][0], "id": "", "path": ""} for answer in answers]
            assert plain[0]["label"] == "blue" and all(other == plain[0] for other in plain)

    run(scenario())


def test_requests_that_come_while_a_batch_runs_share_the_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = StandInEngine(batch=8, closed=True)
        async with running(tmp_path, engine) as it:
            batcher = it.service.resources.gallery().network.batcher
            first = asyncio.create_task(it.client.post("/v1/identify", files=files(picture("red"))))
            await engine.entered()
            others = [
                asyncio.create_task(it.client.post("/v1/identify", files=files(picture(name)))) for name in COLORS
            ]
            await until(lambda: batcher.waiting == 3)
            engine.release(2)
            responses = await asyncio.gather(first, *others)
            assert [response.json()["answers"][0]["label"] for response in responses] == ["red", *COLORS]
            assert engine.calls == [1, 3] and batcher.occupied == 0

    run(scenario())


def test_some_unreadable_images_are_listed_and_none_readable_is_an_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post("/v1/identify", files=files(b"no image", picture("red")))
            assert [(answer["index"], answer["path"]) for answer in response.json()["answers"]] == [(1, "1.png")]
            response_of_two = await it.client.post("/v1/identify", files=files(b"a", b"b"))
            assert response_of_two.status_code == 200 and len(response_of_two.json()["unreadable"]) == 2
            assert response.json()["unreadable"] == [
                {"index": 0, "path": "0.png", "reason": "0.png: not an image of a known format"}
            ]
            response = await it.client.post("/v1/identify", files=files(b"<svg/>"))
            assert response.status_code == 422 and response.json()["found"] == "0.png: not an image of a known format"
            assert response.headers["content-type"] == "application/problem+json"

    run(scenario())


def test_an_image_of_too_many_pixels_is_refused_with_the_options_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_pixels=100) as it:
            response = await it.client.post("/v1/identify", files=files(picture("red", side=11)))
            assert response.status_code == 422 and "--max-pixels" in response.json()["remedy"]

    run(scenario())


def test_a_full_queue_answers_503_with_retry_after_and_takes_requests_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = StandInEngine(closed=True)
        async with running(tmp_path, engine, queue=2) as it:
            batcher = it.service.resources.gallery().network.batcher
            tasks = [asyncio.create_task(it.client.post("/v1/identify", files=files(picture("red")))) for _ in range(2)]
            await until(lambda: batcher.occupied == 2)
            response = await it.client.post("/v1/identify", files=files(picture("red")))
            assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1
            engine.closed = False
            engine.release(5)
            assert [response.status_code for response in await asyncio.gather(*tasks)] == [200, 200]
            assert (await it.client.post("/v1/identify", files=files(picture("red")))).status_code == 200

    run(scenario())


def test_a_request_past_its_deadline_is_answered_504_and_leaves_its_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = StandInEngine(closed=True)
        async with running(tmp_path, engine, deadline=0.05) as it:
            response = await it.client.post("/v1/identify", files=files(picture("red")))
            assert response.status_code == 504 and "--deadline" in response.json()["remedy"]
            assert it.service.resources.gallery().network.batcher.occupied == 0

    run(scenario())


def test_a_client_that_hangs_up_leaves_the_queue(tmp_path: Path) -> None:
    """The connection's end arrives as ``http.disconnect`` while the image waits."""

    async def scenario() -> None:
        engine = StandInEngine(closed=True)
        async with running(tmp_path, engine) as it:
            batcher, app = it.service.resources.gallery().network.batcher, it.client._transport.app
            first = asyncio.create_task(it.client.post("/v1/identify", files=files(picture("red"))))
            await engine.entered()
            gone, messages = asyncio.Event(), [{"type": "http.request", "body": picture("blue"), "more_body": False}]
            sent: list[dict] = []

            async def receive() -> object:
                if messages:
                    return messages.pop()
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/v1/identify", "query_string": b"", "root_path": "",
                     "headers": [(b"content-type", b"image/png"), (b"host", b"127.0.0.1")], "http_version": "1.1",
                     "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}  # fmt: skip
            second = asyncio.create_task(app(scope, receive, send))
            await until(lambda: batcher.waiting == 1)
            gone.set()
            await second
            assert batcher.occupied == 1 and sent[0]["status"] == 499
            engine.release(2)
            assert (await first).status_code == 200 and engine.calls == [1]

    run(scenario())


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/galleries/none/identify", 404), ("/v1/identify?k=0", 422), ("/v1/identify?kk=1", 422)]
)
def test_wrong_names_and_values_are_problems(tmp_path: Path, path: str, status: int) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post(path, files=files(picture("red")))
            assert response.status_code == status and response.json()["request_id"] == response.headers["x-request-id"]

    run(scenario())


def test_no_images_and_an_empty_gallery_are_problems(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, filled=False) as it:
            assert (await it.client.post("/v1/identify")).json()["type"].endswith("no-images")
            response = await it.client.post("/v1/identify", files=files(picture("red")))
            assert response.status_code == 422 and "empty" in response.json()["found"]

    run(scenario())


def test_embed_gives_the_networks_vectors(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = (await it.client.post("/v1/embed", files=files(picture("red"), b"x", picture("blue")))).json()
            expected = it.service.resources.gallery().recognizer.encode([picture("red"), picture("blue")])
            assert [entry["vector"] for entry in response["vectors"]] == expected.tolist() and response["dim"] == 3
            assert [entry["path"] for entry in response["vectors"]] == ["0.png", "2.png"]
            assert response["unreadable"][0]["path"] == "1.png"

    run(scenario())


def test_a_filter_takes_references_with_some_attributes(tmp_path: Path) -> None:
    """A form, JSON and the list of references take it; requests with other filters share a batch; a decision keeps it."""

    async def scenario() -> None:
        async with running(tmp_path, StandInEngine(closed=True)) as it:
            with it.service.resources.gallery().gallery.change() as gallery:
                gallery.enrol(
                    np.eye(3), ["x", "y", "z"], list("xyz"), [{"site": "berlin"}, {"site": "lyon", "line": "2"}, {}]
                )
            it.service.resources.gallery().refresh()
            image = picture("red")
            filters = [None, {"site": ["lyon", "rome"]}, {"site": "rome"}, {"sight": "rome"}]
            data = [{} if where is None else {"where": json.dumps(where)} for where in filters]
            requests = [
                asyncio.create_task(it.client.post("/v1/identify", files=files(image), data=each)) for each in data
            ]
            it.engine.release(len(filters))
            plain, lyon, rome, wrong = await asyncio.gather(*requests)
            (answer,) = lyon.json()["answers"]
            assert plain.json()["answers"][0]["label"] == "red" and "where" not in plain.json()["answers"][0]
            assert [entry["label"] for entry in answer["neighbours"]] == ["y"]
            assert answer["where"] == {"site": ["lyon", "rome"]}
            (answer,) = rome.json()["answers"]
            assert (answer["decision"], answer["nearest"], answer["score"], answer["neighbours"]) == (
                "unknown",
                "",
                -1.0,
                [],
            )
            assert answer["note"] == "no reference passes the filter site=rome"
            assert wrong.status_code == 422 and "no reference has an attribute 'sight'" in wrong.json()["detail"]
            decisions = (await it.client.get("/v1/decisions")).json()["decisions"]
            assert [each["result"].get("where") for each in decisions if each["id"] == answer["id"]] == [
                {"site": ["rome"]}
            ]
            it.engine.release()
            body = {"image": base64.b64encode(image).decode(), "where": {"line": "2"}}
            assert (await it.client.post("/v1/identify", json=body)).json()["answers"][0]["nearest"] == "y"
            for bad in ("site=rome", "[]", '{"site": 1}', '{"site": []}'):
                response = await it.client.post("/v1/identify", files=files(image), data={"where": bad})
                assert response.status_code == 422, bad
            listing = await it.client.get("/v1/references", params={"where": json.dumps({"site": ["berlin", "lyon"]})})
            assert [(entry["label"], entry["attributes"]) for entry in listing.json()["references"]] == [
                ("x", {"site": "berlin"}), ("y", {"line": "2", "site": "lyon"}),
            ]  # fmt: skip
            assert (await it.client.get("/v1/references", params={"where": '{"sight": "x"}'})).status_code == 422

    run(scenario())
