"""A workspace of chained jobs: create, submit, list, stop, resume and delete them.

A workspace is a folder with ``jobs.db`` and a folder for each job, which holds its order, its log and its results.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unalike.errors import RunError, SpecError, closest
from unalike.jobs.attempt import LOG_FILE, job_folder
from unalike.jobs.command import PROGRAM, prepare_attempt
from unalike.jobs.database import ACTIVE_STATUSES, Job, JobStore, now
from unalike.jobs.gpu_queue import AT_ONCE_SETTING
from unalike.jobs.input_paths import refuse_missing_inputs
from unalike.jobs.job_spec import SpecSource, check_job_spec
from unalike.jobs.kubernetes import make_manifest, write_manifest
from unalike.jobs.outputs import field_of, find_model, results_address
from unalike.jobs.parent_fields import fields_from_parent, refuse_incomplete, refuse_parent
from unalike.jobs.reconcile import refresh
from unalike.jobs.schedulers import CLUSTERS, open_cluster, refuse_unknown_options
from unalike.progress import say
from unalike.runs.filenames import TRIAL_LOG_FILE
from unalike.runs.processes import ProcessId, is_alive, signal_group, start_detached, this_boot
from unalike.spec.overrides import Overrides
from unalike.storage.cache import staging_entry
from unalike.storage.filesystems import uri_of
from unalike.storage.outside_files import expand_home

SCHEDULERS = ("local", *CLUSTERS, "kubernetes")
WORKSPACE_VARIABLE, DEFAULT_FOLDER = "UNALIKE_WORKSPACE", "workspace"
POLL_S = 0.2
MAX_TIMEOUT_S = 366 * 24 * 3600
RESUMABLE = ("Paused", "Error", "Canceled")
RUNNER_LOG_FILE = "runner.txt"


def workspace_folder(folder: str | Path | None = None) -> Path:
    """The named folder, else ``$UNALIKE_WORKSPACE``, else ``workspace`` in the working directory; absolute."""
    return Path(os.path.realpath(expand_home(folder or os.environ.get(WORKSPACE_VARIABLE) or DEFAULT_FOLDER)))


class Workspace:
    """The jobs of one folder; ids may be shortened while they stay unique.

    Args:
        folder: The folder; by default ``workspace_folder()``.
        program: Program and first arguments of an action's process, which its command line follows.
    """

    def __init__(self, folder: str | Path | None = None, *, program: Sequence[str] = PROGRAM) -> None:
        self.folder, self.program = workspace_folder(folder), tuple(program)
        self.store = JobStore(self.folder)

    # -- queries --

    def jobs(self) -> list[Job]:
        """All jobs, brought up to date: the oldest first, each search followed by its trials."""
        return refresh(self.store, self.folder)

    def get(self, job_id: str) -> Job:
        """A job, brought up to date. Raises RunError for an id that no job, or more than one, has."""
        refresh(self.store, self.folder)
        return self.store.find(job_id)

    def model(self, job_id: str) -> Path | str:
        """The model that a job wrote, a file or its address. Raises RunError when there is none."""
        return find_model(self.get(job_id))

    def log_file(self, job: Job) -> Path:
        """The file of a job's log."""
        return (
            Path(job.run_dir) / TRIAL_LOG_FILE if job.trial is not None else job_folder(self.folder, job.id) / LOG_FILE
        )

    def log(self, job_id: str, *, follow: bool = False, poll: float = POLL_S) -> Iterator[str]:
        """Yield a job's log piece by piece; with ``follow`` until the job has ended, read every ``poll`` seconds."""
        job = self.get(job_id)
        path, offset = self.log_file(job), 0
        while True:
            is_last = not follow or self.get(job.id).status not in ACTIVE_STATUSES  # before the last piece is read
            try:
                with open(path, "rb") as file:
                    file.seek(offset)
                    piece = file.read()
            except FileNotFoundError:
                piece = b""
            offset += len(piece)
            if piece:
                yield piece.decode("utf-8", "replace")
            if is_last:
                return
            time.sleep(poll)

    def wait(self, job_ids: Sequence[str], *, timeout: float | None = None, poll: float = POLL_S) -> list[Job]:
        """Wait until jobs have ended, and return them.

        Args:
            job_ids: The jobs' ids.
            timeout: Seconds after which RunError is raised; None to wait without limit.
            poll: Seconds between checks.

        Raises:
            RunError: A job has not ended in time.
            SpecError: A negative time, one of more than a year, or one that is not a number.
        """
        if timeout is not None and not 0 <= timeout <= MAX_TIMEOUT_S:
            raise SpecError(f"a timeout of {timeout:g} seconds", expected=f"0 to {MAX_TIMEOUT_S} (a year)",
                            remedy="leave --timeout out to wait without limit")  # fmt: skip
        deadline = None if timeout is None else time.monotonic() + timeout
        full_ids = [self.get(job_id).id for job_id in job_ids]
        while True:
            jobs = [self.get(job_id) for job_id in full_ids]
            active = [job for job in jobs if job.status in ACTIVE_STATUSES]
            if not active:
                return jobs
            if deadline is not None and time.monotonic() > deadline:
                raise RunError(f"{', '.join(f'{job.id} is {job.status}' for job in active)} after {timeout:g} seconds",
                               remedy="wait longer")  # fmt: skip
            time.sleep(poll)

    # -- creating --

    def create(
        self, action: str, spec_overrides: Overrides = (), *, spec: SpecSource = None, data: str | Path | None = None,
        parent_job_id: str | None = None, automl_policy: str | None = None, wait_for_parent: bool = False,
        where: str = "local", options: Mapping[str, Any] | None = None,
    ) -> Job:  # fmt: skip
        """Check the spec of a new job and start it; returns without waiting for it.

        Args:
            action: Name of the action.
            spec_overrides: Dotted overrides; short names such as ``num_epochs`` are allowed.
            spec: YAML file or mapping that the overrides apply to.
            data: The action's data, in place of its field.
            parent_job_id: The job whose model, network or engine the action takes.
            automl_policy: ``auto`` (the default) or ``off``, for a training.
            wait_for_parent: Wait for a parent that is not complete; without it such a parent is refused.
            where: ``local``, ``slurm``, ``ray`` or ``kubernetes``.
            options: Options of that scheduler.

        Raises:
            SpecError: Lists every fault of the spec, or an unknown option of the scheduler.
            DataError: Images or files of a local job do not exist.
            RunError: The parent cannot be used.
            MissingExtra: The scheduler needs a package that is not installed.
            DeviceError: The scheduler cannot be reached.
        """
        if where not in SCHEDULERS:
            raise SpecError(
                f"where: {where!r}", expected=f"one of {', '.join(SCHEDULERS)}", remedy=closest(where, SCHEDULERS)
            )
        parent = None if parent_job_id is None else self.get(parent_job_id)
        job_spec = check_job_spec(action, spec, spec_overrides, data, automl_policy)
        job_id = self.store.new_id()
        this_process = ProcessId.of(os.getpid())
        job = Job(
            job_id, action, results_dir=str(job_folder(self.folder, job_id)), policy=job_spec.policy, spec=job_spec.spec,
            overrides=job_spec.overrides, parent_job_id=None if parent is None else parent.id, where=where,
            options=dict(options or {}), cwd=str(Path.cwd()), created=now(), boot=this_process.boot, runner_pid=this_process.pid,
            runner_start=this_process.start,
        )  # fmt: skip
        job = with_folders(job, parent)
        if where == "local":
            refuse_unknown_options(where, job.options, ())
        elif where == "kubernetes":
            make_manifest(job, job_folder(self.folder, job_id), self.folder)
        self._accept_parent(job, parent, wait_for_parent)
        if where == "local":
            refuse_missing_inputs(job, self.folder)
        self.store.insert(job)
        return self._start(job)

    def _accept_parent(self, job: Job, parent: Job | None, wait: bool) -> None:
        """Refuse a parent of the wrong action, missing data, a parent that is not complete, and one whose model is missing."""
        if parent is not None:
            refuse_parent(job, parent)
        refuse_incomplete(job, parent)
        if parent is None:
            return
        if parent.status != "Complete":
            if parent.status not in ACTIVE_STATUSES:
                raise RunError(f"parent {parent.id} is {parent.status}", expected="one that is Complete",
                               remedy=f"resume it: unalike job resume {parent.id}")  # fmt: skip
            if not wait:
                raise RunError(f"parent {parent.id} is {parent.status}", expected="one that is Complete",
                               remedy=f"wait for it (unalike job wait {parent.id}), or add --wait-for-parent")  # fmt: skip
            if job.where == "local":
                say(f"job {job.id} waits for its parent {parent.id}")
                return  # its runner waits
            say(f"waiting for parent {parent.id}: the job is sent to {job.where} when it is complete")
            (parent,) = self.wait([parent.id])
            if parent.status != "Complete":
                raise RunError(
                    f"parent {parent.id} is {parent.status}: {parent.error}", expected="one that is Complete"
                )
        fields_from_parent(job, parent)

    def _start(self, job: Job) -> Job:
        """Start the runner of a local job, or give the order to a cluster."""
        folder = job_folder(self.folder, job.id)
        folder.mkdir(parents=True, exist_ok=True)
        if job.where == "local":
            command = [sys.executable, "-m", "unalike.jobs.runner", str(self.folder), job.id, str(job.attempt)]
            runner = start_detached([*command, *self.program], cwd=folder, log=folder / RUNNER_LOG_FILE)
            # A quicker runner has stored the same.
            self.store.update(job.id, expect=("Pending",), at_attempt=job.attempt, boot=runner.boot, runner_pid=runner.pid,
                              runner_start=runner.start)  # fmt: skip
        else:
            try:
                self._submit(job, folder)
            except BaseException as error:
                self.store.update(
                    job.id,
                    expect=ACTIVE_STATUSES,
                    at_attempt=job.attempt,
                    status="Error",
                    error=str(error),
                    ended=now(),
                )
                raise
        return self.store.find(job.id)

    def _submit(self, job: Job, folder: Path) -> None:
        """Write the order and give it to a cluster."""
        if job.where == "kubernetes":
            python = str(job.options.get("python", "python"))
            job = prepare_attempt(self.store, self.folder, job, (python, *self.program[1:]))
            path = write_manifest(job, folder, self.folder)
            note = f"submit it with: kubectl apply -f {path}"
            self.store.update(job.id, note=note)
            say(note)
            return
        cluster = open_cluster(job.where, job.options)
        job = prepare_attempt(self.store, self.folder, job, (cluster.python, *self.program[1:]))
        handle = cluster.submit(folder, job)
        self.store.update(job.id, at_attempt=job.attempt, handle=handle, boot="", runner_pid=None, runner_start="")

    # -- stopping, resuming, deleting --

    def cancel(self, job_id: str, *, now_: bool = False) -> Job:
        """Ask a job to save and end; with ``now_`` it is ended without saving. Raises RunError when it is not active."""
        return self._stop(job_id, "cancel", "Canceled", kill=now_)

    def pause(self, job_id: str) -> Job:
        """Ask a job to save and end, so that it can be resumed later. Raises RunError when it is not active."""
        return self._stop(job_id, "pause", "Paused", kill=False)

    def _stop(self, job_id: str, request: str, status: str, *, kill: bool) -> Job:
        job = self.get(job_id)
        _refuse_trial(job, request)
        if job.status == "Paused" and request == "cancel":
            self.store.update(job.id, expect=("Paused",), status="Canceled")
        elif job.status not in ACTIVE_STATUSES:
            raise RunError(f"job {job.id} is {job.status}", expected="one that is Pending or Running")
        elif not (job.where == "local" and self.store.update(job.id, expect=("Pending",), status=status, ended=now())):
            self.store.update(job.id, expect=ACTIVE_STATUSES, requested=request)
            self._signal(self.store.find(job.id), kill=kill)
        return self.store.find(job.id)

    def _signal(self, job: Job, *, kill: bool) -> None:
        """Tell the processes of a job that a stop is requested, where its runner does not read that from the store."""
        folder = job_folder(self.folder, job.id)
        if job.where == "kubernetes":
            self.store.update(job.id, expect=("Pending",), status="Canceled" if job.requested == "cancel" else "Paused",
                              requested="", ended=now())  # fmt: skip
            say(f"delete it in the cluster too: kubectl delete job unalike-{job.id}-{job.attempt}")
        elif job.where != "local":
            open_cluster(job.where, job.options).cancel(folder, job.handle)
        elif job.boot != this_boot():
            say(f"job {job.id} runs on {job.host}: its runner there reads the request from the store")
        elif kill and job.action_pid and is_alive(job.action_pid, job.action_start):
            signal_group(job.action_pid, signal.SIGKILL)
        elif job.action_pid and not is_alive(job.runner_pid, job.runner_start):
            signal_group(job.action_pid, signal.SIGTERM)  # a runner that lives reads the request, and signals once

    def resume(self, job_id: str, *, wait_for_parent: bool = False) -> Job:
        """Resume a job that was paused or canceled, or ended in an error; a training continues from its checkpoint.

        Raises:
            RunError: The job has another status, or its parent cannot be used.
        """
        job = self.get(job_id)
        _refuse_trial(job, "resume")
        if job.status not in RESUMABLE:
            raise RunError(f"job {job.id} is {job.status}", expected=f"one that is {', '.join(RESUMABLE)}")
        parent = self.get(job.parent_job_id) if job.parent_job_id else None
        self._accept_parent(job, parent, wait_for_parent)
        this_process = ProcessId.of(os.getpid())
        is_new = self.store.update(
            job.id, expect=RESUMABLE, at_attempt=job.attempt, attempt=job.attempt + 1, status="Pending", error="", note="", requested="",
            exit_code=None, ended=None, ready=None, gpus=[], handle="", action_pid=None, action_start="",
            boot=this_process.boot, runner_pid=this_process.pid, runner_start=this_process.start,
        )  # fmt: skip
        current = self.store.find(job.id)
        return self._start(current) if is_new else current

    def delete(self, job_id: str) -> list[str]:
        """Delete a job that has ended, with its folder and its trials; results outside the workspace stay.

        Returns:
            The ids that were deleted.

        Raises:
            RunError: The job, or one that waits for it, is active.
        """
        job = self.get(job_id)
        _refuse_trial(job, "delete")
        jobs = self.store.all()
        active = [j for j in jobs if j.status in ACTIVE_STATUSES and job.id in (j.id, j.parent_job_id)]
        if active:
            raise RunError(f"{', '.join(f'{j.id} is {j.status}' for j in active)}", remedy="cancel first, or wait")
        ids = [j.id for j in jobs if j.id == job.id or (j.parent_job_id == job.id and j.trial is not None)]
        self.store.remove(ids)
        shutil.rmtree(job_folder(self.folder, job.id), ignore_errors=True)
        if results_address(job) or Path(job.run_dir).exists():
            say(f"{results_address(job) or job.run_dir} is outside the workspace and was not deleted")
        return ids

    def allow_at_once(self, count: int) -> None:
        """Set how many local jobs of the workspace run at the same time."""
        if count < 1:
            raise SpecError(f"{count} jobs at once", expected="1 or more")
        self.store.set_setting(AT_ONCE_SETTING, count)


def _refuse_trial(job: Job, command: str) -> None:
    if job.trial is not None:
        raise RunError(
            f"job {job.id} is a trial", remedy=f"{command} its search: unalike job {command} {job.parent_job_id}"
        )


def with_folders(job: Job, parent: Job | None) -> Job:
    """The job with its results folders: in the workspace, unless its spec names others.

    ``run_dir`` of results that go to a remote store is the staging folder on this machine.
    """
    root_field = field_of(job, "results_dir")
    own_field = field_of(job, f"{job.action}.results_dir")
    takes_engine = parent is not None and parent.action == "gen_trt_engine"
    takes_engine = takes_engine and not any(
        field_of(job, f"{job.action}.{name}") for name in ("checkpoint", "onnx_file", "engine")
    )
    engine = field_of(job, f"{job.action}.trt_engine") or takes_engine
    prefix = "trt_" if engine and job.action in ("evaluate", "inference") else ""
    root = str(root_field) if root_field else job.results_dir
    address = str(own_field) if own_field else f"{root.rstrip('/')}/{prefix}{job.action}"
    if uri_of(address):
        run_dir = staging_entry(uri_of(address)).path
    else:
        run_dir = Path(job.cwd) / expand_home(address)
    results = root if uri_of(root) else str(Path(job.cwd) / expand_home(root))
    return replace(job, results_dir=results, run_dir=str(run_dir))


def create_job(
    action: str, spec_overrides: Overrides = (), *, parent_job_id: str | None = None, automl_policy: str | None = None,
    spec: SpecSource = None, data: str | Path | None = None, workspace: str | Path | None = None,
    wait_for_parent: bool = False, where: str = "local", options: Mapping[str, Any] | None = None,
) -> Job:  # fmt: skip
    """Start an action as a job, completed from its parent; see ``Workspace.create``.

    Example: ``first = create_job("train", {"dataset.train_dataset": "photographs/"})``, then
    ``create_job("export", parent_job_id=first.id, wait_for_parent=True)``.
    """
    return Workspace(workspace).create(
        action, spec_overrides, spec=spec, data=data, parent_job_id=parent_job_id, automl_policy=automl_policy,
        wait_for_parent=wait_for_parent, where=where, options=options,
    )  # fmt: skip
