"""The examples run as they stand."""

import runpy
import shutil

import pytest

from tests.support.paths import ROOT
from tests.support.program import TINY, process

EXAMPLES = ROOT / "examples"


def test_recognize(images, tmp_path):
    done = process(images / "train", images / "query", *TINY, "train.num_epochs=1", "train.batch_size=8",
                   "dataset.validation.fraction=0.4", program=(str(EXAMPLES / "recognize.py"),), cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "checkpoint" in done.stdout and "cosine" in done.stdout


def test_identify(images, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tests" / "unit"))
    from tests.support.pooled import write_pooled

    monkeypatch.chdir(tmp_path)
    few = tmp_path / "few"  # five of the six classes are enrolled
    shutil.copytree(images / "train", few)
    shutil.rmtree(few / "class 3 ü")
    runpy.run_path(str(EXAMPLES / "identify.py"))["main"](
        str(write_pooled(tmp_path)), str(few), str(images / "query"), "0.2"
    )
    said = capsys.readouterr().out
    assert "enrolled 30 images of 5 classes" in said and "calibrated: threshold" in said
    assert "\nknown class, answered" in said and "\nunknown class, answered" in said
    assert "after enrolling one image of class 3 ü" in said and (tmp_path / "shop.gallery").is_file()


def test_compare(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2")
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tests" / "unit"))
    from PIL import Image

    from tests.support.drawings import shapes

    monkeypatch.chdir(tmp_path)
    pixels = shapes(1)
    Image.fromarray(pixels).save("golden.png")
    pixels[50:70, 100:130] = (255, 0, 255)
    Image.fromarray(pixels).save("altered.png")
    Image.fromarray(shapes(2)).save("other.png")
    runpy.run_path(str(EXAMPLES / "compare.py"))["main"]("golden.png", "golden.png", "altered.png", "other.png")
    said = capsys.readouterr().out
    assert "golden.png: no difference (alignment 1.00)\naltered.png: different: 1 region differs\n" in said
    assert "other.png: the images cannot be aligned" in said and (tmp_path / "altered_overlay.png").is_file()


def test_discover(images, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tests" / "unit"))
    from tests.support.pooled import write_pooled

    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "discover.py"))["main"](
        str(images / "train"), "out", str(write_pooled(tmp_path)), "3"
    )
    said = capsys.readouterr().out
    assert "'images': 36" in said and "group-001: " in said and (tmp_path / "out/groups.jpg").is_file()
