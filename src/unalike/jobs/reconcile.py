"""Bring the job store up to date with processes that ended, were killed, or stopped with their machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unalike.jobs.attempt import AttemptRecord, job_folder
from unalike.jobs.database import ACTIVE_STATUSES, Job, JobStore, now
from unalike.jobs.outputs import last_status
from unalike.jobs.schedulers import open_cluster
from unalike.jobs.search_trials import register_trials
from unalike.runs.processes import is_alive, reap, this_boot

PROCESS_ENDED = "the process is gone"  # without a record of how
STATUS_OF_REQUEST = {"cancel": "Canceled", "pause": "Paused"}


def settle(store: JobStore, job: Job, record: AttemptRecord) -> None:
    """Store how an attempt ended; of several processes that do, one succeeds."""
    current = store.get(job.id) or job
    if record.exit_code == 0:
        status, error = "Complete", ""
    elif current.requested:
        status, error = STATUS_OF_REQUEST[current.requested], ""
    else:
        status, error = "Error", record.error
    figures = last_status(Path(job.run_dir), record.started).get("kpi") or {} if status == "Complete" else {}
    store.update(
        job.id, expect=ACTIVE_STATUSES, at_attempt=job.attempt, status=status, error=error, exit_code=record.exit_code,
        ended=record.ended, started=record.started, figures=figures, requested="",
        note="" if status != STATUS_OF_REQUEST.get(current.requested) else record.error,
    )  # fmt: skip


def _settle_gone(store: JobStore, workspace: Path, job: Job) -> None:
    """Store the end of a job of which no process is alive: from the record in its folder, else as an error."""
    record = AttemptRecord.read(job_folder(workspace, job.id), job.attempt)
    if record is not None and record.ended is not None:
        settle(store, job, record)
        return
    start = now() if job.started is None else job.started if job.started <= now() else 0.0  # the clock was set back
    last = last_status(Path(job.run_dir), start)
    values: dict[str, Any] = {"status": "Error", "error": f"{PROCESS_ENDED}; go on with: unalike job resume {job.id}"}
    if job.started and last.get("status") == "SUCCESS":
        values = {"status": "Complete", "error": "", "figures": last.get("kpi") or {}}
    elif job.requested:
        values = {"status": STATUS_OF_REQUEST[job.requested], "error": "", "note": PROCESS_ENDED}
    store.update(job.id, expect=ACTIVE_STATUSES, at_attempt=job.attempt, ended=now(), requested="", **values)


def _check_local(store: JobStore, workspace: Path, job: Job) -> None:
    host = this_boot().partition("/")[0]
    if job.host and job.host != host:
        return  # another machine's processes cannot be seen from here
    same_boot = job.boot == this_boot()
    if same_boot and (is_alive(job.runner_pid, job.runner_start) or is_alive(job.action_pid, job.action_start)):
        return  # an action whose runner is gone is saving what it has
    _settle_gone(store, workspace, job)


def _check_cluster(store: JobStore, workspace: Path, job: Job) -> None:
    folder = job_folder(workspace, job.id)
    record = AttemptRecord.read(folder, job.attempt)
    if record is not None and record.ended is not None:
        settle(store, job, record)
        return
    if job.where == "kubernetes":
        state = "running" if record is not None else "pending"
    else:
        # Asked before the folder is read again: what ended in between has its record there.
        state = open_cluster(job.where, job.options).state(folder, job.handle)
    if state == "gone":
        _settle_gone(store, workspace, job)
    elif record is not None and job.status == "Pending":
        store.update(job.id, expect=("Pending",), at_attempt=job.attempt, status="Running", started=record.started,
                     boot=record.boot, action_pid=record.pid)  # fmt: skip


def refresh(store: JobStore, workspace: Path) -> list[Job]:
    """Check every active job, register the trials of searches, and return all jobs."""
    reap()
    jobs = store.all()
    for job in jobs:
        if job.status in ACTIVE_STATUSES and job.trial is None:
            (_check_local if job.where == "local" else _check_cluster)(store, workspace, job)
    jobs = store.all()
    return store.all() if register_trials(store, jobs) else jobs
