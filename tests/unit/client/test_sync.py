"""The client against a stand-in of the service (tests/flow/test_serving.py has the real one)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.service_standin import Service, answer, images_of, label_all, problem
from unalike.client.answers import LONGEST_WAIT_S, RETRIES, WAIT_S
from unalike.client.images import IMAGES_PER_REQUEST
from unalike.client.sync import Client
from unalike.errors import DataError, ServiceError, SpecError, UnreadableImage


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client waited; none are."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize(
    "image", [np.zeros((3, 4), np.float32), np.zeros((3, 4, 4), np.uint8), 5, Path("/missing.jpg")]
)
def test_what_is_no_image_is_refused_before_anything_is_sent(image: Any) -> None:
    with pytest.raises(DataError):
        Service(label_all).client().identify([image])


def test_identify_gives_identifications_in_order() -> None:
    service = Service(label_all)
    answers = service.client(key="secret").identify([b"a", b"b"], k=2, rule="vote")
    assert [a.label for a in answers] == ["c0", "c1"] and answers[0].neighbours[0].name == "a.jpg"
    request = service.requests[0]
    assert request.url.path == "/v1/identify" and request.headers["authorization"] == "Bearer secret"
    body = request.read()
    assert b'name="k"\r\n' in body and b"\r\n2\r\n" in body and b"vote" in body


def test_a_filter_is_sent_as_json_and_checked_before() -> None:
    service = Service(label_all)
    service.client().identify(b"a", where={"site": "berlin"})
    list(service.client().identify_many([b"a"], where={"site": "lyon"}))
    assert b'{"site": ["berlin"]}' in service.requests[0].read() and b'{"site": ["lyon"]}' in service.requests[1].read()
    with pytest.raises(DataError, match="site is"):
        service.client().identify(b"a", where={"site": []})
    assert len(service.requests) == 2


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
    assert waits == [2.0, WAIT_S * 2]


def test_a_service_that_stays_busy_is_given_up(waits: list[float]) -> None:
    service = Service(problem(503, "queue-full", **{"Retry-After": "9999"}))
    with pytest.raises(ServiceError) as caught:
        service.client().identify(b"1")
    assert caught.value.status == 503 and len(service.requests) == RETRIES + 1
    assert waits == [LONGEST_WAIT_S] * RETRIES


def test_no_answer_names_the_address_and_the_remedy(waits: list[float]) -> None:
    service = Service(httpx.ConnectError("refused"))
    with pytest.raises(ServiceError, match="no answer from http://service: refused; start it with: unalike serve"):
        service.client().identify(b"1")
    assert len(waits) == RETRIES


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(SpecError, match="http://"):
        Client("localhost:8000")


# ---- references and decisions ----


def test_enrolling_goes_class_by_class_and_gives_references_in_the_order_of_the_images() -> None:
    next_id = iter(range(100))

    def enroll(request: httpx.Request) -> httpx.Response:
        label = request.read().split(b'name="label"')[1].split(b"\r\n")[3].decode()
        rows = [{"id": next(next_id), "label": label, "name": "n", "image": None} for _ in range(images_of(request))]
        return httpx.Response(201, json={"gallery": "g", "references": rows, "images": 3})

    service = Service(enroll)
    references = service.client().enrol([b"1", b"2", b"3"], ["mug", "cup", "mug"])
    assert [(entry.id, entry.label) for entry in references] == [(0, "mug"), (2, "cup"), (1, "mug")]
    keys = {request.headers["idempotency-key"] for request in service.requests}
    assert len(keys) == len(service.requests) == 2


def test_a_change_is_sent_again_under_the_same_key(waits: list[float]) -> None:
    service = Service(httpx.ReadError("broken"), httpx.Response(200, json={"images": 2}))
    assert service.client().rename("a", "b") == 2
    assert len({request.headers["idempotency-key"] for request in service.requests}) == 1 and len(service.requests) == 2


def test_pages_are_followed_to_the_last() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("after", "-1")) + 1
        rows = [{"id": n, "label": "a", "name": "x"} for n in range(start, min(start + 2, 5))]
        return httpx.Response(200, json={"references": rows, "next": str(start + 1) if start + 2 < 5 else None})

    service = Service(page)
    assert [entry.id for entry in service.client().references("a")] == [0, 1, 2, 3, 4]
    assert [request.url.params["label"] for request in service.requests] == ["a"] * 3


def test_feedback_names_the_decision_and_the_right_class() -> None:
    service = Service(httpx.Response(200, json={"id": "7/8"}))
    assert service.client().give_feedback("7/8", "wrong", "cup") == {"id": "7/8"}
    request = service.requests[0]
    assert request.url.raw_path == b"/v1/decisions/7%2F8/feedback"
    assert b'"verdict":"wrong","label":"cup"' in request.read() and request.headers["idempotency-key"]


def test_compare_sends_both_pictures_and_the_settings() -> None:
    service = Service(httpx.Response(200, json={"same": 1}))
    assert service.client().compare(b"reference", b"image", tolerance=2)["same"] == 1
    body = service.requests[0].read()
    assert b'name="reference"' in body and b'name="image"' in body and b'name="tolerance"\r\n' in body
