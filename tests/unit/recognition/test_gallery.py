import threading

import numpy as np
import pytest

from unalike.errors import DataError, ModelError
from unalike.recognition.gallery import Gallery, ModelIdentity


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


def test_more_neighbors_than_vectors_gives_all(gallery):
    assert gallery.search(np.ones((1, 5)), k=50).indices_QK.shape == (1, 12)


def test_save_and_load_give_the_same_gallery(gallery, tmp_path):
    path = gallery.save(tmp_path / "a folder" / "gallery.unalike")
    again = Gallery.load(path)
    assert np.array_equal(again.vectors_ND, gallery.vectors_ND)
    assert (again.labels, again.names, again.classes, again.dim) == (gallery.labels, gallery.names, gallery.classes, 5)
    assert [p.name for p in path.parent.iterdir()] == ["gallery.unalike"]
    again.enrol(np.ones(5), ["new"])
    assert len(Gallery.load(again.save(path))) == 13


def naive(gallery):
    """(label, name, vector) of every image, in order."""
    return list(zip(gallery.labels, gallery.names, gallery.vectors_ND.tolist(), strict=True))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_changes_equal_those_of_a_plain_list(gallery, tmp_path, mapped, half):
    gallery.store(half=half)
    if mapped:
        gallery = Gallery.load(gallery.save(tmp_path / "g"))
    rows, draws, born = naive(gallery), np.random.default_rng(3), 0
    for step in range(60):
        action, labels = draws.integers(5), list(dict.fromkeys(label for label, _, _ in rows))
        some = str(draws.choice(labels)) if labels else None
        if action <= 1 or some is None or len(labels) < 2:
            new = [f"n{born}", some or "b"]
            gallery.enrol(draws.normal(size=(2, 5)), new, [f"image {born}", ""])
            rows += naive(gallery)[-2:]
            born += 1
        elif action == 2:
            gallery.rename(some, f"r{step}")
            rows = [(f"r{step}" if label == some else label, name, vector) for label, name, vector in rows]
        elif action == 3:
            other = next(label for label in labels if label != some)
            assert gallery.merge([some], other) == sum(label == some for label, _, _ in rows)
            rows = [(other if label == some else label, name, vector) for label, name, vector in rows]
        else:
            names = [name for _, name, _ in rows if name][:1]
            gone = [row for row in rows if row[0] == some or row[1] in names]
            assert gallery.remove([some], names) == len(gone)
            rows = [row for row in rows if row not in gone]
        assert naive(gallery) == rows and gallery.half == half
        assert gallery.counts() == {label: [r[0] for r in rows].count(label) for label in gallery.classes}
    assert naive(Gallery.load(gallery.save(tmp_path / "g"), verify=True)) == rows


def test_mistaken_changes_are_refused_and_change_nothing(gallery):
    before = naive(gallery)
    for act, said in (
        (lambda: gallery.remove(["bb"]), "no class 'bb'.*did you mean 'b'"),
        (lambda: gallery.remove(names=["bild 33.jpg"]), "no image .*did you mean"),
        (lambda: gallery.rename("b", "c"), "merge 'b' into it"),
        (lambda: gallery.rename("b", ""), "empty label"),
        (lambda: gallery.merge(["b"], "b"), "nothing to merge"),
    ):
        with pytest.raises(DataError, match=said):
            act()
    assert naive(gallery) == before


def test_half_precision_changes_scores_by_little(gallery):
    queries = np.random.default_rng(1).normal(size=(6, 5))
    exact = gallery.search(queries, 3)
    gallery.store(half=True)
    assert np.abs(gallery.search(queries, 3).scores_QK - exact.scores_QK).max() < 5e-4


def test_a_search_sees_the_gallery_as_it_was_when_it_began(gallery):
    before = gallery.snapshot
    gallery.enrol(np.ones((50, 5)), ["new"] * 50)
    gallery.remove(["b"])
    assert len(before) == 12 and before.labels_of(before.codes_N)[1] == "b" and before.names[3] == "bild 3.jpg"


def test_searching_while_others_enrol_and_remove():
    gallery, draws = Gallery(8), np.random.default_rng(0)
    fixed = draws.normal(size=(40, 8))
    gallery.enrol(fixed, [f"fixed {i}" for i in range(40)])
    stop, faults = threading.Event(), []

    def change():
        for i in range(150):
            gallery.enrol(draws.normal(size=(3, 8)) * 0.5 + 3, [f"extra {i % 7}"] * 3)
            if i % 10 == 9:
                gallery.remove([f"extra {i % 7}"])
        stop.set()

    def ask():
        while not stop.is_set():
            found = gallery.search(fixed, 1)
            if [row[0] for row in found.labels_QK] != [f"fixed {i}" for i in range(40)]:
                faults.append(found.labels_QK)

    threads = [threading.Thread(target=ask) for _ in range(3)] + [threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_a_gallery_knows_its_network_and_view():
    probe = np.arange(5.0)
    maker = ModelIdentity(probe, {"height": 4, "width": 6}, "m.onnx")
    maker.check_compatible(ModelIdentity(probe * 3 + 0.01, {"height": 4, "width": 6}))
    maker.check_compatible(ModelIdentity())
    with pytest.raises(ModelError, match=r"another network \(m.onnx\)"):
        maker.check_compatible(ModelIdentity(-probe))
    with pytest.raises(ModelError, match="another view: height 4, not 5"):
        maker.check_compatible(ModelIdentity(probe, {"height": 5, "width": 6}))


def test_a_networks_key_tells_more_than_its_answer_to_one_image(tmp_path):
    probe = np.arange(5.0)
    maker = ModelIdentity(probe, network="weights 1")
    maker.check_compatible(ModelIdentity(-probe, network="weights 1"))  # INT8 that rounds badly, of the same network
    with pytest.raises(ModelError, match="another network"):
        maker.check_compatible(ModelIdentity(probe, network="weights 2"))  # the next epoch: nearly the same vector
    maker.check_compatible(ModelIdentity(probe))  # a file of an earlier release
    ModelIdentity(probe, network="file 1").check_compatible(
        ModelIdentity(probe, network="file 2")
    )  # as exported twice: the answer decides
    with pytest.raises(ModelError, match="another network"):
        ModelIdentity(probe, network="file 1").check_compatible(ModelIdentity(-probe, network="file 2"))
    gallery = Gallery(5, maker)
    assert Gallery.load(gallery.save(tmp_path / "g")).model_identity.network == "weights 1"


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
