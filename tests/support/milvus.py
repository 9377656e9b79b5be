"""A real server of Milvus Lite for tests, in a process of its own: one a test process, and a folder of its own."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# One worker: Milvus Lite serves calls one after the other, since it supports no concurrent writers.
_PROGRAM = """
import sys, time
from milvus_lite.adapter.grpc.server import start_server_in_thread
server, database, port = start_server_in_thread(sys.argv[1], max_workers=1)
print(port, flush=True)
sys.stdin.read()
server.stop(grace=1)
database.close()
"""


@functools.cache
def milvus_server() -> str:
    """Start the server; returns its address, ``milvus://...``. Skips the test where Milvus is not installed."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    folder = Path(tempfile.mkdtemp(prefix="unalike-milvus-"))
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(folder / "data")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    port = int(process.stdout.readline())

    def stop() -> None:
        process.stdin.close()  # type: ignore[union-attr]
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return f"milvus://127.0.0.1:{port}"
