"""Making the store say what is so: jobs whose processes ended, were killed, or went down with their machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unalike.jobs.attempt import Outcome
from unalike.jobs.command import job_folder
from unalike.jobs.database import AT_WORK, Job, Store, now
from unalike.jobs.outputs import last_word
from unalike.jobs.schedulers import open_cluster
from unalike.jobs.search_trials import register_trials
from unalike.storage.processes import is_alive, reap, this_boot

GONE = "the process is gone"
REQUESTS = {"cancel": "Canceled", "pause": "Paused"}


def settle(store: Store, job: Job, outcome: Outcome) -> None:
    """Write down how an attempt ended; of several who do, one succeeds."""
    current = store.get(job.id) or job
    if outcome.exit_code == 0:
        status, error = "Complete", ""
    elif current.requested:
        status, error = REQUESTS[current.requested], ""
    else:
        status, error = "Error", outcome.error
    figures = last_word(Path(job.run_dir), outcome.started).get("kpi") or {} if status == "Complete" else {}
    store.update(
        job.id, expect=AT_WORK, at=job.attempt, status=status, error=error, exit_code=outcome.exit_code,
        ended=outcome.ended, started=outcome.started, figures=figures, requested="",
        note="" if status != REQUESTS.get(current.requested) else outcome.error,
    )  # fmt: skip


def _settle_gone(store: Store, workspace: Path, job: Job) -> None:
    """A job none of whose processes lives: its folder's word counts, else it ended with them."""
    outcome = Outcome.read(job_folder(workspace, job.id), job.attempt)
    if outcome is not None and outcome.ended is not None:
        settle(store, job, outcome)
        return
    word = last_word(Path(job.run_dir), job.started or now())
    values: dict[str, Any] = {"status": "Error", "error": f"{GONE}; go on with: unalike job resume {job.id}"}
    if job.started and word.get("status") == "SUCCESS":
        values = {"status": "Complete", "error": "", "figures": word.get("kpi") or {}}
    elif job.requested:
        values = {"status": REQUESTS[job.requested], "error": "", "note": GONE}
    store.update(job.id, expect=AT_WORK, at=job.attempt, ended=now(), requested="", **values)


def _look_local(store: Store, workspace: Path, job: Job) -> None:
    host = this_boot().partition("/")[0]
    if job.host and job.host != host:
        return  # another machine's processes cannot be seen from here
    same_boot = job.boot == this_boot()
    if same_boot and (is_alive(job.runner_pid, job.runner_start) or is_alive(job.action_pid, job.action_start)):
        return  # an action whose runner is gone is saving what it has
    _settle_gone(store, workspace, job)


def _look_elsewhere(store: Store, workspace: Path, job: Job) -> None:
    folder = job_folder(workspace, job.id)
    outcome = Outcome.read(folder, job.attempt)
    if outcome is not None and outcome.ended is not None:
        settle(store, job, outcome)
        return
    if job.where == "kubernetes":
        state = "running" if outcome is not None else "pending"
    else:
        # Asked before the folder is read again: what ended in between has its outcome there.
        state = open_cluster(job.where, job.options).state(folder, job.handle)
    if state == "gone":
        _settle_gone(store, workspace, job)
    elif outcome is not None and job.status == "Pending":
        store.update(job.id, expect=("Pending",), at=job.attempt, status="Running", started=outcome.started,
                     boot=outcome.boot, action_pid=outcome.pid)  # fmt: skip


def refresh(store: Store, workspace: Path) -> list[Job]:
    """Look after every job that is said to be at work, take in the trials of searches, and give all jobs."""
    reap()
    jobs = store.all()
    for job in jobs:
        if job.status in AT_WORK and job.trial is None:
            (_look_local if job.where == "local" else _look_elsewhere)(store, workspace, job)
    jobs = store.all()
    return store.all() if register_trials(store, jobs) else jobs
