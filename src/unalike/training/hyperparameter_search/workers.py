"""Workers that train the trials of a search: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from unalike.errors import WeightsError
from unalike.progress import say
from unalike.runs.filenames import RECORD_FILE, STATUS_FILE, TRIAL_LOG_FILE
from unalike.runs.processes import child_command
from unalike.runs.ray_cluster import connect_ray
from unalike.training.checkpoints import newest_checkpoint
from unalike.training.hyperparameter_search.study import SearchPlan
from unalike.training.hyperparameter_search.trial import StatusReader, TrialExit, TrialJob

if TYPE_CHECKING:
    from unalike.spec import Experiment


class Worker(Protocol):
    """Trains one trial at a time."""

    def start(self, job: TrialJob) -> None:
        """Start a trial and return at once."""

    def poll(self) -> TrialExit | None:
        """Return how the trial ended, or None while it runs."""

    def stop(self) -> None:
        """Ask the trial to save and end."""

    def close(self) -> None:
        """End whatever is still running."""


def open_workers(plan: SearchPlan) -> tuple[list[Worker], SearchPlan]:
    """Open the workers of a search.

    Returns:
        The workers, and the plan with what their number means for each trial: its share of the image cache, its GPUs.
    """
    from unalike.data.batches.pixel_cache import free_memory_gb

    experiment, base = plan.template.experiment, plan.template.base
    automl = experiment.automl
    if automl.cluster == "ray":
        return _open_ray_workers(plan)
    import torch

    gpus = visible_gpus()
    concurrent = automl.concurrent
    if gpus and concurrent is None and experiment.is_set("train.gpu_ids"):
        concurrent = 1  # the user chose the GPUs
    environments = split_devices(base, concurrent, gpus=gpus, threads=torch.get_num_threads())
    template = plan.template
    if len(environments) > 1:
        cache = round(free_memory_gb() / 2 / len(environments), 3)
        template = replace(template, cache_gb=cache, device_indices=not gpus)
        say(f"{len(environments)} trials at a time")
    return [LocalWorker(environment) for environment in environments], replace(plan, template=template)


def visible_gpus() -> list[str]:
    """Return the GPUs that this process sees, by their names in CUDA_VISIBLE_DEVICES."""
    import torch

    if not torch.cuda.is_available():
        return []
    gpus = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return gpus or [str(i) for i in range(torch.cuda.device_count())]


def split_devices(base: Experiment, concurrent: int | None, *, gpus: list[str], threads: int) -> list[dict[str, str]]:
    """Divide GPUs or CPU threads between workers.

    Args:
        base: a trial uses ``train.num_gpus`` GPUs.
        concurrent: number of workers; by default as many as there are GPUs for, or one without a GPU.
        gpus: names of the GPUs that this process sees.
        threads: CPU threads to divide where there is no GPU.

    Returns:
        The environment variables of each worker; a single worker gets none and uses everything.
    """
    per_trial = max(1, base.train.num_gpus)
    if gpus:
        groups = [gpus[i : i + per_trial] for i in range(0, len(gpus) - per_trial + 1, per_trial)] or [gpus]
        count = concurrent or len(groups)
        if count == 1:
            return [{}]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(groups[i % len(groups)])} for i in range(count)]
    count = concurrent or 1
    if count == 1:
        return [{}]
    share = str(max(1, threads // count))
    return [{"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share} for _ in range(count)]


# ---- a trial's process ----


def trial_command(job: TrialJob) -> list[str]:
    """Return the command line of a trial, whose process ends when the search does.

    It continues from a checkpoint where the job asks for it and there is one; otherwise an earlier trial's files in the
    folder are overwritten.
    """
    arguments = [*child_command(grace_s=0), "train", "-e", str(job.spec)]
    if job.minutes is not None:
        arguments.append(f"automl.minutes={job.minutes:.4f}")  # automl_policy is off in its spec
    if job.resume and has_checkpoint(job.folder):
        return [*arguments, "--resume"]
    overwrite = (job.folder / RECORD_FILE).exists()
    (job.folder / STATUS_FILE).unlink(missing_ok=True)  # an earlier trial's metrics must not count for this one
    return [*arguments, "--overwrite"] if overwrite else arguments


def has_checkpoint(folder: Path) -> bool:
    """Return whether a trial's folder has a checkpoint to continue from."""
    try:
        return newest_checkpoint(folder).exists()
    except WeightsError:
        return False


def describe_checkpoint(folder: Path) -> str:
    """Return what tells a trial's newest checkpoint from the one before it; empty where there is none."""
    try:
        path = newest_checkpoint(folder)
        return f"{path.name} {path.stat().st_mtime_ns}"
    except (WeightsError, OSError):
        return ""


def read_exit(folder: Path, code: int) -> TrialExit:
    """Find out how a trial ended, from its exit code, its status and its log.

    Args:
        folder: the trial's folder.
        code: the exit code of its process; negative for a signal.
    """
    if code == 0:
        return TrialExit(True)
    status = StatusReader(folder)
    status.read_validations()
    if status.last.get("status") == "FAILURE":
        return TrialExit(False, str(status.last.get("message", "")))
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (the machine may have run out of memory)" if -code == 9 else ""
        return TrialExit(False, f"the process was ended by {name}{hint}")
    try:
        lines = (folder / TRIAL_LOG_FILE).read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return TrialExit(False, (lines[-1] if lines else f"exit code {code}").removeprefix("error: "))


class LocalWorker:
    """Trains trials in processes of this machine.

    Args:
        environment: variables that give the process its GPUs or threads.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = Path()

    def start(self, job: TrialJob) -> None:
        """Start the trial's process; its output goes to ``train.log`` in the trial's folder."""
        self.folder = job.folder
        command = trial_command(job)
        with open(job.folder / TRIAL_LOG_FILE, "ab") as log:
            # A session of its own: Ctrl-C goes to the search, which then stops its trials.
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                            env={**os.environ, **self.environment}, start_new_session=True)  # fmt: skip

    def poll(self) -> TrialExit | None:
        """Return how the trial ended, or None while it runs."""
        code = self.process.poll() if self.process is not None else None
        return None if code is None else read_exit(self.folder, code)

    def stop(self) -> None:
        """Send SIGTERM."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def close(self, patience: float = 10.0) -> None:
        """Stop the process; kill it after ``patience`` seconds."""
        if self.process is None:
            return
        self.stop()
        deadline = time.monotonic() + patience
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


# ---- Ray ----


def _train_on_cluster(arguments: list[str], folder: str) -> int:
    """Run a trial's process on a machine of the cluster, its output in the trial's folder; return the exit code.

    The interpreter is the Ray worker's own: the cluster's machines need not have the search's interpreter at the same path,
    and the first one on their PATH need not be the one that unalike is installed in.
    """
    with open(Path(folder) / TRIAL_LOG_FILE, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
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


class RayWorker:
    """Trains trials as tasks of a Ray cluster, on whichever machine has the resources.

    Args:
        ray: the module, imported and connected.
        options: resources of a task.
    """

    def __init__(self, ray: ModuleType, options: dict[str, Any]) -> None:
        self.ray, self.task = ray, ray.remote(_train_on_cluster).options(**options)
        self.reference: Any = None
        self.folder = Path()

    def start(self, job: TrialJob) -> None:
        """Submit the trial as a task."""
        self.folder = job.folder
        self.reference = self.task.remote(trial_command(job)[1:], str(job.folder))

    def poll(self) -> TrialExit | None:
        """Return how the trial ended, or None while it runs or waits for resources."""
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return read_exit(self.folder, int(self.ray.get(self.reference)))
        except self.ray.exceptions.TaskCancelledError:
            return TrialExit(False, "stopped")
        except self.ray.exceptions.RayError as error:
            return TrialExit(False, " ".join(str(error).split())[:300])

    def stop(self) -> None:
        """Cancel the task."""
        if self.reference is not None:
            self.ray.cancel(self.reference, force=False)

    def close(self) -> None:
        """Cancel a running task and wait for its end, up to 40 s."""
        if self.reference is not None and self.poll() is None:
            self.stop()
            self.ray.wait([self.reference], timeout=40)


def _open_ray_workers(plan: SearchPlan) -> tuple[list[Worker], SearchPlan]:
    """Open a worker per group of GPUs of the cluster, or per machine without GPUs; see ``open_workers``."""
    automl, base = plan.template.experiment.automl, plan.template.base
    ray = connect_ray(automl.address, section="automl")
    resources = ray.cluster_resources()
    gpus, per_trial = int(resources.get("GPU", 0)), max(1, base.train.num_gpus)
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    count = automl.concurrent or (max(1, gpus // per_trial) if gpus else nodes)
    cpus = max(1, int(resources.get("CPU", 1)) // max(count, 1))
    options: dict[str, Any] = {"num_cpus": cpus, "max_retries": 0}
    if gpus:
        options["num_gpus"] = per_trial
    options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": str(cpus)}} if not gpus else {}
    say(f"Ray cluster of {nodes} machines: {count} trials at a time")
    workers: Sequence[Worker] = [RayWorker(ray, options) for _ in range(count)]
    return list(workers), replace(plan, template=replace(plan.template, device_indices=not gpus))
