"""Two gloo processes equal one process with the whole batch (TAO D14: there negatives stayed on their rank)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unalike.learn.checkpoints import newest_checkpoint
from unalike.model.checkpoint import read_checkpoint

SCRIPT = Path(__file__).with_name("two_processes.py")


def run(folder: Path, processes: int, *arguments: str) -> dict:
    folder.mkdir()
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1",
                  "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]  # fmt: skip
    done = subprocess.run(
        [*start, str(SCRIPT), str(folder), *arguments], check=False, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return read_checkpoint(newest_checkpoint(folder))


@pytest.mark.parametrize("loss, head_epochs", [("TripletMarginLoss", 0), ("CosFaceLoss", 1)])
def test_d14_two_processes_equal_one(tmp_path, loss, head_epochs):
    one = run(tmp_path / "one", 1, loss, str(head_epochs))
    two = run(tmp_path / "two", 2, loss, str(head_epochs))
    for key, value in one["model"].items():
        assert torch.allclose(value, two["model"][key], atol=1e-5), key
    for key, value in one["training"]["objective"].items():
        assert torch.allclose(value, two["training"]["objective"][key], atol=1e-5), key
