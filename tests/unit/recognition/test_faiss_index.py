import numpy as np
import pytest

from unalike.errors import DataError, SpecError
from unalike.recognition.faiss_index import build_index
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
    assert 0.9 <= index.recall <= 1
    queries = gallery.vectors_ND[::11] + 0.02
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    exact_scores, exact = gallery.snapshot.search(queries, 10)
    scores, found = index.search(queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert abs(recall - index.recall) < 0.1
    assert (np.diff(scores, axis=1) <= 0).all()
    same = found == exact
    np.testing.assert_allclose(scores[same], exact_scores[same], atol=1e-5)  # scored with the gallery's own vectors


def test_more_effort_finds_more(gallery):
    low, high = build_index(gallery, "cells", recall=0.3), build_index(gallery, "cells", recall=1.0)
    assert low.effort < high.effort and low.recall <= high.recall and high.recall > 0.99


def test_an_index_knows_its_gallery_and_what_it_cannot_be():
    gallery = Gallery(4)
    with pytest.raises(DataError, match="empty"):
        build_index(gallery)
    gallery.enrol(np.eye(4), list("abcd"))
    with pytest.raises(SpecError, match="cells or graph"):
        build_index(gallery, "tree")
    index = build_index(gallery)
    assert index.is_current(gallery.snapshot) and index.search(np.eye(4)[:1], 9)[1].shape == (1, 4)
    gallery.enrol(np.ones((1, 4)), ["e"])
    assert not index.is_current(gallery.snapshot)
