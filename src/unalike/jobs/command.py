"""The command line of a job's action, completed from its parent and written as an attempt's order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from unalike.jobs.attempt import SPEC_FILE, JobOrder, job_folder
from unalike.jobs.database import Job, JobStore
from unalike.jobs.gpu_queue import device_environment
from unalike.jobs.outputs import results_address
from unalike.jobs.parent_fields import fields_from_parent, holds_search
from unalike.runs.filenames import RECORD_FILE
from unalike.runs.processes import child_command
from unalike.runs.written_model import newest_checkpoint
from unalike.spec.actions import command_of
from unalike.spec.reading import yaml_line
from unalike.storage.atomic import write_text

# The process of an action, which its command line follows; a killed supervisor leaves it time for a step, a validation and a
# checkpoint.
PROGRAM = tuple(child_command(grace_s=120))


def action_arguments(job: Job, folder: Path) -> list[str]:
    """The command line of a job's action: command, spec file, overrides, completed fields, --resume or --overwrite."""
    arguments = command_of(job.action).split()
    if job.spec is not None:
        arguments += ["-e", str(folder / SPEC_FILE)]
    fields = {**job.filled, **job.overrides}
    arguments += [f"{path}={yaml_line(value)}" for path, value in fields.items()]
    if job.policy:
        arguments += ["--automl-policy", job.policy]
    return arguments + resume_arguments(job)


def resume_arguments(job: Job) -> list[str]:
    """What an attempt does with the results of an earlier one: a training resumes them, other actions overwrite them."""
    folder = Path(job.run_dir)
    if results_address(job):  # the results of an earlier attempt may be in the remote store alone
        return [] if job.attempt == 1 else ["--resume" if job.action == "train" else "--overwrite"]
    if not (folder / RECORD_FILE).exists():
        return []
    if job.action == "train" and (newest_checkpoint(folder) is not None or holds_search(folder)):
        return ["--resume"]
    return ["--overwrite"]


def delete_completed_outputs(job: Job) -> None:
    """Delete what an earlier attempt wrote to files that were named here; the action refuses files that exist."""
    for path in ("export.onnx_file", "gen_trt_engine.trt_engine"):
        if path in job.filled:
            output = Path(str(job.filled[path]))
            for file in output.parent.glob(f"{output.name}*"):
                file.unlink(missing_ok=True)


def prepare_attempt(store: JobStore, workspace: Path, job: Job, program: Sequence[str]) -> Job:
    """Complete a job's spec from its parent and write spec and order into its folder.

    Args:
        store: The job store.
        workspace: The workspace.
        job: The job.
        program: Program and first arguments of the action's process.

    Returns:
        The job with the completed fields.

    Raises:
        RunError: The parent's model is missing.
    """
    parent = store.get(job.parent_job_id) if job.parent_job_id else None
    store.update(job.id, at_attempt=job.attempt, filled=fields_from_parent(job, parent))
    job = store.get(job.id) or job
    folder = job_folder(workspace, job.id)
    folder.mkdir(parents=True, exist_ok=True)
    if job.spec is not None:
        spec = yaml.safe_dump(dict(job.spec), sort_keys=False, allow_unicode=True, width=120)
        write_text(folder / SPEC_FILE, spec)
    if job.attempt > 1:
        delete_completed_outputs(job)
    JobOrder(
        id=job.id, attempt=job.attempt, cwd=job.cwd, run_dir=job.run_dir, program=list(program),
        arguments=action_arguments(job, folder), environment=device_environment(job),
    ).write(folder)  # fmt: skip
    return job
