"""Approximate search through pgvector's HNSW index: its measured recall, and that it stays in use."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.clustered_gallery import clustered, require_index_in_use
from tests.support.postgres import new_database
from unalike.errors import DataError
from unalike.recognition.backends.address import save_gallery
from unalike.recognition.backends.hnsw_index import HnswIndex, index_statement, measure
from unalike.recognition.backends.measured_index import RECALL
from unalike.recognition.backends.pgvector import PostgresGallery
from unalike.recognition.gallery import Gallery

psycopg = pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def database() -> str:
    return new_database()


@pytest.mark.parametrize(("dim", "half"), [(16, False), (16, True), (2100, False)])
def test_recall_is_measured_and_scores_are_exact(database: str, dim: int, half: bool) -> None:
    memory, queries_QD = clustered(dim, 300 if dim > 1000 else 500, half=half)
    gallery = save_gallery(memory, f"{database}&gallery=hnsw.{dim}.{half}")
    assert isinstance(gallery, PostgresGallery)
    index = gallery.open_index()
    assert index.recall >= RECALL and index.trials == 256 and index.to_dict()["kind"] == "hnsw"
    low, high = index.to_dict()["recall_interval"]
    assert 0.9 < low < index.recall <= high <= 1
    assert gallery.open_index() == index, "the interval is kept with the index"
    with gallery.view() as view:
        statement = view._statement(index, False).replace("%(query)b", "array_fill(1, ARRAY[%(d)s])::vector")
        index.prepare(view, 5)
        plan = "\n".join(str(row) for row in view.fetch("EXPLAIN " + statement, {"d": dim, "k": 5}))  # type: ignore[arg-type]
        assert "_hnsw" in plan, plan
        found, exact = view.search(queries_QD, 5, index), view.search(queries_QD, 5)
        assert np.mean(found.ids_QK == exact.ids_QK) > 0.95
        same = found.ids_QK == exact.ids_QK
        assert np.array_equal(found.scores_QK[same], exact.scores_QK[same])
        index.finish(view)
        exact_plan = "\n".join(
            str(row) for row in view.fetch("EXPLAIN " + view._statement(None, False).replace(
                "%(query)b", "array_fill(1, ARRAY[%(d)s])::vector"), {"d": dim, "k": 5})  # type: ignore[arg-type]
        )  # fmt: skip
        assert "_hnsw" not in exact_plan, exact_plan
        assert view.search(queries_QD, 300, index).ids_QK.shape == (20, 300)


def test_the_index_stays_in_use_while_references_come_and_go(database: str) -> None:
    memory, queries_QD = clustered(16)
    address = f"{database}&gallery=hnsw.changes"
    require_index_in_use(save_gallery(memory, address), address, queries_QD)


def test_a_low_target_takes_less_effort(database: str) -> None:
    gallery = save_gallery(clustered(16)[0], f"{database}&gallery=hnsw.effort")
    gallery.open_index()
    with gallery.view() as view:
        low = measure(view, recall=0.0)  # type: ignore[arg-type]
    assert low.effort == 11 and 0.5 < low.recall <= 1


def test_a_server_with_too_little_memory_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    address = new_database()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("ALTER DATABASE " + connection.info.dbname + " SET maintenance_work_mem = '1MB'")
    rng = np.random.default_rng(0)
    gallery = Gallery(64)
    gallery.enrol(rng.normal(size=(6000, 64)), ["a", "b"] * 3000)
    saved = save_gallery(gallery, f"{address}&gallery=hnsw.memory")
    capsys.readouterr()
    assert saved.open_index() is not None  # type: ignore[union-attr]
    assert capsys.readouterr().err.count("maintenance_work_mem = '2GB'") == 1


@pytest.mark.parametrize(("vectors", "graph"), [(299_999, "16 64"), (300_000, "24 128"), (10**8, "24 128")])
def test_a_large_gallery_has_a_denser_graph(vectors: int, graph: str) -> None:
    row = SimpleNamespace(id=7, vectors=vectors, dim=256, half=True, vectors_table="gallery_7")
    links, candidates = graph.split()
    statement = index_statement(row)  # type: ignore[arg-type]
    assert statement.endswith(f"(vector halfvec_ip_ops) WITH (m = {links}, ef_construction = {candidates})")


def test_what_cannot_be_indexed_is_said(database: str) -> None:
    wide = Gallery(4001)
    wide.enrol(np.ones((1, 4001)), ["a"])
    with pytest.raises(DataError, match="4001.*at most 4000.*search exactly"):
        save_gallery(wide, f"{database}&gallery=hnsw.wide").open_index()
    with pytest.raises(DataError, match="empty"):
        save_gallery(Gallery(4), f"{database}&gallery=hnsw.empty").open_index()
    assert HnswIndex(11, 1.0, 5).most == 1000


def test_an_index_of_an_earlier_version_has_no_interval() -> None:
    facts = {"kind": "hnsw", "effort": 22, "recall": 0.995, "neighbours": 10, "trials": 256}
    assert HnswIndex.of_dict(facts).to_dict() == facts
