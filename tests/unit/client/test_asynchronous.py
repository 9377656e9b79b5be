"""The asyncio client against a stand-in of the service."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import httpx
import pytest

from tests.support.service_standin import Service, label_all, problem
from unalike.client.asynchronous import AsyncClient
from unalike.client.sync import Client


def test_the_async_client_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: list[float] = []

    async def sleep(wait: float) -> None:
        seconds.append(wait)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    service = Service(problem(503, "queue-full", **{"Retry-After": "1"}), label_all)

    async def run() -> list[Any]:
        async with AsyncClient("http://service", transport=httpx.MockTransport(service)) as client:
            labels = [answer.label for answer in await client.identify([b"1", b"2"])]
            return labels + [result.label async for result in client.identify_many(b"3")]  # type: ignore[union-attr]

    assert asyncio.run(run()) == ["c0", "c1", "c0"] and seconds == [1.0]
    assert json.loads(service.requests[0].headers.get("content-length", "0")) > 0


def test_both_clients_have_the_same_methods() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            own = inspect.signature(getattr(AsyncClient, name)).parameters
            assert list(own) == list(inspect.signature(method).parameters), name
