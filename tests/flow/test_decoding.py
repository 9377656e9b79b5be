"""One decoding rule from training to gallery, inspector and approved set; files of earlier versions keep theirs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import unalike
from tests.support.networks import SIZE, write_model
from tests.support.program import TINY
from tests.support.program import unalike as program
from unalike.data.decode import decode
from unalike.data.decoding import Decoding
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.errors import ModelError, UnreadableImage

FIXTURES = Path(__file__).parents[1] / "fixtures" / "earlier_versions"
BLACK = Decoding(ground=(0, 0, 0))


def white_drawings(folder: Path, each: int = 2, **options: object) -> Path:
    """Four shapes, each in white on a transparent ground: on white they would all be one blank image."""
    boxes = [(10, 10, 50, 80), (40, 20, 90, 60), (5, 60, 90, 90), (30, 30, 60, 60)]
    for number, box in enumerate(boxes):
        (folder / f"shape {number}").mkdir(parents=True)
        for shift in range(each):
            image = Image.new("RGBA", (96, 96), (255, 255, 255, 0))
            moved = tuple(side + 2 * shift for side in box)
            getattr(ImageDraw.Draw(image), ("ellipse", "rectangle")[number % 2])(moved, fill=(255,) * 4)
            image.save(folder / f"shape {number}" / f"{shift}.png", **options)
    return folder


def test_a_gallery_chooses_once_and_keeps_it(tmp_path: Path) -> None:
    source, model = white_drawings(tmp_path / "drawings"), write_model(tmp_path)
    recognizer = unalike.Recogniser.load(model, runtime="onnxruntime")
    assert recognizer.view.decoding == Decoding()
    recognizer.enrol(source)
    assert recognizer.view.decoding == BLACK
    vectors = recognizer.gallery.vectors_ND
    assert len(np.unique(vectors.round(5), axis=0)) == len(vectors)
    recognizer.gallery.save(tmp_path / "a.gallery")
    again = unalike.Recogniser.load(model, tmp_path / "a.gallery", runtime="onnxruntime")
    assert again.view.decoding == BLACK
    one = source / "shape 1" / "0.png"
    for image in (one, one.read_bytes(), Image.open(one), np.asarray(Image.open(one))):
        assert again.identify(image)[0].label == "shape 1"
        assert np.allclose(again.encode(image), recognizer.encode([one]), atol=1e-5)


def test_images_of_two_rules_are_not_mixed(tmp_path: Path) -> None:
    recognizer = unalike.Recogniser.load(write_model(tmp_path), runtime="onnxruntime")
    recognizer.enrol(white_drawings(tmp_path / "drawings"))
    for other in (Decoding(1), Decoding(ground=(255, 255, 255))):
        view = View(*SIZE, decoding=other)
        with pytest.raises(ModelError, match="another decoding of images: decoding (version|ground)"):
            unalike.Recogniser(recognizer.engine, view, recognizer.gallery)


def test_files_of_an_earlier_version_keep_the_old_rule(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("cv2")
    for name in ("network.onnx", "things.gallery", "plates.inspector", "marks.set"):
        shutil.copy(FIXTURES / name, tmp_path)
    old = Decoding(1)
    one = white_drawings(tmp_path / "drawings") / "shape 0" / "0.png"
    for model in (tmp_path / "network.onnx", FIXTURES / "training/train/ml_model_latest.pth"):
        recognizer = unalike.Recogniser.load(model)
        recognizer.enrol(tmp_path / "drawings")
        assert recognizer.view.decoding == old
        blank = np.full((96, 96, 3), 255, np.uint8)
        assert np.allclose(recognizer.encode(one), recognizer.encode(blank), atol=1e-5)
    recognizer = unalike.Recogniser.load(tmp_path / "network.onnx", tmp_path / "things.gallery")
    recognizer.gallery.save(tmp_path / "things.gallery")
    assert unalike.Recogniser.load(tmp_path / "network.onnx", tmp_path / "things.gallery").view.decoding == old
    with pytest.raises(ModelError, match="decoding version 1, not 2"):
        unalike.Recogniser(recognizer.engine, replace(recognizer.view, decoding=Decoding()), recognizer.gallery)
    assert unalike.Inspector.load(tmp_path / "plates.inspector").tiling.decoding == old
    assert unalike.Verifier.load(tmp_path / "marks.set").view.decoding == old


def test_training_settles_it_and_everything_made_from_it_carries_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from unalike.deploy.onnx_export import build_facts
    from unalike.model.checkpoint import load_embedder

    source = white_drawings(tmp_path / "drawings", each=3)
    out = tmp_path / "out"
    done = program("train", source, "-r", out, "--automl-policy", "off", "train.num_epochs=1", *TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("of 12 images: 12 transparent, laid over black") == 1
    assert "ground: black" in (out / "train/experiment.yaml").read_text()
    checkpoint = next((out / "train").glob("model_epoch*.pth"))
    _, meta = load_embedder(checkpoint)
    preprocessing = Preprocessing.from_facts(meta["facts"])
    exported = build_facts(torch.nn.Identity(), preprocessing)  # what is written into an ONNX file
    assert preprocessing.view.decoding == BLACK == View.from_dict(json.loads(exported.to_json())["view"]).decoding
    data = [f"dataset.val_dataset.reference={source}", f"evaluate.checkpoint={checkpoint}"]
    done = program("evaluate", *data, "-r", out, "dataset.decoding.ground=white")
    assert done.returncode == 2 and "the model has decoding ground black, not white" in done.stderr
    done = program("evaluate", *data, "-r", tmp_path / "figures")
    assert done.returncode == 0, done.stderr[-3000:]
    done = program("train", source, "-r", out, "--automl-policy", "off", "--resume", "train.num_epochs=2", *TINY,
                   "dataset.decoding.version=1")  # fmt: skip
    assert done.returncode != 0 and "trained with decoding version 2, not 1" in done.stderr


def test_compare_says_what_it_did(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    drawings = white_drawings(tmp_path / "drawings", each=1)
    first, second = (drawings / f"shape {number}" / "0.png" for number in (0, 1))
    result = unalike.Comparer(align="none").compare(first, second)
    assert not result.same and "2 transparent, laid over black" in result.notes[0]
    values = np.random.default_rng(0).normal(1500, 60, (200, 200)).clip(0, 4095)
    values[40:80, 40:160], values[120:160, 30:90] = 3500, 300
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "a.tif")
    values[100:140, 120:170] = 4000
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "b.tif")
    result = unalike.Comparer().compare(tmp_path / "a.tif", tmp_path / "b.tif")
    assert not result.same and "2 of more than 8 bits, read by the range 0 to 4095" in result.notes[0]
    done = program("compare", tmp_path / "a.tif", tmp_path / "b.tif", "--range", "0,65535", "--json")
    assert "range 0 to 65535" in json.loads(done.stdout)["pairs"][0]["notes"][0]


def test_pairs_of_a_list_are_compared_by_one_rule(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    values = np.arange(100 * 100, dtype=np.uint16).reshape(100, 100) % 4096
    for name, part in (("bright", values), ("dark", values // 8)):
        Image.fromarray(part.astype(np.uint16)).save(tmp_path / f"{name}.tif")
    dark, bright = tmp_path / "dark.tif", tmp_path / "bright.tif"
    for result in unalike.Comparer().compare_many([(dark, dark), (bright, bright)]):
        assert not isinstance(result, Exception) and "range 0 to 4095" in result.notes[0]


def test_an_opened_picture_is_compared_upright(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    image = Image.new("RGB", (300, 200), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 20, 120, 90), fill=(200, 30, 30))
    draw.ellipse((180, 100, 280, 180), fill=(20, 60, 200))
    exif = Image.Exif()
    exif[0x112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    for source in (tmp_path / "b.png", Image.open(tmp_path / "b.png"), (tmp_path / "b.png").read_bytes()):
        result = unalike.Comparer().compare(image, source)
        assert result.same and tuple(result.size) == (200, 300)


def test_an_inspector_reads_12_bits_by_one_range(tmp_path: Path) -> None:
    from tests.support.inspected_parts import CONFIG, draw_part, map_model

    for number in range(8):
        pixels = (draw_part(number).astype(np.uint16) * 16).astype(np.uint16)
        Image.fromarray(pixels[..., 0] if pixels.ndim == 3 else pixels).save(tmp_path / f"{number}.tif")
    inspector = unalike.Inspector.fit(tmp_path, model=map_model(), rate=None, config=CONFIG)
    assert inspector.tiling.decoding == Decoding(range=(0, 4095))
    inspector.save(tmp_path / "a.inspector")
    again = unalike.Inspector.load(tmp_path / "a.inspector", runtime="onnxruntime")
    assert again.tiling.decoding == inspector.tiling.decoding
    as_bytes = decode(tmp_path / "0.tif", decoding=again.tiling.decoding)
    assert again.inspect(tmp_path / "0.tif").score == pytest.approx(again.inspect(as_bytes).score, rel=1e-4)


def test_half_a_jpeg_counts_as_unreadable(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    with pytest.raises(UnreadableImage, match=r"a\.jpg: incomplete"):
        View(32, 32)(tmp_path / "a.jpg")
