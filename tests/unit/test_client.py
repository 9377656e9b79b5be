"""The client against a stand-in of the service (tests/flow/test_serving.py has the real one)."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import unalike.client as client_module
from unalike.client import IMAGES_PER_REQUEST, RETRIES, AsyncClient, Client, encode_image
from unalike.errors import DataError, ServiceError, SpecError, UnreadableImage

NEIGHBOR = {"label": "mug", "name": "a.jpg", "score": 0.9, "distance": 0.2}


def answer(index: int, label: str) -> dict[str, Any]:
    """A row of an answer, with a key that a later service may add."""
    return {
        "index": index, "path": "x", "id": "7", "label": label, "score": 0.9, "distance": 0.2, "neighbours": [NEIGHBOR],
        "decision": "label", "nearest": label, "second": None, "margin": None, "calibrated": False, "stale": False,
        "threshold": None, "note": "", "later": 1,
    }  # fmt: skip


class Service:
    """Answers requests one after the other with what was given, and keeps them."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers, self.requests = list(answers), []  # type: ignore[var-annotated]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        result = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(result, Exception):
            raise result
        return result(request) if callable(result) else result

    def client(self, **options: Any) -> Client:
        return Client("http://service", transport=httpx.MockTransport(self), **options)


def images_of(request: httpx.Request) -> int:
    return request.read().count(b'; name="image"')


def label_all(request: httpx.Request) -> httpx.Response:
    return httpx.Response(
        200, json={"answers": [answer(n, f"c{n}") for n in range(images_of(request))], "unreadable": []}
    )


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client waited; none are."""
    seconds: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", seconds.append)
    return seconds


# ---- images ----


def test_every_kind_of_image_is_sent_as_the_same_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), content, io.BytesIO(content), image, pixels):
        name, encoded, _ = encode_image(given)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), pixels), name
    assert encode_image(tmp_path / "a.png")[::2] == ("a.png", "image/png")


def test_gray_arrays_keep_their_shape() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_image(pixels)[1]))), pixels[..., 0])


@pytest.mark.parametrize(
    "image", [np.zeros((3, 4), np.float32), np.zeros((3, 4, 4), np.uint8), 5, Path("/missing.jpg")]
)
def test_what_is_no_image_is_refused_before_anything_is_sent(image: Any) -> None:
    with pytest.raises(DataError):
        Service(label_all).client().identify([image])


# ---- answers ----


def test_identify_gives_identifications_in_order() -> None:
    service = Service(label_all)
    answers = service.client(key="secret").identify([b"a", b"b"], k=2, rule="vote")
    assert [a.label for a in answers] == ["c0", "c1"] and answers[0].neighbours[0].name == "a.jpg"
    request = service.requests[0]
    assert request.url.path == "/v1/identify" and request.headers["authorization"] == "Bearer secret"
    body = request.read()
    assert b'name="k"\r\n' in body and b"\r\n2\r\n" in body and b"vote" in body


def test_a_gallery_is_named_in_the_path_as_it_is() -> None:
    service = Service(label_all)
    service.client().identify(b"a", gallery="a/b c")
    assert service.requests[0].url.raw_path == b"/v1/galleries/a%2Fb%20c/identify"


def test_many_images_are_sent_in_parts() -> None:
    service = Service(label_all)
    answers = service.client().identify([b"x"] * (IMAGES_PER_REQUEST + 3))
    assert len(answers) == IMAGES_PER_REQUEST + 3
    assert [images_of(request) for request in service.requests] == [IMAGES_PER_REQUEST, 3]


def test_an_unreadable_image_ends_identify_and_keeps_its_place_in_identify_many() -> None:
    document = {
        "answers": [answer(0, "a"), answer(2, "c")],
        "unreadable": [{"index": 1, "path": "x", "reason": "no image"}],
    }
    client = Service(httpx.Response(200, json=document)).client()
    results = list(client.identify_many([b"1", b"2", b"3"]))
    assert isinstance(results[1], UnreadableImage) and "no image" in str(results[1])
    assert [getattr(result, "label", None) for result in results] == ["a", None, "c"]
    with pytest.raises(UnreadableImage, match="no image"):
        client.identify([b"1", b"2", b"3"])


def test_embeddings_are_float32_rows() -> None:
    document = {"vectors": [{"index": 1, "vector": [0, 1]}, {"index": 0, "vector": [1, 0]}], "unreadable": []}
    vectors_ND = Service(httpx.Response(200, json=document)).client().embed([b"1", b"2"])
    assert vectors_ND.dtype == np.float32 and vectors_ND.tolist() == [[1, 0], [0, 1]]


# ---- refusals ----


def problem(status: int, kind: str, **headers: str) -> httpx.Response:
    document = {"type": f"urn:unalike:problem:{kind}", "found": "7 images", "expected": "at most 3", "remedy": "send fewer",
                "request_id": "r1"}  # fmt: skip
    return httpx.Response(status, json=document, headers=headers)


def test_a_problem_document_becomes_the_error() -> None:
    with pytest.raises(ServiceError, match="7 images; expected at most 3; send fewer") as caught:
        Service(problem(413, "too-many-files")).client().identify(b"1")
    assert (caught.value.status, caught.value.kind, caught.value.request_id) == (413, "too-many-files", "r1")


def test_a_problem_with_an_image_is_the_error_of_the_recognizer() -> None:
    with pytest.raises(UnreadableImage, match="7 images"):
        Service(problem(422, "unreadable-image")).client().identify(b"1")


@pytest.mark.parametrize("content", [b"<html>Bad gateway</html>", b"[]", b"", b'{"type": 3}'])
def test_an_answer_of_another_server_names_the_address(content: bytes) -> None:
    with pytest.raises(ServiceError, match=r"http://service/v1/identify answered 502.*is there an unalike service"):
        Service(httpx.Response(502, content=content)).client().identify(b"1")


def test_a_busy_service_is_asked_again_after_the_time_that_it_names(waits: list[float]) -> None:
    service = Service(problem(503, "queue-full", **{"Retry-After": "2"}), problem(503, "queue-full"), label_all)
    assert service.client().identify(b"1")[0].label == "c0"
    assert waits == [2.0, client_module.WAIT_S * 2]


def test_a_service_that_stays_busy_is_given_up(waits: list[float]) -> None:
    service = Service(problem(503, "queue-full", **{"Retry-After": "9999"}))
    with pytest.raises(ServiceError) as caught:
        service.client().identify(b"1")
    assert caught.value.status == 503 and len(service.requests) == RETRIES + 1
    assert waits == [client_module.LONGEST_WAIT_S] * RETRIES


def test_no_answer_names_the_address_and_the_remedy(waits: list[float]) -> None:
    service = Service(httpx.ConnectError("refused"))
    with pytest.raises(ServiceError, match="no answer from http://service: refused; start it with: unalike serve"):
        service.client().identify(b"1")
    assert len(waits) == RETRIES


def test_a_change_is_not_sent_again_after_a_broken_connection(waits: list[float]) -> None:
    service = Service(httpx.ReadError("broken"))
    call = client_module.Call("POST", "/v1/classes", dict, body={}, is_repeatable=False)
    with pytest.raises(ServiceError):
        service.client().call(call)
    assert len(service.requests) == 1


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(SpecError, match="http://"):
        Client("localhost:8000")


# ---- async ----


def test_the_async_client_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: list[float] = []

    async def sleep(wait: float) -> None:
        seconds.append(wait)

    monkeypatch.setattr(client_module.asyncio, "sleep", sleep)
    service = Service(problem(503, "queue-full", **{"Retry-After": "1"}), label_all)

    async def run() -> list[Any]:
        async with AsyncClient("http://service", transport=httpx.MockTransport(service)) as client:
            labels = [answer.label for answer in await client.identify([b"1", b"2"])]
            return labels + [result.label async for result in client.identify_many(b"3")]  # type: ignore[union-attr]

    assert asyncio.run(run()) == ["c0", "c1", "c0"] and seconds == [1.0]
    assert json.loads(service.requests[0].headers.get("content-length", "0")) > 0
