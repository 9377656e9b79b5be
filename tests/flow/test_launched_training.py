"""Trainings of several processes by Ray Train and by SLURM: the same weights as by torchrun, also after a kill or a stop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from tests.flow.conftest import draw_class
from tests.support.paths import ROOT
from tests.support.program import PLAINLY, TINY, status_lines
from unalike.model.checkpoint import read_checkpoint
from unalike.runs.filenames import LATEST_CHECKPOINT

pytestmark = pytest.mark.slow
PATIENCE_S = 400.0
EPOCHS = 40
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
SETTINGS = [*TINY, PLAINLY, "train.batch_size=8", "dataset.validation.by=none", "train.recipe=tao", "train.seed=3"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    for number in range(4):
        draw_class(root / "images" / f"class {number}", number, 16, 0)
    return root / "images"


@pytest.fixture(scope="module")
def expected(images: Path) -> dict[str, torch.Tensor]:
    """The weights of two processes that torchrun started."""
    launcher = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "127.0.0.1:0",
    ]
    words = [
        *launcher,
        "-m",
        "unalike",
        "train",
        images,
        "-r",
        images.parent / "torchrun",
        *SETTINGS,
        f"train.num_epochs={EPOCHS}",
    ]
    done = subprocess.run(
        [sys.executable, *map(str, words)], check=False, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return weights(images.parent / "torchrun" / "train")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {**read_checkpoint(folder / LATEST_CHECKPOINT)["model"]}


def require_equal(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    own = weights(folder)
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], value) for name, value in expected.items()), "the weights are those of torchrun"


# ---- Ray ----


def start_on_ray(images: Path, out: Path, *options: object) -> subprocess.Popen[str]:
    words = ["-m", "unalike", "train", images, "--cluster", "ray", "--workers", 2, "-r", out, *SETTINGS,
             f"train.num_epochs={EPOCHS}", *options]  # fmt: skip
    return subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=ENVIRONMENT, start_new_session=True)  # fmt: skip


def finish(run: subprocess.Popen[str], act: Callable[[], None]) -> tuple[int, str, str]:
    try:
        act()
        out, err = run.communicate(timeout=PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    return run.returncode, out, err


def wait_for_epochs(run: subprocess.Popen[str], folder: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(list(folder.glob("model_epoch_*.pth"))) < count:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.01)


def rank_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        if "unalike.cli.child_process" in process.cmdline():
            return str(process.environ().get("RANK", ""))
    return ""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_process_is_started_again(
    images: Path, expected: dict[str, torch.Tensor], tmp_path: Path, rank: str
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install unalike[cluster]")
    run = start_on_ray(images, tmp_path, "--json")

    def kill() -> None:
        wait_for_epochs(run, tmp_path / "train", 3)
        next(child for child in psutil.Process(run.pid).children(recursive=True) if rank_of(child) == rank).kill()
        assert len(list((tmp_path / "train").glob("model_epoch_*.pth"))) < EPOCHS, "killed too late to show anything"

    code, out, err = finish(run, kill)
    assert code == 0, err[-3000:]
    assert "all 2 start again from the last checkpoint (1 of 3)" in err
    assert [line["message"] for line in status_lines(tmp_path / "train") if line["status"] == "STARTED"] == [
        "train started", "train resumed",
    ]  # fmt: skip
    require_equal(tmp_path / "train", expected)
    result = json.loads(out)
    assert Path(result["path"]).samefile(tmp_path / "train" / LATEST_CHECKPOINT)
    assert not (tmp_path / "train" / "ray-train").exists()


def test_ctrl_c_saves_and_resume_goes_on(images: Path, expected: dict[str, torch.Tensor], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install unalike[cluster]")
    run = start_on_ray(images, tmp_path)

    def stop() -> None:
        wait_for_epochs(run, tmp_path / "train", 3)
        run.send_signal(signal.SIGINT)

    code, _, err = finish(run, stop)
    assert code == 130, err[-3000:]
    assert re.search(r"error: stopped by Ctrl-C in epoch \d+.*the checkpoint is saved", err), err[-3000:]
    assert re.search(r"^next: unalike train .*--resume", err, re.MULTILINE), err[-3000:]
    run = start_on_ray(images, tmp_path, "--resume")
    code, _, err = finish(run, lambda: None)
    assert code == 0, err[-3000:]
    require_equal(tmp_path / "train", expected)


def test_a_mistake_is_one_line_and_not_tried_again(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install unalike[cluster]")
    code, _, err = finish(
        start_on_ray(images, tmp_path, "train.loss.name=CosFaceLoss", "train.loss.parameters={margin: a}"), lambda: None
    )
    assert code != 0 and "start again" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "margin" in errors[0], err[-3000:]


# ---- SLURM ----

SRUN = """#!{python}
import os, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("--"):
    command.pop(0)
tasks = []
for number in range(2):
    own = {{"SLURM_PROCID": number, "SLURM_LOCALID": 0, "SLURM_NODEID": number, "SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": 2,
           "SLURM_NTASKS": 2}}
    tasks.append(subprocess.Popen(command, env=os.environ | {{name: str(value) for name, value in own.items()}}))
sys.exit(max(task.wait() for task in tasks))
"""


def test_the_slurm_file_trains_on_two_nodes_and_is_queued_again(
    images: Path, expected: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """By a stand-in for srun, which starts two tasks with the variables of two nodes, on this machine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(SRUN.format(python=sys.executable))
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.log\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    variables = {"SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "4711",
                 "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "unalike-train", "SLURM_NTASKS": "2"}  # fmt: skip
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps({"results_dir": str(tmp_path), "dataset": {"train_dataset": str(images)}}))
    words = ["bash", str(ROOT / "examples" / "train.sbatch"), str(spec), *SETTINGS, f"train.num_epochs={EPOCHS}"]
    environment = {**ENVIRONMENT, **variables, "PYTHON": sys.executable, "PATH": f"{programs}:{os.environ['PATH']}"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    run = start()

    def end_of_time() -> None:  # SLURM signals the tasks, not the script
        wait_for_epochs(run, tmp_path / "train", 3)
        for child in psutil.Process(run.pid).children(recursive=True):
            if "unalike" in child.cmdline():
                child.terminate()

    code, _, err = finish(run, end_of_time)
    assert code == 143, err[-3000:]
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    code, _, err = finish(start(), lambda: None)
    assert code == 0, err[-3000:]
    require_equal(tmp_path / "train", expected)
    no_spec = subprocess.run(words[:2], check=False, capture_output=True, text=True, env=environment)
    assert no_spec.returncode == 2 and "usage: sbatch" in no_spec.stderr
