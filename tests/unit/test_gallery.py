import zipfile

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.gallery.gallery import Gallery


@pytest.fixture
def gallery():
    vectors = np.random.default_rng(0).normal(size=(12, 5))
    gallery = Gallery(5)
    gallery.enrol(vectors[:7], ["ü", "b", "ü", "c", "b", "b", "ü"], [f"bild {i}.jpg" for i in range(7)])
    gallery.enrol(vectors[7:], ["d", "b", "ü", "d", "c"])
    return gallery


def test_search_equals_sorting_every_cosine(gallery):
    queries = np.random.default_rng(1).normal(size=(6, 5))
    found = gallery.search(queries, k=4)
    for row, query in enumerate(queries):
        cosines = [float(query @ v / np.linalg.norm(query)) for v in gallery.vectors_ND]
        best = sorted(range(12), key=lambda i: -cosines[i])[:4]
        assert found.indices_QK[row].tolist() == best
        assert found.scores_QK[row] == pytest.approx([cosines[i] for i in best], abs=1e-6)
        assert list(found.labels_QK[row]) == [gallery.labels[i] for i in best]


def test_classes_keep_the_order_of_their_first_vector(gallery):
    assert gallery.classes == ["ü", "b", "c", "d"] and len(gallery) == 12
    assert np.allclose(np.linalg.norm(gallery.vectors_ND, axis=1), 1)
    assert gallery.names[3] == "bild 3.jpg" and gallery.names[9] == ""


def test_more_neighbours_than_vectors_gives_all(gallery):
    assert gallery.search(np.ones((1, 5)), k=50).indices_QK.shape == (1, 12)


def test_save_and_load_give_the_same_gallery(gallery, tmp_path):
    path = gallery.save(tmp_path / "a folder" / "gallery.unalike")
    again = Gallery.load(path)
    assert np.array_equal(again.vectors_ND, gallery.vectors_ND)
    assert (again.labels, again.names, again.classes, again.dim) == (gallery.labels, gallery.names, gallery.classes, 5)
    assert [p.name for p in path.parent.iterdir()] == ["gallery.unalike"]
    again.enrol(np.ones(5), ["new"])
    assert len(Gallery.load(again.save(path))) == 13


def test_damage_is_found(gallery, tmp_path):
    path = gallery.save(tmp_path / "g")
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 8):
        content[place] ^= 0xFF
    (tmp_path / "damaged").write_bytes(content)
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-100])
    (tmp_path / "text").write_text("no gallery")
    for name in ("damaged", "cut", "text"):
        with pytest.raises(DataError, match="damaged"):
            Gallery.load(tmp_path / name)
    with pytest.raises(DataError, match="there is no gallery"):
        Gallery.load(tmp_path / "nothing")


def test_another_checksum_and_a_newer_format_are_refused(gallery, tmp_path):
    path = gallery.save(tmp_path / "g")
    with zipfile.ZipFile(path) as archive:
        head, content = archive.read("gallery.json").decode(), archive.read("content.npz")
    for old, new, said in (('"sha256": "', '"sha256": "0', "checksum"), ('_version": 1', '_version": 9', "update")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("gallery.json", head.replace(old, new))
            archive.writestr("content.npz", content)
        with pytest.raises(DataError, match=said):
            Gallery.load(path)


def test_what_does_not_fit_is_refused(gallery):
    with pytest.raises(DataError, match="as many each"):
        gallery.enrol(np.ones((2, 5)), ["a"])
    with pytest.raises(DataError, match=r"\(any, 5\)"):
        gallery.enrol(np.ones((1, 4)), ["a"])
    with pytest.raises(DataError, match="empty label"):
        gallery.enrol(np.ones((1, 5)), [""])
    with pytest.raises(DataError, match="zero or not finite"):
        gallery.enrol(np.zeros((1, 5)), ["a"])
    with pytest.raises(DataError, match="zero or not finite"):
        gallery.enrol(np.full((1, 5), np.nan), ["a"])
    with pytest.raises(DataError, match="empty"):
        Gallery(5).search(np.ones((1, 5)))
    assert len(gallery) == 12
