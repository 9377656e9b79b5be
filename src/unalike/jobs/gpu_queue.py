"""Which GPUs a job gets, and whose turn it is on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from unalike.errors import DeviceError
from unalike.jobs.database import Job, Store, now
from unalike.jobs.outputs import field_of
from unalike.storage.processes import this_boot

AT_ONCE = "at_once"  # the workspace's setting: how many jobs of one machine run at the same time


def visible_gpus() -> list[str]:
    """The GPUs of this machine by the names that CUDA_VISIBLE_DEVICES knows them by; found without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [word.strip() for word in named.split(",") if word.strip() and word.strip() != "-1"]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def wanted_indices(job: Job) -> list[int] | None:
    """The GPUs that the user named by index, or None where any will do."""
    named = field_of(job, f"{job.action}.gpu_ids")
    if named is None:
        single = field_of(job, f"{job.action}.gpu_id")
        named = None if single is None else [single]
    return None if named is None else [int(index) for index in named]


def choose_gpus(job: Job, gpus: Sequence[str], taken: Sequence[str]) -> list[str] | None:
    """The GPUs for a job out of those of the machine; None while they are taken. Raises DeviceError if they never come.

    A search or an automatic training takes all that are free: it shares them out among its trials.
    """
    if not gpus:
        return []
    free = [gpu for gpu in gpus if gpu not in taken]
    indices = wanted_indices(job)
    if indices is not None:
        if any(not 0 <= index < len(gpus) for index in indices):
            raise DeviceError(f"{job.action} on GPUs {indices}", expected=f"indices from 0 to {len(gpus) - 1}")
        chosen = [gpus[index] for index in indices]
        return chosen if set(chosen) <= set(free) else None
    count = int(field_of(job, f"{job.action}.num_gpus") or 1)
    if count > len(gpus):
        raise DeviceError(
            f"{job.action}.num_gpus is {count}", expected=f"at most {len(gpus)}, the GPUs of this machine"
        )
    if len(free) < count:
        return None
    return free if job.policy == "auto" and count == 1 else free[:count]


def take_turn(store: Store, job_id: str, attempt: int, gpus: Sequence[str]) -> Job | None:
    """Make a pending job a running one when it is the oldest that waits and there is room; the job, or None.

    One transaction: two runners cannot take the same GPU or the last place. Raises DeviceError.
    """
    with store.change() as db:
        jobs = store.all(db)
        me = next((job for job in jobs if job.id == job_id), None)
        if me is None or me.status != "Pending" or me.attempt != attempt:
            return None
        if me.ready is None:
            store.update(job_id, at=attempt, db=db, ready=now())
            return None
        here = [j for j in jobs if j.where == "local" and j.boot == this_boot() and j.trial is None and j.id != job_id]
        running = [job for job in here if job.status == "Running"]
        limit = store.setting(AT_ONCE, db) or max(1, len(gpus))
        ahead = [
            j for j in here if j.status == "Pending" and j.ready is not None and (j.ready, j.id) < (me.ready, me.id)
        ]
        if ahead or len(running) >= limit:
            return None
        chosen = choose_gpus(me, gpus, [gpu for job in running for gpu in job.gpus])
        if chosen is None:
            return None
        store.update(job_id, at=attempt, db=db, status="Running", started=now(), gpus=chosen)
        return store.get(job_id, db)


def device_environment(job: Job) -> dict[str, str]:
    """What shows an action its GPUs alone; nothing where the user named indices, which count among all."""
    if not job.gpus or wanted_indices(job) is not None:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(job.gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
