"""Images by address: only hosts that are allowed, at the address that was checked."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.serving import files, picture, run, running
from unalike.errors import SpecError
from unalike.serve.problems import Problem
from unalike.serve.url_inputs import AllowedHost, UrlReader, parse_host


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback; (HOST:PORT, the Host header of each request)."""
    hosts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            if self.path.startswith("/away"):
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1:1/secret")
                self.end_headers()
                return
            content = picture("green") if self.path == "/a.png" else b"x" * 5000
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"{httpd.server_port}", hosts
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def refusal(reader: UrlReader, url: str) -> Problem:
    async def scenario() -> Problem:
        with pytest.raises(Problem) as caught:
            await reader.read(url)
        await reader.close()
        return caught.value

    problem: Problem = run(scenario())
    return problem


def test_hosts_are_read_in_each_form() -> None:
    assert parse_host("Shop.example") == AllowedHost("shop.example")
    assert parse_host("cam:8080=10.0.0.7") == AllowedHost("cam", 8080, "10.0.0.7")
    assert parse_host("10.0.0.7") == AllowedHost("10.0.0.7", None, "10.0.0.7")
    for text in ("http://a", "a/b", "a:b", "a=b", "*", "999.1.1.1=1"):
        with pytest.raises(SpecError):
            parse_host(text)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://shop.example/a", "http://shop.example.evil/a", "http://evil/", "http://shop.example:8080/a",
        "http://user@shop.example/a", "http://shop.example@evil/a", "http://127.0.0.1/a", "http://[::1]/", "http:///a", "http://a b/",
        "http://shop.example:99999/", "gopher://shop.example", "//shop.example/a",
    ],
)  # fmt: skip
def test_other_addresses_are_refused_without_a_look_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    assert refusal(UrlReader(["shop.example"], 1000), url).status in (403, 422)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "fd00::1", "0.0.0.0", "::ffff:127.0.0.1"]
)
def test_an_allowed_name_that_leads_into_the_own_network_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: Any, *_: Any, **__: Any) -> Any:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))
        return [public, (family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    problem = refusal(UrlReader(["shop.example"], 1000), "http://shop.example/a.png")
    assert problem.status == 403 and "no public address" in problem.found


def test_an_image_of_an_allowed_host_is_read_under_its_name(server: tuple[str, list[str]]) -> None:
    port, hosts = server

    async def scenario() -> bytes:
        reader = UrlReader([f"cam.example:{port}=127.0.0.1"], 10_000)
        try:
            return await reader.read(f"http://cam.example:{port}/a.png")
        finally:
            await reader.close()

    assert run(scenario()) == picture("green") and hosts == [f"cam.example:{port}"]


def test_redirects_are_not_followed_and_large_answers_not_read(server: tuple[str, list[str]]) -> None:
    port, hosts = server
    allowed = [f"127.0.0.1:{port}"]
    assert "redirects" in refusal(UrlReader(allowed, 10_000), f"http://127.0.0.1:{port}/away").found
    assert len(hosts) == 1
    assert refusal(UrlReader(allowed, 1000), f"http://127.0.0.1:{port}/large").status == 413


def test_an_endpoint_takes_addresses_where_the_service_allows_them(
    server: tuple[str, list[str]], tmp_path: Any
) -> None:
    port, _ = server

    async def scenario() -> None:
        async with running(tmp_path, url_hosts=[f"127.0.0.1:{port}"]) as it:
            body = {"image": {"url": f"http://127.0.0.1:{port}/a.png"}}
            assert (await it.client.post("/v1/identify", json=body)).json()["answers"][0]["label"] == "green"
            assert (
                await it.client.post("/v1/identify", json={"image": {"url": "http://127.0.0.1:1/"}})
            ).status_code == 403
            assert (await it.client.post("/v1/identify", files=files(picture("red")))).status_code == 200
            await asyncio.sleep(0)

    run(scenario())
