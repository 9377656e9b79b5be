"""A user's mistakes: one line that names the remedy, exit code not 0, nothing half-written."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support.program import PLAINLY, TINY, process, status_lines, unalike


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
                   PLAINLY, *arguments)  # fmt: skip
    assert told in one_line(done)


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    done = process("train", tmp_path / "nowhere", "-r", tmp_path / "a", "--json")
    assert "nowhere" in one_line(done) and done.returncode == 1 and done.stdout == ""


def test_missing_folder_and_empty_folder(tmp_path):
    assert "nowhere" in one_line(unalike("train", tmp_path / "nowhere", "-r", tmp_path / "a"))
    (tmp_path / "empty").mkdir()
    assert "empty" in one_line(unalike("train", tmp_path / "empty", "-r", tmp_path / "b"))


def test_d35_export_without_a_checkpoint_is_refused(tmp_path):
    done = unalike("export", "-r", tmp_path)
    assert "export.checkpoint" in one_line(done)
    assert not list(tmp_path.rglob("*.onnx"))


def test_an_occupied_folder_is_refused_and_stays_as_it_was(trained, images):
    before = sorted((p.name, p.stat().st_mtime_ns) for p in trained.iterdir())
    done = unalike("train", images / "train", "-r", trained.parent, *TINY, PLAINLY)
    assert "--overwrite" in one_line(done)
    assert before == sorted((p.name, p.stat().st_mtime_ns) for p in trained.iterdir())


def test_a_spec_that_contradicts_the_checkpoint_is_an_error(trained, images, tmp_path):
    done = unalike("evaluate", "-r", tmp_path, f"evaluate.checkpoint={trained / 'ml_model_best.pth'}",
                   f"dataset.val_dataset.reference={images / 'reference'}", "model.input_height=96")  # fmt: skip
    assert "model.input_height" in one_line(done)


def test_failure_stands_in_status_json(images, tmp_path):
    done = unalike("train", images / "train", "-r", tmp_path, *TINY, PLAINLY, "train.loss.name=NoSuchLoss")
    assert done.returncode != 0
    last = status_lines(tmp_path / "train")[-1]
    assert last["status"] == "FAILURE" and "NoSuchLoss" in last["message"]


# The program itself, which in one step of its training waits for the signal: no machine is too fast or too slow for it.
HELD = """
import sys, time
from unalike.cli import main
from unalike.training.loop import TrainingLoop

step, at = TrainingLoop.train_step, int(sys.argv.pop(1))

def held(self, *args, **kwargs):
    if self.position.global_step == at:
        print("held", flush=True)
        limit = time.monotonic() + 300
        while not self.stop_requested() and time.monotonic() < limit:
            time.sleep(0.02)
    return step(self, *args, **kwargs)

TrainingLoop.train_step = held
main()
"""
LONG = [*TINY, PLAINLY, "train.batch_size=12", "train.num_epochs=4", "train.validation_interval=4", "train.checkpoint_interval=4",
        "dataset.validation.by=none"]  # fmt: skip


def weights(folder):
    import torch

    return torch.load(folder / "train/ml_model_latest.pth", weights_only=True)["model"]


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory):
    """The weights of a run that nothing stopped: four epochs of three steps."""
    out = tmp_path_factory.mktemp("straight")
    done = unalike("train", images / "train", "-r", out, *LONG)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["max_step"] for line in status_lines(out / "train") if "max_step" in line][-1] == 12
    return weights(out)


@pytest.mark.parametrize(
    "number, code, at, epoch",
    [(signal.SIGTERM, 143, 4, 1), (signal.SIGINT, 130, 5, 1)],
    ids=["within an epoch", "at its end"],
)
def test_a_signal_leaves_a_checkpoint_and_resume_equals_a_straight_run(
    images, tmp_path, straight, number, code, at, epoch
):
    import torch

    command = [sys.executable, "-c", HELD, str(at), "train", str(images / "train"), "-r", str(tmp_path), *LONG]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            told = running.stdout.readline()
            running.send_signal(number)
            stderr = running.communicate(timeout=300)[1]
        finally:
            running.kill()
    assert told == "held\n" and running.returncode == code, stderr[-3000:]
    assert stderr.count("error:") == 1 and "Traceback" not in stderr
    assert status_lines(tmp_path / "train")[-1]["status"] == "FAILURE"
    kept = torch.load(tmp_path / "train/ml_model_latest.pth", weights_only=True)
    assert kept["training"]["position"]["total"] == at + 1, "the step is finished, no other is begun"
    assert any(not torch.equal(kept["model"][k], straight[k]) for k in straight)
    resumed = unalike("train", images / "train", "-r", tmp_path, *LONG, "--resume")
    assert resumed.returncode == 0 and f"resumed in epoch {epoch + (at == 5) + 1}, after" in resumed.stderr, (
        resumed.stderr[-3000:]
    )
    found = weights(tmp_path)
    assert found.keys() == straight.keys() and all(torch.equal(found[k], straight[k]) for k in found)


def test_the_three_names_are_one_program(tmp_path):
    outputs = [
        process("--version", program=p).stdout
        for p in (("-m", "unalike"), ("-c", "from unalike.cli import main; main()"))
    ]
    assert outputs[0].startswith("unalike ") and outputs[0] == outputs[1]
