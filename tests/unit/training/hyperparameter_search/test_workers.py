"""Workers: a trial's process, how it ended, and how devices are divided. Ray is tested in tests/flow/test_searching.py."""

from __future__ import annotations

import json
import signal
import sys
import time

from unalike.spec import load_spec
from unalike.training.hyperparameter_search import workers
from unalike.training.hyperparameter_search.trial import TrialExit, TrialJob
from unalike.training.hyperparameter_search.workers import LocalWorker, read_exit, split_devices


def test_a_failed_process_has_a_reason(tmp_path):
    assert read_exit(tmp_path, 0).ok
    assert "SIGKILL" in read_exit(tmp_path, -9).reason and "memory" in read_exit(tmp_path, -9).reason
    (tmp_path / "train.log").write_text("settled\nerror: no spec file x\n")
    assert read_exit(tmp_path, 2).reason == "no spec file x"
    (tmp_path / "status.json").write_text(json.dumps({"status": "FAILURE", "message": "the loss is nan"}) + "\n")
    assert read_exit(tmp_path, 1).reason == "the loss is nan"


def test_a_local_worker_runs_stops_and_closes_a_process(tmp_path, monkeypatch):
    def start(program):
        monkeypatch.setattr(workers, "trial_command", lambda job: [sys.executable, "-S", "-c", program])
        worker = LocalWorker({"WHERE": "here"})
        worker.start(TrialJob(0, tmp_path, tmp_path, {}))
        return worker

    def wait(worker):
        while (exit_ := worker.poll()) is None:
            time.sleep(0.01)
        return exit_

    def wait_for_output(text):
        while text not in (tmp_path / "train.log").read_text():
            time.sleep(0.01)

    worker = start("import os, sys; print(os.environ['WHERE']); sys.exit(3)")
    assert wait(worker) == TrialExit(False, "here")
    worker.close()
    worker = start("import os; print('up', flush=True); os.read(0, 1)")
    wait_for_output("up")
    assert worker.poll() is None
    worker.stop()
    assert "SIGTERM" in wait(worker).reason
    worker.close()
    worker = start(
        "import signal, os; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); os.read(0, 1)"
    )
    wait_for_output("deaf")
    worker.close(patience=0.1)
    assert worker.process.returncode == -signal.SIGKILL


def test_gpus_and_threads_are_divided():
    def variables(name, *arguments, **options):
        return [environment[name] for environment in split_devices(base, *arguments, **options)]

    base = load_spec("train", {})
    assert split_devices(base, None, gpus=[], threads=8) == [{}]
    assert variables("OMP_NUM_THREADS", 3, gpus=[], threads=8) == ["2", "2", "2"]
    assert variables("CUDA_VISIBLE_DEVICES", None, gpus=["0", "2", "5"], threads=8) == ["0", "2", "5"]
    assert split_devices(base, 1, gpus=["0", "1"], threads=8) == [{}]
    base.train.num_gpus = 2
    assert variables("CUDA_VISIBLE_DEVICES", None, gpus=list("01234"), threads=8) == ["0,1", "2,3"]
