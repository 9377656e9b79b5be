"""A stand-in of the service for tests of its clients: answers given in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from email import message_from_bytes
from email.policy import HTTP
from typing import Any

import httpx

from unalike.client.asynchronous import AsyncClient
from unalike.client.sync import Client

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


def problem(status: int, kind: str, **headers: str) -> httpx.Response:
    document = {"type": f"urn:unalike:problem:{kind}", "found": "7 images", "expected": "at most 3", "remedy": "send fewer",
                "request_id": "r1"}  # fmt: skip
    return httpx.Response(status, json=document, headers=headers)


def fields_of(request: httpx.Request) -> list[tuple[str, str | None, bytes]]:
    """Name, file name and content of each part of a multipart request, in order."""
    head = b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n"
    parts = message_from_bytes(head + request.read(), policy=HTTP).iter_parts()  # type: ignore[attr-defined]
    return [
        (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True))
        for part in parts
    ]


def ask(kind: str, service: Service, method: str, /, *arguments: Any, **options: Any) -> Any:
    """What a method of the ``sync`` or the ``async`` client gives; a list of all where it goes through many."""
    if kind == "sync":
        with service.client() as client:
            result = getattr(client, method)(*arguments, **options)
            return list(result) if isinstance(result, Iterator) else result

    async def run() -> Any:
        async with AsyncClient("http://service", transport=httpx.MockTransport(service)) as client:
            result = getattr(client, method)(*arguments, **options)
            return [entry async for entry in result] if isinstance(result, AsyncIterator) else await result

    return asyncio.run(run())
