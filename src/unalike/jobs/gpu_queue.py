"""The queue of local jobs: which job starts next on this machine, and on which GPUs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from unalike.errors import DeviceError
from unalike.jobs.database import Job, JobStore, now
from unalike.jobs.outputs import field_of
from unalike.runs.processes import this_boot

AT_ONCE_SETTING = "at_once"  # setting of the workspace: number of jobs that one machine runs at the same time


def visible_gpus() -> list[str]:
    """GPUs of this machine by their names in CUDA_VISIBLE_DEVICES, without importing torch."""
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        return [name.strip() for name in variable.split(",") if name.strip() and name.strip() != "-1"]
    try:
        query = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return query.stdout.split() if query.returncode == 0 else []


def requested_indices(job: Job) -> list[int] | None:
    """Indices of the GPUs that the user named, or None where any GPU will do."""
    indices = field_of(job, f"{job.action}.gpu_ids")
    if indices is None:
        single = field_of(job, f"{job.action}.gpu_id")
        indices = None if single is None else [single]
    return None if indices is None else [int(index) for index in indices]


def choose_gpus(job: Job, gpus: Sequence[str], used_gpus: Sequence[str]) -> list[str] | None:
    """Choose the GPUs of a job.

    A search or an automatic training takes all that are free and shares them among its trials.

    Args:
        job: The job.
        gpus: GPUs of the machine.
        used_gpus: Those that running jobs use.

    Returns:
        The GPUs, or None while too few are free.

    Raises:
        DeviceError: The machine does not have the GPUs that the spec asks for.
    """
    if not gpus:
        return []
    free = [gpu for gpu in gpus if gpu not in used_gpus]
    indices = requested_indices(job)
    if indices is not None:
        if any(not 0 <= index < len(gpus) for index in indices):
            raise DeviceError(f"{job.action} on GPUs {indices}", expected=f"indices from 0 to {len(gpus) - 1}")
        gpu_names = [gpus[index] for index in indices]
        return gpu_names if set(gpu_names) <= set(free) else None
    count = int(field_of(job, f"{job.action}.num_gpus") or 1)
    if count > len(gpus):
        raise DeviceError(
            f"{job.action}.num_gpus is {count}", expected=f"at most {len(gpus)}, the GPUs of this machine"
        )
    if len(free) < count:
        return None
    return free if job.policy == "auto" and count == 1 else free[:count]


def take_turn(store: JobStore, job_id: str, attempt: int, gpus: Sequence[str]) -> Job | None:
    """Set a pending job to running when it is next in the queue and fewer jobs run than may, and its GPUs are free.

    All in one transaction: two runners cannot take the same GPU or exceed the number of jobs.

    Args:
        store: The job store.
        job_id: The job's id.
        attempt: Number of the attempt.
        gpus: GPUs of this machine.

    Returns:
        The job, now running, or None when it is not its turn.

    Raises:
        DeviceError: The machine does not have the GPUs that the spec asks for.
    """
    with store.transaction() as db:
        jobs = store.all(db)
        this = next((job for job in jobs if job.id == job_id), None)
        if this is None or this.status != "Pending" or this.attempt != attempt:
            return None
        if this.ready is None:
            store.update(job_id, at_attempt=attempt, db=db, ready=now())
            return None
        here = [j for j in jobs if j.where == "local" and j.boot == this_boot() and j.trial is None and j.id != job_id]
        running = [job for job in here if job.status == "Running"]
        limit = store.setting(AT_ONCE_SETTING, db) or max(1, len(gpus))
        ahead = [
            j for j in here if j.status == "Pending" and j.ready is not None and (j.ready, j.id) < (this.ready, this.id)
        ]
        if ahead or len(running) >= limit:
            return None
        gpu_names = choose_gpus(this, gpus, [gpu for job in running for gpu in job.gpus])
        if gpu_names is None:
            return None
        store.update(job_id, at_attempt=attempt, db=db, status="Running", started=now(), gpus=gpu_names)
        return store.get(job_id, db)


def device_environment(job: Job) -> dict[str, str]:
    """Variables that limit an action to its GPUs; none where the user named indices, which count among all GPUs."""
    if not job.gpus or requested_indices(job) is not None:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(job.gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
