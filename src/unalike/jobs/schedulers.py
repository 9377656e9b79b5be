"""Jobs on a cluster: SLURM through submitit, and Ray Jobs.

All machines must see the workspace at the same path.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from unalike.errors import DeviceError, SpecError, closest, missing_extra
from unalike.jobs.database import Job
from unalike.runs.processes import is_alive, signal_process
from unalike.spec.automl import MAX_MINUTES
from unalike.telemetry import disable_telemetry

DAY_MINUTES = 24 * 60
# Seconds that a Ray cluster has to start the agents that take jobs, and between two attempts.
AGENT_S, AGENT_POLL_S = 60.0, 1.0
# Gone: ended or lost. Unknown: the cluster does not answer.
ClusterState = Literal["pending", "running", "gone", "unknown"]


class Cluster(Protocol):
    """A queue that starts the supervisor of a job's order; ``python`` is the interpreter on its machines."""

    python: str

    def submit(self, folder: Path, job: Job) -> str:
        """Queue the order in a job's folder; its number in the cluster."""

    def state(self, folder: Path, handle: str) -> ClusterState:
        """The state of a job of that number."""

    def cancel(self, folder: Path, handle: str) -> None:
        """Ask the action to save and end."""


class Slurm:
    """SLURM, through submitit.

    Options: ``partition``, ``account``, ``minutes``, ``gpus``, ``cpus``, ``memory_gb``, ``python``; ``cluster: local`` runs
    the job on this machine, to try it out.
    """

    option_names = ("partition", "account", "minutes", "gpus", "cpus", "memory_gb", "cluster", "python")

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise missing_extra("submitit", "cluster", "a job on SLURM") from error
        self.submitit, self.options = submitit, options
        self.python = str(options.get("python", sys.executable))
        self.local = options.get("cluster") == "local"
        self.minutes = _minutes(options.get("minutes", DAY_MINUTES))

    def submit(self, folder: Path, job: Job) -> str:
        from unalike.jobs.supervisor import main

        try:
            executor = self.submitit.AutoExecutor(folder / "submitit", cluster=self.options.get("cluster"))
        except RuntimeError as error:
            raise DeviceError(f"no SLURM here: {error}", remedy="create the job where sbatch is") from error
        settings = {"name": f"unalike-{job.id}", "timeout_min": self.minutes,
                    "cpus_per_task": self.options.get("cpus"), "mem_gb": self.options.get("memory_gb"),
                    "gpus_per_node": self.options.get("gpus")}  # fmt: skip
        if not self.local:
            settings |= {"slurm_partition": self.options.get("partition"), "slurm_account": self.options.get("account")}
        executor.update_parameters(**{name: value for name, value in settings.items() if value is not None})
        return str(executor.submit(main, [str(folder)]).job_id)

    def state(self, folder: Path, handle: str) -> ClusterState:
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


def _minutes(value: object) -> int:
    """The time limit of a job. Raises SpecError for what is no number of minutes up to a year."""
    try:
        minutes = float(str(value))
    except ValueError:
        minutes = 0.0
    if not 1 <= minutes <= MAX_MINUTES:
        raise SpecError(f"minutes={value}", expected=f"a number of minutes, 1 to {MAX_MINUTES} (a year)")
    return int(minutes)


class RayJobs:
    """Ray Jobs. Options: ``address`` (such as http://head:8265), ``gpus``, ``cpus``, ``python`` (of the cluster's machines)."""

    option_names = ("address", "gpus", "cpus", "python")

    def __init__(self, options: Mapping[str, Any]) -> None:
        disable_telemetry()
        try:
            from ray.exceptions import RayError
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise missing_extra("ray", "cluster", "a job on Ray") from error
        address = options.get("address") or os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
        local = any(name in str(address) for name in ("127.0.0.1", "localhost"))
        self.options, self.python = options, str(options.get("python", sys.executable if local else "python"))
        try:
            self.client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:  # RayError: a token is asked for
            raise DeviceError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:200]}",
                              remedy="start one with `ray start --head`, or give its address") from error  # fmt: skip

    def submit(self, folder: Path, job: Job) -> str:
        handle = f"unalike-{job.id}-{job.attempt}"
        paths = os.environ.get("PYTHONPATH")
        submit = partial(
            self.client.submit_job,
            entrypoint=shlex.join([self.python, "-m", "unalike.jobs.supervisor", str(folder)]), submission_id=handle,
            runtime_env={"env_vars": {"PYTHONPATH": paths}} if paths else {},
            entrypoint_num_gpus=self.options.get("gpus"), entrypoint_num_cpus=self.options.get("cpus"),
        )  # fmt: skip
        deadline = time.monotonic() + AGENT_S
        while True:
            try:
                submit()
            except (ConnectionError, RuntimeError) as error:
                if "No available agent" in str(error) and time.monotonic() < deadline:
                    time.sleep(AGENT_POLL_S)  # a cluster that has just been started
                    continue
                raise DeviceError(f"the Ray cluster does not take the job: {' '.join(str(error).split())[:300]}",
                                  remedy="look at the cluster with `ray status`, then `unalike job resume`") from error  # fmt: skip
            return handle

    def state(self, folder: Path, handle: str) -> ClusterState:
        try:
            state = str(self.client.get_job_status(handle).value)
        except RuntimeError as error:  # what the client raises for every response that is not 200
            return "gone" if "does not exist" in str(error) else "unknown"
        return "pending" if state == "PENDING" else "running" if state == "RUNNING" else "gone"

    def cancel(self, folder: Path, handle: str) -> None:
        self.client.stop_job(handle)


CLUSTERS: Mapping[str, Any] = {"slurm": Slurm, "ray": RayJobs}


def open_cluster(where: str, options: Mapping[str, Any]) -> Cluster:
    """Connect to the cluster of that name. Raises MissingExtra, DeviceError, and SpecError for unknown options."""
    kind = CLUSTERS[where]
    refuse_unknown_options(where, options, kind.option_names)
    cluster: Cluster = kind(options)
    return cluster


def refuse_unknown_options(where: str, options: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Raise SpecError for an option that is not among the names of the scheduler's options."""
    for name in options:
        if name not in names:
            raise SpecError(f"option {name!r} for {where}", expected=f"one of {', '.join(names)}" if names else "none",
                            remedy=closest(name, names))  # fmt: skip
