"""The scheduler on made-up curves: which trials are started, pruned, resumed and given up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support.searching import TRUNK_LR, journal_spec, peak_curve, play_search, read_trials, spec
from unalike.errors import Interrupted


class Clock:
    """A clock that advances by two seconds at every tick."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def tick(self) -> None:
        self.now += 2.0


# ---- failures, pruning, repeats ----


def test_failed_trials_are_recorded_with_their_reason(tmp_path):
    def curve(job):
        return "the loss is nan at epoch 0" if job.number in (1, 3) else peak_curve(job)

    result, jobs, _ = play_search(journal_spec(tmp_path, trials=6), tmp_path / "run", curve)
    rows = read_trials(tmp_path / "run")
    assert [r["state"] for r in rows] == ["complete", "failed", "complete", "failed", "complete", "complete"]
    assert rows[1]["reason"] == "the loss is nan at epoch 0" and rows[1]["value"] is None and len(jobs) == 6
    assert result.record["counts"] == {"complete": 4, "failed": 2}


def test_values_that_do_not_go_together_are_a_failed_trial(tmp_path):
    experiment = journal_spec(tmp_path, "train.checkpointer.save_top_k=1", trials=8,
                       ranges={"dataset.gaussian_blur.kernel": [[3, 3], [999, 999]]}, parameters=[TRUNK_LR])  # fmt: skip
    _, jobs, _ = play_search(experiment, tmp_path / "run", peak_curve)
    rows = read_trials(tmp_path / "run")
    refused = [r for r in rows if r["values"].get("dataset.gaussian_blur.kernel") == [999, 999]]
    assert refused and all(r["state"] == "failed" and "kernel" in r["reason"] for r in refused)
    assert len(jobs) == 8 - len(refused)


def test_a_bad_trial_is_pruned_but_never_the_users_own_spec(tmp_path):
    def curve(job):
        return [0.1, 0.1, 0.1, 0.1] if job.number in (0, 7) else [0.5 + 0.01 * job.number] * 4

    play_search(journal_spec(tmp_path, trials=8, pruner="median"), tmp_path / "run", curve)
    rows = read_trials(tmp_path / "run")
    assert rows[0]["state"] == "complete" and rows[0]["epochs"] == 4
    assert rows[7]["state"] == "pruned" and rows[7]["epochs"] < 4 and rows[7]["value"] == 0.1


def test_a_small_space_is_not_trained_twice_and_ends_the_search(tmp_path):
    experiment = journal_spec(tmp_path, trials=100, parameters=["train.smooth_loss"])
    result, jobs, _ = play_search(experiment, tmp_path / "run", peak_curve)
    assert 2 <= len(jobs) <= 3 and result.record["counts"]["repeat"] >= 10


# ---- time ----


def test_a_trial_that_cannot_be_finished_in_the_time_is_not_started(tmp_path):
    clock = Clock()  # a trial takes five polls: ten seconds
    experiment = journal_spec(tmp_path, minutes=1.05, trials=100)
    _, jobs, _ = play_search(experiment, tmp_path / "run", peak_curve, clock=clock, tick=clock.tick)
    assert len(jobs) == 6 and clock.now <= 63
    assert {r["state"] for r in read_trials(tmp_path / "run")} == {"complete"}


def test_a_first_trial_that_runs_out_of_time_counts_with_its_best_epoch(tmp_path):
    clock = Clock()
    result, jobs, _ = play_search(
        journal_spec(tmp_path, minutes=0.1, parameters=[TRUNK_LR]), tmp_path / "run", lambda job: [0.3, 0.6, 0.2] + [0.1] * 50,
        clock=clock, tick=clock.tick,
    )  # fmt: skip
    (row,) = read_trials(tmp_path / "run")
    assert len(jobs) == 1 and row["state"] == "out of time" and row["value"] == 0.6 and row["best_epoch"] == 1
    text = (tmp_path / "run/best_spec.yaml").read_text()
    assert "ended early" in text and "in epoch 2.\n" in text  # people count from 1, files from 0
    assert result.checkpoint is None  # this worker wrote none


# ---- signals and kills ----


def test_ctrl_c_keeps_the_best_so_far_and_resuming_continues(tmp_path):
    folder, experiment = (
        tmp_path / "run",
        journal_spec(tmp_path, trials=7, parameters=[TRUNK_LR, "train.optim.embedder.base_lr"]),
    )
    with pytest.raises(Interrupted, match="best so far: trial"):
        play_search(experiment, folder, peak_curve, stop_after=3)
    assert json.loads((folder / "search.json").read_text())["best"] is not None
    assert (folder / "ml_model_best.pth").exists() and (folder / "report.html").exists()
    _, jobs, _ = play_search(experiment, folder, peak_curve)
    rows = read_trials(folder)
    assert [job.number for job in jobs] == [3, 4, 5, 6] and jobs[0].resume
    assert [r["trial"] for r in rows] == [0, 1, 2, 3, 3, 4, 5, 6] and rows[3]["state"] == "stopped"
    (tmp_path / "other").mkdir()
    _, uninterrupted, _ = play_search(
        journal_spec(tmp_path / "other", trials=7, parameters=experiment.automl.parameters),
        tmp_path / "other" / "run",
        peak_curve,
    )
    assert [j.values for j in uninterrupted[3:]] == [j.values for j in jobs]


KILLED_SEARCH = """
import os, signal, sys
from pathlib import Path
from tests.support.searching import play_search, spec

def curve(job):
    if job.number == 2:
        (job.folder / "model_epoch_000_step_00001.pth").write_text("a checkpoint")
        os.kill(os.getpid(), signal.SIGKILL)
    return [0.5, 0.6]

play_search(spec(trials=6, seed=1, storage=sys.argv[2], pruner="none"), Path(sys.argv[1]), curve)
"""


def test_a_killed_search_loses_no_finished_trial_of_a_shared_study(tmp_path):
    """One process is killed in its third trial; one in another folder continues; the first is then resumed."""
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    environment = {**os.environ, "PYTHONPATH": os.environ["PYTHONPATH"]}
    process = subprocess.run([sys.executable, "-c", KILLED_SEARCH, tmp_path / "a", storage], env=environment,
                             capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
    assert [r["state"] for r in read_trials(tmp_path / "a")] == ["complete", "complete"]
    experiment = spec(trials=6, seed=1, storage=storage, pruner="none")
    _, other, _ = play_search(experiment, tmp_path / "b", peak_curve)
    assert [job.number for job in other] == [3, 4, 5]  # the killed process's trial belongs to its own folder
    result, resumed, _ = play_search(experiment, tmp_path / "a", peak_curve)
    assert [job.number for job in resumed] == [2] and resumed[0].resume
    rows = read_trials(tmp_path / "a")
    assert [(r["trial"], r["state"], r["attempt"]) for r in rows[2:]] == [(2, "killed", 1), (2, "complete", 2)]
    assert result.record["counts"] == {"complete": 6}
    assert sorted(p.name for p in (tmp_path / "b").glob("trial_*")) == ["trial_003", "trial_004", "trial_005"]


def test_a_trial_that_kills_the_search_three_times_is_given_up(tmp_path):
    class Fatal(Exception):
        pass

    def curve(job):
        if job.number == 1:
            raise Fatal
        return [0.5]

    experiment, folder = journal_spec(tmp_path, trials=3), tmp_path / "run"
    for _ in range(3):
        with pytest.raises(Fatal):
            play_search(experiment, folder, curve)
    _, jobs, _ = play_search(experiment, folder, curve)
    assert [job.number for job in jobs] == [2]
    assert "killed during each of 3" in next(r for r in read_trials(folder) if r["state"] == "failed")["reason"]


def test_a_trial_that_gets_further_in_each_attempt_is_not_given_up(tmp_path):
    """Machines that are taken away every few minutes end the search again and again; each time an epoch was trained."""

    class Fatal(Exception):
        pass

    epochs = iter(range(5))

    def curve(job):
        if job.number == 0 and (epoch := next(epochs, None)) is not None:
            (job.folder / f"model_epoch_{epoch:03d}_step_00001.pth").write_text("a checkpoint")
            raise Fatal
        return [0.5]

    experiment, folder = journal_spec(tmp_path, trials=2), tmp_path / "run"
    for _ in range(5):
        with pytest.raises(Fatal):
            play_search(experiment, folder, curve)
    result, jobs, _ = play_search(experiment, folder, curve)
    assert [job.number for job in jobs] == [0, 1] and jobs[0].resume and result.record["counts"] == {"complete": 2}
    assert [row["state"] for row in read_trials(folder)] == ["killed"] * 5 + ["complete"] * 2
