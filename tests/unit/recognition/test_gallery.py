import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.support.forks import code_in_child
from unalike.errors import DataError, ModelError
from unalike.recognition import gallery as gallery_module
from unalike.recognition.decision import GalleryCalibration, RateGuarantee
from unalike.recognition.gallery import Gallery
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.snapshot import float16_to_float32
from unalike.storage import blockfile


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


def test_a_gallery_keeps_the_key_of_its_network(tmp_path):
    gallery = Gallery(5, ModelIdentity(np.arange(5.0), network="weights 1"))
    assert Gallery.load(gallery.save(tmp_path / "g")).model_identity.network == "weights 1"


def write_over(target, source):
    """Replace the content of a file in place, as ``cp`` does."""
    target.write_bytes(source.read_bytes())


def test_of_those_who_change_one_file_the_second_is_refused(gallery, tmp_path):
    path = gallery.save(tmp_path / "g")
    first, second = Gallery.load(path), Gallery.load(path)
    first.enrol(np.ones(5), ["first"])
    first.save(path)
    first.enrol(np.ones(5), ["first again"])
    first.save(path)  # what it wrote itself is no other's change
    second.enrol(np.ones(5), ["second"])
    assert second.changed_on_disk() and not first.changed_on_disk()
    with pytest.raises(DataError, match=r"changed by another .*reload.*Gallery.edit"):
        second.save(path)
    with pytest.raises(DataError, match="changed by another"):
        gallery.save(path)
    second.save(tmp_path / "another name")
    second = Gallery.load(path)
    second.enrol(np.ones(5), ["second"])
    second.save(path)
    assert Gallery.load(path).classes[-3:] == ["first", "first again", "second"]
    with pytest.raises(DataError, match="exists"):
        Gallery(5).save(path, overwrite=False)
    Gallery(5).save(path)  # one that was never loaded replaces it, as before


def test_every_edit_of_threads_is_there(gallery, tmp_path):
    path = gallery.save(tmp_path / "g")

    def edit(number):
        for step in range(5):
            with Gallery.edit(path) as edited:
                edited.enrol(np.ones(5), [f"{number} {step}"])

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Gallery.load(path, verify=True)) == 12 + 20
    with pytest.raises(ZeroDivisionError), Gallery.edit(path) as edited:
        edited.remove(["b"])
        raise ZeroDivisionError
    assert "b" in Gallery.load(path).classes and [p.name for p in tmp_path.iterdir()] == ["g"]


@pytest.mark.parametrize("what", ["cut off", "a folder"])
def test_a_file_that_is_cut_off_is_not_appended_to(gallery, tmp_path, what):
    path = gallery.save(tmp_path / "g.gallery")
    used = Gallery.load(path)
    used.vectors_ND  # noqa: B018 - all of it is in memory by now
    if what == "cut off":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
        path.mkdir()
    assert used.changed_on_disk()
    used.enrol(np.ones((1, 5)), ["new"])
    with pytest.raises(DataError, match="was changed by another thread or process"):
        used.save()
    with pytest.raises(DataError, match="damaged|a folder"):
        used.reload()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("as_large", [False, True])
def test_a_file_that_is_written_over_in_place_is_noticed(tmp_path, monkeypatch, large, as_large):
    if large:
        monkeypatch.setattr(blockfile, "LARGE_BYTES", 0)
    draws = np.random.default_rng(0)
    for name, count in (("old", 3000), ("new", 3000 if as_large else 100)):
        gallery = Gallery(64)
        gallery.enrol(draws.normal(size=(count, 64)), [f"{name} {i % 7}" for i in range(count)])
        gallery.save(tmp_path / name)
    query = draws.normal(size=(1, 64))
    used, unused = Gallery.load(tmp_path / "old"), Gallery.load(tmp_path / "old")
    before = used.search(query, 3)
    copy = (tmp_path / "old").read_bytes()
    write_over(tmp_path / "old", tmp_path / "new")
    assert used.changed_on_disk()
    if large:
        with pytest.raises(DataError, match=r"overwritten while it was in use.*reload"):
            used.search(query, 3)
    else:
        after = used.search(query, 3)
        assert np.array_equal(after.scores_QK, before.scores_QK) and after.labels_QK == before.labels_QK
    with pytest.raises(DataError, match=r"overwritten while it was in use.*reload"):
        unused.search(query, 3)
    used.reload()
    assert used.classes[0] == "new 0" and len(used.search(query, 3).labels_QK[0]) == 3 and not used.changed_on_disk()
    if large:
        return
    (tmp_path / "old").write_bytes(copy)
    used.reload()
    write_over(tmp_path / "old", tmp_path / "old")
    assert not used.changed_on_disk() and used.search(query, 3).labels_QK == before.labels_QK  # the same content


def test_a_replaced_file_stays_what_it_was_until_it_is_loaded_again(gallery, tmp_path):
    path = gallery.save(tmp_path / "g")
    reader = Gallery.load(path)
    with Gallery.edit(path) as edited:
        edited.remove(["b"])
    assert (
        reader.changed_on_disk()
        and "b" in reader.classes
        and len(reader.search(np.ones((1, 5)), 99).scores_QK[0]) == 12
    )
    reader.reload()
    assert "b" not in reader.classes and not reader.changed_on_disk()
    other = Gallery(7)
    other.enrol(np.ones((1, 7)), ["a"])
    other.save(path)
    with pytest.raises(ModelError, match="width 7"):
        reader.reload()
    with pytest.raises(DataError, match="without a file"):
        Gallery(5).reload()


@pytest.mark.parametrize("half", [False, True])
def test_a_pickled_gallery_carries_its_path_or_all_of_it(gallery, tmp_path, half):
    gallery.store(half=half)
    loaded = Gallery.load(gallery.save(tmp_path / "g"))
    content = pickle.dumps(loaded)
    assert len(content) < 400 and naive(pickle.loads(content)) == naive(gallery)
    loaded.enrol(np.ones(5), ["new"], ["n"])
    copy = pickle.loads(pickle.dumps(loaded))
    assert naive(copy) == naive(loaded) and copy.half == half
    copy.enrol(np.ones(5), ["newer"])
    copy.save(tmp_path / "g")
    with pytest.raises(DataError, match="changed while a gallery was sent"):
        pickle.loads(content)


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


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_enrolling_one_image_into_a_large_gallery_takes_little_memory(tmp_path):
    gallery, draws = Gallery(256), np.random.default_rng(0)
    gallery.enrol(draws.normal(size=(60_000, 256)), ["a"] * 60_000, [f"/some/folder/{i}.jpg" for i in range(60_000)])
    path = gallery.save(tmp_path / "g")
    code = (
        "import sys\nfrom pathlib import Path\nimport numpy as np\nfrom unalike.recognition.gallery import Gallery\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) // 1024\n"
        "before = peak()\nwith Gallery.edit(sys.argv[1]) as gallery:\n    gallery.enrol(np.ones((1, 256)), ['b'], ['last'])\n"
        "print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    assert path.stat().st_size > 60e6 and int(run.stdout) < 25  # MB
    again = Gallery.load(path, verify=True)
    assert len(again) == 60_001 and again.names[-1] == "last" and again.names[59_999] == "/some/folder/59999.jpg"
    assert np.array_equal(again.vectors_ND[:60_000], gallery.vectors_ND)


def test_widen_is_exact_for_every_half():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 32)
    np.testing.assert_array_equal(
        float16_to_float32(halves, np.empty(halves.shape, np.float32)), halves.astype(np.float32)
    )


CALIBRATION = GalleryCalibration(
    0.5, 0.0, "nearest", 10, RateGuarantee(0.01, 0.0, 0.0, 0.01, 0.95, 300, 10, 300.0, 299), None, 13, 5, "nothing"
)


@pytest.mark.parametrize("appended", [True, False])
def test_a_thread_beside_reload_sees_one_state_with_its_calibration(gallery, tmp_path, monkeypatch, appended):
    path = gallery.save(tmp_path / "g")
    service = Gallery.load(path)
    with Gallery.edit(path) as writer:
        writer.enrol(np.ones(5), ["new"])
        writer.calibration = CALIBRATION
        if not appended:
            writer.store(half=True)
    pairs, threads = [], []

    def look(*arguments):
        """Another thread answers queries in the middle of the change."""
        thread = threading.Thread(target=lambda: pairs.append(service.view()))
        thread.start()
        threads.append(thread)
        thread.join()  # it never waits for the change

    for name in ("apply_change", "SnapshotView"):
        function = getattr(gallery_module, name)
        monkeypatch.setattr(gallery_module, name, lambda *a, function=function: (function(*a), look())[0])
    service.reload()
    look()
    for thread in threads:
        thread.join()
    assert len(pairs) > 1 and service.calibration == CALIBRATION
    seen = [(view.size[0], view.calibration) for view in pairs]
    assert set(map(str, seen)) == {str((12, None)), str((13, CALIBRATION))}


def test_a_process_that_is_forked_in_the_middle_of_a_change_has_the_state_before(gallery, monkeypatch):
    classes, names, apply_change = gallery.classes, gallery.names, gallery_module.apply_change
    changed, forked = threading.Event(), threading.Event()

    def apply_slowly(*arguments):
        result = apply_change(*arguments)
        changed.set()
        forked.wait(60)
        return result

    def is_as_before():
        gallery_module.apply_change = apply_change
        unchanged = gallery.classes == classes and gallery.names == names
        gallery.enrol(np.eye(gallery.dim)[:2], ["other", classes[0]], ["o", "p"])
        return unchanged and gallery.labels[-2:] == ("other", classes[0]) and gallery.names == (*names, "o", "p")

    monkeypatch.setattr(gallery_module, "apply_change", apply_slowly)
    thread = threading.Thread(target=gallery.enrol, args=(np.eye(gallery.dim)[:1], ["new"], ["n"]))
    thread.start()
    changed.wait(60)
    code = code_in_child(is_as_before)
    forked.set()
    thread.join()
    assert code == 0
    assert gallery.classes == [*classes, "new"]


def test_a_decoding_that_was_completed_reaches_a_file_with_a_journal(gallery, tmp_path):
    """The journal holds no network: the file is written anew where what is known of the network changed."""
    view = {"decoding": {"version": 2, "ground": None, "range": None}}
    gallery.model_identity = ModelIdentity(view=view)
    gallery.save(tmp_path / "a.gallery")
    with Gallery.edit(tmp_path / "a.gallery") as changed:
        changed.model_identity = changed.model_identity.with_decoding(
            type(changed.model_identity.decoding)(ground="black")
        )
        changed.enrol(np.ones((1, 5)), ["a"])
    assert Gallery.load(tmp_path / "a.gallery").model_identity.decoding.ground == (0, 0, 0)
