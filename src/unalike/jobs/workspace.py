"""A workspace of chained jobs: make them, look at them, stop them, take them up again.

A workspace is a folder with ``jobs.db`` and a folder for each job, which holds its order, its log and its results.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unalike.errors import RunError, SpecError, closest
from unalike.jobs.command import LOG, PROGRAM, delete_folder, job_folder
from unalike.jobs.database import AT_WORK, Job, Store, now
from unalike.jobs.gpu_queue import AT_ONCE
from unalike.jobs.job_spec import Overrides, Spec, specified
from unalike.jobs.kubernetes import manifest, write_manifest
from unalike.jobs.outputs import field_of, model_of, results_address
from unalike.jobs.parent_fields import fill, refuse_parent
from unalike.jobs.reconcile import refresh
from unalike.jobs.runner import prepare
from unalike.jobs.schedulers import CLUSTERS, open_cluster, refuse_options
from unalike.progress import say
from unalike.runs.filenames import TRIAL_LOG_FILE
from unalike.storage.cache import staging_entry
from unalike.storage.filesystems import uri_of
from unalike.storage.processes import ProcessId, is_alive, signal_group, start_detached, this_boot

PLACES = ("local", *CLUSTERS, "kubernetes")
VARIABLE, DEFAULT = "UNALIKE_WORKSPACE", "workspace"
PACE_S = 0.2
RESUMABLE = ("Paused", "Error", "Canceled")


def workspace_folder(folder: str | Path | None = None) -> Path:
    """The folder that was named, else ``$UNALIKE_WORKSPACE``, else ``workspace`` here; absolute."""
    return Path(folder or os.environ.get(VARIABLE) or DEFAULT).expanduser().resolve()


class Workspace:
    """The jobs of one folder. Ids may be shortened to what is unique. ``program`` carries out the command lines."""

    def __init__(self, folder: str | Path | None = None, *, program: Sequence[str] = PROGRAM) -> None:
        self.folder, self.program = workspace_folder(folder), tuple(program)
        self.store = Store(self.folder)

    # -- looking --

    def jobs(self) -> list[Job]:
        """Every job as it now stands, the oldest first, each search followed by its trials."""
        return refresh(self.store, self.folder)

    def get(self, job_id: str) -> Job:
        """A job as it now stands. Raises RunError for an id that is not there or fits several."""
        refresh(self.store, self.folder)
        return self.store.find(job_id)

    def model(self, job_id: str) -> Path | str:
        """What a job left for the next one, a file or its address. Raises RunError that names the folder and what was looked for."""
        return model_of(self.get(job_id))

    def log_file(self, job: Job) -> Path:
        """Where a job's own words are."""
        return Path(job.run_dir) / TRIAL_LOG_FILE if job.trial is not None else job_folder(self.folder, job.id) / LOG

    def log(self, job_id: str, *, follow: bool = False, pace: float = PACE_S) -> Iterator[str]:
        """A job's log in pieces; with ``follow`` until the job has ended."""
        job = self.get(job_id)
        path, offset = self.log_file(job), 0
        while True:
            over = not follow or self.get(job.id).status not in AT_WORK  # before the last piece is read
            try:
                with open(path, "rb") as file:
                    file.seek(offset)
                    piece = file.read()
            except FileNotFoundError:
                piece = b""
            offset += len(piece)
            if piece:
                yield piece.decode("utf-8", "replace")
            if over:
                return
            time.sleep(pace)

    def wait(self, job_ids: Sequence[str], *, timeout: float | None = None, pace: float = PACE_S) -> list[Job]:
        """Wait until jobs are no longer at work; the jobs. Raises RunError when ``timeout`` seconds (None: for ever) are over."""
        until = None if timeout is None else time.monotonic() + timeout
        names = [self.get(job_id).id for job_id in job_ids]
        while True:
            jobs = [self.get(name) for name in names]
            busy = [job for job in jobs if job.status in AT_WORK]
            if not busy:
                return jobs
            if until is not None and time.monotonic() > until:
                raise RunError(f"{', '.join(f'{job.id} is {job.status}' for job in busy)} after {timeout:g} seconds",
                               remedy="wait longer")  # fmt: skip
            time.sleep(pace)

    # -- making --

    def create(
        self, action: str, spec_overrides: Overrides = (), *, spec: Spec = None, data: str | Path | None = None,
        parent_job_id: str | None = None, automl_policy: str | None = None, wait_for_parent: bool = False,
        where: str = "local", options: Mapping[str, Any] | None = None,
    ) -> Job:  # fmt: skip
        """Check a job's spec, complete it from its parent, and start it; at once back.

        ``spec_overrides`` are dotted (short names such as ``num_epochs`` too), over ``spec`` (YAML file or dict).
        ``automl_policy``: ``auto`` (also if unset) or ``off``, of a training. A parent that is not complete is refused
        unless ``wait_for_parent``. ``where``: local, slurm, ray or kubernetes, with ``options`` of that place. Raises
        SpecError with every fault of the spec, RunError for the parent, and what the place needs.
        """
        if where not in PLACES:
            raise SpecError(f"where: {where!r}", expected=f"one of {', '.join(PLACES)}", remedy=closest(where, PLACES))
        parent = None if parent_job_id is None else self.get(parent_job_id)
        given = specified(action, spec, spec_overrides, data, automl_policy)
        job_id = self.store.new_id()
        me = ProcessId.of(os.getpid())
        job = Job(
            job_id, action, results_dir=str(job_folder(self.folder, job_id)), policy=given.policy, spec=given.spec,
            overrides=given.overrides, parent_job_id=None if parent is None else parent.id, where=where,
            options=dict(options or {}), cwd=str(Path.cwd()), created=now(), boot=me.boot, runner_pid=me.pid,
            runner_start=me.start,
        )  # fmt: skip
        job = _placed(job, parent)
        if where == "local":
            refuse_options(where, job.options, ())
        elif where == "kubernetes":
            manifest(job, job_folder(self.folder, job_id), self.folder)
        self._accept_parent(job, parent, wait_for_parent)
        self.store.insert(job)
        return self._start(job)

    def _accept_parent(self, job: Job, parent: Job | None, wait: bool) -> None:
        """Refuse a parent of the wrong kind, one that is not complete, and one whose artefact is missing."""
        if parent is None:
            return
        refuse_parent(job, parent)
        if parent.status != "Complete":
            if parent.status not in AT_WORK:
                raise RunError(f"parent {parent.id} is {parent.status}", expected="one that is Complete",
                               remedy=f"take it up again: unalike job resume {parent.id}")  # fmt: skip
            if not wait:
                raise RunError(f"parent {parent.id} is {parent.status}", expected="one that is Complete",
                               remedy=f"wait for it (unalike job wait {parent.id}), or add --wait-for-parent")  # fmt: skip
            if job.where == "local":
                say(f"job {job.id} waits for its parent {parent.id}")
                return  # its runner waits
            say(f"waiting here for parent {parent.id}: {job.where} gets the job when it is complete")
            (parent,) = self.wait([parent.id])
            if parent.status != "Complete":
                raise RunError(
                    f"parent {parent.id} is {parent.status}: {parent.error}", expected="one that is Complete"
                )
        fill(job, parent)

    def _start(self, job: Job) -> Job:
        folder = job_folder(self.folder, job.id)
        folder.mkdir(parents=True, exist_ok=True)
        if job.where == "local":
            words = [
                sys.executable,
                "-m",
                "unalike.jobs.runner",
                str(self.folder),
                job.id,
                str(job.attempt),
                *self.program,
            ]
            runner = start_detached(words, cwd=folder, log=folder / "runner.txt")
            # Where the runner was quicker it says the same.
            self.store.update(job.id, expect=("Pending",), at=job.attempt, boot=runner.boot, runner_pid=runner.pid,
                              runner_start=runner.start)  # fmt: skip
        else:
            try:
                self._hand_over(job, folder)
            except BaseException as error:
                self.store.update(job.id, expect=AT_WORK, at=job.attempt, status="Error", error=str(error), ended=now())
                raise
        return self.store.find(job.id)

    def _hand_over(self, job: Job, folder: Path) -> None:
        """Give the order to a cluster."""
        if job.where == "kubernetes":
            python = str(job.options.get("python", "python"))
            job = prepare(self.store, self.folder, job, (python, *self.program[1:]))
            path = write_manifest(job, folder, self.folder)
            note = f"hand it over with: kubectl apply -f {path}"
            self.store.update(job.id, note=note)
            say(note)
            return
        cluster = open_cluster(job.where, job.options)
        job = prepare(self.store, self.folder, job, (cluster.python, *self.program[1:]))
        handle = cluster.submit(folder, job)
        self.store.update(job.id, at=job.attempt, handle=handle, boot="", runner_pid=None, runner_start="")

    # -- stopping and going on --

    def cancel(self, job_id: str, *, now_: bool = False) -> Job:
        """Ask a job to save and end; ``now_`` does not let it save. Raises RunError when it is not at work."""
        return self._stop(job_id, "cancel", "Canceled", kill=now_)

    def pause(self, job_id: str) -> Job:
        """Ask a job to save and end, to be resumed later."""
        return self._stop(job_id, "pause", "Paused", kill=False)

    def _stop(self, job_id: str, word: str, status: str, *, kill: bool) -> Job:
        job = self.get(job_id)
        _refuse_trial(job, word)
        if job.status == "Paused" and word == "cancel":
            self.store.update(job.id, expect=("Paused",), status="Canceled")
        elif job.status not in AT_WORK:
            raise RunError(f"job {job.id} is {job.status}", expected="one that is Pending or Running")
        elif not (job.where == "local" and self.store.update(job.id, expect=("Pending",), status=status, ended=now())):
            self.store.update(job.id, expect=AT_WORK, requested=word)
            self._signal(self.store.find(job.id), kill=kill)
        return self.store.find(job.id)

    def _signal(self, job: Job, *, kill: bool) -> None:
        folder = job_folder(self.folder, job.id)
        if job.where == "kubernetes":
            self.store.update(job.id, expect=("Pending",), status="Canceled" if job.requested == "cancel" else "Paused",
                              requested="", ended=now())  # fmt: skip
            say(f"end it there too: kubectl delete job unalike-{job.id}-{job.attempt}")
        elif job.where != "local":
            open_cluster(job.where, job.options).cancel(folder, job.handle)
        elif job.boot != this_boot():
            say(f"job {job.id} runs on {job.host}: its runner there is told through the store")
        elif kill and job.action_pid and is_alive(job.action_pid, job.action_start):
            signal_group(job.action_pid, signal.SIGKILL)
        elif job.action_pid and not is_alive(job.runner_pid, job.runner_start):
            signal_group(job.action_pid, signal.SIGTERM)  # else the runner reads the request, and signals once

    def resume(self, job_id: str, *, wait_for_parent: bool = False) -> Job:
        """Take a job up again that was paused, cancelled or ended in an error; a training goes on from its checkpoint."""
        job = self.get(job_id)
        _refuse_trial(job, "resume")
        if job.status not in RESUMABLE:
            raise RunError(f"job {job.id} is {job.status}", expected=f"one that is {', '.join(RESUMABLE)}")
        parent = self.get(job.parent_job_id) if job.parent_job_id else None
        self._accept_parent(job, parent, wait_for_parent)
        me = ProcessId.of(os.getpid())
        taken = self.store.update(
            job.id, expect=RESUMABLE, at=job.attempt, attempt=job.attempt + 1, status="Pending", error="", note="", requested="",
            exit_code=None, ended=None, ready=None, gpus=[], handle="", action_pid=None, action_start="",
            boot=me.boot, runner_pid=me.pid, runner_start=me.start,
        )  # fmt: skip
        if taken:
            return self._start(self.store.find(job.id))
        return self.store.find(job.id)

    def delete(self, job_id: str) -> list[str]:
        """Forget a job that is not at work, with its folder and its trials; the ids. Results elsewhere stay.

        Raises RunError while it, or a job that waits for it, is at work.
        """
        job = self.get(job_id)
        _refuse_trial(job, "delete")
        jobs = self.store.all()
        busy = [j for j in jobs if j.status in AT_WORK and job.id in (j.id, j.parent_job_id)]
        if busy:
            raise RunError(f"{', '.join(f'{j.id} is {j.status}' for j in busy)}", remedy="cancel first, or wait")
        doomed = [j.id for j in jobs if j.id == job.id or (j.parent_job_id == job.id and j.trial is not None)]
        self.store.remove(doomed)
        delete_folder(job_folder(self.folder, job.id))
        if results_address(job) or Path(job.run_dir).exists():
            say(f"{results_address(job) or job.run_dir} lies outside the workspace and was left")
        return doomed

    def allow_at_once(self, count: int) -> None:
        """How many local jobs run at the same time; kept in the workspace."""
        if count < 1:
            raise SpecError(f"{count} jobs at once", expected="1 or more")
        self.store.keep_setting(AT_ONCE, count)


def _refuse_trial(job: Job, word: str) -> None:
    if job.trial is not None:
        raise RunError(f"job {job.id} is a trial", remedy=f"{word} its search: unalike job {word} {job.parent_job_id}")


def _placed(job: Job, parent: Job | None) -> Job:
    """The job with the folders that its spec asks for: its own unless the user named others.

    Of results that go to a store, ``run_dir`` is the folder of this machine's cache in which the action works.
    """
    named = field_of(job, "results_dir")
    own = field_of(job, f"{job.action}.results_dir")
    takes_engine = parent is not None and parent.action == "gen_trt_engine"
    takes_engine = takes_engine and not any(
        field_of(job, f"{job.action}.{n}") for n in ("checkpoint", "onnx_file", "engine")
    )
    engine = field_of(job, f"{job.action}.trt_engine") or takes_engine
    prefix = "trt_" if engine and job.action in ("evaluate", "inference") else ""
    root = str(named) if named else job.results_dir
    place = str(own) if own else f"{root.rstrip('/')}/{prefix}{job.action}"
    if uri_of(place):
        run_dir = staging_entry(uri_of(place)).path
    else:
        run_dir = Path(job.cwd) / Path(place).expanduser()
    results = root if uri_of(root) else str(Path(job.cwd) / Path(root).expanduser())
    return replace(job, results_dir=results, run_dir=str(run_dir))


def create_job(
    action: str, spec_overrides: Overrides = (), *, parent_job_id: str | None = None, automl_policy: str | None = None,
    spec: Spec = None, data: str | Path | None = None, workspace: str | Path | None = None,
    wait_for_parent: bool = False, where: str = "local", options: Mapping[str, Any] | None = None,
) -> Job:  # fmt: skip
    """Start an action as a job of its own, completed from its parent; see ``Workspace.create``.

    Example: ``first = create_job("train", {"dataset.train_dataset": "photographs/"})``, then
    ``create_job("export", parent_job_id=first.id, wait_for_parent=True)``.
    """
    return Workspace(workspace).create(
        action, spec_overrides, spec=spec, data=data, parent_job_id=parent_job_id, automl_policy=automl_policy,
        wait_for_parent=wait_for_parent, where=where, options=options,
    )  # fmt: skip
