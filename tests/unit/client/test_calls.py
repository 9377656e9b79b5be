"""Laws of both clients: the same calls send the same requests, give the same results and the same errors."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.service_standin import Service, answer, ask, fields_of, problem
from unalike.client.answers import LONGEST_WAIT_S, RETRIES, WAIT_S
from unalike.client.asynchronous import AsyncClient
from unalike.client.calls import Reference
from unalike.client.images import IMAGES_PER_REQUEST
from unalike.client.sync import Client
from unalike.errors import DataError, ServiceError, SpecError, UnreadableImage

KINDS = ("sync", "async")
REFERENCE = {"id": 3, "label": "mug", "name": "n", "image": None}


@dataclass
class Case:
    """A call, the answers that the service gives to its requests, and what must come of it.

    Attributes:
        method, arguments, options: the call of the client.
        answers: JSON of the service's answers, in turn.
        result: what the client gives.
        sent: of each request the method, the path as it is sent, the parameters of the query and the body: JSON, or
            the parts of a form by name.
        is_change: whether its requests have an Idempotency-Key.
    """

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    answers: list[Any]
    result: Any
    sent: list[tuple[str, str, dict[str, str], Any]]
    is_change: bool = field(default=False)


def rows(*labels: str) -> dict[str, Any]:
    return {"answers": [answer(number, label) for number, label in enumerate(labels)], "unreadable": []}


CASES = [
    Case("embed", ([b"1", b"2"],), {"gallery": "a b"},
         [{"vectors": [{"index": 1, "vector": [0, 1]}, {"index": 0, "vector": [1, 0]}], "unreadable": []}], [[1, 0], [0, 1]],
         [("POST", "/v1/galleries/a%20b/embed", {}, [("image", b"1"), ("image", b"2")])]),
    Case("enrol", ([b"1", b"2"], ["mug", "cup"]), {},
         [{"references": [REFERENCE]}, {"references": [{**REFERENCE, "id": 4, "label": "cup"}]}],
         [Reference(3, "mug", "n"), Reference(4, "cup", "n")],
         [("POST", "/v1/references", {}, [("image", b"1"), ("label", b"mug")]),
          ("POST", "/v1/references", {}, [("image", b"2"), ("label", b"cup")])], is_change=True),
    Case("enrol", (b"1", "mug"), {"gallery": "g"}, [{"references": [REFERENCE]}], [Reference(3, "mug", "n")],
         [("POST", "/v1/galleries/g/references", {}, [("image", b"1"), ("label", b"mug")])], is_change=True),
    Case("enrol", (b"1", "mug"), {"attributes": {"site": "b", "line": "1"}},
         [{"references": [{**REFERENCE, "attributes": {"line": "1", "site": "b"}}]}],
         [Reference(3, "mug", "n", {"line": "1", "site": "b"})],
         [("POST", "/v1/references", {},
           [("image", b"1"), ("label", b"mug"), ("attributes", b'{"line": "1", "site": "b"}')])], is_change=True),
    Case("references", (), {"where": {"site": ["b", "a"]}}, [{"references": [REFERENCE], "next": None}], [Reference(3, "mug", "n")],
         [("GET", "/v1/references", {"where": '{"site": ["a", "b"]}', "limit": "100"}, None)]),
    Case("classes", (), {"gallery": "g"},
         [{"classes": [{"label": "a", "images": 2}], "next": "a"}, {"classes": [{"label": "b", "images": 1}], "next": None}],
         {"a": 2, "b": 1},
         [("GET", "/v1/galleries/g/classes", {"limit": "100"}, None),
          ("GET", "/v1/galleries/g/classes", {"after": "a", "limit": "100"}, None)]),
    Case("references", ("mug",), {}, [{"references": [REFERENCE], "next": "3"}, {"references": [], "next": None}],
         [Reference(3, "mug", "n")],
         [("GET", "/v1/references", {"label": "mug", "limit": "100"}, None),
          ("GET", "/v1/references", {"label": "mug", "after": "3", "limit": "100"}, None)]),
    Case("remove_reference", (3,), {}, [{"images": 1}], 1, [("DELETE", "/v1/references/3", {}, None)], is_change=True),
    Case("remove_class", ("a/ü",), {"gallery": "g"}, [{"images": 7}], 7,
         [("DELETE", "/v1/galleries/g/classes", {"label": "a/ü"}, None)], is_change=True),
    Case("rename", ("a", "b"), {}, [{"images": 2}], 2,
         [("POST", "/v1/classes/rename", {}, {"label": "a", "new": "b"})], is_change=True),
    Case("merge", (("a", "b"), "c"), {"gallery": "g"}, [{"images": 5}], 5,
         [("POST", "/v1/galleries/g/classes/merge", {}, {"labels": ["a", "b"], "into": "c"})], is_change=True),
    Case("calibrate", (0.01,), {"rule": "vote"}, [{"threshold": 0.5}], {"threshold": 0.5},
         [("POST", "/v1/calibration", {}, {"rate": 0.01, "rule": "vote"})], is_change=True),
    Case("calibrate", (), {"max_refused": 0.1, "gallery": "g"}, [{}], {},
         [("POST", "/v1/galleries/g/calibration", {}, {"max_refused": 0.1})], is_change=True),
    Case("gallery", (), {}, [{"images": 4}], {"images": 4}, [("GET", "/v1/calibration", {}, None)]),
    Case("gallery", ("g",), {}, [{"images": 4}], {"images": 4}, [("GET", "/v1/galleries/g/calibration", {}, None)]),
    Case("decisions", (), {"kind": "identify", "min_score": 0.5},
         [{"decisions": [{"id": "2"}], "next": "2"}, {"decisions": [{"id": "1"}], "next": None}], [{"id": "2"}, {"id": "1"}],
         [("GET", "/v1/decisions", {"kind": "identify", "min_score": "0.5", "limit": "100"}, None),
          ("GET", "/v1/decisions", {"kind": "identify", "min_score": "0.5", "after": "2", "limit": "100"}, None)]),
    Case("give_feedback", ("7/8", "wrong", "cup"), {"note": "dark"}, [{"id": "7/8"}], {"id": "7/8"},
         [("POST", "/v1/decisions/7%2F8/feedback", {}, {"verdict": "wrong", "label": "cup", "note": "dark"})],
         is_change=True),
    Case("inspect", (b"1",), {}, [{"score": 2}], {"score": 2}, [("POST", "/v1/inspect", {}, [("image", b"1")])]),
    Case("inspect", (b"1",), {"overlay": True, "inspector": "line 2"}, [{"score": 2}], {"score": 2},
         [("POST", "/v1/inspectors/line%202/inspect", {}, [("image", b"1"), ("overlay", b"true")])]),
    Case("verify", (b"1", "logo"), {"assets": "s"}, [{"verdict": "pass"}], {"verdict": "pass"},
         [("POST", "/v1/assets/s/verify", {}, [("image", b"1"), ("asset", b"logo")])]),
    Case("verify", (b"1",), {}, [{}], {}, [("POST", "/v1/verify", {}, [("image", b"1")])]),
    Case("compare", (b"1", b"2"), {"tolerance": 3}, [{"is_same": True}], {"is_same": True},
         [("POST", "/v1/compare", {}, [("reference", b"1"), ("image", b"2"), ("tolerance", b"3")])]),
    Case("explain", (b"1", 9), {"gallery": "g"}, [{"pairs": []}], {"pairs": []},
         [("POST", "/v1/galleries/g/explain", {}, [("image", b"1"), ("reference_id", b"9")])]),
    Case("explain", (b"1",), {}, [{"pairs": []}], {"pairs": []}, [("POST", "/v1/explain", {}, [("image", b"1")])]),
    Case("models", (), {}, [{"networks": []}], {"networks": []}, [("GET", "/v1/models", {}, None)]),
]  # fmt: skip


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a client waited; none are."""
    seconds: list[float] = []

    async def sleep(wait: float) -> None:
        seconds.append(wait)

    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return seconds


def content_of(request: httpx.Request) -> Any:
    if request.headers.get("content-type", "").startswith("multipart/"):
        return [(name, content) for name, _, content in fields_of(request)]
    return json.loads(request.read()) if request.read() else None


def as_plain(result: Any) -> Any:
    return result.tolist() if isinstance(result, np.ndarray) else result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}-{'-'.join(case.options) or 'plain'}")
def test_a_call_sends_its_requests_and_gives_its_result(kind: str, case: Case) -> None:
    service = Service(*(httpx.Response(200, json=value) for value in case.answers))
    assert as_plain(ask(kind, service, case.method, *case.arguments, **case.options)) == case.result
    sent = [
        (request.method, request.url.raw_path.decode().partition("?")[0], dict(request.url.params), content_of(request))
        for request in service.requests
    ]
    assert sent == case.sent
    keys = [request.headers.get("idempotency-key") for request in service.requests]
    assert all(keys) == case.is_change and len({*keys}) == (len(keys) if case.is_change else 1)


def test_every_method_has_a_case() -> None:
    methods = {name for name in vars(Client) if not name.startswith("_")} - {"close", "call"}
    assert methods - {case.method for case in CASES} == {"identify", "identify_many"}  # below, and in test_sync.py


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}-{'-'.join(case.options) or 'plain'}")
def test_a_refusal_is_the_same_error_of_every_call(kind: str, case: Case) -> None:
    with pytest.raises(ServiceError, match="7 images; expected at most 3; send fewer") as caught:
        ask(kind, Service(problem(403, "forbidden")), case.method, *case.arguments, **case.options)
    assert (caught.value.status, caught.value.kind, caught.value.request_id) == (403, "forbidden", "r1")


# ---- images ----


@pytest.mark.parametrize("kind", KINDS)
def test_identify_labels_many_images_in_parts_and_in_order(kind: str) -> None:
    def label(request: httpx.Request) -> httpx.Response:
        contents = [content for name, _, content in fields_of(request) if name == "image"]
        document = rows(*(content.decode() for content in contents))
        document["answers"].reverse()  # the place is the index
        return httpx.Response(200, json=document)

    images = [str(number).encode() for number in range(IMAGES_PER_REQUEST + 2)]
    for method in ("identify", "identify_many"):
        service = Service(label)
        results = ask(kind, service, method, images, k=2, rule="vote", gallery="g")
        assert [result.label for result in results] == [image.decode() for image in images]
        assert [request.url.path for request in service.requests] == ["/v1/galleries/g/identify"] * 2
        assert content_of(service.requests[1])[2:] == [("k", b"2"), ("rule", b"vote")]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreadable_image_ends_all_but_identify_many(kind: str) -> None:
    unreadable = [{"index": 1, "path": "x", "reason": "no image"}]
    answers = {"answers": [answer(0, "a"), answer(2, "c")], "unreadable": unreadable}
    vectors = {"vectors": [{"index": 0, "vector": [1]}, {"index": 2, "vector": [1]}], "unreadable": unreadable}
    images = [b"1", b"2", b"3"]
    for method, document in (("identify", answers), ("embed", vectors)):
        with pytest.raises(UnreadableImage, match="no image"):
            ask(kind, Service(httpx.Response(200, json=document)), method, images)
    results = ask(kind, Service(httpx.Response(200, json=answers)), "identify_many", images)
    assert [getattr(result, "label", type(result)) for result in results] == ["a", UnreadableImage, "c"]
    with pytest.raises(UnreadableImage, match="7 images"):
        ask(kind, Service(problem(422, "unreadable-image")), "inspect", b"1")


@pytest.mark.parametrize("kind", KINDS)
def test_no_images_are_no_request(kind: str) -> None:
    service = Service(AssertionError("nothing is sent"))
    assert ask(kind, service, "identify", []) == ask(kind, service, "enrol", [], "mug") == []
    assert ask(kind, service, "embed", []).shape[0] == 0 and not service.requests


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_are_refused_before_anything_is_sent(kind: str) -> None:
    service = Service(AssertionError("nothing is sent"))
    with pytest.raises(DataError, match="2 images and 1 labels"):
        ask(kind, service, "enrol", [b"1", b"2"], ["mug"])
    with pytest.raises(DataError):
        ask(kind, service, "embed", ["/missing.jpg"])
    assert not service.requests


# ---- attempts ----


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_sent_again_as_it_was(kind: str, waits: list[float]) -> None:
    service = Service(
        problem(503, "overloaded", **{"Retry-After": "1.5"}), httpx.ReadError("broken"), problem(503, "overloaded"),
        httpx.Response(200, json={"references": [REFERENCE]}),
    )  # fmt: skip
    assert ask(kind, service, "enrol", b"1", "mug") == [Reference(3, "mug", "n")]
    assert waits == [1.5, WAIT_S * 2, WAIT_S * 4]
    assert len({request.headers["idempotency-key"] for request in service.requests}) == 1
    assert [content_of(request) for request in service.requests] == [[("image", b"1"), ("label", b"mug")]] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_attempts_end(kind: str, waits: list[float]) -> None:
    busy = Service(problem(503, "overloaded", **{"Retry-After": "9999"}))
    with pytest.raises(ServiceError) as caught:
        ask(kind, busy, "models")
    assert caught.value.status == 503 and len(busy.requests) == RETRIES + 1 and waits == [LONGEST_WAIT_S] * RETRIES
    silent = Service(httpx.ConnectError("refused"))
    with pytest.raises(ServiceError, match="no answer from http://service: refused; start it with: unalike serve"):
        ask(kind, silent, "models")
    assert len(silent.requests) == RETRIES + 1
    assert waits[RETRIES:] == [WAIT_S, WAIT_S * 2, WAIT_S * 4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [400, 409, 429, 500, 504])
def test_another_refusal_is_not_repeated(kind: str, status: int, waits: list[float]) -> None:
    service = Service(problem(status, "other"))
    with pytest.raises(ServiceError):
        ask(kind, service, "models")
    assert len(service.requests) == 1 and not waits


@pytest.mark.parametrize("kind", KINDS)
def test_a_wish_that_is_no_number_of_seconds_is_not_followed(kind: str, waits: list[float]) -> None:
    date = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    service = Service(problem(503, "overloaded", **date), httpx.Response(200, json={}))
    assert ask(kind, service, "models") == {} and waits == [WAIT_S]


# ---- the connection ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"<html>Bad gateway</html>", b"[]", b"", b'{"type": 3}'])
def test_an_answer_of_another_server_names_the_address(kind: str, content: bytes) -> None:
    with pytest.raises(ServiceError, match=r"http://service/v1/models answered 502.*is there an unalike service"):
        ask(kind, Service(httpx.Response(502, content=content)), "models")


@pytest.mark.parametrize("make", [Client, AsyncClient])
def test_address_key_and_options_reach_the_connection(make: Any) -> None:
    with pytest.raises(SpecError, match="http://"):
        make("localhost:8000")
    client = make("https://service/sub/", "secret", timeout=3, follow_redirects=True)
    connection = client._http
    assert client.address == "https://service/sub" and str(connection.base_url) == "https://service/sub/"
    assert connection.headers["authorization"] == "Bearer secret" and connection.timeout.read == 3
    assert connection.follow_redirects is True
    assert "authorization" not in make("http://service")._http.headers


def test_a_closed_client_has_no_connections() -> None:
    client = Service(httpx.Response(200, json={})).client()
    client.close()
    assert client._http.is_closed

    async def close() -> bool:
        other = AsyncClient("http://service")
        await other.close()
        return other._http.is_closed

    assert asyncio.run(close())
