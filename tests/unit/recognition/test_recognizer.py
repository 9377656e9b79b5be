import json
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import networks
from tests.support.marks import VIEW, ThumbnailEngine
from tests.support.paths import SOURCE
from unalike.data.view import View
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import DataError, DeviceError, ModelError, UnalikeError
from unalike.recognition.decision import GalleryCalibration, RateGuarantee
from unalike.recognition.gallery import Gallery
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.recognizer import Recogniser
from unalike.recognition.snapshot import GallerySnapshot

COLOURS = {"red": (220, 20, 30), "grün": (30, 200, 40), "blue": (20, 40, 230)}


@pytest.fixture
def model(tmp_path):
    return networks.write_model(tmp_path)


@pytest.fixture
def folder(tmp_path):
    draws = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "refs" / name).mkdir(parents=True)
        for number in range(4):
            noise = draws.integers(-20, 20, (70, 50, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "refs" / name / f"{number}.png")
    return tmp_path / "refs"


def flat(name):
    return np.full((64, 64, 3), COLOURS[name], np.uint8)


def test_enrols_a_folder_and_names_what_it_sees(model, folder):
    recognizer = Recogniser.load(model, precision="fp32")
    assert recognizer.enrol(folder) == 12
    answers = recognizer.identify([flat("grün"), flat("red")], k=3)
    assert [answer.label for answer in answers] == ["grün", "red"]
    for answer in answers:
        assert [near.label for near in answer.neighbours] == [answer.label] * 3
        assert answer.score == answer.neighbours[0].score <= 1.0001
        assert answer.distance == pytest.approx(2 - 2 * answer.score, abs=1e-6)
        assert Path(answer.neighbours[0].name).is_file()


def test_one_unreadable_image_of_many_does_not_end_the_others(model, folder, tmp_path):
    recognizer = Recogniser.load(model, precision="fp32")
    recognizer.enrol(folder)
    (tmp_path / "text.png").write_text("no image")
    inputs = [
        folder / "red" / "0.png",
        tmp_path / "text.png",
        flat("red"),
        np.zeros((3, 4, 5, 6)),
        tmp_path / "none.png",
    ]
    answers = list(recognizer.identify_many(inputs * 9, k=2))
    assert len(answers) == 45
    assert [type(answer).__name__ for answer in answers[:5]] == [
        "Identification", "UnreadableImage", "Identification", "DataError", "UnreadableImage"
    ]  # fmt: skip
    assert [answers[i].label for i in (0, 2, 40)] == ["red"] * 3 and "text.png" in str(answers[1])
    assert list(recognizer.identify_many([])) == [] and len(list(recognizer.identify_many(inputs[1:2]))) == 1
    with pytest.raises(DataError, match="text.png"):
        recognizer.identify(inputs[:2])


def test_paths_pictures_and_arrays_are_one_image(model, folder):
    recognizer = Recogniser.load(model, precision="fp32")
    path = folder / "red" / "2.png"
    with Image.open(path) as picture:
        picture.load()
        content = path.read_bytes()
        buffers = [content, bytearray(content), memoryview(content)]
        forms = [path, str(path), picture, np.array(picture), *buffers]
    vectors = [recognizer.encode(form) for form in forms]
    assert all(vector.shape == (1, 16) for vector in vectors)
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)
    assert np.array_equal(recognizer.encode(forms), np.concatenate(vectors))
    assert recognizer.encode([]).shape == (0, 16) and recognizer.identify([]) == []


def test_runtimes_agree(model, folder):
    path = folder / "blue" / "0.png"
    by_runtime = [Recogniser.load(model, runtime=name).encode(path) for name in ("onnxruntime", "openvino")]
    assert np.abs(by_runtime[0] - by_runtime[1]).max() < 0.05
    with pytest.raises(DeviceError, match="auto, openvino or onnxruntime"):
        Recogniser.load(model, runtime="torch")


def test_a_gallery_comes_back_and_a_foreign_one_is_refused(model, folder, tmp_path):
    recognizer = Recogniser.load(model)
    recognizer.enrol([flat("red"), flat("blue")], ["red", "blue"], names=["a", "b"])
    saved = recognizer.gallery.save(tmp_path / "gallery")
    for runtime in ("onnxruntime", "openvino"):
        answer = Recogniser.load(model, gallery=saved, runtime=runtime).identify(flat("blue"))[0]
        assert answer.label == "blue" and answer.neighbours[0].name == "b"
    with pytest.raises(ModelError, match="width 9"):
        Recogniser.load(model, gallery=Gallery(9))
    foreign = Gallery(16, ModelIdentity(np.random.default_rng(0).normal(size=16)))
    with pytest.raises(ModelError, match="another network"):
        Recogniser.load(model, gallery=foreign)


def test_mistakes_are_one_line(model, tmp_path):
    recognizer = Recogniser.load(model)
    with pytest.raises(DataError, match="gallery is empty"):
        recognizer.identify(flat("red"))
    with pytest.raises(DataError, match="2 images and 1 labels"):
        recognizer.enrol([flat("red"), flat("blue")], ["red"])
    with pytest.raises(DataError, match="images without labels"):
        recognizer.enrol([flat("red")])
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        recognizer.encode([bad])
    with pytest.raises(ModelError, match="there is no model file"):
        Recogniser.load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match=r"\.onnx.*\.pth"):
        Recogniser.load(bad)


def test_d29_answers_label_ambiguous_or_unknown(model, folder):
    recognizer = Recogniser.load(model, precision="fp32")
    recognizer.enrol(folder)
    plain = recognizer.identify(flat("red"))[0]
    assert (plain.decision, plain.label, plain.calibrated) == ("label", "red", False)
    share = RateGuarantee(0.01, 0.0, 0.0, 0.01, 0.95, 300, 10, 300.0, 299)
    recognizer.gallery.calibration = GalleryCalibration(
        plain.score - 1e-3,
        1e-3,
        "nearest",
        10,
        share,
        None,
        12,
        3,
        "nothing",
        revision=recognizer.gallery.snapshot.revision,
    )
    sure = recognizer.identify(flat("red"), k=2)[0]
    assert (sure.decision, sure.label, sure.calibrated) == ("label", "red", True)
    assert sure.second in ("grün", "blue") and sure.margin >= 1e-3 and len(sure.neighbours) == 2

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    strange = recognizer.identify(noise)[0]
    assert (strange.decision, strange.label) == ("unknown", None) and strange.nearest in COLOURS
    twice = folder / "red" / "1.png"
    recognizer.enrol(twice, "crimson")
    torn = recognizer.identify(twice)[0]
    assert (sure.stale, torn.stale, torn.calibrated) == (False, True, False)  # the gallery has changed since
    assert (torn.decision, torn.label) == ("ambiguous", None) and {torn.nearest, torn.second} == {"red", "crimson"}
    assert json.loads(json.dumps(torn.to_dict()))["decision"] == "ambiguous"
    # The calibration speaks of its own rule alone.
    other = recognizer.identify(noise, label_by="prototype")[0]
    assert (other.decision, other.calibrated) == ("label", False) and other.label == other.nearest


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_threads_get_the_answers_that_one_gets(model, folder, runtime):
    recognizer = Recogniser.load(model, runtime=runtime, precision="fp32")
    recognizer.enrol(folder)
    paths = sorted(folder.rglob("*.png"))
    alone = {path: recognizer.identify(path, k=2)[0] for path in paths}
    with ThreadPoolExecutor(6) as pool:
        jobs = [(path, pool.submit(recognizer.identify, path, 2)) for path in paths * 3]
        extra = [pool.submit(recognizer.enrol, 255 - flat("red"), f"extra {i}") for i in range(5)]
    assert all(job.result() == 1 for job in extra) and len(recognizer.gallery) == 12 + 5
    for path, job in jobs:
        (answer,) = job.result()
        assert answer.label == alone[path].label and answer.score == pytest.approx(alone[path].score, abs=1e-5)


def test_approximate_search_gives_exact_scores(model, folder):
    pytest.importorskip("faiss")
    recognizer = Recogniser.load(model, precision="fp32")
    recognizer.enrol(folder)
    fast = Recogniser(recognizer.engine, recognizer.view, recognizer.gallery, approximate=True)
    assert fast.index.recall >= 0.99
    for ours, theirs in zip(fast.identify(flat("blue"), k=4), recognizer.identify(flat("blue"), k=4), strict=True):
        assert [n.label for n in ours.neighbours] == [n.label for n in theirs.neighbours]
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)


NO_TORCH = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "onnx", "sklearn", "scipy", "faiss", "pydantic", "typer"):
            raise ImportError(name + " is blocked by this test")

sys.meta_path.insert(0, Blocker())
import numpy as np
from unalike.recognition.recognizer import Recogniser
recognizer = Recogniser.load(sys.argv[1], sys.argv[3], runtime=sys.argv[2])
answer = recognizer.identify(np.full((60, 40, 3), 250, np.uint8))[0]
print(answer.label, answer.decision)
print(*sorted(m for m in sys.modules if m.split(".")[0] in ("torch", "pydantic", "typer", "yaml", "rich")))
"""


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_exported_network_and_a_gallery_need_no_torch(model, tmp_path, runtime):
    recognizer = Recogniser.load(model)
    recognizer.enrol([np.zeros((50, 50, 3), np.uint8), np.full((50, 50, 3), 255, np.uint8)], ["dark", "light"])
    saved = recognizer.gallery.save(tmp_path / "g")
    run = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(model), runtime, str(saved)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCE)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0 and run.stdout == "light label\n\n", run.stderr


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "torch"])
def test_it_goes_to_other_processes_by_fork_and_by_pickle(model, folder, tmp_path, runtime):
    if runtime == "torch":
        embedder = networks.SmallEmbedder().eval()
        engine = TorchEngine(embedder, networks.MEAN, networks.STD, networks.SIZE)
        recognizer = Recogniser(engine, View(*networks.SIZE))
    else:
        recognizer = Recogniser.load(model, runtime=runtime, precision="fp32")
    recognizer.enrol(folder)
    expected = [answer.label for answer in recognizer.identify([flat(name) for name in COLOURS])]
    copy = pickle.loads(pickle.dumps(recognizer))
    assert [answer.label for answer in copy.identify([flat(name) for name in COLOURS])] == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(NamesOf(recognizer), COLOURS).get(timeout=60) == expected
        pool.close()
        pool.join()  # not by SIGTERM, for which coverage has a handler


class NamesOf:
    def __init__(self, recognizer):
        self.recognizer = recognizer

    def __call__(self, name):
        return self.recognizer.identify(flat(name))[0].label


def test_a_pickled_one_refuses_another_network_under_its_path(model, folder, tmp_path):
    recognizer = Recogniser.load(model, precision="fp32")
    content = pickle.dumps(recognizer)
    networks.write_model(tmp_path, seed=1)
    with pytest.raises(ModelError, match="another network"):
        pickle.loads(content)


def test_a_gallery_that_changes_on_disk_is_named_and_loaded_again(model, folder, tmp_path, capsys):
    recognizer = Recogniser.load(model, precision="fp32")
    recognizer.enrol(folder)
    path = recognizer.gallery.save(tmp_path / "g")
    quiet = Recogniser(recognizer.engine, recognizer.view, Gallery.load(path), says_changes=False)  # as in the service
    with Gallery.edit(path) as edited:
        edited.rename("red", "scarlet")
    assert quiet.identify(flat("red"))[0].label == "red" and "was changed" not in capsys.readouterr().err
    for _ in range(3):
        assert recognizer.identify(flat("red"))[0].label == "red"
        recognizer._next_check = 0.0
    assert capsys.readouterr().err.count("was changed on disk") == 1
    recognizer.reload()
    assert recognizer.identify(flat("red"))[0].label == "scarlet"


def test_the_index_stays_in_use_while_images_come_and_go(model, folder, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    recognizer = Recogniser.load(model, precision="fp32")
    recognizer.enrol(folder)
    path = recognizer.gallery.save(tmp_path / "g")
    recognizer = Recogniser.load(model, path, precision="fp32", approximate=True)
    monkeypatch.setattr(GallerySnapshot, "search", None)  # the exact search of all
    recognizer.enrol([np.full((64, 64, 3), 128, np.uint8)], "gray")
    recognizer.gallery.rename("red", "scarlet")
    assert [a.label for a in recognizer.identify([flat("red"), np.full((64, 64, 3), 128, np.uint8)])] == [
        "scarlet",
        "gray",
    ]
    recognizer.gallery.save(path)
    copy = pickle.loads(pickle.dumps(recognizer))
    assert copy.index is not None and copy.identify(flat("red"))[0].label == "scarlet"


@pytest.mark.parametrize("images", [None, 5, 1.5, object(), True, {}], ids=lambda value: type(value).__name__)
def test_what_is_no_image_is_refused_by_every_call(images):
    recognizer = Recogniser(ThumbnailEngine(), VIEW)
    recognizer.enrol([flat("red")], ["red"])
    calls = (
        recognizer.identify, recognizer.encode, lambda value: list(recognizer.identify_many(value)),
        lambda value: recognizer.enrol(value, "x"),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(DataError, match="in place of an image|images: .*; expected images"):
            call(images)


@pytest.mark.parametrize("images", ["a.png", Path("a.png"), b"x", flat("red"), Image.new("RGB", (8, 8))])
def test_one_image_is_no_stream(images):
    with pytest.raises(DataError, match="images: "):
        list(Recogniser(ThumbnailEngine(), VIEW).identify_many(images))


@pytest.mark.parametrize("k", [1.5, "3", None, -1, 0, True])
def test_numbers_of_neighbors_are_checked_before_images_are_read(k):
    recognizer = Recogniser(ThumbnailEngine(), VIEW)
    recognizer.enrol([flat("red")], ["red"])
    for call in (recognizer.identify, lambda images, k: list(recognizer.identify_many(images, k))):
        with pytest.raises(DataError, match="k is .*; expected a whole number, 1 or more"):
            call([], k=k)


def test_settings_and_labels_of_other_types_are_refused():
    recognizer = Recogniser(ThumbnailEngine(), VIEW)
    recognizer.enrol([flat("red")], ["red"])
    for rule in (5, "", b"vote", "nearst"):
        with pytest.raises(UnalikeError, match="label by"):
            recognizer.identify(flat("red"), label_by=rule)
    for label in (None, [None], ["\x1b"], "\n", " ", [1.5]):
        with pytest.raises(DataError):
            recognizer.enrol([flat("red")], label)
    for share in (0, 1, -1, "x", None, float("nan"), True):
        with pytest.raises(UnalikeError):
            recognizer.set_threshold(0.01, share)
    for rate in ("x", None, [0.1], True):
        with pytest.raises(UnalikeError):
            recognizer.calibrate(rate)


def test_a_filter_compares_with_the_references_that_have_the_attributes(model, folder):
    recognizer = Recogniser.load(model, precision="fp32")
    recognizer.enrol(folder, attributes={"site": "berlin"})
    recognizer.enrol(
        [flat("red"), flat("blue")], ["crimson", "navy"], attributes=[{"site": "lyon"}, {"site": "lyon", "line": "2"}]
    )
    images = [flat("red"), flat("blue")]
    assert [answer.label for answer in recognizer.identify(images, where={"site": "berlin"})] == ["red", "blue"]
    few = recognizer.identify(images, k=9, where={"site": ["lyon"]})
    assert [(answer.label, len(answer.neighbours)) for answer in few] == [("crimson", 2), ("navy", 2)]
    many = list(recognizer.identify_many(images, where={"line": "2"}))
    assert [(answer.label, answer.second) for answer in many] == [("navy", None)] * 2
    none = recognizer.identify(images, where={"site": "lyon", "line": "3"})
    assert {(answer.decision, answer.nearest, answer.neighbours) for answer in none} == {("unknown", "", ())}
    with pytest.raises(DataError, match="no reference has an attribute 'sight'.*line, site.*did you mean 'site'"):
        recognizer.identify(images, where={"sight": "berlin"})
    with pytest.raises(DataError, match="'Site'"):
        recognizer.enrol(folder, attributes={"Site": "x"})


def test_the_promised_rate_is_told_under_a_filter_where_it_holds():
    """The nearest of fewer references is never nearer; means and votes of fewer may be."""
    gallery = Gallery(ThumbnailEngine().dim)
    vectors = np.random.default_rng(0).normal(size=(4, gallery.dim))
    gallery.enrol(vectors, list("aabb"), None, [{"site": "x"}, {"site": "y"}] * 2)
    recognizer = Recogniser(ThumbnailEngine(), VIEW, gallery)
    rate = RateGuarantee(0.01, 0.0, 0.0, 0.01, 0.95, 500, 50, 300.0, 300)
    for rule in ("nearest", "prototype", "vote"):
        gallery.calibration = GalleryCalibration(
            0.5, 0.0, rule, 3, rate, None, 4, 2, "a test", revision=gallery.revision
        )
        told = [recognizer.identify_vectors(vectors, where=where)[0] for where in (None, {"site": "x"}, {"site": "z"})]
        assert [answer.calibrated for answer in told] == [True, rule == "nearest", rule == "nearest"]
        assert {answer.threshold for answer in told} == {0.5} and told[2].decision == "unknown"


def test_an_answer_tells_the_threshold_of_its_second_class():
    """The decision is that of the cosine less a part of the second class's, also under a filter that leaves one class."""
    gallery = Gallery(ThumbnailEngine().dim)
    references, query = np.eye(2, gallery.dim), np.zeros((1, gallery.dim))
    query[0, :3] = 0.8, 0.5, np.sqrt(1 - 0.64 - 0.25)
    gallery.enrol(references, ["a", "b"], None, [{"site": "x"}, {"site": "y"}])
    recognizer = Recogniser(ThumbnailEngine(), VIEW, gallery)
    rate = RateGuarantee(0.01, 0.0, 0.0, 0.01, 0.95, 500, 50, 300.0, 300)
    for threshold, decision in ((0.67, "label"), (0.68, "unknown")):
        gallery.calibration = GalleryCalibration(
            threshold, 0.0, "nearest", 3, rate, None, 2, 2, "a test", revision=gallery.revision, second_weight=0.25
        )
        for where in (None, {"site": "x"}):
            answer = recognizer.identify_vectors(query, where=where)[0]
            assert (answer.decision, answer.nearest, answer.second_weight, answer.calibrated) == (
                decision,
                "a",
                0.25,
                True,
            )
            assert answer.threshold == pytest.approx(threshold + 0.25 * 0.5) and answer.score == pytest.approx(0.8)
        assert ("near as this to a second class" in answer.note) == (decision == "unknown")
