"""Real actions as jobs whose runner, or all of them, is killed in the middle: the store tells the truth, the job goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.program import TINY, status_lines
from unalike.errors import RunError
from unalike.jobs import Workspace, create_job
from unalike.runs.processes import is_alive, this_boot

WITH_STANDIN = (sys.executable, "-m", "tests.support.standin_job", "120")
PATIENCE_S = 600.0  # a busy machine starts a process in half a minute


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    held = Workspace(tmp_path / "jobs")
    yield held
    for job in held.store.all():  # nothing outlives a test
        for pid, start in ((job.runner_pid, job.runner_start), (job.action_pid, job.action_start)):
            if pid and pid != os.getpid() and job.boot == this_boot() and is_alive(pid, start):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The trained network as ONNX, for the actions that begin there."""
    from tests.support.program import unalike

    path = tmp_path_factory.mktemp("network") / "model.onnx"
    done = unalike("export", f"export.checkpoint={trained / 'ml_model_best.pth'}", f"export.onnx_file={path}",
                   "-r", path.parent)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return path


def overrides_for(action, images, trained, exported):
    """What each action needs, named rather than taken from a parent."""
    best = str(trained / "ml_model_best.pth")
    sets = {
        "dataset.val_dataset.reference": str(images / "reference"),
        "dataset.val_dataset.query": str(images / "query"),
    }
    tiny = dict(word.split("=", 1) for word in TINY)
    tiny = {key: int(value) if value.isdigit() else value for key, value in tiny.items()}
    return {
        "train": {**tiny, **sets, "dataset.train_dataset": str(images / "train"), "num_epochs": 3, "batch_size": 12},
        "evaluate": {**sets, "evaluate.checkpoint": best},
        "inference": {"dataset.val_dataset.reference": sets["dataset.val_dataset.reference"],
                      "inference.input_path": str(images / "query"), "inference.checkpoint": best},
        "export": {"export.checkpoint": best},
        "gen_trt_engine": {"gen_trt_engine.onnx_file": str(exported)},
        "quantize": {"quantize.onnx_file": str(exported), "quantize.calibration.cal_image_dir": [str(images / "train")],
                     "quantize.goal.worst_cosine": -1.0, "quantize.goal.recall_loss": None},
        "gen_engine": {"gen_engine.onnx_file": str(exported), "gen_engine.calibration.cal_image_dir": [str(images / "train")]},
    }[action]  # fmt: skip


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)
    return found


def caught_at_work(workspace, job, begun):
    """The job, its action held still (SIGSTOP) once ``begun`` is so and before it ended."""

    def at_work():
        held = workspace.store.get(job.id)
        assert held.status in ("Pending", "Running"), (held.error, "".join(workspace.log(job.id))[-2000:])
        return begun() and held.action_pid

    until(at_work)
    job = workspace.store.get(job.id)
    os.killpg(job.action_pid, signal.SIGSTOP)
    assert status_lines(Path(job.run_dir))[-1]["status"] not in ("SUCCESS", "FAILURE"), "it was too quick to be caught"
    assert workspace.get(job.id).status == "Running"
    return job


def kills():
    """Every action, its runner or all of it killed; those that are not slow are a bounded part."""
    for action in ("train", "evaluate", "inference", "export", "gen_trt_engine", "quantize", "gen_engine"):
        for all_of_it in (False, True):
            marks = () if (action, all_of_it) == ("evaluate", False) else pytest.mark.slow
            yield pytest.param(
                action, all_of_it, marks=marks, id=f"{action}-{'all of it' if all_of_it else 'its runner'}"
            )


@pytest.mark.parametrize(("action", "all_of_it"), list(kills()))
def test_a_job_killed_in_the_middle(workspace, images, trained, exported, action, all_of_it):
    policy = "off" if action == "train" else None
    if action == "gen_trt_engine":
        workspace = Workspace(workspace.folder, program=WITH_STANDIN)
    job = workspace.create(action, overrides_for(action, images, trained, exported), automl_policy=policy)
    run = Path(job.run_dir)
    mark = "model_epoch_000_step_*.pth" if action == "train" else "status.json"
    job = caught_at_work(workspace, job, lambda: any(run.glob(mark)) and (run / "status.json").stat().st_size)
    os.kill(job.runner_pid, signal.SIGKILL)
    if all_of_it:
        os.killpg(job.action_pid, signal.SIGKILL)
    else:
        until(lambda: not is_alive(job.runner_pid, job.runner_start))
        assert workspace.get(job.id).status == "Running"  # its action lives, and has not ended yet
        os.killpg(job.action_pid, signal.SIGCONT)
    (job,) = workspace.wait([job.id], timeout=PATIENCE_S)
    assert job.status == "Error" and job.error.startswith("the process is gone") and "job resume" in job.error
    assert not is_alive(job.action_pid, job.action_start)
    # Killed outright it could say nothing more; else it heard that its runner was gone, and ended in order.
    assert status_lines(run)[-1]["status"] in (("STARTED", "RUNNING") if all_of_it else ("FAILURE",))
    with pytest.raises(RunError, match="is Error; expected one that is Complete"):
        workspace.create("evaluate", overrides_for("evaluate", images, trained, exported), parent_job_id=job.id)
    first = min(path.stat().st_mtime_ns for path in run.glob("model_epoch_000_*")) if action == "train" else 0
    workspace.resume(job.id)
    (job,) = workspace.wait([job.id], timeout=PATIENCE_S)
    assert (job.status, job.attempt, job.error) == ("Complete", 2, ""), "".join(workspace.log(job.id))[-3000:]
    assert status_lines(run)[-1]["status"] == "SUCCESS"
    assert not [path for path in run.rglob("*") if "partial" in path.name]
    if action == "train":  # it went on: the first epoch's checkpoint is the first attempt's
        assert min(path.stat().st_mtime_ns for path in run.glob("model_epoch_000_*")) == first
        assert {p.name[:15] for p in run.glob("model_epoch_*")} == {f"model_epoch_{n:03d}" for n in range(3)}
        assert [row["epoch"] for row in status_lines(run) if "epoch" in row][-1] == 2
    if action in ("train", "export", "gen_trt_engine", "quantize", "gen_engine"):
        assert workspace.model(job.id).stat().st_size > 0


@pytest.mark.slow
def test_a_search_killed_in_the_middle_and_its_trials(workspace, images):
    tiny = dict(word.split("=", 1) for word in TINY)
    tiny = {key: int(value) if value.isdigit() else value for key, value in tiny.items()}
    search = workspace.create("train", {
        **tiny, "dataset.train_dataset": str(images / "train"), "num_epochs": 2, "batch_size": 12, "automl.trials": 3,
        "dataset.validation.fraction": 0.4,
    }, automl_policy="auto")  # fmt: skip
    run = Path(search.run_dir)
    until(lambda: any((run / "trial_001").glob("status.json")))
    os.kill(workspace.store.get(search.id).runner_pid, signal.SIGKILL)
    (search,) = workspace.wait([search.id], timeout=PATIENCE_S)
    assert search.status == "Error" and search.error.startswith("the process is gone")
    trials = [job for job in workspace.jobs() if job.trial is not None]
    assert [job.id for job in trials] == [f"{search.id}.{n}" for n in range(len(trials))] and len(trials) >= 2
    assert {job.parent_job_id for job in trials} == {search.id}
    assert trials[0].status == "Complete" and all(job.status in ("Complete", "Error", "Paused") for job in trials)
    workspace.resume(search.id)
    (search,) = workspace.wait([search.id], timeout=PATIENCE_S)
    assert search.status == "Complete", "".join(workspace.log(search.id))[-3000:]
    trials = [job for job in workspace.jobs() if job.trial is not None]
    assert len(trials) == 3 and {job.status for job in trials} <= {"Complete", "Canceled"}
    best = json.loads((run / "search.json").read_text())["best"]
    assert workspace.model(search.id) == Path(best["folder"]) / "ml_model_best.pth"
    export = workspace.create("export", parent_job_id=search.id)
    other = workspace.create("evaluate", {"dataset.val_dataset.reference": str(images / "reference"),
                                          "dataset.val_dataset.query": str(images / "query")},
                             parent_job_id=f"{search.id}.0")  # fmt: skip
    export, other = workspace.wait([export.id, other.id], timeout=PATIENCE_S)
    assert (export.status, other.status) == ("Complete", "Complete"), (export.error, other.error)
    assert export.filled["export.checkpoint"] == str(Path(best["folder"]) / "ml_model_best.pth")
    assert other.filled["evaluate.checkpoint"] == str(run / "trial_000" / "ml_model_best.pth")
    assert any("val" in name for name in trials[0].figures) and "".join(workspace.log(trials[0].id))
    assert len(workspace.delete(search.id)) == 4 and not run.exists()


@pytest.mark.slow
def test_pause_cancel_and_resume_of_a_training(workspace, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = dict(word.split("=", 1) for word in TINY)
    tiny = {key: int(value) if value.isdigit() else value for key, value in tiny.items()}
    spec = {**tiny, "dataset.train_dataset": str(images / "train"), "num_epochs": 400, "batch_size": 12}
    job = create_job("train", spec, automl_policy="off", workspace=workspace.folder)
    run = Path(job.run_dir)
    until(lambda: list(run.glob("model_epoch_001_*.pth")))
    workspace.pause(job.id)
    (job,) = workspace.wait([job.id], timeout=PATIENCE_S)
    assert job.status == "Paused" and job.exit_code == 143, job
    reached = max(int(path.name[12:15]) for path in run.glob("model_epoch_*.pth"))
    workspace.resume(job.id)
    until(lambda: list(run.glob(f"model_epoch_{reached + 2:03d}_*.pth")))
    workspace.cancel(job.id)
    (job,) = workspace.wait([job.id], timeout=PATIENCE_S)
    assert job.status == "Canceled" and status_lines(run)[-1]["status"] == "FAILURE"
    epochs = [row["epoch"] for row in status_lines(run) if "epoch" in row]
    assert epochs.index(reached + 1) > 0 and epochs == sorted(epochs)  # gone on with, never begun anew
    assert workspace.delete(job.id) == [job.id] and not run.exists()
