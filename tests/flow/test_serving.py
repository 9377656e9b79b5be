"""The real command line over real sockets: start, answer, drain."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from tests.support.networks import pictures, write_model
from tests.support.program import process, unalike
from unalike.recognition.recognizer import Recogniser
from unalike.serve.server import DRAIN_MARGIN_S
from unalike.serve.store import open_store

PATIENCE_S = 120


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    recognizer = Recogniser.load(write_model(folder), runtime="onnxruntime")
    for number, pixels in enumerate(pictures(3)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    recognizer.enrol([folder / f"{number}.png" for number in range(3)], ["a", "b", "c"])
    recognizer.gallery.save(folder / "shop.gallery")
    return folder / "shop.gallery"


@contextmanager
def serving(*arguments: object, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own, and its address, which is the first line that it prints."""
    words = ["serve", *map(str, arguments), "--port", "0", "--runtime", "onnxruntime"]
    with open(cwd / "log.txt", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "unalike", *words], stdout=subprocess.PIPE, stderr=log, text=True, cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address.startswith("http"), (cwd / "log.txt").read_text()
        yield server, address
    finally:
        if server.poll() is None:
            server.kill()
        server.wait(PATIENCE_S)
        server.stdout.close()


def inherited_listeners(pid: int, port: int) -> list[str]:
    """Descriptors of a process that listen on a port and would go along to processes that it starts."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    listening = {
        f"socket:[{line[9]}]" for line in lines if line[3] == "0A" and int(line[1].rpartition(":")[2], 16) == port
    }
    assert listening
    inherited = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            flags = int(re.search(r"flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text())[1], 8)
            if os.readlink(entry) in listening and not flags & os.O_CLOEXEC:
                inherited.append(entry.name)
    return inherited


def test_it_answers_as_the_command_line_and_ends_with_0_after_sigterm(gallery: Path, tmp_path: Path) -> None:
    photo = gallery.parent / "1.png"
    expected = json.loads(
        process("identify", gallery, photo, "-k", 2, "--runtime", "onnxruntime", "--json", cwd=tmp_path).stdout
    )
    with serving("-g", gallery, cwd=tmp_path) as (server, address), httpx.Client(timeout=PATIENCE_S) as client:
        answer = client.post(f"{address}/v1/identify", files={"image": photo.open("rb")}, data={"k": "2"}).json()
        assert len(answer["answers"][0].pop("id")) == 36 and answer["answers"][0].pop("index") == 0
        assert answer["answers"] == [{**expected["answers"][0], "path": "1.png"}]
        assert set(answer) == set(expected) and answer["engine"] == expected["engine"]
        with ThreadPoolExecutor(8) as pool:
            codes = pool.map(
                lambda _: client.post(f"{address}/v1/identify", files={"image": photo.read_bytes()}), range(32)
            )
            assert {response.status_code for response in codes} == {200}
        if sys.platform == "linux":  # a task that outlives a killed service would keep its port
            assert not inherited_listeners(server.pid, int(address.rpartition(":")[2]))
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


def test_a_request_that_was_taken_is_answered_while_the_service_stops(gallery: Path, tmp_path: Path) -> None:
    """The service asks for the body, so it has taken the request; SIGTERM comes between the two parts of the body."""
    content = (gallery.parent / "0.png").read_bytes()
    with serving("-g", gallery, cwd=tmp_path) as (server, address):
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            connection.sendall(
                f"POST /v1/identify HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: image/png\r\n"
                f"Content-Length: {len(content)}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
            connection.sendall(content[:100])
            server.send_signal(signal.SIGTERM)
            until_refused(host, int(port))
            connection.sendall(content[100:])
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert response.status == 200 and json.loads(response.read())["answers"][0]["label"] == "a"
        assert server.wait(PATIENCE_S) == 0


def until_refused(host: str, port: int) -> None:
    """Wait until a service takes no more connections."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), timeout=PATIENCE_S).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass  # it stopped listening while this connection waited to be taken
        time.sleep(0.02)
    raise AssertionError("it still takes connections")


def test_probes_are_answered_while_networks_load(gallery: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "-g", str(gallery), "--folder", str(tmp_path / "serve"), "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "unalike", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address, statuses, end = f"http://127.0.0.1:{port}", [], time.monotonic() + PATIENCE_S
    try:
        while not statuses or statuses[-1] != (200, 200):
            assert server.poll() is None and time.monotonic() < end
            with contextlib.suppress(httpx.ConnectError):
                statuses.append(
                    tuple(httpx.get(address + path, timeout=PATIENCE_S).status_code for path in ("/healthz", "/readyz"))
                )
        assert statuses[0] == (200, 503) and {*statuses} == {(200, 503), (200, 200)}
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
    finally:
        server.kill()
        server.wait(PATIENCE_S)


@pytest.mark.slow
def test_a_stop_ends_the_export_of_a_network(trained: Path, images: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "g.gallery"
    assert (
        unalike("gallery", "build", gallery, images / "reference", "--model", trained / "ml_model_best.pth").returncode
        == 0
    )
    with serving("-g", gallery, "--folder", tmp_path / "serve", "--deadline", "1", cwd=tmp_path) as (server, address):
        own = psutil.Process(server.pid)
        end = time.monotonic() + PATIENCE_S
        while not (children := own.children()):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert httpx.get(f"{address}/readyz").status_code == 200  # nothing waits for it
        server.send_signal(signal.SIGTERM)
        assert server.wait(1 + DRAIN_MARGIN_S + 2) == 0
        psutil.wait_procs(children, 2)
        assert not any(child.is_running() for child in children)
    assert list((tmp_path / "serve/explanation").iterdir()) == []


def test_several_processes_share_the_address(gallery: Path, tmp_path: Path) -> None:
    with serving("-g", gallery, "--workers", 2, cwd=tmp_path) as (server, address):
        for _ in range(4):
            with httpx.Client(timeout=PATIENCE_S) as client:
                files = {"image": (gallery.parent / "2.png").read_bytes()}
                assert client.post(f"{address}/v1/identify", files=files).json()["answers"][0]["label"] == "c"
        assert "unalike_requests_total" in httpx.get(f"{address}/metrics", timeout=PATIENCE_S).text
        workers = [child for child in psutil.Process(server.pid).children() if child.net_connections("tcp")]
        assert len(workers) == 2
        if sys.platform == "linux":
            for worker in workers:
                assert not inherited_listeners(worker.pid, int(address.rpartition(":")[2]))
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    result = process("serve", cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and "unalike demo" in result.stderr
    result = process("serve", "-g", "none.gallery", cwd=tmp_path)
    assert result.returncode == 1 and "none.gallery" in result.stderr and "Traceback" not in result.stderr


def test_a_self_signed_certificate_serves_https(gallery: Path, tmp_path: Path) -> None:
    with serving("-g", gallery, "--tls", "self-signed", "--folder", tmp_path / "own", cwd=tmp_path) as (
        server,
        address,
    ):
        assert address.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=tmp_path / "own/self-signed.pem")
        response = httpx.get(f"{address}/readyz", verify=context, timeout=PATIENCE_S)
        assert response.json() == {"status": "ready"}
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0


def test_an_address_beyond_loopback_needs_a_key(gallery: Path, tmp_path: Path) -> None:
    result = process(
        "serve", "-g", gallery, "--host", "0.0.0.0", "--port", "0", "--folder", tmp_path / "own", cwd=tmp_path
    )
    assert result.returncode == 2 and "unalike serve keys add" in result.stderr and "Traceback" not in result.stderr
    with open_store(None, tmp_path / "own") as store:
        secret = store.keys.add("till", "operate")[1]
    with serving("-g", gallery, "--host", "0.0.0.0", "--folder", tmp_path / "own", cwd=tmp_path) as (server, address):
        address = f"http://127.0.0.1:{address.rpartition(':')[2]}"
        files = {"image": (gallery.parent / "2.png").read_bytes()}
        assert httpx.post(f"{address}/v1/identify", files=files, timeout=PATIENCE_S).status_code == 401
        headers = {"authorization": f"Bearer {secret}"}
        response = httpx.post(f"{address}/v1/identify", files=files, headers=headers, timeout=PATIENCE_S)
        assert response.json()["answers"][0]["label"] == "c"
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
        assert secret not in (tmp_path / "log.txt").read_text()


def test_what_was_acknowledged_survives_a_kill(gallery: Path, tmp_path: Path) -> None:
    own = tmp_path / "killed.gallery"
    own.write_bytes(gallery.read_bytes())
    model = gallery.parent / "model.onnx"
    arguments = ("-g", own, "-m", model, "--folder", tmp_path / "own")
    content = (gallery.parent / "1.png").read_bytes()
    with serving(*arguments, cwd=tmp_path) as (server, address):
        response = httpx.post(
            f"{address}/v1/references", files={"image": content}, data={"label": "new"}, timeout=PATIENCE_S
        )
        reference = response.json()["references"][0]
        answer = httpx.post(f"{address}/v1/identify", files={"image": content}, timeout=PATIENCE_S).json()["answers"][0]
        server.kill()
    with serving(*arguments, cwd=tmp_path) as (_, address):
        assert httpx.get(f"{address}/v1/references/{reference['id']}", timeout=PATIENCE_S).json() == reference
        assert httpx.get(f"{address}{reference['image']}", timeout=PATIENCE_S).content == content
        assert httpx.get(f"{address}/v1/decisions/{answer['id']}/image", timeout=PATIENCE_S).content == content
