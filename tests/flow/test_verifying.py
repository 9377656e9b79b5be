"""``unalike verify`` on the command line: saved sets, images, mistakes; and explanations of inference and evaluate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.program import data_of, process, unalike
from tests.support.shared_folder import make_once
from unalike.verification.benign import render_benign
from unalike.verification.tampering import tamper

pytest.importorskip("cv2")


def make_brand(root: Path) -> None:
    from tests.support.marks import mark
    from tests.support.networks import write_model

    (root / "assets").mkdir()
    (root / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(mark(number).layer_HW4).save(root / "assets" / f"mark {number}.png")
    for number in range(2):
        image = render_benign(mark(number), np.random.default_rng([number, 3])).image_HW3
        Image.fromarray(image).save(root / "pictures" / f"fine {number}.jpg", quality=90)
    tampered = tamper(mark(1), "recoloured", np.random.default_rng(3))
    image = render_benign(mark(1), np.random.default_rng([1, 9]), layer_HW4=tampered.layer_HW4).image_HW3
    Image.fromarray(image).save(root / "pictures" / "recoloured.png")
    model = write_model(root)
    done = unalike("verify", "--reference", root / "assets", "--save", root / "brand.set", "--rate", "0.25", "--trials", "6",
                   "-m", model)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "calibrated: threshold" in done.stderr and "saved: " in done.stdout
    (root / "broken.png").write_bytes(b"no image")


@pytest.fixture(scope="module")
def brand(tmp_path_factory):
    """``assets`` (three marks), ``pictures`` (benign and tampered), ``model.onnx``, ``brand.set`` of them, ``broken.png``."""
    return make_once(tmp_path_factory, "Marken für uns", make_brand)


def test_images_are_compared_with_the_set(brand, tmp_path):
    out = tmp_path / "out"
    done = unalike("verify", "--reference", brand / "brand.set", brand / "pictures", "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    answers = {
        verdict["path"].rsplit("/", 1)[1]: (verdict["answer"], verdict["asset"]) for verdict in result["verdicts"]
    }
    assert answers == {"fine 0.jpg": ("same", "mark 0"), "fine 1.jpg": ("same", "mark 1"),
                       "recoloured.png": ("altered", "mark 1")}  # fmt: skip
    assert result["answers"] == {"same": 2, "altered": 1} and result["calibration"]["false_accept"]["trials"] == 18
    assert (out / "report.html").is_file() and (out / "recoloured.overlay.png").is_file()
    lines = unalike("verify", "--reference", brand / "brand.set", brand / "pictures" / "recoloured.png", "--strict")
    assert lines.returncode == 3 and "recoloured.png: altered mark 1: " in lines.stdout
    claimed = unalike(
        "verify", "--reference", brand / "brand.set", brand / "pictures" / "fine 0.jpg", "--asset", "mark 2"
    )
    assert "different from mark 2" in claimed.stdout


def test_a_saved_set_needs_no_torch(brand):
    program = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "onnx", "sklearn", "scipy"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
from unalike import Verifier
verifier = Verifier.load({str(brand / "brand.set")!r})
print(verifier.verify({str(brand / "pictures" / "fine 0.jpg")!r}).answer, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["same", "False"], done.stderr[-2000:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pictures"], "verify.reference is not set"),
        (["--reference", "assets"], "no images.*--save FILE"),
        (["--reference", "nowhere", "pictures"], "nowhere: no such file"),
        (["--reference", "pictures/fine 0.jpg", "--save", "brand.set"], "brand.set exists.*--overwrite"),
        (["--reference", "model.onnx", "pictures"], "model.onnx is no gallery, or damaged|holds no approved assets"),
        (["--reference", "brand.set", "broken.png"], "error: none of 1 images can be read.*broken.png"),
        (["--reference", "brand.set", "pictures", "--asset", "mark 7"], "no asset 'mark 7'.*did you mean"),
        (
            ["--reference", "assets", "pictures", "--rate", "2", "-m", "model.onnx"],
            "verify.rate: found 2.0, expected a number > 0",
        ),
        (
            ["--reference", "assets", "pictures", "--trials", "1", "-m", "model.onnx"],
            "cannot support a false-accept rate",
        ),
        (["--reference", "assets", "pictures", "--kinds", "stretch", "-m", "model.onnx"], "did you mean 'stretched'"),
    ],
)
def test_mistakes(brand, monkeypatch, arguments, message):
    import re

    monkeypatch.chdir(brand)
    done = unalike("verify", *arguments)
    assert done.returncode not in (0, 3) and "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr


def test_the_real_command_line_names_what_it_lacks(brand):
    done = process("verify", "--reference", brand / "brand.set", brand / "nothing.png")
    assert done.returncode == 1 and "nothing.png: no such file or folder" in done.stderr


def test_inference_explains(trained, images, tmp_path):
    done = unalike("inference", images / "query", "-r", tmp_path, f"inference.checkpoint={trained / 'ml_model_best.pth'}",
                   f"dataset.val_dataset.reference={images / 'reference'}", "--explain")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in (tmp_path / "inference/result.jsonl").read_text().splitlines()]
    lines = [json.loads(line) for line in (tmp_path / "inference/explain/explain.jsonl").read_text().splitlines()]
    assert [line["query"] for line in lines] == [line["path"] for line in results]
    for line, result in zip(lines, results, strict=True):
        assert line["why"]["score"] == pytest.approx(result["neighbours"][0]["score"], abs=0.02)
        assert line["reference_label"] == result["label"]
        if line["why"]["method"] == "exact":
            evidence = line["why"]["query"]
            assert np.sum(evidence["for"]) + evidence["constant"] == pytest.approx(line["why"]["score"], abs=1e-3)
    assert (tmp_path / "inference/explain/explain.html").stat().st_size > 2000


def test_evaluation_explains_its_misses(trained, images, tmp_path):
    done = unalike("evaluate", "-r", tmp_path, *data_of(images), f"evaluate.checkpoint={trained / 'ml_model_best.pth'}",
                   "evaluate.explain=2", "evaluate.bootstrap=20")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    page, report = tmp_path / "evaluate/misses/misses.html", (tmp_path / "evaluate/report.html").read_text()
    linked = "Why the worst were missed" in report and 'href="misses/misses.html"' in report
    assert page.is_file() == linked and (linked or "no misses to explain" in done.stderr)
