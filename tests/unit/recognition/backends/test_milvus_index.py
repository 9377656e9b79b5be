"""Approximate search through the HNSW index of Milvus: its measured recall, and that it stays in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.clustered_gallery import clustered, require_index_in_use
from tests.support.milvus import milvus_server
from unalike.errors import DataError
from unalike.recognition.backends.address import copy_gallery, open_gallery, save_gallery
from unalike.recognition.backends.measured_index import RECALL
from unalike.recognition.backends.milvus import MilvusGallery
from unalike.recognition.backends.milvus_address import MilvusAddress
from unalike.recognition.backends.milvus_connection import MilvusConnection
from unalike.recognition.backends.milvus_index import MilvusIndex, measure
from unalike.recognition.gallery import Gallery

pytestmark = pytest.mark.slow
pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return f"{milvus_server()}?gallery={request.node.name.replace('[', '.').replace(']', '')}&index=hnsw"


def searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Field and effort of each search that the server is asked for from now on."""
    seen, search = list[tuple[str, int]](), MilvusConnection.search

    def watched(self, *arguments, field="vector", parameters=None):
        seen.append((field, (parameters or {}).get("ef", 0)))
        return search(self, *arguments, field=field, parameters=parameters)

    monkeypatch.setattr(MilvusConnection, "search", watched)
    return seen


@pytest.mark.parametrize("half", [False, True])
def test_recall_is_measured_and_scores_are_exact(address: str, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, queries_QD = clustered(16, half=half)
    gallery = save_gallery(memory, address)
    assert isinstance(gallery, MilvusGallery)
    index = gallery.open_index()
    assert index.recall >= RECALL and index.trials == 256 and index.to_dict()["kind"] == "hnsw"
    seen = searches(monkeypatch)
    with gallery.view() as view:
        found = view.search(queries_QD, 5, index)
        assert seen == [("indexed", max(index.effort, 21))]
        exact = view.search(queries_QD, 5)
        assert seen[1:] and all(field == "vector" for field, _ in seen[1:])
        same = found.ids_QK == exact.ids_QK
        assert same.mean() > 0.95 and np.array_equal(found.scores_QK[same], exact.scores_QK[same])
        del seen[:]
        assert view.search(queries_QD[:2], 500, index).ids_QK.shape == (2, 500)
        assert view.search(queries_QD[:2], 2, index, {}).ids_QK.shape == (2, 2)


def test_the_index_stays_in_use_while_references_come_and_go(address: str) -> None:
    memory, queries_QD = clustered(16)
    require_index_in_use(save_gallery(memory, address), address.removesuffix("&index=hnsw"), queries_QD)


def test_a_change_that_fails_leaves_the_index_as_it_was(address: str) -> None:
    memory, queries_QD = clustered(16)
    gallery = save_gallery(memory, address)
    index = gallery.open_index()
    with pytest.raises(RuntimeError, match="on purpose"), gallery.change() as change:
        change.enrol(queries_QD[:1], ["new"])
        change.remove(labels=["class 1"])
        raise RuntimeError("on purpose")
    with gallery.view() as view, memory.view() as before:
        found, expected = view.search(queries_QD, 3, index), before.search(queries_QD, 3)
        assert np.mean(found.ids_QK == expected.ids_QK) > 0.95


def test_a_copy_is_indexed_and_an_index_of_hardly_any_reference_is_measured(address: str, tmp_path: Path) -> None:
    memory, queries_QD = clustered(16, 1600)
    memory.remove(ids=list(range(10, 1600)))
    copied = copy_gallery(memory.save(tmp_path / "a.gallery"), address)
    index = copied.open_index()
    assert isinstance(index, MilvusIndex) and index.trials == 10
    with copied.view() as view:
        assert view.search(queries_QD, 20, index).ids_QK.shape == (20, 10)
        assert measure(view, recall=0.0).effort == 11  # type: ignore[arg-type]


def test_a_gallery_without_an_index_says_how_to_get_one(address: str) -> None:
    memory, _ = clustered(16)
    plain = address.removesuffix("&index=hnsw")
    save_gallery(memory, plain)
    with pytest.raises(DataError, match="without an index.*index=hnsw"):
        open_gallery(plain).open_index()
    with pytest.raises(DataError, match="without an index.*leave out index=hnsw"):
        open_gallery(address)
    with pytest.raises(DataError, match="empty"):
        save_gallery(Gallery(4), address.replace("&index", ".empty&index")).open_index()
    with pytest.raises(DataError, match="'ivf'"):
        MilvusAddress.parse("milvus://host?gallery=a&index=ivf")
