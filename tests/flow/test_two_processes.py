"""Two gloo processes equal one process with the whole batch (TAO D14: there negatives stayed on their rank)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.flow.conftest import draw_class
from tests.support.paths import ROOT
from tests.support.shared_folder import make_once
from unalike.model.checkpoint import read_checkpoint
from unalike.runs.filenames import BEST_CHECKPOINT, LATEST_CHECKPOINT
from unalike.training.checkpoints import newest_checkpoint

SCRIPT = ROOT / "tests" / "support" / "two_processes.py"


def start(processes: int, *arguments: str) -> None:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1",
                     "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]  # fmt: skip
    done = subprocess.run(
        [*launcher, *arguments], check=False, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


# Loss, head epochs, sampled classes, vectors of earlier batches.
TRAININGS = [
    ("TripletMarginLoss", 0, 0, 0),
    ("CosFaceLoss", 1, 0, 0),
    ("CosFaceLoss", 1, 12, 0),
    ("ContrastiveLoss", 0, 0, 40),
]


def train_all(root: Path) -> None:
    for processes in (1, 2):
        for training in TRAININGS:
            (root / str(processes) / "-".join(map(str, training))).mkdir(parents=True)
        start(
            processes,
            str(SCRIPT),
            str(root / str(processes)),
            *(str(value) for training in TRAININGS for value in training),
        )


@pytest.mark.parametrize("training", TRAININGS)
def test_d14_two_processes_equal_one(tmp_path_factory, training):
    folder = make_once(tmp_path_factory, "one and two processes", train_all)
    one, two = (read_checkpoint(newest_checkpoint(folder / count / "-".join(map(str, training)))) for count in "12")
    sampled = training[2]
    for key, value in one["model"].items():
        assert torch.allclose(value, two["model"][key], atol=1e-5), key
    for key, value in one["training"]["objective"].items():
        other = two["training"]["objective"][key]
        if key.endswith("_extra_state") and not sampled:
            assert value == other == {"queue_idx": 16, "has_been_filled": True}  # 6 batches of 16 in a ring of 40
            continue
        if key.endswith("_extra_state"):
            assert value["steps"] == other["steps"] == 6
            value, other = value["proxies"], other["proxies"]
        assert torch.allclose(value, other, atol=1e-5), key


def test_the_default_recipe_in_two_processes(tmp_path):
    """Its first epoch is the head's alone, which DDP must know beforehand; in the end one process fits the head anew."""
    for number in range(4):
        draw_class(tmp_path / "images" / f"class {number}", number, 4, 0)
    start(2, "-m", "unalike", "train", str(tmp_path / "images"), "-r", str(tmp_path), "--automl-policy", "off",
          "model.backbone=tf_efficientnet_lite0", "model.input_height=64", "model.input_width=64", "train.num_epochs=2",
          "train.batch_size=8", "dataset.validation.by=none")  # fmt: skip
    last, best = (read_checkpoint(tmp_path / "train" / name) for name in (LATEST_CHECKPOINT, BEST_CHECKPOINT))
    assert (best["spec"]["model"]["head"], last["spec"]["model"]["head"]) == ("rooted", "auto")
    weight = "trunk.net.blocks.6.0.conv_pw.weight"
    moved = (best["model"][weight] - last["model"][weight]).abs().max()
    assert 0 < moved < 1 and best["epoch"] == last["epoch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["train.warm_start=true"], ["train.train_trunk=false", "train.train_embedder=false"]]
)
def test_a_head_in_closed_form_is_the_same_in_two_processes(tmp_path, words):
    """One process fits it and the others are given it; where nothing else is done, that is all that is written."""
    for number in range(4):
        draw_class(tmp_path / "images" / f"class {number}", number, 4, 0)
    common = ["-m", "unalike", "train", str(tmp_path / "images"), "--automl-policy", "off", "train.num_epochs=1",
              "model.backbone=tf_efficientnet_lite0", "model.input_height=64", "model.input_width=64", "train.batch_size=8",
              "dataset.validation.by=none", "train.finish.enabled=true", *words]  # fmt: skip
    for processes in (1, 2):
        start(processes, *common, "-r", str(tmp_path / str(processes)))
    one, two = (read_checkpoint(tmp_path / name / "train" / BEST_CHECKPOINT) for name in ("1", "2"))
    assert one["spec"]["model"]["head"] == two["spec"]["model"]["head"] == "rooted"
    assert one["model"]["head.linear.weight"].shape == two["model"]["head.linear.weight"].shape
    if "warm_start" not in words[0]:
        for key, value in one["model"].items():
            assert torch.equal(value, two["model"][key]), key
