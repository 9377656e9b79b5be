"""The real command line in a subprocess, and the tiny network that it trains in tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# A trunk of timm without pretrained weights, small enough for a step in a fraction of a second.
TINY = [
    "model.backbone=test_efficientnet", "model.pretrained=false", "model.input_height=64", "model.input_width=64",
    "model.feat_dim=16", "dataset.workers=2",
]  # fmt: skip


def unalike(*arguments, cwd=None, env=None, program=("-m", "unalike"), timeout=300):
    """Run the real command line; returns the finished process."""
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)], check=False, capture_output=True, text=True, cwd=cwd, timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
    )  # fmt: skip


def status_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
