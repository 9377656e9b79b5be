"""``unalike check`` on specs of the standalone actions: what is there, and every fault in one report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import unalike
from tests.support import networks
from unalike.cli import run_command


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """``images`` with two images in a folder, ``a.png``, and ``model.onnx``."""
    for path in (tmp_path / "images" / "red" / "1.png", tmp_path / "images" / "red" / "2.png", tmp_path / "a.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 0, 0)).save(path)
    networks.write_model(tmp_path)
    return tmp_path


def test_specs_that_could_run(place: Path) -> None:
    images, image, model = str(place / "images"), str(place / "a.png"), str(next(place.glob("*.onnx")))
    for spec, facts in (
        (
            {"compare": {"reference": image, "image": images}},
            {"compare.reference": "exists", "compare.image": "2 images"},
        ),
        (
            {"discover": {"source": images, "model": model, "results_dir": str(place / "out")}},
            {"discover.model": "exists"},
        ),
        ({"gallery_build": {"source": images, "model": model}}, {"gallery_build.source": "2 images"}),
        ({"bench_engine": {"model": model}}, {"bench_engine.model": "exists"}),
        ({"inspect_run": {"inspector": image, "images": [image, images]}}, {"inspect_run.images": "3 images"}),
    ):
        checked = unalike.check(spec)
        assert checked.ok, checked.faults
        assert facts.items() <= checked.figures.items() and checked.figures["extras"] == "installed"
    assert not (place / "out").exists()


def test_every_fault_is_in_the_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(place / "a.png")
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("mine")
    spec = {
        "results_dir": str(place / "runs"), "train": {"num_epochs": 1},
        "inspect_fit": {"good": str(place / "none"), "inspector": image, "results_dir": str(place / "full"), "rate": 2},
        "verify": {"images": [image], "model": str(place / "none.onnx")},
    }  # fmt: skip
    faults = "\n".join(unalike.check(spec).faults)
    for part in ("inspect_fit.rate: found 2, expected a number > 0 and < 1",
                 "inspect_fit: beside train, verify; expected a spec of its own, for unalike inspect fit",
                 f"inspect_fit.good: {place / 'none'}: no such file", f"inspect_fit.inspector: {image} exists",
                 f"inspect_fit.results_dir: {place / 'full'} is not empty", "verify: verify.reference is not set",
                 "verify.model: there is no model file"):  # fmt: skip
        assert part in faults, faults
    file = place / "spec.yaml"
    file.write_text(json.dumps({"bench_engine": {"seconds": 1.0}}))
    assert run_command(["check", str(file)]) == 1
    assert "fault: bench_engine: bench_engine.model is not set" in capsys.readouterr().out


def test_faiss_is_required_for_galleries_in_files_alone(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    image, model = str(place / "a.png"), str(next(place.glob("*.onnx")))

    def faults(gallery: str) -> str:
        section = {"gallery": gallery, "images": [image], "model": model, "approximate": True}
        return "\n".join(unalike.check({"identify": section}).faults)

    assert "faiss" in faults(str(place / "a.gallery"))
    for address in ("postgresql://host/shop?gallery=a", "milvus://host:19530/shop?gallery=a"):
        assert "faiss" not in faults(address)


def test_images_that_cannot_be_read_are_refused_without_heavy_imports(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code = (
        "import sys, unalike\n"
        f"found = unalike.check({str(tmp_path / 'empty')!r})\n"
        "print(found.faults)\n"
        "sys.exit(bool({'torch', 'timm', 'lightning_fabric', 'pytorch_metric_learning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "dataset.train_dataset" in done.stdout, done.stdout + done.stderr
