"""A store on SQLite and one on a real PostgreSQL server: what is tested with it must hold for both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")

from tests.support.postgres import new_database
from unalike.serve.store import Store, open_store
from unalike.serve.store.tables import metadata


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A database for the tests of a process; each begins with empty tables."""
    return new_database()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    with open_store(None, tmp_path / "service") as store:
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    with open_store(url, tmp_path / "service") as store:
        with store.transaction() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        yield store
