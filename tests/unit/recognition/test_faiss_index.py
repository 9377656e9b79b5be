import multiprocessing
import pickle

import numpy as np
import pytest

from unalike.errors import DataError, SpecError
from unalike.numerics.normalization import l2_normalize
from unalike.recognition import faiss_index
from unalike.recognition.faiss_index import build_index, index_path, load_index, open_index, update_index
from unalike.recognition.gallery import Gallery

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def gallery():
    draws = np.random.default_rng(0)
    centres = draws.normal(size=(100, 16))
    gallery = Gallery(16, half=True)
    gallery.enrol(
        centres.repeat(30, axis=0) + 0.4 * draws.normal(size=(3000, 16)), [f"c{i // 30}" for i in range(3000)]
    )
    return gallery


@pytest.mark.parametrize("kind", ["cells", "graph"])
def test_recall_is_what_it_says_on_other_queries(gallery, kind):
    index = build_index(gallery, kind, recall=0.9)
    assert 0.9 <= index.recall <= 1 and index.bounds[0] <= index.recall <= index.bounds[1]
    queries = gallery.vectors_ND[::11] + 0.02
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    exact_scores, exact = gallery.snapshot.search(queries, 10)
    scores, found = index.search(queries, 10, gallery.snapshot)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert abs(recall - index.recall) < 0.1
    assert (np.diff(scores, axis=1) <= 0).all()
    same = found == exact
    np.testing.assert_allclose(scores[same], exact_scores[same], atol=1e-5)  # scored with the gallery's own vectors


def test_a_compact_index_scores_candidates_with_the_vectors_of_the_gallery(tmp_path, monkeypatch):
    """Also while the gallery changes, in a file that is mapped, and after it was saved."""
    monkeypatch.setattr("unalike.storage.blockfile.LARGE_BYTES", 0)
    monkeypatch.setattr(faiss_index, "COMPACT_BYTES", 1000)
    draws = np.random.default_rng(0)
    gallery = Gallery(8, half=True)
    gallery.enrol(draws.normal(size=(700, 8)), [f"c{i % 20}" for i in range(700)])
    gallery = Gallery.load(gallery.save(tmp_path / "g"))
    index = build_index(gallery)
    assert index.kind == "compact" and 0.99 <= index.recall <= 1 and index.to_dict()["recall_interval"][0] > 0.9
    gallery.remove(["c3"])
    gallery.enrol(draws.normal(size=(20, 8)), ["new"] * 20)
    loaded, queries = load_index(index.save(tmp_path / "index")), l2_normalize(draws.normal(size=(200, 8)))
    exact_scores, exact = gallery.snapshot.search(queries, 5)
    scores, rows = loaded.search(queries, 5, gallery.snapshot)
    assert loaded.bounds == index.bounds and (rows == exact).mean() > 0.98
    np.testing.assert_allclose(scores[rows == exact], exact_scores[rows == exact], atol=1e-6)
    assert build_index(Gallery.load(tmp_path / "g"), "cells").kind == "cells"


def test_more_effort_finds_more(gallery):
    low, high = build_index(gallery, "cells", recall=0.3), build_index(gallery, "cells", recall=1.0)
    assert low.effort < high.effort and low.recall <= high.recall and high.recall > 0.99


def test_what_an_index_cannot_be():
    gallery = Gallery(4)
    with pytest.raises(DataError, match="empty"):
        build_index(gallery)
    gallery.enrol(np.eye(4), list("abcd"))
    with pytest.raises(SpecError, match="cells or graph or compact"):
        build_index(gallery, "tree")
    index = build_index(gallery)
    assert index.search(np.eye(4)[:1], 9, gallery.snapshot)[1].shape == (1, 4)


def cluster(count=600, dim=16, seed=0):
    draws = np.random.default_rng(seed)
    gallery = Gallery(dim)
    gallery.enrol(draws.normal(size=(count, dim)), [f"c{i % 20}" for i in range(count)], [f"{i}" for i in range(count)])
    return gallery, draws


@pytest.mark.parametrize("kind", ["cells", "graph"])
def test_an_index_serves_what_the_gallery_becomes(kind):
    gallery, draws = cluster()
    index = build_index(gallery, kind, recall=1.0)
    queries = l2_normalize(draws.normal(size=(30, 16)))
    for step in range(12):
        if step % 3 == 2:
            gallery.remove([f"c{step}"])
        elif step % 3 == 1:
            gallery.merge([f"c{step}"], f"c{step - 1}")
        else:
            gallery.enrol(draws.normal(size=(20, 16)), [f"new {step}"] * 20)
        snapshot = gallery.snapshot
        assert index.serves(snapshot) and index.pending(snapshot) == sum(label[0] == "n" for label in gallery.labels)
        exact_scores, exact = snapshot.search(queries, 5)
        scores, found = index.search(queries, 5, snapshot)
        assert np.mean(found == exact) > 0.97 and (found >= 0).all()
        np.testing.assert_allclose(scores[found == exact], exact_scores[found == exact], atol=1e-5)
    updated = update_index(index, gallery.snapshot)
    assert not updated.pending(gallery.snapshot) and index.pending(gallery.snapshot)
    assert np.mean(updated.search(queries, 5, gallery.snapshot)[1] == exact) > 0.97


def test_an_index_knows_another_gallery_and_one_that_was_emptied():
    gallery, _ = cluster()
    index = build_index(gallery)
    assert not index.serves(cluster(seed=1)[0].snapshot) and not index.serves(cluster(dim=8)[0].snapshot)
    gallery.store(half=True)
    assert index.serves(gallery.snapshot)
    gallery.remove([f"c{i}" for i in range(15)])
    assert not index.serves(gallery.snapshot)
    again = update_index(index, gallery.snapshot)
    assert again.serves(gallery.snapshot) and len(again.ids_M) == len(gallery)
    gallery.remove(gallery.classes)
    assert not again.serves(gallery.snapshot)


def test_an_index_is_kept_beside_its_gallery_and_updated(tmp_path, monkeypatch):
    gallery, draws = cluster()
    path = gallery.save(tmp_path / "g")
    first = open_index(Gallery.load(path))
    assert index_path(path).is_file()
    monkeypatch.setattr(faiss_index, "_build", None)  # from now on nothing is built
    with Gallery.edit(path) as edited:
        edited.enrol(draws.normal(size=(7, 16)), ["new"] * 7)
        edited.remove(["c3"])
    second = open_index(Gallery.load(path))
    assert len(second.ids_M) == len(first.ids_M) + 7 and second.recall == first.recall
    before = index_path(path).stat().st_mtime_ns
    third = pickle.loads(pickle.dumps(open_index(Gallery.load(path))))
    queries = l2_normalize(draws.normal(size=(9, 16)))
    snapshot = Gallery.load(path).snapshot
    assert np.array_equal(third.search(queries, 3, snapshot)[1], second.search(queries, 3, snapshot)[1])
    assert index_path(path).stat().st_mtime_ns == before and not third.pending(snapshot)


def test_a_damaged_index_is_built_again(tmp_path):
    path = cluster()[0].save(tmp_path / "g")
    open_index(Gallery.load(path))
    whole = index_path(path).read_bytes()
    index_path(path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        load_index(index_path(path))
    open_index(Gallery.load(path))
    assert index_path(path).read_bytes() == whole


def test_an_index_searches_in_a_forked_process():
    gallery, draws = cluster(3000)
    index = build_index(gallery)
    queries = l2_normalize(draws.normal(size=(64, 16)))
    expected = index.search(queries, 3, gallery.snapshot)[1]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=lambda: results.put(index.search(queries, 3, gallery.snapshot)[1]))
    child.start()
    assert np.array_equal(results.get(timeout=20), expected)
    child.join()


def test_a_filtered_search_does_not_go_through_the_index():
    draws = np.random.default_rng(1)
    gallery = Gallery(8)
    vectors = draws.normal(size=(400, 8))
    gallery.enrol(vectors, ["a"] * 400, None, [{"site": str(row % 20)} for row in range(400)])
    index, view = build_index(gallery, recall=0.1), gallery.view()
    where = {"site": "7"}
    exact, through = view.search(vectors[:9], 5, where=where), view.search(vectors[:9], 5, index, where)
    assert exact.ids_QK.tolist() == through.ids_QK.tolist() and (exact.ids_QK % 20 == 7).all()
    assert view.rank(vectors[:9], index=index, where=where).nearest.ids_QK.tolist() == exact.ids_QK[:, :1].tolist()
