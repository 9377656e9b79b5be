"""A stage's folder within a run: it writes there, and its status lines, facts and signals are the run's."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from unalike.errors import Interrupted
from unalike.runs.folder import open_run
from unalike.runs.run import Run
from unalike.runs.subrun import Subrun


class Spec(SimpleNamespace):
    def to_yaml(self, *, redacted: bool = False) -> str:
        return f"name: {self.name}\n"


def spec(folder: Path, name: str) -> Spec:
    return Spec(name=name, results_dir=str(folder), train=SimpleNamespace(results_dir=None, seed=7))


def test_a_subrun_writes_into_its_folder_and_reports_to_its_run(tmp_path: Path) -> None:
    with open_run("train", spec(tmp_path, "whole")) as run:
        stage = Subrun(run, run.dir / "fine_tuning")
        assert isinstance(stage, Run) and (stage.action, stage.rank, stage.resuming) == ("train", 0, False)
        stage.write_experiment(spec(tmp_path, "stage"))
        stage.own(stage.dir / "a.npz")
        stage.record(device="cpu")
        stage.status("RUNNING", "epoch 1", epoch=1)
        stage.conclude("trained", {"a": 1.0})
    assert (run.dir / "experiment.yaml").read_text() == "name: whole\n"
    assert {path.name for path in stage.dir.iterdir()} == {"experiment.yaml"}
    lines = [json.loads(line) for line in (run.dir / "status.json").read_text().splitlines()]
    assert [line["message"] for line in lines] == ["train started", "epoch 1", "trained"]
    record = json.loads((run.dir / "run.json").read_text())
    assert record["device"] == "cpu" and record["files"] == []


def test_a_signal_stops_the_subrun(tmp_path: Path) -> None:
    with (
        pytest.raises(Interrupted, match="stopped by SIGTERM; saved"),
        open_run("train", spec(tmp_path, "whole")) as run,
    ):
        stage = Subrun(run, run.dir / "fine_tuning")
        stage.stop()  # nothing asked for it
        with stage.graceful():
            # Not raised: with another test's handlers in this process it could end the process.
            run._on_signal(signal.SIGTERM, None)
            assert stage.stop_requested() == signal.SIGTERM
        stage.stop("saved")
