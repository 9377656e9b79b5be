"""A real S3 server in a process of its own, and a wire to it that can be cut."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

SIGNED = "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """moto's server on a free port; yields its address."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=out, stderr=out
        )
    try:
        while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        yield found[1]
    finally:
        process.kill()
        process.wait()


def call(url: str, data: bytes | None = None, method: str = "GET") -> bytes:
    # urllib's own kind for data, a form, makes the server wait for more; unsigned calls may not replace anything
    kind = {"Content-Type": "application/octet-stream", "x-amz-acl": "public-read", "Authorization": SIGNED}
    with urllib.request.urlopen(urllib.request.Request(url, data, kind, method=method), timeout=30) as answer:
        return bytes(answer.read())


class Wire:
    """A proxy in front of a server; ``budget`` is how many bytes of answers pass before every connection is cut."""

    def __init__(self, server: str) -> None:
        host, port = server.removeprefix("http://").split(":")
        self.target = host, int(port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.budget: int | None = None
        self.asked: list[str] = []
        self.guard = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def gets(self, name: str) -> list[str]:
        """The ranges of the GET requests for a key ("" for a whole one), in the order in which they came."""
        with self.guard:
            found = [
                text
                for text in self.asked
                if text.startswith("GET ") and text.split()[1].partition("?")[0].endswith(name)
            ]
        ranges = [re.search(r"\r\nrange: *(\S+)", text, re.IGNORECASE) for text in found]
        return [match[1] if match else "" for match in ranges]

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self.guard:
                    self.asked += [data.decode("latin-1")]
                target.sendall(data)
        _shut(source, target)

    def _answer(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                with self.guard:
                    if self.budget is not None:
                        if self.budget <= 0:
                            break
                        data = data[: self.budget]
                        self.budget -= len(data)
                target.sendall(data)
        _shut(source, target)


def _shut(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def image(colour: tuple[int, int, int], side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, "PNG")
    return out.getvalue()


def packed(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()
