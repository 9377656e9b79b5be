"""One training on the workers of a Ray cluster: Ray Train places and restarts them, each runs the process of one rank.

A worker's process is the command line with the variables that torchrun would set, so that a training on Ray is the training
that torchrun and srun start. Its lines come back through an actor, which also carries the signal to stop.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import yaml

from unalike.errors import DeviceError, Interrupted, RunError, SpecError
from unalike.progress import say, verbosity, warn
from unalike.runs.failures import signal_name
from unalike.runs.filenames import RECORD_FILE
from unalike.runs.lock import release_lock
from unalike.runs.processes import child_command
from unalike.runs.ray_cluster import connect_ray, worker_resources
from unalike.storage.downloads import VARIABLE
from unalike.storage.filesystems import uri_of
from unalike.telemetry import disable_telemetry

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Times that Ray starts all workers anew after one of them died.
MAX_RESTARTS = 3
POLL_S = 0.2
# Seconds without a worker after which the user is told what is waited for.
PATIENCE_S = 60.0
# Seconds that a process has to save a checkpoint after it was asked to stop.
STOP_S = 120.0
# Last lines of a process, which say why it failed.
TAIL_LINES = 20
RAY_FOLDER = "ray-train"
_ERROR = "error: "
_UNEXPECTED = "(unexpected; "


@dataclass
class Order:
    """What a worker does.

    Attributes:
        spec: the fields that the user set, as YAML.
        folder: the results folder, which all machines see.
        cwd: the folder that relative paths start from, which all machines see.
        resume, overwrite: the options of the command, for the first start.
        threads: CPU threads of a process; 0 leaves them to torch.
        variables: environment variables of the command that its processes get too.
        verbosity: of the first process.
    """

    spec: str
    folder: str
    cwd: str
    resume: bool
    overwrite: bool
    threads: int = 0
    variables: dict[str, str] = field(default_factory=dict)
    verbosity: int = 1


class Messages:
    """The class of the actor between the command and its workers.

    The command asks it for lines and failures, and tells it which signal to stop by; the workers do the opposite.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._failure: dict[str, Any] | None = None
        self._starts, self._signal = 0, 0

    def begin(self) -> int:
        """Count a start of the workers; returns the starts before this one."""
        self._starts += 1
        return self._starts - 1

    def exchange(self, lines: list[str]) -> int:
        """Take lines of the first process; returns the signal to stop by: 0, SIGTERM, or SIGKILL after a failure."""
        self._lines += lines
        return signal.SIGKILL if self._failure is not None else self._signal

    def fail(self, failure: dict[str, Any]) -> None:
        """Keep the first failure that a restart would not mend."""
        self._failure = self._failure or failure

    def stop(self) -> None:
        """Ask all processes to save and end. By SIGTERM: processes that a worker of Ray starts ignore SIGINT, as it does."""
        self._signal = signal.SIGTERM

    def take(self) -> tuple[list[str], int]:
        """The lines since the last call, and the number of starts."""
        lines, self._lines = self._lines, []
        return lines, self._starts

    def failure(self) -> dict[str, Any] | None:
        """The failure: ``code``, ``message``, ``host`` and ``rank`` of the process."""
        return self._failure


# ---- the command ----


def train_on_ray(experiment: Experiment, folder: Path, *, resume: bool, overwrite: bool) -> Mapping[str, Any]:
    """Train on the workers of a Ray cluster.

    Args:
        experiment: the spec; ``train.address`` and ``train.workers`` name the cluster and the number of processes.
        folder: the results folder; all machines see it under this name.
        resume: continue the training that the folder holds.
        overwrite: delete what a former training wrote there.

    Returns:
        The result of the training's first process, as ``--json`` prints it: ``results_dir``, ``path``, ``figures``.

    Raises:
        MissingExtra: Ray is not installed.
        DeviceError: there is no cluster, it is too small, or a worker died more often than it is restarted.
        SpecError: several processes cannot share what the spec asks for.
        UnalikeError: a process failed.
        Interrupted: a signal asked to stop; a checkpoint was saved.
    """
    train = experiment.train
    ray = connect_ray(train.address, section="train", modules=("ray", "ray.util.scheduling_strategies", "ray.train"))
    count, resources = worker_resources(ray, _asked_workers(experiment), section="train")
    if resources.get("num_gpus", 1) < 1:
        raise DeviceError(f"{count} workers on {int(ray.cluster_resources()['GPU'])} GPUs of the cluster",
                          expected="at least one GPU a worker", remedy="set train.workers, or add machines")  # fmt: skip
    _refuse_lone_work(experiment, count)
    folder = folder.absolute()
    order = Order(
        _worker_spec(experiment, count, folder), str(folder), os.getcwd(), resume, overwrite,
        threads=0 if "num_gpus" in resources else int(resources["num_cpus"]),
        variables={VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}, verbosity=verbosity(),
    )  # fmt: skip
    say(f"Ray: {count} workers with {_describe(resources)} each")
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    messages = ray.remote(Messages).options(num_cpus=0, scheduling_strategy=here).remote()
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = _make_trainer(ray, order, messages, count, resources)
    try:
        return _follow(ray, messages, trainer, count)
    finally:
        shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)


def _asked_workers(experiment: Experiment) -> int | None:
    """The number of processes that the spec asks for; None: as many as the cluster has GPUs, or machines without GPUs."""
    train = experiment.train
    if train.workers is not None:
        return train.workers
    if experiment.is_set("train.num_gpus") or experiment.is_set("train.num_nodes"):
        return train.num_gpus * train.num_nodes
    return None


def _refuse_lone_work(experiment: Experiment, count: int) -> None:
    """Raise SpecError for what one process alone does."""
    if count == 1:
        return
    searches = experiment.automl.requests_search() and experiment.policy() == "auto"
    what = "a search" if searches else "training without labels" if experiment.dataset.labels == "none" else ""
    if what:
        remedy = "automl.cluster=ray runs its trials on a cluster" if searches else "leave --cluster out"
        raise SpecError(f"{what} with train.cluster: ray and {count} workers", expected="one worker", remedy=remedy)
    if uri := uri_of(str(experiment.train.results_dir or experiment.results_dir or "")):
        raise SpecError(f"the results folder of a training on Ray is {uri}", expected="a folder that all machines see",
                        remedy="choose one with --results-dir, and copy it afterwards")  # fmt: skip


def _worker_spec(experiment: Experiment, count: int, folder: Path) -> str:
    """What the user set, as a spec in YAML for one process with one device on each of ``count`` workers."""
    values = experiment.set_values()
    train = values.setdefault("train", {})
    for name in ("gpu_ids", "workers"):
        train.pop(name, None)
    train |= {"num_gpus": 1, "num_nodes": count, "workers": count, "cluster": "ray", "results_dir": str(folder)}
    train["recipe"] = experiment.train.recipe
    values["automl_policy"] = experiment.policy()
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _describe(resources: Mapping[str, Any]) -> str:
    cores = int(resources["num_cpus"])
    text = f"{cores} core{'s' * (cores > 1)}"
    return f"{text} and {resources['num_gpus']:g} GPU" if "num_gpus" in resources else text


def _make_trainer(ray: ModuleType, order: Order, messages: Any, count: int, resources: Mapping[str, Any]) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    shares = {"CPU": resources["num_cpus"], **({"GPU": resources["num_gpus"]} if "num_gpus" in resources else {})}
    # The workers' own process group is not used: their processes have another one.
    return TorchTrainer(
        run_worker, torch_config=TorchConfig(backend="gloo"), train_loop_config={"order": asdict(order), "messages": messages},
        scaling_config=ScalingConfig(num_workers=count, use_gpu="num_gpus" in resources, resources_per_worker=shares),
        run_config=RunConfig(name=RAY_FOLDER, storage_path=order.folder,
                             failure_config=FailureConfig(max_failures=MAX_RESTARTS)),
    )  # fmt: skip


def _follow(ray: ModuleType, messages: Any, trainer: Any, count: int) -> Mapping[str, Any]:
    """Run the trainer in a thread, show the lines of the first process, and pass signals on."""
    outcome: dict[str, Any] = {}
    is_over = threading.Event()  # not Thread.join, which takes a thread for ended where a signal interrupts it

    def fit() -> None:
        try:
            outcome["result"] = trainer.fit()
        except Exception as error:  # noqa: BLE001  raised below, in the main thread
            outcome["error"] = error
        finally:
            is_over.set()

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    start, starts, signal_number = time.monotonic(), 0, 0
    while True:
        try:
            has_ended = is_over.wait(POLL_S)
            lines, now = ray.get(messages.take.remote())
            for text in lines:
                print(text, file=sys.stderr, flush=True)
            if now > starts:
                if starts:
                    say(
                        f"Ray: a worker died; all {count} start again from the last checkpoint ({now - 1} of {MAX_RESTARTS})"
                    )
                starts = now
            elif not starts and time.monotonic() - start > PATIENCE_S:
                warn(f"Ray: still waiting for {count} workers; they start when the cluster has room for all of them")
            if has_ended:
                break
        except KeyboardInterrupt as error:
            if signal_number:
                raise  # the second one stops at once
            signal_number = getattr(error, "signal_number", signal.SIGINT)
            messages.stop.remote()
            say("Ray: all workers save a checkpoint and stop (once more: stop at once)")
    _raise_failure(ray.get(messages.failure.remote()), signal_number)
    if "error" in outcome:
        text = " ".join(str(outcome["error"]).split())[-300:]
        raise DeviceError(f"a worker of the Ray cluster failed: {text}",
                          remedy="run the command again with --resume; it goes on from the last checkpoint") from outcome["error"]  # fmt: skip
    result: Mapping[str, Any] = json.loads(outcome["result"].return_value)
    return result


def _raise_failure(failure: Mapping[str, Any] | None, signal_number: int) -> None:
    """Raise the error of the process that failed first, if one did."""
    if failure is None:
        return
    code, message = int(failure["code"]), str(failure["message"])
    if signal_number or code > 128:
        number = signal_number or code - 128
        raise Interrupted(number, message.replace(signal_name(signal.SIGTERM), signal_name(number)))
    where = f" (process {failure['rank']}, on {failure['host']})" if failure["rank"] else ""
    kinds = {SpecError.exit_code: SpecError}
    raise kinds.get(code, RunError)(f"{message}{where}")


# ---- a worker ----


def run_worker(config: Mapping[str, Any]) -> str | None:
    """Run the process of this worker's rank; called by Ray Train on each worker.

    Returns:
        What the process of rank 0 printed, None on the other ranks and where a failure was told to ``messages``.

    Raises:
        DeviceError: the process died, and may live longer if all workers are started anew.
    """
    import ray
    from ray import train as ray_train
    from ray.train.collective import broadcast_from_rank_zero

    disable_telemetry()
    order, messages = Order(**config["order"]), config["messages"]
    rank, world = ray_train.get_context().get_world_rank(), ray_train.get_context().get_world_size()
    own = {"address": ray.util.get_node_ip_address(), "port": _free_port(),
           "starts": ray.get(messages.begin.remote())} if rank == 0 else None  # fmt: skip
    meeting = broadcast_from_rank_zero(own)
    if not os.path.isdir(order.cwd):
        _tell(
            ray, messages, rank, 2, f"the folder {order.cwd}, in which the command was started, is not on this machine"
        )
        return None
    is_restart = meeting["starts"] > 0
    if is_restart and rank == 0:
        release_lock(Path(order.folder))  # its process died with the former workers
    environment = process_environment(rank, world, meeting["address"], meeting["port"], order)
    with tempfile.TemporaryDirectory(prefix="unalike-ray-") as scratch:
        spec = Path(scratch, "spec.yaml")
        spec.write_text(order.spec, encoding="utf-8")
        with _start_process(process_command(order, spec, is_restart=is_restart), order.cwd, environment) as process:
            output, tail = _watch(ray, messages, process, rank)
    code = process.returncode
    if code == 0:
        return output if rank == 0 else None
    message = next((text.removeprefix(_ERROR) for text in reversed(tail) if text.startswith(_ERROR)), "")
    if code > 0 and message and _UNEXPECTED not in message:
        _tell(ray, messages, rank, code, message)
        return None
    if ray.get(messages.exchange.remote([])):
        return None  # it was ended since another one failed
    if code < 0:
        message = f"the process was ended by {signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
    raise DeviceError(f"process {rank} on {socket.gethostname()}: {message or f'exit code {code}'}")


def process_command(order: Order, spec: Path, *, is_restart: bool) -> list[str]:
    """The command line of a process; after a restart it goes on from the last checkpoint."""
    resume = order.resume or (is_restart and Path(order.folder, RECORD_FILE).exists())
    options = {"--resume": resume, "--overwrite": order.overwrite and not resume}
    options |= {"-v": order.verbosity > 1, "-q": order.verbosity < 1}
    return [
        *child_command(grace_s=0),
        "train",
        "-e",
        str(spec),
        "--json",
        *(name for name, is_on in options.items() if is_on),
    ]


def process_environment(rank: int, world: int, address: str, port: int, order: Order) -> dict[str, str]:
    """The variables of a process of one worker, as torchrun sets them on a machine with one process."""
    own = {
        "RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "GROUP_RANK": rank, "NODE_RANK": rank,
        "GROUP_WORLD_SIZE": world, "MASTER_ADDR": address, "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "ray",
    }  # fmt: skip
    threads = {"OMP_NUM_THREADS": str(order.threads)} if order.threads else {}
    return {**os.environ, **threads, **order.variables, **{name: str(value) for name, value in own.items()}}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _tell(ray: ModuleType, messages: Any, rank: int, code: int, message: str) -> None:
    ray.get(messages.fail.remote({"rank": rank, "code": code, "message": message, "host": socket.gethostname()}))


@contextlib.contextmanager
def _start_process(command: list[str], cwd: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a process, which ends at the latest with this one."""
    command = [sys.executable, *command[1:]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", cwd=cwd, env=environment) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _watch(ray: ModuleType, messages: Any, process: subprocess.Popen[str], rank: int) -> tuple[str, deque[str]]:
    """Wait for the end of a process; returns its standard output and the last lines of its standard error."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    new: deque[str] = deque()
    output: list[str] = []

    def read_lines(stream: IO[str]) -> None:
        for text in stream:
            tail.append(text.rstrip("\n"))
            new.append(text.rstrip("\n"))

    assert process.stdout is not None and process.stderr is not None
    readers = [threading.Thread(target=read_lines, args=(process.stderr,), daemon=True),
               threading.Thread(target=lambda stream: output.extend(stream), args=(process.stdout,), daemon=True)]  # fmt: skip
    for reader in readers:
        reader.start()
    deadline = float("inf")
    while True:
        is_over = process.poll() is not None
        if is_over:
            for reader in readers:
                reader.join()
        lines = [new.popleft() for _ in range(len(new))]
        visible = [text for text in lines if not text.startswith(_ERROR)] if rank == 0 else []
        number = ray.get(messages.exchange.remote(visible))
        if is_over:
            return "".join(output), tail
        if number and deadline == float("inf"):
            process.send_signal(number)
            deadline = time.monotonic() + STOP_S
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(POLL_S)
