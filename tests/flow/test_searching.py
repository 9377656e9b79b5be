"""A search through the command line: its trials are plain trainings in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from tests.support.program import TINY, data_of, status_lines, unalike
from unalike.training.hyperparameter_search import workers
from unalike.training.hyperparameter_search.workers import read_exit, trial_command

LR = "train.optim.trunk.base_lr"
SHORT = [
    *TINY,
    "train.num_epochs=2",
    "train.batch_size=8",
    "dataset.validation.fraction=0.4",
    f"automl.parameters=[{LR}]",
]


class InProcessWorker:
    """Trains within this process, which saves the start of one per trial; the slow tests below start them."""

    def __init__(self, environment):
        self.code = None

    def start(self, job):
        self.folder, command = job.folder, trial_command(job)
        assert command[1:4] == ["-m", "unalike.cli.child_process", "0"]
        self.code = unalike(*command[4:]).returncode

    def poll(self):
        return read_exit(self.folder, self.code)

    def stop(self):
        pass

    def close(self):
        pass


def weights(folder):
    return torch.load(folder / "ml_model_best.pth", weights_only=True)["model"]


def test_a_search_and_its_winner_trained_again_bit_for_bit(images, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "LocalWorker", InProcessWorker)
    process = unalike(
        "train", images / "train", "--trials", 2, "-r", tmp_path / "s", *SHORT, *data_of(images), "--json"
    )
    assert process.returncode == 0, process.stderr[-4000:]
    result, folder = json.loads(process.stdout), tmp_path / "s" / "train"
    record = json.loads((folder / "search.json").read_text())
    assert record["counts"] == {"complete": 2} and "held out (unseen in training)" in record["selected_on"]
    assert result["path"] == str(folder / "ml_model_best.pth") and "held-out Precision at Rank 1" in result["figures"]
    own, drawn = (yaml.safe_load((folder / f"trial_00{n}/experiment.yaml").read_text()) for n in (0, 1))
    assert own["train"]["optim"]["trunk"]["base_lr"] == record["space"][LR]["base"]
    assert drawn["train"]["optim"]["trunk"]["base_lr"] == record["trials"][1]["values"][LR]
    # The user's query set is in no trial; what was held out of the training classes is in each.
    for n in (0, 1):
        trial = folder / f"trial_00{n}"
        assert str(images / "query") not in "".join(
            p.read_text() for p in (trial / "experiment.yaml", trial / "split.csv", trial / "trial_spec.yaml")
        )
        assert status_lines(trial)[-1]["status"] == "SUCCESS" and (trial / "model_card.json").exists()
        assert len(list(trial.glob("model_epoch_*.pth"))) == 1  # the latest; those at intervals are gone
    assert (folder / "trial_000/split.csv").read_bytes() == (folder / "trial_001/split.csv").read_bytes()
    # The monitored figure is that of the user's query set; the one that the trial was selected by stands beside it.
    own_figure = json.loads((folder / "evaluate/metrics.json").read_text())["micro"]["precision_at_1"]["value"]
    assert result["figures"]["val Precision at Rank 1"] == record["monitored"] == own_figure
    assert result["figures"]["held-out Precision at Rank 1"] == record["best"]["value"]
    assert f"val R@1 {own_figure:.4f} on your query set, selected by" in process.stderr
    assert (folder / "report.html").exists() and status_lines(folder)[-1]["kpi"] == result["figures"]
    assert status_lines(folder)[-1]["status"] == "SUCCESS"

    shown = unalike("automl", "show", tmp_path / "s")
    assert shown.returncode == 0 and f"best: trial {record['best']['trial']}" in shown.stdout
    again = unalike("train", "-e", folder / "best_spec.yaml", "-r", tmp_path / "again", "--json")
    assert again.returncode == 0, again.stderr[-4000:]
    figures = json.loads(again.stdout)["figures"]
    assert figures == {
        k.replace("held-out", "val"): v for k, v in result["figures"].items() if k.startswith("held-out")
    }
    first, second = weights(folder), weights(tmp_path / "again/train")
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_automl_show_where_there_is_no_search(tmp_path):
    done = unalike("automl", "show", tmp_path)
    assert done.returncode == 1 and "holds no search" in done.stderr and "--trials" in done.stderr


def search_process(images, out, *more):
    words = [sys.executable, "-m", "unalike", "train", images / "train", "-r", out, *SHORT, *more]
    return subprocess.Popen(
        list(map(str, words)), stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_a_killed_search_ends_its_trials_and_is_resumed(images, tmp_path):
    """kill -9 in a later trial, two at a time; the trials' processes go too, and nothing finished is trained again."""
    more = ["--trials", 5, "automl.concurrent=2"]
    first = search_process(images, tmp_path, *more)
    folder, until = tmp_path / "train", time.monotonic() + 400
    record = {"counts": {}}
    while time.monotonic() < until:
        done, begun = record["counts"].get("complete", 0), len(list(folder.glob("trial_*/experiment.yaml")))
        if done >= 2 and begun > done:
            break
        time.sleep(0.5)
        if (folder / "search.json").exists():
            record = json.loads((folder / "search.json").read_text())
    first.kill()
    first.wait()
    finished = {t["trial"]: t for t in record["trials"] if t["state"] == "complete"}
    before = {n: (folder / f"trial_{n:03d}/run.json").read_bytes() for n in finished}
    second = search_process(images, tmp_path, *more, "--resume")
    _, said = second.communicate(timeout=580)
    assert second.returncode == 0, said[-4000:]
    record = json.loads((folder / "search.json").read_text())
    assert record["counts"] == {"complete": 5}
    assert {n: (folder / f"trial_{n:03d}/run.json").read_bytes() for n in finished} == before
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert any(r["state"] == "killed" for r in rows) and all(t["value"] is not None for t in record["trials"])


@pytest.mark.slow
def test_ctrl_c_ends_a_search_with_the_best_so_far(images, tmp_path):
    first = search_process(images, tmp_path, "--trials", 50)
    until = time.monotonic() + 300
    while not (tmp_path / "train/ml_model_best.pth").exists() and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(3)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=200)
    assert first.returncode == 130 and "best so far: trial" in said
    assert (tmp_path / "train/best_spec.yaml").exists() and status_lines(tmp_path / "train")[-1]["status"] == "FAILURE"


@pytest.mark.slow
def test_trials_on_a_ray_cluster(images, tmp_path):
    pytest.importorskip("ray")
    process = search_process(images, tmp_path, "--trials", 3, "automl.cluster=ray", "automl.concurrent=2", "-v")
    _, said = process.communicate(timeout=580)
    assert process.returncode == 0, said[-4000:]
    record = json.loads((tmp_path / "train/search.json").read_text())
    assert record["counts"] == {"complete": 3} and "Ray cluster of 1 machines: 2 trials" in said
