"""The script of one GPU, run on a CPU at tiny sizes: every part gives its figure, or says what it lacks."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="only in the repository")
PARTS = ["network alone", "ours, from JPEG", "ours, from the cache", "plain script, from JPEG", "ours, torch.compile, from the cache",
         "torch fp32", "torch bf16", "ONNX Runtime fp32", "TensorRT fp32", "ONNX Runtime fp16", "TensorRT fp16", "ONNX Runtime int8",
         "TensorRT int8"]  # fmt: skip


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=True,
                          timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    run("--smoke", "--minutes", 60, "--backbones", "test_efficientnet", "--out", tmp_path / "gpu.json")
    rows = {
        row.pop("part").removeprefix("test_efficientnet: "): row
        for row in json.loads((tmp_path / "gpu.json").read_text())
    }
    assert list(rows) == ["machine", *PARTS]
    for part in PARTS:
        if part.startswith("TensorRT") and importlib.util.find_spec("tensorrt") is None:
            assert "TensorRT" in rows[part]["not_installed"]
        elif "compile" in part and shutil.which("g++") is None:
            assert "failed" in rows[part]
        else:
            assert rows[part]["images_per_second"] > 0, (part, rows[part])
    assert rows["ONNX Runtime fp32"]["cosine_least"] > 0.9999 and rows["torch bf16"]["cosine_least"] > 0.99


@pytest.mark.slow
def test_what_would_pass_the_time_limit_is_left_out_and_named(tmp_path: Path) -> None:
    run("--smoke", "--minutes", 0, "--backbones", "test_efficientnet", "--out", tmp_path / "gpu.json")
    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert len(rows) == 6 and all("would pass the time limit" in row["left_out"] for row in rows[1:])


@pytest.mark.slow
def test_without_a_gpu_nothing_is_measured() -> None:
    assert run().stdout.startswith("skipped: no GPU here")
