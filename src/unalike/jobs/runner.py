"""The process that runs one local job: waits for its turn in the queue, then calls the supervisor.

Started as ``python -m unalike.jobs.runner WORKSPACE ID ATTEMPT PROGRAM...``. It waits for the parent and for its turn in the queue, completes the spec, supervises the action's process and records in
the job store how it ended. It outlives the command that created the job.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from unalike.errors import UnalikeError
from unalike.jobs.attempt import job_folder
from unalike.jobs.command import prepare_attempt
from unalike.jobs.database import ACTIVE_STATUSES, Job, JobStore, now
from unalike.jobs.gpu_queue import take_turn, visible_gpus
from unalike.jobs.reconcile import refresh, settle
from unalike.jobs.supervisor import StopRequest, supervise
from unalike.runs.processes import ProcessId

POLL_S = 0.2
REFRESH_S = 2.0  # between looks at the processes of all jobs


class _NotOurs(Exception):
    """The job was canceled, deleted, or resumed as another attempt."""


def _wait_for_turn(store: JobStore, workspace: Path, job_id: str, attempt: int) -> Job:
    """Wait for the parent, then for its turn and GPUs; returns the job, now running.

    Raises:
        _NotOurs: The job is not this attempt's any more.
        UnalikeError: The parent has failed, or the machine does not have the GPUs.
    """
    gpus = visible_gpus()
    last_refresh = 0.0
    while True:
        job = store.get(job_id)
        if job is None or job.status != "Pending" or job.attempt != attempt:
            raise _NotOurs
        if time.monotonic() - last_refresh > REFRESH_S:
            refresh(store, workspace)
            last_refresh = time.monotonic()
        parent = store.get(job.parent_job_id) if job.parent_job_id else None
        if job.parent_job_id and (parent is None or parent.status in ("Error", "Canceled")):
            status = "deleted" if parent is None else parent.status
            raise UnalikeError(f"its parent {job.parent_job_id} is {status}", remedy="resume the parent, then this job")
        if parent is None or parent.status == "Complete":
            running = take_turn(store, job_id, attempt, gpus)
            if running is not None:
                return running
            if job.ready is None:
                continue
        time.sleep(POLL_S)


def run_job(workspace: Path, job_id: str, attempt: int, program: Sequence[str]) -> None:
    """Run one attempt at a local job, from the queue to its end; errors become the job's."""
    store = JobStore(workspace)
    try:
        job = prepare_attempt(store, workspace, _wait_for_turn(store, workspace, job_id, attempt), program)
    except _NotOurs:
        return
    except UnalikeError as error:
        store.update(job_id, expect=ACTIVE_STATUSES, at_attempt=attempt, status="Error", error=str(error), ended=now())
        return

    def record_process(action: ProcessId) -> None:
        store.update(job_id, at_attempt=attempt, action_pid=action.pid, action_start=action.start)

    last_read = float("-inf")
    request: StopRequest = ""

    def stop_request() -> StopRequest:
        nonlocal last_read, request
        if time.monotonic() - last_read > POLL_S:
            last_read = time.monotonic()
            current = store.get(job_id)
            request = "kill" if current is None else "stop" if current.requested else ""
        return request

    record = supervise(job_folder(workspace, job_id), stop_request=stop_request, on_start=record_process)
    settle(store, job, record)
    refresh(store, workspace)


def main() -> None:
    """Take the job over from the process that created it, and run it."""
    workspace, job_id, attempt, program = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    runner = ProcessId.of(os.getpid())
    store = JobStore(workspace)
    if store.update(job_id, expect=("Pending",), at_attempt=attempt, boot=runner.boot, runner_pid=runner.pid,
                    runner_start=runner.start):  # fmt: skip
        try:
            run_job(workspace, job_id, attempt, program)
        except Exception as error:
            message = f"the runner failed: {type(error).__name__}: {' '.join(str(error).split())}"
            store.update(job_id, expect=ACTIVE_STATUSES, at_attempt=attempt, status="Error", ended=now(), error=message)
            raise


if __name__ == "__main__":
    main()
