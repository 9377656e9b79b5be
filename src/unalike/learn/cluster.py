"""Where the trials of a search run: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unalike.errors import DeviceError, missing_extra
from unalike.learn.studies import Plan
from unalike.learn.trials import LOG_NAME, Ending, Job, LocalPlace, Place, command, cut_devices, ending
from unalike.progress import say


def open_places(plan: Plan) -> tuple[list[Place], Plan]:
    """The places of a search, and its plan with what follows for the trials from how many there are."""
    from unalike.data.store import free_memory_gb

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
    with open(Path(folder) / LOG_NAME, "ab") as log:
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
