"""The process of a task with a stand-in of training and export: it waits where the environment says so, then writes a made-up network."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.support.learning import network_bytes
from unalike.actions.result import Result
from unalike.serve.learning import candidate, worker

KIND, GATE = "STANDIN_KIND", "STANDIN_GATE"


def _train(spec: Any, settings: Any, *, data: Path) -> Result:
    run = Path(next(setting for setting in settings if setting.startswith("train.results_dir=")).partition("=")[2])
    run.mkdir(parents=True, exist_ok=True)
    lines = [{"step": step, "epoch": 0, "kpi": {"train_loss": 1 / step, "seconds": 3}} for step in (1, 2, 3)]
    (run / "status.json").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    (run / "report.html").write_text("<!doctype html><title>Report</title><main><h1>Report</h1></main>")
    print("training <b>began</b>", flush=True)
    gate = os.environ.get(GATE)
    while gate and not Path(gate).exists():
        time.sleep(0.05)
    return Result(run, run / "best.pth", {"known classes R@1": 0.75})


def _export(checkpoint: Path, manifest: Path, folder: Path) -> Path:
    file = folder / "made-up.onnx"
    file.write_bytes(network_bytes(os.environ.get(KIND, "color")))
    return file


def main() -> None:
    """As ``unalike.serve.learning.worker.main``."""
    import unalike.actions.train as action

    action.train = _train
    candidate._export = _export
    worker.main()
