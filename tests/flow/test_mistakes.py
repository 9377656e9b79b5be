"""A user's mistakes: one line that names the remedy, exit code not 0, nothing half-written."""

import os
import signal
import subprocess
import sys
import time

import pytest
from program import TINY, status_lines, unalike


def one_line(done):
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("error")]
    assert done.returncode != 0 and lines, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return "\n".join(done.stderr.strip().splitlines())


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["train.num_epoch=3"], "num_epochs"),
        (["train.num_epochs=many"], "train.num_epochs"),
        (["train.optim.name=Adm"], "Adam"),
        (["model.backbone=resnet_51"], "resnet_50"),
        (["train.loss.name=TripletLoss"], "TripletMarginLoss"),
        (["train.precision=fp16"], "bf16"),
        (["train.num_gpus=2"], "num_gpus"),
    ],
)
def test_wrong_settings_name_the_key_and_the_remedy(images, tmp_path, arguments, told):
    done = unalike("train", images / "train", "-r", tmp_path, *(t for t in TINY if not arguments[0].startswith(t.split("=")[0])),
                   *arguments)  # fmt: skip
    assert told in one_line(done)


def test_missing_folder_empty_folder_and_one_class(tmp_path):
    assert "nowhere" in one_line(unalike("train", tmp_path / "nowhere", "-r", tmp_path / "a"))
    (tmp_path / "empty").mkdir()
    assert "empty" in one_line(unalike("train", tmp_path / "empty", "-r", tmp_path / "b"))


def test_d35_export_without_a_checkpoint_is_refused(tmp_path):
    done = unalike("export", "-r", tmp_path)
    assert "export.checkpoint" in one_line(done)
    assert not list(tmp_path.rglob("*.onnx"))


def test_an_occupied_folder_is_refused_and_stays_as_it_was(trained, images):
    before = sorted((p.name, p.stat().st_mtime_ns) for p in trained.iterdir())
    done = unalike("train", images / "train", "-r", trained.parent, *TINY)
    assert "--overwrite" in one_line(done)
    assert before == sorted((p.name, p.stat().st_mtime_ns) for p in trained.iterdir())


def test_a_spec_that_contradicts_the_checkpoint_is_an_error(trained, images, tmp_path):
    done = unalike("evaluate", "-r", tmp_path, f"evaluate.checkpoint={trained / 'ml_model_best.pth'}",
                   f"dataset.val_dataset.reference={images / 'reference'}", "model.input_height=96")  # fmt: skip
    assert "model.input_height" in one_line(done)


def test_failure_stands_in_status_json(images, tmp_path):
    done = unalike("train", images / "train", "-r", tmp_path, *TINY, "train.loss.name=NoSuchLoss")
    assert done.returncode != 0
    last = status_lines(tmp_path / "train")[-1]
    assert last["status"] == "FAILURE" and "NoSuchLoss" in last["message"]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_resume_equals_a_straight_run(images, tmp_path, number, code):
    import torch

    base = [sys.executable, "-m", "unalike", "train", str(images / "train"), *TINY, "train.batch_size=12",
            "train.num_epochs=40", "train.validation_interval=40", "train.checkpoint_interval=40",
            "dataset.validation.by=none"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*base, "-r", str(tmp_path / "cut")], env=env, stderr=subprocess.PIPE, text=True)
    status = tmp_path / "cut/train/status.json"
    for _ in range(600):
        if status.exists() and '"max_step"' in status.read_text():
            break
        time.sleep(0.1)
    process.send_signal(number)
    try:
        stderr = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == code, stderr[-3000:]
    assert status_lines(tmp_path / "cut/train")[-1]["status"] == "FAILURE"
    epochs = [line["epoch"] for line in status_lines(tmp_path / "cut/train") if "max_step" in line]
    assert epochs[-1] < 39, "the run was over before the signal"
    resumed = subprocess.run(
        [*base, "-r", str(tmp_path / "cut"), "--resume"], env=env, check=False, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    straight = subprocess.run(
        [*base, "-r", str(tmp_path / "straight")], env=env, check=False, capture_output=True, text=True
    )
    assert straight.returncode == 0, straight.stderr[-3000:]
    first, second = (
        torch.load(tmp_path / name / "train/ml_model_latest.pth", weights_only=True)["model"]
        for name in ("cut", "straight")
    )
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_the_three_names_are_one_program(tmp_path):
    outputs = [
        unalike("--version", program=p).stdout
        for p in (("-m", "unalike"), ("-c", "from unalike.cli import main; main()"))
    ]
    assert outputs[0].startswith("unalike ") and outputs[0] == outputs[1]
