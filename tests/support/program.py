"""The command line, within this process and in one of its own, and the tiny network that it trains in tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from unalike import cli, progress

# A trunk of timm without pretrained weights, small enough for a step in a fraction of a second.
TINY = [
    "model.backbone=test_efficientnet", "model.pretrained=false", "model.input_height=64", "model.input_width=64",
    "model.feat_dim=16", "dataset.workers=2",
]  # fmt: skip
# One training: the default policy would search by trials, since this trunk has no weights.
PLAINLY = "automl_policy=off"


def process(*arguments, cwd=None, env=None, program=("-m", "unalike"), timeout=600):
    """Run the real command line in a process of its own, some five processor seconds; returns the finished process."""
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)], check=False, capture_output=True, text=True, cwd=cwd, timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
    )  # fmt: skip


def unalike(*arguments):
    """The same words to the same program within this process, without the start; what a process would have left."""
    out, err = io.StringIO(), io.StringIO()
    progress._said.clear()  # a new process has said nothing
    argv = list(map(str, arguments))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run_command(argv)
    finally:
        progress.set_verbosity(1)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def data_of(images):
    """Reference and query as overrides."""
    return [f"dataset.val_dataset.{part}={images / part}" for part in ("reference", "query")]


def status_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
