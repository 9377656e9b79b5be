"""The demo, small, through the real command line: it finishes, and asks nothing of the network."""

import os
import re
from pathlib import Path

import pytest

from tests.support.program import process

# Loaded by every Python process of a run. An audit hook sees what urllib, requests and the like do, names looked up
# included: without a network a look-up fails before anything connects.
GUARD = """
import os, sys

def _refuse(event, arguments):
    if event == "socket.getaddrinfo":
        address = arguments[:2]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
    else:
        return
    if not isinstance(address, tuple):  # a path: a socket of this machine
        return
    host = address[0].decode() if isinstance(address[0], bytes) else str(address[0] or "")
    if host in ("", "localhost", "::1", "::") or host.startswith(("127.", "0.0.0.0")):
        return
    with open(os.environ["REFUSED"], "a", encoding="utf-8") as file:
        file.write(f"{event} {address}\\n")
    raise OSError(f"refused by the test: {address}")

sys.addaudithook(_refuse)
"""
ASKS = """
import socket, urllib.request
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), 5).close()
for ask in (lambda: socket.create_connection(("192.0.2.1", 9), 1), lambda: urllib.request.urlopen("http://example.org/")):
    try:
        ask()
    except OSError as error:
        assert "refused by the test" in str(error), error
    else:
        raise SystemExit("not refused")
"""


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    """(environment in which no process leaves this machine, the file that names what was refused)."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    folder, refused = tmp_path / "guard", tmp_path / "refused.txt"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(GUARD)
    path = [str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"PYTHONPATH": os.pathsep.join(path), "REFUSED": str(refused)}, refused


def said(refused: Path) -> str:
    return refused.read_text() if refused.exists() else ""


def test_the_guard_refuses_and_notes_what_leaves_the_machine(guarded):
    environment, refused = guarded
    done = process(program=("-c", ASKS), env=environment)
    assert done.returncode == 0, done.stderr
    noted = said(refused).splitlines()
    assert len(noted) == 2 and "192.0.2.1" in noted[0] and "example.org" in noted[1]


@pytest.mark.slow  # a hundred processor seconds
def test_the_demo_ends_with_a_report_and_phones_nobody(guarded, tmp_path):
    environment, refused = guarded
    out = tmp_path / "demo"
    done = process("demo", "--brands", 8, "--unseen", 6, "--epochs", 1, "--out", out, cwd=tmp_path, env=environment,
                   timeout=900)  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert said(refused) == ""
    text = (out / "report.html").read_text(encoding="utf-8")
    loads = re.findall(r"\b(?:src|href|srcset|action|data)\s*=\s*(?:\"([^\"]*)|'([^']*)|([^\s>]*))", text)
    assert any(part.startswith("data:image/") for parts in loads for part in parts)
    assert all("".join(parts).startswith(("data:", "#")) for parts in loads)
    assert not re.search(r"url\(|@import|<script|<link", text)
    for metric in ("R@1", "MAP@R"):
        line = rf"{re.escape(metric)} on unseen brands: frozen [\d.]+ %, trained [\d.]+ %, gain [+-][\d.]+ .*apart"
        assert re.search(line, done.stderr) and re.search(line, text)
    assert [path.name for path in out.rglob("*.onnx")] == ["ml_model_best.onnx"]
    assert (out / "export" / "ml_model_best.onnx").stat().st_size > 1e6
