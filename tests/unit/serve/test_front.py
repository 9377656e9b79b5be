"""The front: it answers before FastAPI is there, as FastAPI answers, and what else is asked for waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.serving import files, picture, run, running
from unalike.serve.app import make_fastapi_app
from unalike.serve.front import Front
from unalike.serve.problems import MEDIA_TYPE, Problem
from unalike.serve.request_context import SCOPE_KEY, new_context

SENT = files(picture("red"), picture("blue"))


def client_of(app: Any) -> httpx.AsyncClient:
    """A client of an application of its own."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


def with_context(app: Any) -> Any:
    """An application that the front does not answer for: requests get a context, and nothing else."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        scope[SCOPE_KEY] = new_context("one", "", 20.0)
        await app(scope, receive, send)

    return answer


def test_images_and_probes_are_answered_before_the_rest_is_loaded_which_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            front = Front(it.service)
            async with client_of(front) as client:
                for path in ("/v1/identify", "/v1/galleries/colors/identify"):
                    answers = (await client.post(path, files=SENT)).json()["answers"]
                    assert [answer["label"] for answer in answers] == ["red", "blue"]
                assert len((await client.post("/v1/embed", files=SENT)).json()["vectors"]) == 2
                assert (await client.head("/healthz")).status_code == (await client.get("/readyz")).status_code == 200
                other = asyncio.create_task(client.get("/v1/classes"))
                wrong = asyncio.create_task(client.get("/v1/identify"))
                metrics = (await client.get("/metrics")).text
                assert (
                    'unalike_requests_total{method="POST",route="/v1/galleries/{name}/identify",status="200"} 1.0'
                    in metrics
                )
                assert not other.done() and not wrong.done()
                front.set_app(make_fastapi_app(it.service))
                assert len((await other).json()["classes"]) == 3
                assert (await wrong).status_code == 405

    run(scenario())


def test_the_front_and_fastapi_answer_alike(tmp_path: Path) -> None:
    """The document is FastAPI's: what it describes is what the front does."""
    calls: list[Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]] = [
        lambda client: client.get("/healthz"),
        lambda client: client.head("/readyz"),
        lambda client: client.post("/v1/embed", files=SENT),
        lambda client: client.post("/v1/identify", files=SENT, params={"k": 2}),
        lambda client: client.post("/v1/galleries/colors/identify", content=picture("green")),
        lambda client: client.post("/v1/identify", files=files(b"no image")),
        lambda client: client.post("/v1/identify", files=SENT, params={"k": 0}),
        lambda client: client.post("/v1/identify"),
        lambda client: client.post("/v1/embed", content=b"{", headers={"content-type": "application/json"}),
        lambda client: client.post("/v1/galleries/none/identify", files=SENT),
        lambda client: client.post("/v1/galleries/none/other/identify", files=SENT),
        lambda client: client.put("/v1/identify"),
        lambda client: client.post("/healthz"),
    ]

    async def scenario() -> None:
        async with running(tmp_path) as it, client_of(with_context(make_fastapi_app(it.service))) as direct:
            for number, call in enumerate(calls):
                ours, theirs = await call(it.client), await call(direct)
                assert ours.status_code == theirs.status_code, number
                assert ours.headers.get("content-type") == theirs.headers.get("content-type"), number
                assert _without_ids(ours) == _without_ids(theirs), number

    run(scenario())


def _without_ids(response: httpx.Response) -> Any:
    value = response.json() if response.content else {}
    for entry in (value, *value.get("answers", ())):
        entry.pop("id", None)
        entry.pop("request_id", None)
    return value


def test_a_failure_of_ours_is_answered_once_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("unalike.serve"), "propagate", True)

    async def fail(*_: Any) -> None:
        raise RuntimeError("not ready for this")

    async def refuse(*_: Any) -> None:
        raise Problem(403, "forbidden", "no")

    async def scenario() -> None:
        async with running(tmp_path) as it:
            monkeypatch.setattr(it.service.access, "check", refuse)
            for path in ("/healthz", "/v1/classes"):
                response = await it.client.get(path)
                assert response.status_code == 403 and response.headers["content-type"] == MEDIA_TYPE
            monkeypatch.setattr(it.service.access, "check", fail)
            for path in ("/healthz", "/v1/classes"):
                response = await it.client.get(path)
                assert response.status_code == 500 and "not ready" not in response.text
            monkeypatch.setattr(it.service.tracer, "request", fail)  # no context manager: before anything is answered
            response = await it.client.get("/readyz")
            assert response.status_code == 500 and response.headers["content-type"] == MEDIA_TYPE

    run(scenario())
    failures = {record.unalike_fields["request_id"]: record.unalike_fields["path"]  # type: ignore[attr-defined]
                for record in caplog.records if record.message == "request failed"}  # fmt: skip
    assert list(failures.values()) == ["/healthz", "/v1/classes", "/readyz"]
