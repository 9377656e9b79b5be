"""The end of a request: its time, and its client."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from starlette.requests import Request

from tests.support.serving import run
from unalike.serve.request_context import SCOPE_KEY, HungUp, answered_in_time, new_context


def request(receive: Any, seconds: float = 3600.0) -> Request:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], SCOPE_KEY: new_context("", "", seconds)}
    return Request(scope, receive)


async def never() -> Any:
    await asyncio.Event().wait()


def test_the_id_of_a_client_is_kept_where_it_is_a_plain_word() -> None:
    assert new_context("abc-1:2", "", 1).id == "abc-1:2"
    for text in ("", "a b", "x" * 200, "a\n"):
        assert new_context(text, "", 1).id != text
    assert new_context("", "", 5).deadline > time.monotonic() + 4


def test_what_runs_is_cancelled_when_the_client_hangs_up() -> None:
    async def scenario() -> None:
        gone, was_cancelled = asyncio.Event(), False

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            nonlocal was_cancelled
            gone.set()
            try:
                await never()
            except asyncio.CancelledError:
                was_cancelled = True
                raise

        with pytest.raises(HungUp):
            async with answered_in_time(request(receive)):
                await work()
        assert was_cancelled
        await asyncio.sleep(0)  # the task itself goes on

    run(scenario())


def test_what_runs_is_cancelled_when_the_time_is_over() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with answered_in_time(request(never, seconds=0.0)):
                await never()

    run(scenario())


def test_a_cancellation_from_outside_is_passed_on_and_a_result_too() -> None:
    async def scenario() -> None:
        async def work() -> None:
            async with answered_in_time(request(never)):
                await never()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with answered_in_time(request(never)):
            value = 5
        assert value == 5

    run(scenario())
