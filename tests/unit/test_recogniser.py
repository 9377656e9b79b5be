import subprocess
import sys
from pathlib import Path

import networks
import numpy as np
import pytest
from PIL import Image

from unalike.errors import DataError, DeviceError, ModelError
from unalike.gallery.gallery import Gallery, Maker
from unalike.tasks.recogniser import Recogniser

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
    recogniser = Recogniser.load(model, precision="fp32")
    assert recogniser.enrol(folder) == 12
    answers = recogniser.identify([flat("grün"), flat("red")], k=3)
    assert [answer.label for answer in answers] == ["grün", "red"]
    for answer in answers:
        assert [near.label for near in answer.neighbours] == [answer.label] * 3
        assert answer.score == answer.neighbours[0].score <= 1.0001
        assert answer.distance == pytest.approx(2 - 2 * answer.score, abs=1e-6)
        assert Path(answer.neighbours[0].name).is_file()


def test_paths_pictures_and_arrays_are_one_image(model, folder):
    recogniser = Recogniser.load(model, precision="fp32")
    path = folder / "red" / "2.png"
    with Image.open(path) as picture:
        picture.load()
        forms = [path, str(path), picture, np.array(picture)]
    vectors = [recogniser.encode(form) for form in forms]
    assert all(vector.shape == (1, 16) for vector in vectors)
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)
    assert np.array_equal(recogniser.encode(forms), np.concatenate(vectors))
    assert recogniser.encode([]).shape == (0, 16) and recogniser.identify([]) == []


def test_runtimes_agree(model, folder):
    path = folder / "blue" / "0.png"
    by_runtime = [Recogniser.load(model, runtime=name).encode(path) for name in ("onnxruntime", "openvino")]
    assert np.abs(by_runtime[0] - by_runtime[1]).max() < 0.05
    with pytest.raises(DeviceError, match="auto, openvino or onnxruntime"):
        Recogniser.load(model, runtime="torch")


def test_a_gallery_comes_back_and_a_foreign_one_is_refused(model, folder, tmp_path):
    recogniser = Recogniser.load(model)
    recogniser.enrol([flat("red"), flat("blue")], ["red", "blue"], names=["a", "b"])
    saved = recogniser.gallery.save(tmp_path / "gallery")
    for runtime in ("onnxruntime", "openvino"):
        answer = Recogniser.load(model, gallery=saved, runtime=runtime).identify(flat("blue"))[0]
        assert answer.label == "blue" and answer.neighbours[0].name == "b"
    with pytest.raises(ModelError, match="width 9"):
        Recogniser.load(model, gallery=Gallery(9))
    foreign = Gallery(16, Maker(np.random.default_rng(0).normal(size=16)))
    with pytest.raises(ModelError, match="another network"):
        Recogniser.load(model, gallery=foreign)


def test_mistakes_are_one_line(model, tmp_path):
    recogniser = Recogniser.load(model)
    with pytest.raises(DataError, match="gallery is empty"):
        recogniser.identify(flat("red"))
    with pytest.raises(DataError, match="2 images and 1 labels"):
        recogniser.enrol([flat("red"), flat("blue")], ["red"])
    with pytest.raises(DataError, match="images without labels"):
        recogniser.enrol([flat("red")])
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        recogniser.encode([bad])
    with pytest.raises(ModelError, match="there is no model file"):
        Recogniser.load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match=r"\.onnx or \.pth"):
        Recogniser.load(bad)


NO_TORCH = """
import sys, numpy as np
for name in ("torch", "torchvision", "timm", "onnx", "sklearn"):
    sys.modules[name] = None
from unalike.tasks.recogniser import Recogniser
recogniser = Recogniser.load(sys.argv[1], runtime=sys.argv[2])
recogniser.enrol([np.zeros((50, 50, 3), np.uint8), np.full((50, 50, 3), 255, np.uint8)], ["dark", "light"])
print(recogniser.identify(np.full((60, 40, 3), 250, np.uint8))[0].label)
"""


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_exported_network_needs_no_torch(model, runtime):
    run = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(model), runtime],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0 and run.stdout == "light\n", run.stderr
