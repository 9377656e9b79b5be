"""Attributes in PostgreSQL: galleries of earlier releases get them, and nothing of them is left behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.postgres import new_database
from unalike.errors import DataError
from unalike.recognition import attributes as attributes_module
from unalike.recognition.backends.address import delete_gallery, open_gallery
from unalike.recognition.backends.conformance_oracle import create, enrol, random_vectors

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("pgvector")


@pytest.fixture(scope="module")
def database() -> str:
    return new_database()


@pytest.fixture
def address(database: str, request: pytest.FixtureRequest) -> str:
    return f"{database}&gallery={request.node.name}"


def ask(database: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(statement).fetchall()


def test_a_gallery_of_an_earlier_release_gets_attributes_with_the_first_of_them(address: str, database: str) -> None:
    """Its format says so to that release, which would lose them; without attributes it stays as it was."""
    gallery = create(address)
    enrol(gallery, random_vectors(2), ["a", "b"])
    number, version = ask(database, "SELECT id, format FROM unalike_galleries")[-1]
    tables = f"SELECT relname FROM pg_class WHERE relname LIKE 'unalike_gallery_{number}_attribute%' AND relkind = 'r'"
    assert (version, ask(database, tables)) == (1, [])
    enrol(gallery, random_vectors(3), ["a", "b", "b"], None, [{"site": "x"}, None, {"site": "x", "line": "1"}])
    assert ask(database, "SELECT format FROM unalike_galleries")[-1] == (2,) and len(ask(database, tables)) == 2
    sets = f"SELECT attributes FROM unalike_gallery_{number}_attribute_sets ORDER BY id"
    assert ask(database, sets) == [({"site": "x"},), ({"line": "1", "site": "x"},)]
    with gallery.change() as change:
        change.remove(ids=[2])
    assert ask(database, sets) == [({"line": "1", "site": "x"},)]
    with gallery.change() as change:
        change.remove(labels=["b"])
    assert ask(database, sets) == [] and gallery.attributes() == {}
    delete_gallery(address)
    assert ask(database, tables) == []


def test_too_many_different_sets_are_refused_and_change_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes_module, "MAX_SETS", 3)
    gallery = create(address)
    for count in (4, 3, 1):
        with gallery.change() as change:
            attributes = [{"number": f"{count} {number}"} for number in range(count)]
            if count == 3:
                change.enrol(random_vectors(3), ["b"] * 3, None, attributes)
                continue
            with pytest.raises(DataError, match="at most 3 in one gallery"):
                change.enrol(random_vectors(count), ["a"] * count, None, attributes)
    assert open_gallery(address).counts() == {"b": 3}


def test_a_filtered_search_does_not_go_through_the_index(address: str) -> None:
    gallery, vectors = create(address), random_vectors(300)
    enrol(gallery, vectors, ["a", "b"] * 150, None, [{"site": str(row % 30)} for row in range(300)])
    index, where = gallery.open_index(), {"site": ["7", "8"]}
    with gallery.view() as view:
        exact, through = view.search(vectors[:5], 12, where=where), view.search(vectors[:5], 12, index, where)
        ranking = view.rank(vectors[:5], index=index, where=where)
    assert np.isin(exact.ids_QK % 30, (7, 8)).all() and exact.ids_QK.shape == (5, 12)
    assert through.ids_QK.tolist() == exact.ids_QK.tolist()
    assert ranking.nearest.ids_QK.tolist() == exact.ids_QK[:, :1].tolist()
