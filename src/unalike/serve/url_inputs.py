"""Images by address, from hosts that the service allows by name; nothing else is ever connected to.

The name is resolved here, once, and the connection goes to the address that was checked: a name that leads into the own network is
refused, whatever a second look-up would say. A host in the own network is allowed by its address, or as NAME=ADDRESS. Redirects
are not followed.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from unalike.errors import SpecError, closest
from unalike.serve.problems import Problem
from unalike.serve.uploads import shown, too_large

if TYPE_CHECKING:
    import httpx

_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::(?P<port>\d{1,5}))?(?:=(?P<address>[0-9A-Fa-f:.]+))?"
)
_PORTS = {"http": 80, "https": 443}
CONNECT_S = 5.0


@dataclass(frozen=True)
class AllowedHost:
    """One host of ``--url-host``: its name, its port (None: the scheme's own), and its address where it was given."""

    name: str
    port: int | None = None
    address: str | None = None


def parse_host(text: str) -> AllowedHost:
    """Read NAME, NAME:PORT or NAME:PORT=ADDRESS. Raises SpecError."""
    match = _HOST.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        name, port = match["name"].lower().strip("[]"), int(match["port"]) if match["port"] else None
        address = str(ip_address(match["address"])) if match["address"] else None
    except ValueError as error:
        raise SpecError(
            f"serve.url_hosts: {text!r}", expected="NAME, NAME:PORT, an IP address, or NAME=ADDRESS"
        ) from error
    if address is None:
        try:
            address = str(ip_address(name))
        except ValueError:
            address = None
    return AllowedHost(name, port, address)


class UrlReader:
    """Fetches images from allowed hosts.

    Args:
        hosts: as ``--url-host`` gives them.
        max_bytes: largest image.
    """

    def __init__(self, hosts: Sequence[str], max_bytes: int) -> None:
        self.hosts = {host.name: host for host in map(parse_host, hosts)}
        self.max_bytes = max_bytes
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def read(self, url: str) -> bytes:
        """The content behind an address.

        Raises:
            Problem: the host is not allowed, the address leads elsewhere, or there is no image of that size.
        """
        import httpx  # a tenth of a second, and few services allow a host

        if self._client is None:
            # trust_env: no proxy of the environment, which would resolve names by itself.
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(CONNECT_S, read=30.0), follow_redirects=False, trust_env=False
            )
        parts, host = self._allowed(url)
        address = host.address or await _public_address(host.name, host.port or _PORTS[parts.scheme])
        netloc = f"[{address}]" if ":" in address else address
        port = parts.port or _PORTS[parts.scheme]
        target = parts._replace(netloc=f"{netloc}:{port}", fragment="").geturl()
        request = self._client.build_request(
            "GET", target, headers={"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": host.name},
        )  # fmt: skip
        try:
            response = await self._client.send(request, stream=True)
            try:
                return await self._content(response, url)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise Problem(422, "unreachable-url", f"{shown(url)} cannot be read: {type(error).__name__}") from error

    def _allowed(self, url: str) -> tuple[SplitResult, AllowedHost]:
        """The parts of an address and its host. Raises Problem (422)."""
        try:
            parts = urlsplit(url)
            port, name = parts.port, (parts.hostname or "").lower()
        except ValueError as error:
            raise Problem(422, "invalid-value", f"the address {shown(url)}", expected="http:// or https://") from error
        if parts.scheme not in _PORTS or not name or parts.username is not None or parts.password is not None:
            raise Problem(
                422, "invalid-value", f"the address {shown(url)}", expected="http://HOST/... or https://HOST/..."
            )
        host = self.hosts.get(name)
        allowed_port = None if host is None else host.port or _PORTS[parts.scheme]
        if host is None or (port or _PORTS[parts.scheme]) != allowed_port:
            raise Problem(403, "host-not-allowed", f"an image from {shown(parts.netloc)}",
                          expected=f"one of {', '.join(self.hosts)}" if self.hosts else "the image itself",
                          remedy=closest(name, self.hosts) or "start the service with --url-host HOST")  # fmt: skip
        return parts, host

    async def _content(self, response: httpx.Response, url: str) -> bytes:
        if response.status_code != 200:
            where = " (redirects are not followed)" if response.is_redirect else ""
            raise Problem(
                422, "unreachable-url", f"{shown(url)} answers with {response.status_code}{where}", expected="200"
            )
        chunks, total = [], 0
        async for chunk in response.aiter_raw():
            total += len(chunk)
            if total > self.max_bytes:
                raise too_large(self.max_bytes)
            chunks.append(chunk)
        return b"".join(chunks)


async def _public_address(name: str, port: int) -> str:
    """An address of a name; all must be public. Raises Problem (403 or 422)."""
    loop = asyncio.get_running_loop()
    try:
        entries = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Problem(422, "unreachable-url", f"there is no host {name}") from error
    addresses = [str(entry[4][0]) for entry in entries]
    for address in addresses:
        if not ip_address(address).is_global:
            raise Problem(403, "host-not-allowed", f"{name} leads to {address}, which is no public address",
                          expected=f"--url-host {name}={address}, where that is meant")  # fmt: skip
    return addresses[0]
