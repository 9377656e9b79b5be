"""What the service knows of a request: its id, who sent it, until when it may take; and whether the client is still there."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

SCOPE_KEY = "unalike"
ANONYMOUS = "anonymous"
WATCH_AFTER_S = 0.001
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class HungUp(Exception):
    """The client closed the connection before it had its answer."""


@dataclass(slots=True)
class RequestContext:
    """Facts of one request.

    Attributes:
        id: the client's ``X-Request-ID`` where it is a plain word, else a random one.
        deadline: time of ``time.monotonic`` at which it is over.
        actor: name of the API key, or ``anonymous``.
        role: role of the key.
        gallery: the only gallery that the key may use; None: all.
        images: number of images, for the log.
        csrf: what changes with the session's cookie send in a header; empty without a session.
        is_secure: whether the client sees https.
    """

    id: str
    deadline: float
    client: str = ""
    actor: str = ANONYMOUS
    role: str = "admin"
    gallery: str | None = None
    images: int = 0
    csrf: str = ""
    is_secure: bool = False
    start: float = field(default_factory=time.monotonic)


def new_context(request_id: str, client: str, deadline_s: float) -> RequestContext:
    """The context of a request that arrives now."""
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = os.urandom(8).hex()
    return RequestContext(request_id, time.monotonic() + deadline_s, client)


def context_of(request: Request) -> RequestContext:
    """The context of a request."""
    context: RequestContext = request.scope[SCOPE_KEY]
    return context


@asynccontextmanager
async def answered_in_time(request: Request) -> AsyncIterator[None]:
    """A context that is left when the client hangs up or the request's time is over; what runs in it is cancelled.

    The body of the request must have been read before.

    Raises:
        HungUp: the client closed the connection.
        TimeoutError: the time is over.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    hung_up = False
    watcher: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal hung_up
        while True:
            message: Any = await request.receive()
            if message["type"] == "http.disconnect":
                break
        hung_up = True
        task.cancel()

    def begin_to_watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch())

    # Later: until the event loop waits, no thread can begin with the work.
    timer = loop.call_later(WATCH_AFTER_S, begin_to_watch)
    try:
        async with asyncio.timeout(context_of(request).deadline - time.monotonic()):
            yield
    except asyncio.CancelledError:
        if not hung_up:
            raise
        task.uncancel()
        raise HungUp from None
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
