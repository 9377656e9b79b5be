"""What holds for every request: ids, headers, problems, the OpenAPI document."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import files, picture, run, running
from unalike.serve.problems import MEDIA_TYPE


def test_every_answer_bears_an_id_and_forbids_pages_to_use_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.get("/readyz", headers={"x-request-id": "line-7"})
            assert response.headers["x-request-id"] == "line-7"
            assert "default-src 'none'" in response.headers["content-security-policy"]
            assert response.headers["x-content-type-options"] == "nosniff"
            response = await it.client.get("/healthz", headers={"x-request-id": "a b\tc"})
            assert response.headers["x-request-id"] != "a b\tc"

    run(scenario())


def test_unknown_paths_and_methods_are_problems(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for method, path, status in (("GET", "/nothing", 404), ("GET", "/v1/identify", 405)):
                response = await it.client.request(method, path)
                assert response.status_code == status and response.headers["content-type"] == MEDIA_TYPE
                assert response.json()["remedy"] == "see /openapi.json"

    run(scenario())


def test_an_error_of_ours_is_answered_with_500_and_logged_with_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("unalike.serve"), "propagate", True)

    async def scenario() -> None:
        async with running(tmp_path) as it:
            it.engine.error = RuntimeError("the token=abcdef of the engine")
            response = await it.client.post("/v1/identify", files=files(picture("red")), headers={"x-request-id": "r1"})
            assert response.status_code == 500 and response.json()["request_id"] == "r1"
            assert "engine" not in response.text

    run(scenario())
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.unalike_fields["request_id"] == "r1" and record.exc_info is not None  # type: ignore[attr-defined]


def test_the_document_describes_every_route_with_its_problems(tmp_path: Path) -> None:
    async def scenario() -> Any:
        async with running(tmp_path) as it:
            return (await it.client.get("/openapi.json")).json()

    document = run(scenario())
    assert document["openapi"].startswith("3.1")
    assert {"/v1/identify", "/v1/galleries/{name}/identify", "/v1/embed", "/healthz"} <= set(document["paths"])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), path
            if path.startswith("/v1/"):
                responses = operation["responses"]
                assert all(MEDIA_TYPE in responses[status]["content"] for status in ("401", "422", "503")), path
            if method == "post" and path.startswith("/v1/identify"):
                assert set(operation["requestBody"]["content"]) >= {"multipart/form-data", "application/json"}
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names) and {"post_identify", "post_identify_of_galleries", "delete_reference"} <= set(
        names
    )
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_document_is_valid(tmp_path: Path) -> None:
    """Every reference in it leads somewhere."""

    async def scenario() -> Any:
        async with running(tmp_path) as it:
            return (await it.client.get("/openapi.json")).json()

    document = run(scenario())

    def references(value: Any) -> Any:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    names = set(references(document))
    assert names
    for name in names:
        place = document
        for part in name.removeprefix("#/").split("/"):
            place = place[part]
