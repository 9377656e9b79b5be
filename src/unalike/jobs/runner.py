"""The process that looks after one local job: ``python -m unalike.jobs.runner WORKSPACE ID ATTEMPT``.

It waits for the parent and for its turn, completes the spec, sees the action through and writes down how it ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from unalike.errors import UnalikeError
from unalike.jobs.attempt import perform
from unalike.jobs.command import job_folder, write_order
from unalike.jobs.database import AT_WORK, Job, Store, now
from unalike.jobs.gpu_queue import device_environment, take_turn, visible_gpus
from unalike.jobs.parent_fields import fill
from unalike.jobs.reconcile import refresh, settle
from unalike.storage.processes import ProcessId, process_start

PACE_S = 0.2
LOOK_S = 2.0  # between looks at everybody else's processes


class _Ended(Exception):
    """The job is not this runner's any more: cancelled, deleted, or taken up by another attempt."""


def _turn(store: Store, workspace: Path, job_id: str, attempt: int) -> Job:
    """Wait for the parent, then for a place and GPUs. Raises _Ended, UnalikeError for a parent or GPUs that never come."""
    gpus = visible_gpus()
    looked = 0.0
    while True:
        job = store.get(job_id)
        if job is None or job.status != "Pending" or job.attempt != attempt:
            raise _Ended
        if time.monotonic() - looked > LOOK_S:
            refresh(store, workspace)
            looked = time.monotonic()
        parent = store.get(job.parent_job_id) if job.parent_job_id else None
        if job.parent_job_id and (parent is None or parent.status in ("Error", "Canceled")):
            told = "deleted" if parent is None else parent.status
            raise UnalikeError(f"its parent {job.parent_job_id} is {told}", remedy="resume the parent, then this job")
        if parent is None or parent.status == "Complete":
            running = take_turn(store, job_id, attempt, gpus)
            if running is not None:
                return running
            if job.ready is None:
                continue
        time.sleep(PACE_S)


def prepare(store: Store, workspace: Path, job: Job, program: tuple[str, ...]) -> Job:
    """Complete the spec from the parent and write the order; the job as it now stands."""
    parent = store.get(job.parent_job_id) if job.parent_job_id else None
    filled = fill(job, parent)
    store.update(job.id, at=job.attempt, filled=filled)
    held = store.get(job.id) or job
    write_order(held, job_folder(workspace, job.id), program=program, env=device_environment(held))
    return held


def run_job(workspace: Path, job_id: str, attempt: int, program: tuple[str, ...]) -> None:
    """See a local job through, from its turn to its end."""
    store = Store(workspace)
    try:
        job = prepare(store, workspace, _turn(store, workspace, job_id, attempt), program)
    except _Ended:
        return
    except UnalikeError as error:
        store.update(job_id, expect=AT_WORK, at=attempt, status="Error", error=str(error), ended=now())
        return

    def begun(pid: int) -> None:
        store.update(job_id, at=attempt, action_pid=pid, action_start=process_start(pid))

    asked: tuple[float, str] = (float("-inf"), "")

    def stop() -> str:
        nonlocal asked
        if time.monotonic() - asked[0] > PACE_S:
            held = store.get(job_id)
            asked = (time.monotonic(), "now" if held is None else "stop" if held.requested else "")
        return asked[1]

    settle(store, job, perform(job_folder(workspace, job_id), stop=stop, begun=begun))
    refresh(store, workspace)


def main() -> None:
    """Take the job over from whoever created it, then see it through."""
    workspace, job_id, attempt, program = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), tuple(sys.argv[4:])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    me = ProcessId.of(os.getpid())
    store = Store(workspace)
    if store.update(job_id, expect=("Pending",), at=attempt, boot=me.boot, runner_pid=me.pid, runner_start=me.start):
        try:
            run_job(workspace, job_id, attempt, program)
        except Exception as error:
            store.update(job_id, expect=AT_WORK, at=attempt, status="Error", ended=now(),
                         error=f"the runner failed: {type(error).__name__}: {' '.join(str(error).split())}")  # fmt: skip
            raise


if __name__ == "__main__":
    main()
