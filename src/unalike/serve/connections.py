"""Connections of the server: what a client may send before there is a request that can be refused."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Of the headers of a request, and of the trailers after a body; and how long headers may take to arrive.
MAX_HEADER_BYTES = 64 * 1024
HEADER_S = 20.0
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 25\r\n"
    b"connection: close\r\n\r\nthe headers are too large"
)


class BoundedConnection(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn has it, which sets no bound to headers: here their bytes and their time are bounded."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._bytes = 0  # received since a request began, its headers were complete, or a part of its body came
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; close the connection where headers have become too large."""
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._bytes = 0
        self._wait_for_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers are there."""
        self._bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body is there; bodies have a bound of their own."""
        self._bytes = 0
        super().on_body(body)

    def _wait_for_headers(self) -> None:
        self._stop_waiting()
        self._timer = asyncio.get_running_loop().call_later(HEADER_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
