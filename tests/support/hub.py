"""A small Hugging Face hub on the loopback interface: files of repositories, with digests, ranges and faults on demand."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running hub.

    Attributes:
        address: for ``HF_ENDPOINT``.
        files: ``owner/name/file`` -> content.
        asked: ``METHOD /path`` of every request.
        sent: bytes of content that were sent.
        stop_after: bytes of content, of all requests together, after which every connection breaks; None: never.
        stated_sha256: digest that is stated in place of the right one.
        stated_size: size that is stated in HEAD in place of the right one.
        asks_token: whether requests without a token are refused.
        has_store: whether content lies at another address, to which requests are redirected, as on the real hub.
        renamed: ``owner/name`` -> the repository's name today.
        store_tokens: what the store got as Authorization.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: int = 0
    stop_after: int | None = None
    stated_sha256: str = ""
    stated_size: int | None = None
    asks_token: bool = False
    has_store: bool = False
    renamed: dict[str, str] = field(default_factory=dict)
    store_tokens: list[str | None] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """Paths of the requests for content."""
        return [line.partition(" ")[2] for line in self.asked if line.startswith("GET ")]


@contextmanager
def serve_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """Serve files, ``owner/name/file`` -> content, until the block ends."""
    hub = Hub(files=dict(files))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            content = self._content()
            if content is not None:
                self._answer(content, 0)

        def do_GET(self) -> None:
            content = self._content()
            if content is None:
                return
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self._answer(content, start)
            body = content[start:]
            if hub.stop_after is not None:
                body = body[: max(0, hub.stop_after - hub.sent)]
            self.wfile.write(body)
            hub.sent += len(body)
            self.close_connection = True

        def _content(self) -> bytes | None:
            hub.asked.append(f"{self.command} {self.path}")
            if self.path.startswith("/store/"):
                hub.store_tokens.append(self.headers.get("Authorization"))
                return hub.files[self.path.removeprefix("/store/")]
            owner, name, _, _, file = [*self.path.strip("/").split("/", 4), "", "", "", ""][:5]
            if new_name := hub.renamed.get(f"{owner}/{name}"):
                self._redirect(307, self.path.replace(f"{owner}/{name}", new_name, 1), {})
                return None
            content = hub.files.get(f"{owner}/{name}/{file}")
            if hub.asks_token and not self.headers.get("Authorization"):
                self.send_error(401)
                return None
            if content is None:
                self.send_error(404)
            elif hub.has_store:
                store = hub.address.replace("127.0.0.1", "localhost")
                self._redirect(302, f"{store}/store/{owner}/{name}/{file}", self._facts(content))
                return None
            return content

        def _redirect(self, code: int, location: str, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in {"Location": location, "Content-Length": "0", **headers}.items():
                self.send_header(key, value)
            self.end_headers()

        def _facts(self, content: bytes) -> dict[str, str]:
            digest = hub.stated_sha256 or hashlib.sha256(content).hexdigest()
            size = hub.stated_size or len(content)
            return {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size), "X-Repo-Commit": COMMIT}

        def _answer(self, content: bytes, start: int) -> None:
            self.send_response(206 if start else 200)
            headers = {"Accept-Ranges": "bytes", "Content-Length": str(len(content) - start), **self._facts(content)}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hub_of_this_process(monkeypatch: pytest.MonkeyPatch, folder: Path, files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub that this process uses, with an empty cache below a folder, no token and no rule on downloads."""
    for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "UNALIKE_DOWNLOAD", "HF_TOKEN"):
        monkeypatch.setenv(key, "")  # put back at the end whatever a test sets meanwhile
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    with serve_hub(files) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def write_weights(name: str, path: Path, seed: int = 0) -> bytes:
    """Write random weights of a timm network as safetensors; returns the file's content."""
    import torch
    from safetensors.torch import save_file

    from unalike.model.timm_import import import_timm

    torch.manual_seed(seed)
    network = import_timm().create_model(name, pretrained=False)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path.read_bytes()
