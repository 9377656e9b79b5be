"""Where the trials of a search run: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from unalike.errors import DeviceError, missing_extra
from unalike.progress import say
from unalike.runs.filenames import RECORD_FILE, STATUS_FILE, TRIAL_LOG_FILE
from unalike.training.checkpoints import newest_checkpoint
from unalike.training.search.study import Plan
from unalike.training.search.trial import Ending, Job, StatusTail


def open_places(plan: Plan) -> tuple[list[Place], Plan]:
    """The places of a search, and its plan with what follows for the trials from how many there are."""
    from unalike.data.training.pixel_cache import free_memory_gb

    experiment, base = plan.terms.experiment, plan.terms.base
    automl = experiment.automl
    if automl.cluster == "ray":
        return _ray_places(plan)
    import torch

    gpus = visible_gpus()
    concurrent = automl.concurrent
    if gpus and concurrent is None and experiment.is_set("train.gpu_ids"):
        concurrent = 1  # the user said which ones
    environments = cut_devices(base, concurrent, gpus=gpus, threads=torch.get_num_threads())
    terms = plan.terms
    if len(environments) > 1:
        cache = round(free_memory_gb() / 2 / len(environments), 3)
        terms = replace(terms, cache_gb=cache, device_indices=not gpus)
        say(f"{len(environments)} trials at a time")
    return [LocalPlace(environment) for environment in environments], replace(plan, terms=terms)


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, by the names that CUDA_VISIBLE_DEVICES knows them by."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return named or [str(i) for i in range(torch.cuda.device_count())]


# ---- Ray ----


def _train_there(words: list[str], folder: str) -> int:
    """Runs on a machine of the cluster: the trial's process, its output in the trial's folder; the exit code.

    The interpreter is this worker's: the cluster's machines need not have the search's at the same path, and what is first
    on their PATH need not be the one that unalike is installed in.
    """
    with open(Path(folder) / TRIAL_LOG_FILE, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            return process.wait()
        except (KeyboardInterrupt, SystemExit):  # ray.cancel raises KeyboardInterrupt here: the trial saves and ends
            process.terminate()
            try:
                return process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()


class RayPlace:
    """One trial at a time on whichever machine of the cluster has room for it."""

    def __init__(self, ray: Any, options: dict[str, Any]) -> None:
        self.ray, self.task = ray, ray.remote(_train_there).options(**options)
        self.reference: Any = None
        self.folder = Path()

    def start(self, job: Job) -> None:
        self.folder = job.folder
        self.reference = self.task.remote(command(job)[1:], str(job.folder))

    def poll(self) -> Ending | None:
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return ending(self.folder, int(self.ray.get(self.reference)))
        except self.ray.exceptions.TaskCancelledError:
            return Ending(False, "stopped")
        except self.ray.exceptions.RayError as error:
            return Ending(False, " ".join(str(error).split())[:300])

    def stop(self) -> None:
        if self.reference is not None:
            self.ray.cancel(self.reference, force=False)

    def close(self) -> None:
        if self.reference is not None and self.poll() is None:
            self.stop()
            self.ray.wait([self.reference], timeout=40)


def _join(ray: Any, address: str | None) -> None:
    """Join a cluster, or start one on this machine that holds nothing but tasks."""
    alone: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **alone)
    except Exception as error:  # Ray raises bare ones when a node does not come up in time
        where = f"at {address}" if address else "could be started on this machine"
        raise DeviceError(f"no Ray cluster {where}: {' '.join(str(error).split())[:200]}",
                          remedy="start one with `ray start --head` and name it in automl.address, or leave "
                          "automl.cluster out") from error  # fmt: skip


def _ray_places(plan: Plan) -> tuple[list[Place], Plan]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing phones home
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray", "cluster", "automl.cluster: ray") from error
    automl, base = plan.terms.experiment.automl, plan.terms.base
    if not ray.is_initialized():
        _join(ray, automl.address)
    there = ray.cluster_resources()
    gpus, each = int(there.get("GPU", 0)), max(1, base.train.num_gpus)
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    count = automl.concurrent or (max(1, gpus // each) if gpus else nodes)
    cpus = max(1, int(there.get("CPU", 1)) // max(count, 1))
    options: dict[str, Any] = {"num_cpus": cpus, "max_retries": 0}
    if gpus:
        options["num_gpus"] = each
    options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(cpus)}} if not gpus else {}
    say(f"Ray cluster of {nodes} machines: {count} trials at a time")
    places: Sequence[Place] = [RayPlace(ray, options) for _ in range(count)]
    return list(places), replace(plan, terms=replace(plan.terms, device_indices=not gpus))


class Place(Protocol):
    """Where one trial at a time is trained."""

    def start(self, job: Job) -> None:
        """Begin; at once back."""

    def poll(self) -> Ending | None:
        """None while the trial goes on."""

    def stop(self) -> None:
        """Ask the trial to save and end."""

    def close(self) -> None:
        """End whatever still runs."""


def can_resume(folder: Path) -> bool:
    """Whether a trial's folder holds a checkpoint to go on from."""
    from unalike.errors import WeightsError

    try:
        return newest_checkpoint(folder).exists()
    except WeightsError:
        return False


def command(job: Job) -> list[str]:
    """The command line of a trial; the process ends itself when the search does (``unalike.cli.child_trial``)."""
    words = [sys.executable, "-m", "unalike.cli.child_trial", "train", "-e", str(job.spec)]
    if job.resume and can_resume(job.folder):
        return [*words, "--resume"]
    old = (job.folder / RECORD_FILE).exists()
    (job.folder / STATUS_FILE).unlink(missing_ok=True)  # or an earlier trial's figures would be taken for this one's
    return [*words, "--overwrite"] if old else words


def ending(folder: Path, code: int) -> Ending:
    """What an exit code and the folder's last line say."""
    if code == 0:
        return Ending(True)
    tail = StatusTail(folder)
    tail.validations()
    if tail.last.get("status") == "FAILURE":
        return Ending(False, str(tail.last.get("message", "")))
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (the machine may have run out of memory)" if -code == 9 else ""
        return Ending(False, f"the process was ended by {name}{hint}")
    try:
        lines = (folder / TRIAL_LOG_FILE).read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return Ending(False, (lines[-1] if lines else f"exit code {code}").removeprefix("error: "))


class LocalPlace:
    """A process on this machine, with the devices and threads that ``environment`` gives it."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = Path()

    def start(self, job: Job) -> None:
        self.folder = job.folder
        words = command(job)
        with open(job.folder / TRIAL_LOG_FILE, "ab") as log:
            # A session of its own: Ctrl-C is for the search, which then tells its trials.
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                            env={**os.environ, **self.environment}, start_new_session=True)  # fmt: skip

    def poll(self) -> Ending | None:
        code = self.process.poll() if self.process is not None else None
        return None if code is None else ending(self.folder, code)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def close(self, patience: float = 10.0) -> None:
        if self.process is None:
            return
        self.stop()
        until = time.monotonic() + patience
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def cut_devices(base: Any, concurrent: int | None, *, gpus: list[str], threads: int) -> list[dict[str, str]]:
    """The environment of each place: its own GPUs, or its share of the threads; a single place sees everything.

    ``gpus`` are the device names that this process sees; a trial takes ``train.num_gpus`` of them.
    """
    each = max(1, base.train.num_gpus)
    if gpus:
        groups = [gpus[i : i + each] for i in range(0, len(gpus) - each + 1, each)] or [gpus]
        count = concurrent or len(groups)
        if count == 1:
            return [{}]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(groups[i % len(groups)])} for i in range(count)]
    count = concurrent or 1
    if count == 1:
        return [{}]
    share = str(max(1, threads // count))
    return [{"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share} for _ in range(count)]
