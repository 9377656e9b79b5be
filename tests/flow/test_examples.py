"""The examples run as they stand."""

import runpy

import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.support.program import PLAINLY, TINY, process

EXAMPLES = ROOT / "examples"


@pytest.mark.slow
def test_recognize(images, tmp_path):
    done = process(images / "train", images / "query", *TINY, PLAINLY, "train.num_epochs=1", "train.batch_size=8",
                   "dataset.validation.fraction=0.4", program=(str(EXAMPLES / "recognize.py"),), cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "checkpoint" in done.stdout and "cosine" in done.stdout


def test_identify(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tests" / "unit"))
    from PIL import Image

    from tests.support.pooled import write_pooled

    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    for number, color in enumerate(draws.integers(0, 256, (21, 3))):  # all but one of 21 classes are enrolled
        for i in range(8):
            folder = tmp_path / ("references" if i < 6 and number < 20 else "queries") / f"class {number} ü"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(color + draws.normal(0, 10, (48, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    model, references, queries = write_pooled(tmp_path), tmp_path / "references", tmp_path / "queries"
    runpy.run_path(str(EXAMPLES / "identify.py"))["main"](str(model), str(references), str(queries), "0.3")
    said = capsys.readouterr().out
    assert "enrolled 120 images of 20 classes" in said and "calibrated: threshold" in said
    assert "\nknown class, answered" in said and "\nunknown class, answered" in said
    assert "after enrolling one image of class 20 ü" in said and (tmp_path / "shop.gallery").is_file()


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
