"""Jobs on a cluster: SLURM through submitit, and Ray Jobs. All machines must see the workspace at the same path."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from unalike.errors import DeviceError, SpecError, closest, missing_extra
from unalike.jobs.database import Job
from unalike.storage.processes import is_alive, signal_process

DAY_MINUTES = 24 * 60


class Cluster(Protocol):
    """Where an order is carried out by somebody else's queue."""

    python: str

    def submit(self, folder: Path, job: Job) -> str:
        """Queue the order of a folder; the number that it is known by."""

    def state(self, folder: Path, handle: str) -> str:
        """``pending``, ``running``, ``gone`` (over or lost), or ``unknown`` when nobody answers."""

    def cancel(self, folder: Path, handle: str) -> None:
        """Ask it to save and end."""


class Slurm:
    """Options: ``partition``, ``account``, ``minutes``, ``gpus``, ``cpus``, ``memory_gb``; ``cluster: local`` for trying out."""

    known = ("partition", "account", "minutes", "gpus", "cpus", "memory_gb", "cluster", "python")

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise missing_extra("submitit", "cluster", "a job on SLURM") from error
        self.submitit, self.options = submitit, options
        self.python = str(options.get("python", sys.executable))
        self.local = options.get("cluster") == "local"

    def submit(self, folder: Path, job: Job) -> str:
        from unalike.jobs.attempt import main

        try:
            executor = self.submitit.AutoExecutor(folder / "submitit", cluster=self.options.get("cluster"))
        except RuntimeError as error:
            raise DeviceError(f"no SLURM here: {error}", remedy="create the job where sbatch is") from error
        settings = {"name": f"unalike-{job.id}", "timeout_min": int(self.options.get("minutes", DAY_MINUTES)),
                    "cpus_per_task": self.options.get("cpus"), "mem_gb": self.options.get("memory_gb"),
                    "gpus_per_node": self.options.get("gpus")}  # fmt: skip
        if not self.local:
            settings |= {"slurm_partition": self.options.get("partition"), "slurm_account": self.options.get("account")}
        executor.update_parameters(**{name: value for name, value in settings.items() if value is not None})
        return str(executor.submit(main, [str(folder)]).job_id)

    def state(self, folder: Path, handle: str) -> str:
        if self.local:
            return "running" if is_alive(int(handle)) else "gone"
        state = str(self.submitit.SlurmJob(folder / "submitit", handle).state).upper()
        if state.startswith(("PENDING", "CONFIGURING", "REQUEUED")):
            return "pending"
        if state.startswith(("RUNNING", "COMPLETING", "SUSPENDED", "STAGE_OUT")):
            return "running"
        return "unknown" if state in ("UNKNOWN", "") else "gone"

    def cancel(self, folder: Path, handle: str) -> None:
        if self.local:
            signal_process(int(handle))
        else:
            self.submitit.SlurmJob(folder / "submitit", handle).cancel(check=False)


class RayJobs:
    """Options: ``address`` (such as http://head:8265), ``gpus``, ``cpus``, ``python`` (of the cluster's machines)."""

    known = ("address", "gpus", "cpus", "python")

    def __init__(self, options: Mapping[str, Any]) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing phones home
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise missing_extra("ray", "cluster", "a job on Ray") from error
        address = options.get("address") or os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
        here = any(name in str(address) for name in ("127.0.0.1", "localhost"))
        self.options, self.python = options, str(options.get("python", sys.executable if here else "python"))
        try:
            self.client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DeviceError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:200]}",
                              remedy="start one with `ray start --head`, or give its address") from error  # fmt: skip

    def submit(self, folder: Path, job: Job) -> str:
        handle = f"unalike-{job.id}-{job.attempt}"
        paths = os.environ.get("PYTHONPATH")
        self.client.submit_job(
            entrypoint=shlex.join([self.python, "-m", "unalike.jobs.attempt", str(folder)]), submission_id=handle,
            runtime_env={"env_vars": {"PYTHONPATH": paths}} if paths else {},
            entrypoint_num_gpus=self.options.get("gpus"), entrypoint_num_cpus=self.options.get("cpus"),
        )  # fmt: skip
        return handle

    def state(self, folder: Path, handle: str) -> str:
        try:
            state = str(self.client.get_job_status(handle).value)
        except RuntimeError as error:  # the client's word for every answer that is not 200
            return "gone" if "does not exist" in str(error) else "unknown"
        return {"PENDING": "pending", "RUNNING": "running"}.get(state, "gone")

    def cancel(self, folder: Path, handle: str) -> None:
        self.client.stop_job(handle)


CLUSTERS: Mapping[str, Any] = {"slurm": Slurm, "ray": RayJobs}


def open_cluster(where: str, options: Mapping[str, Any]) -> Cluster:
    """The cluster of that name. Raises MissingExtra, DeviceError, and SpecError for options that it does not have."""
    kind = CLUSTERS[where]
    refuse_options(where, options, kind.known)
    cluster: Cluster = kind(options)
    return cluster


def refuse_options(where: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise SpecError for an option that a place does not have."""
    for name in options:
        if name not in known:
            raise SpecError(f"option {name!r} for {where}", expected=f"one of {', '.join(known)}" if known else "none",
                            remedy=closest(name, known))  # fmt: skip
