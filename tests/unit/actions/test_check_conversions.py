"""Check of quantize and the engines: what a run would refuse is a fault, and what it takes is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unalike
from tests.support import networks


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("conversions")
    (root / "model.onnx").write_bytes(networks.exported_bytes())
    (root / "bad.onnx").write_bytes(networks.exported_bytes()[:3000])
    (root / "there.xml").write_text("x")
    (root / "images").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
    return root


def faults(
    files: Path, monkeypatch: pytest.MonkeyPatch, action: str, section: dict[str, Any], **others: Any
) -> list[str]:
    monkeypatch.chdir(files)
    return [fault for fault in unalike.check({action: section, **others}).faults if "needs tensorrt" not in fault]


IMAGES = {"calibration": {"cal_image_dir": ["images"]}}


@pytest.mark.parametrize(("action", "section"), [
    ("quantize", {"onnx_file": "model.onnx", **IMAGES}),
    ("quantize", {"onnx_file": "model.onnx", "data_type": "FP16", **IMAGES}),
    ("gen_engine", {"onnx_file": "model.onnx", "engine": "new.xml", **IMAGES}),
    ("gen_trt_engine", {"onnx_file": "model.onnx"}),
    ("gen_trt_engine", {"onnx_file": "model.onnx", "tensorrt": {"data_type": "INT8", **IMAGES}}),
])  # fmt: skip
def test_what_runs_has_no_fault(
    action: str, section: dict[str, Any], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not faults(files, monkeypatch, action, section)


@pytest.mark.parametrize(("action", "section", "named"), [
    ("quantize", {"onnx_file": "model.onnx"}, "cal_image_dir is not set, and INT8 needs images"),
    ("quantize", {"onnx_file": "model.onnx", "data_type": "FP16"}, "no images to compare"),
    ("quantize", {"onnx_file": "model.onnx", "calibration": {"cal_image_dir": ["nowhere"]}}, "nowhere: no such file"),
    ("quantize", {"checkpoint": "nowhere.pth", **IMAGES}, "there is no file nowhere.pth"),
    ("quantize", {"checkpoint": "nowhere.pth", "onnx_file": "model.onnx", **IMAGES}, "are both set"),
    ("quantize", {"onnx_file": "bad.onnx", **IMAGES}, "bad.onnx is no ONNX file"),
    ("quantize", {"onnx_file": "model.onnx", "layers_precision": ["none:fp32"], **IMAGES}, "no layer 'none'"),
    ("quantize", {"onnx_file": "model.onnx", "output": "there.xml", **IMAGES}, "there.xml exists"),
    ("gen_engine", {"onnx_file": "model.onnx", "engine": "there.xml", **IMAGES}, "there.xml exists"),
    ("gen_engine", {"onnx_file": "model.onnx", "engine": "new.bin", **IMAGES}, "a name that ends in .xml"),
    ("gen_engine", {"onnx_file": "model.onnx", "runtime": "onnxruntime", "data_type": "FP16", **IMAGES}, "with onnxruntime"),
    ("gen_trt_engine", {"onnx_file": "model.onnx", "tensorrt": {"data_type": "INT8"}}, "INT8 needs images"),
    ("gen_trt_engine", {"onnx_file": "model.onnx", "batch_size": 8, "tensorrt": {"max_batch_size": 4}}, "max_batch_size is 4"),
])  # fmt: skip
def test_what_would_fail_is_named(
    action: str, section: dict[str, Any], named: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = faults(files, monkeypatch, action, section)
    assert sum(named in fault for fault in found) == 1, found
    assert not any("neither images nor a model" in fault for fault in found)


def test_a_contradiction_is_a_fault(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fault,) = faults(files, monkeypatch, "quantize", {"onnx_file": "model.onnx", **IMAGES}, model={"feat_dim": 999})
    assert "model.feat_dim is 999" in fault


@pytest.mark.parametrize(("section", "named"), [
    ({"engine": "nowhere.xml"}, "there is no file nowhere.xml"),
    ({"onnx_file": "model.onnx", "checkpoint": "nowhere.pth"}, "are both set"),
    ({"onnx_file": "model.onnx", "runtime": "torch"}, "runtime 'torch' for model.onnx"),
    ({"onnx_file": "model.onnx", "address": "x"}, "evaluate.address is set"),
])  # fmt: skip
def test_models_of_evaluate(section: dict[str, Any], named: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = faults(files, monkeypatch, "evaluate", section)
    assert sum(named in fault for fault in found) == 1, found
