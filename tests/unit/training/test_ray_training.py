"""The processes of a training on Ray; with Ray itself: tests/flow/test_launched_training.py."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from unalike.errors import DeviceError, Interrupted, RunError, SpecError
from unalike.spec import load_spec
from unalike.training import ray_training
from unalike.training.ray_training import Messages, Order, process_command, process_environment, run_worker

# ---- what a process is given ----


def order(tmp_path: Path, **fields: Any) -> Order:
    return Order(**{"spec": "model: {}\n", "folder": str(tmp_path / "run"), "cwd": str(tmp_path), "resume": False,
                    "overwrite": False, **fields})  # fmt: skip


def test_a_process_gets_the_variables_of_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "7")
    variables = process_environment(2, 4, "10.0.0.1", 1234, order(tmp_path, threads=3, variables={"A": "b"}))
    wanted = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "2",
              "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234", "OMP_NUM_THREADS": "3", "A": "b"}  # fmt: skip
    assert wanted.items() <= variables.items() and "TORCHELASTIC_RUN_ID" in variables
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert process_environment(0, 1, "here", 1, order(tmp_path))["OMP_NUM_THREADS"] == "5", (
        "threads of GPU workers stay"
    )


def test_fabric_and_the_ranks_of_runs_read_these_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    from unalike.runs.environment import is_torchrun_process, process_count, process_rank
    from unalike.training.devices import launched_processes

    assert not is_torchrun_process()
    for name, value in process_environment(2, 4, "10.0.0.1", 1234, order(tmp_path)).items():
        monkeypatch.setenv(name, value)
    environment = TorchElasticEnvironment()
    assert TorchElasticEnvironment.detect() and is_torchrun_process()
    assert (environment.global_rank(), environment.world_size(), environment.local_rank()) == (2, 4, 0)
    assert (environment.main_address, environment.main_port, environment.node_rank()) == ("10.0.0.1", 1234, 2)
    environment.validate_settings(num_devices=1, num_nodes=4)
    assert (process_rank(), process_count(), launched_processes(4)) == (2, 4, 1)


def test_the_spec_of_a_process_is_what_the_user_set(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    experiment = load_spec("train", None, [
        ("train.num_epochs", 3), ("train.num_gpus", 2), ("train.num_nodes", 2), ("train.gpu_ids", [0, 1]), ("train.cluster", "ray"),
        ("dataset.validation.by", "none"), ("automl_policy", "off"), ("train.address", "10.0.0.1:6379"),
    ], data=images)  # fmt: skip
    assert ray_training._asked_workers(experiment) == 4
    text = ray_training._worker_spec(experiment, 4, tmp_path / "run")
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    own = load_spec("train", str(spec), [])
    for path in ("train.num_epochs", "dataset.validation", "dataset.train_dataset", "automl_policy", "train.recipe"):
        section, _, name = path.partition(".")
        values = [getattr(getattr(e, section), name) if name else getattr(e, section) for e in (experiment, own)]
        assert values[0] == values[1], path
    train = own.train
    assert (train.num_nodes, train.num_gpus, train.workers, train.results_dir) == (4, 1, 4, str(tmp_path / "run"))
    assert not own.is_set("train.batch_size") and not own.is_set("train.gpu_ids") and own.is_set("train.num_epochs")


@pytest.mark.parametrize(
    ("values", "workers"),
    [
        ({}, None),
        ({"train.workers": 3, "train.num_gpus": 2}, 3),
        ({"train.num_gpus": 2}, 2),
        ({"train.num_nodes": 5}, 5),
    ],
)
def test_workers_are_named_or_follow_from_nodes_and_gpus(values: dict[str, Any], workers: int | None) -> None:
    experiment = load_spec("train", None, [("train.cluster", "ray"), *values.items()])
    assert ray_training._asked_workers(experiment) == workers


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"dataset.labels": "none"},
            "training without labels with train.cluster: ray and 2 workers; expected one worker",
        ),
        ({"automl.trials": 3, "automl_policy": "auto"}, "a search with .*automl.cluster=ray runs its trials"),
        ({"results_dir": "s3://shop/run"}, "s3://shop/run.*a folder that all machines see"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(values: dict[str, Any], text: str) -> None:
    experiment = load_spec("train", None, [("train.cluster", "ray"), *values.items()])
    with pytest.raises(SpecError, match=text):
        ray_training._refuse_lone_work(experiment, 2)
    ray_training._refuse_lone_work(load_spec("train", None, [("dataset.labels", "none")]), 1)


def test_a_restart_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def options(is_restart: bool, **fields: Any) -> list[str]:
        words = process_command(order(tmp_path, **fields), tmp_path / "spec.yaml", is_restart=is_restart)
        return words[words.index("--json") + 1 :]

    assert options(False, overwrite=True) == ["--overwrite"]
    assert options(True, overwrite=True) == ["--overwrite"], "nothing was written yet"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    assert options(True, overwrite=True) == ["--resume"] and options(False) == []
    assert options(False, resume=True, verbosity=2) == ["--resume", "-v"] and options(False, verbosity=0) == ["-q"]


# ---- a worker, with a process that is a small script ----


class Handle:
    """An actor whose methods are called at once."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.actor, name))


def worker(monkeypatch: pytest.MonkeyPatch, rank: int = 0, world: int = 2, starts: int = 0) -> None:
    """Let ``run_worker`` find a Ray of which it is one worker."""

    def broadcast(value: Any) -> Any:
        return value or {"address": "127.0.0.1", "port": 1, "starts": starts}

    context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: world)
    train: Any = ModuleType("ray.train")
    train.get_context, train.collective = (lambda: context), SimpleNamespace(broadcast_from_rank_zero=broadcast)
    ray: Any = ModuleType("ray")
    ray.train, ray.get, ray.util = (
        train,
        (lambda value: value),
        SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"),
    )
    for name, module in {"ray": ray, "ray.train": train, "ray.train.collective": train.collective}.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str | None, Messages]]:
    """Run a worker whose process is a script."""

    def run_script(
        script: str, messages: Messages | None = None, rank: int = 0, **fields: Any
    ) -> tuple[str | None, Messages]:
        worker(monkeypatch, rank=rank)
        monkeypatch.setattr(ray_training, "process_command", lambda *a, **o: ["python", "-c", script])
        monkeypatch.setattr(ray_training, "POLL_S", 0.01)
        messages = messages or Messages()
        return run_worker({"order": asdict(order(tmp_path, **fields)), "messages": Handle(messages)}), messages

    return run_script


def test_rank_0_gives_its_result_and_its_lines(run: Callable[..., Any]) -> None:
    script = "import os, sys; print('{\"a\": 1}'); print('line', os.environ['RANK'], file=sys.stderr)"
    result, messages = run(script)
    assert json.loads(result) == {"a": 1} and messages.take() == (["line 0"], 1) and messages.failure() is None
    result, messages = run(script, rank=1)
    assert result is None and messages.take() == ([], 0), "others are silent"


def test_an_error_of_a_user_is_told_and_not_tried_again(run: Callable[..., Any]) -> None:
    result, messages = run("import sys; print('error: no images', file=sys.stderr); sys.exit(2)", rank=1)
    failure = messages.failure()
    assert result is None and (failure["rank"], failure["code"], failure["message"]) == (1, 2, "no images")
    assert messages.exchange([]) == signal.SIGKILL, "the other processes end too"
    with pytest.raises(SpecError, match=r"no images \(process 1, on "):
        ray_training._raise_failure(failure, 0)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (
            "import os; os.kill(os.getpid(), 9)",
            r"process 0 on .*: the process was ended by SIGKILL \(out of memory\?\)",
        ),
        (
            "import sys; print('error: RuntimeError: x (unexpected; traceback: y)', file=sys.stderr); sys.exit(1)",
            "RuntimeError: x",
        ),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_process_that_died_is_tried_again(run: Callable[..., Any], script: str, text: str) -> None:
    messages = Messages()
    with pytest.raises(DeviceError, match=text):
        run(script, messages)
    assert messages.failure() is None


def test_a_process_ends_where_another_one_failed(run: Callable[..., Any]) -> None:
    messages = Messages()
    messages.fail({"rank": 1, "code": 1, "message": "first", "host": "there"})
    messages.fail({"rank": 0, "code": 1, "message": "second", "host": "here"})
    assert run("import time; time.sleep(60)", messages)[0] is None
    failure = messages.failure()
    assert failure is not None and failure["message"] == "first"


def test_a_signal_reaches_the_process_which_saves_and_ends(run: Callable[..., Any], tmp_path: Path) -> None:
    class Stopping(Messages):
        def exchange(self, lines: list[str]) -> int:
            if (tmp_path / "ready").exists():
                self.stop()
            return super().exchange(lines)

    messages = Stopping()
    script = (
        "import pathlib, signal, sys, time\n"
        "def end(number, frame):\n"
        "    print('error: stopped by SIGTERM; the checkpoint is saved', file=sys.stderr)\n"
        "    sys.exit(128 + number)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(60)\n"
    )
    result, _ = run(script, messages)
    failure = messages.failure()
    assert result is None and failure is not None and failure["code"] == 143
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
        with pytest.raises(Interrupted, match=f"stopped by {name}; the checkpoint is saved") as caught:
            ray_training._raise_failure(failure, number)
        assert caught.value.exit_code == 128 + number


def test_a_machine_without_the_folder_of_the_command_says_so(run: Callable[..., Any], tmp_path: Path) -> None:
    result, messages = run("raise SystemExit(9)", cwd=str(tmp_path / "elsewhere"))
    failure = messages.failure()
    assert result is None and failure is not None
    assert "elsewhere, in which the command was started, is not on this machine" in failure["message"]


def test_a_restart_releases_the_lock_of_the_process_that_died(tmp_path: Path, run: Callable[..., Any]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    from unalike.runs.filenames import LOCK_FILE

    (folder / LOCK_FILE).write_text("{}")
    messages = Messages()
    run("pass", messages)
    assert (folder / LOCK_FILE).exists(), "at the first start it may be somebody else's"
    run("pass", messages)
    assert not (folder / LOCK_FILE).exists()


def test_no_failure_is_no_error() -> None:
    ray_training._raise_failure(None, 0)
    with pytest.raises(RunError, match="^broken$"):
        ray_training._raise_failure({"rank": 0, "code": 1, "message": "broken", "host": "here"}, 0)
