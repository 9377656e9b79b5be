"""Connections over a real socket: headers without an end, and none at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from tests.support.serving import PATIENCE_S, run
from unalike.serve import connections as module
from unalike.serve.connections import MAX_HEADER_BYTES, BoundedConnection

START = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
FLOOD = b"X-Filler: " + b"a" * 1000 + b"\r\n"


async def _count_body(_: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": str(size).encode()})


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(_count_body, http=BoundedConnection, ws="none", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedConnection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


def _answer(*parts: bytes, repeated: bytes = b"", count: int = 0) -> bytes:
    async def scenario() -> bytes:
        async with _connected() as (reader, writer), asyncio.timeout(PATIENCE_S):
            try:
                for part in (*parts, *[repeated] * count):
                    writer.write(part)
                    await writer.drain()
                return await reader.read()
            except ConnectionError:  # the system drops an answer behind what the server did not read
                return b""

    answer: bytes = run(scenario())
    return answer


@pytest.mark.parametrize(
    ("start", "repeated"),
    [(START, FLOOD), (START + b"X-Long: ", b"a" * 1000), (b"GET /", b"a" * 1000),
     (START + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", FLOOD)],
    ids=["many", "one", "address", "trailers"],
)  # fmt: skip
def test_headers_without_an_end_are_refused(start: bytes, repeated: bytes) -> None:
    answer = _answer(start, repeated=repeated, count=600)
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""


def test_a_large_body_and_ordinary_headers_are_taken() -> None:
    size = 10 * MAX_HEADER_BYTES
    answer = _answer(
        START, FLOOD * 20, b"Content-Length: %d\r\n\r\n" % size, repeated=b"x" * MAX_HEADER_BYTES, count=10
    )
    assert answer.startswith(b"HTTP/1.1 200 ") and str(size).encode() in answer


@pytest.mark.parametrize("sent", [b"", START])
def test_who_sends_no_complete_headers_is_disconnected(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEADER_S", 0.1)
    assert _answer(sent) == b""
