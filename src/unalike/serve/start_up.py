"""The start of the service: probes are answered while networks load, and other requests are refused until all is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from unalike.serve.problems import Problem, problem_response
from unalike.serve.security import SECURITY_HEADERS

RETRY_S = 2
ALIVE_PATH = "/healthz"


Loaded = TypeVar("Loaded")


class Life(Protocol):
    """What is started when it is loaded, and stopped at the end."""

    async def start(self) -> None:
        """Begin to work."""

    async def stop(self) -> None:
        """End all work."""


@dataclass(frozen=True)
class LoadedService:
    """What loading gives.

    Attributes:
        service: is started before requests are taken.
        app: answers them; those that need what is still to be loaded wait in it.
        load_rest: loads that, in a thread; gives what takes it over, which is called in the event loop.
    """

    service: Life
    app: ASGIApp
    load_rest: Callable[[], Callable[[], None]]


class StartUp:
    """The application from the first moment: ``/healthz`` answers 200, all else 503 ``starting``; then what was loaded answers.

    Args:
        load: loads the service and its application; called in a thread of its own.
        on_ready: called when requests are taken.
        on_failure: called with what loading or starting raised.
        end: ends the process with an exit code; called where it shall stop while ``load`` runs, which nothing can interrupt.
            Nothing was taken then, and no file is written but by renaming.
        waits: take no request before all is loaded, as one process of several that share a socket: others may answer it.
    """

    def __init__(
        self, load: Callable[[], LoadedService], on_ready: Callable[[], None],
        on_failure: Callable[[Exception], None], end: Callable[[int], object] = os._exit, *, waits: bool = False,
    ) -> None:  # fmt: skip
        self._waits = waits
        self._load, self._on_ready, self._on_failure, self._end = load, on_ready, on_failure, end
        self._service: Life | None = None
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; or start with the server, and stop with it."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        else:
            await _answer_early(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # the server starts
        starting = asyncio.create_task(self._start())
        if self._waits:
            await starting
        await send({"type": "lifespan.startup.complete"})
        await receive()  # it has stopped
        if not starting.done() and self._app is None:
            self._end(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if self._service is not None:
            await self._service.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        try:
            parts = await _call_in_thread(self._load)
            self._service = parts.service
            await parts.service.start()
            if self._waits:
                (await _call_in_thread(parts.load_rest))()
            self._app = parts.app
            self._on_ready()
            if not self._waits:
                (await _call_in_thread(parts.load_rest))()
        except Exception as error:  # noqa: BLE001  the server says it, and ends
            self._on_failure(error)


async def _answer_early(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer while the service is loading."""
    if scope["type"] != "http":
        return
    response = Response(b'{"status": "ok"}', media_type="application/json")
    if scope["path"] != ALIVE_PATH or scope["method"] not in ("GET", "HEAD"):
        problem = Problem(503, "starting", "the service is loading its networks", remedy="send it again later",
                          headers={"Retry-After": str(RETRY_S)})  # fmt: skip
        response = problem_response(problem)
    response.raw_headers.extend(SECURITY_HEADERS)
    await response(scope, receive, send)


async def _call_in_thread(function: Callable[[], Loaded]) -> Loaded:
    """Call a function in a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Loaded] = loop.create_future()

    def settle(value: Loaded | None, error: Exception | None) -> None:
        if result.done():  # cancelled
            return
        if error is not None:
            result.set_exception(error)
        elif value is not None:
            result.set_result(value)

    def run() -> None:
        value, error = None, None
        try:
            value = function()
        except Exception as caught:  # noqa: BLE001  raised where it is awaited
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await result
