"""The order for one attempt at a job: the command line, written down in the job's folder for whoever carries it out.

A machine of a cluster needs nothing but this folder: ``order.json`` says what to do, ``outcome.json`` what came of it,
``log.txt`` holds what the action said.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from unalike.jobs.database import Job
from unalike.jobs.outputs import newest_checkpoint, results_address
from unalike.jobs.parent_fields import searches
from unalike.runs.filenames import RECORD_FILE
from unalike.spec.actions import command_of
from unalike.spec.reading import yaml_line
from unalike.storage.atomic import write_text

FORMAT_VERSION = 1
ORDER, OUTCOME, LOG, SPEC = "order.json", "outcome.json", "log.txt", "spec.yaml"
# What carries out an action's command line: the program itself, which ends when its runner does.
PROGRAM = (sys.executable, "-m", "unalike.cli.child")


def job_folder(workspace: Path, job_id: str) -> Path:
    """A job's own folder; a trial's is its search's."""
    return workspace / job_id.partition(".")[0]


def arguments(job: Job, folder: Path) -> list[str]:
    """The words of the command line: action, spec, overrides, what was filled in, and how to go on."""
    words = command_of(job.action).split()
    if job.spec is not None:
        words += ["-e", str(folder / SPEC)]
    fields = dict(job.filled) | {path: value for path, value in job.overrides.items()}
    words += [f"{path}={yaml_line(value)}" for path, value in fields.items()]
    if job.policy:
        words += ["--automl-policy", job.policy]
    return words + going_on(job)


def going_on(job: Job) -> list[str]:
    """How an attempt treats what an earlier one left in the folder: goes on with a training, replaces all else."""
    folder = Path(job.run_dir)
    if results_address(job):  # what an earlier attempt left may lie in the store alone
        return [] if job.attempt == 1 else ["--resume" if job.action == "train" else "--overwrite"]
    if not (folder / RECORD_FILE).exists():
        return []
    if job.action == "train" and (newest_checkpoint(folder) is not None or searches(folder)):
        return ["--resume"]
    return ["--overwrite"]


def clear_created(job: Job) -> None:
    """Delete what an earlier attempt wrote under names that were filled in here; the action refuses files that exist."""
    for path in ("export.onnx_file", "gen_trt_engine.trt_engine"):
        if path in job.filled:
            made = Path(str(job.filled[path]))
            for file in made.parent.glob(f"{made.name}*"):
                file.unlink(missing_ok=True)


def write_order(
    job: Job, folder: Path, *, program: tuple[str, ...] = PROGRAM, env: Mapping[str, str] | None = None
) -> None:
    """Write what the attempt needs into the job's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if job.spec is not None:
        write_text(folder / SPEC, yaml.safe_dump(dict(job.spec), sort_keys=False, allow_unicode=True, width=120))
    if job.attempt > 1:
        clear_created(job)
    (folder / OUTCOME).unlink(missing_ok=True)
    order = {
        "format_version": FORMAT_VERSION, "id": job.id, "attempt": job.attempt, "cwd": job.cwd, "run_dir": job.run_dir,
        "program": list(program), "arguments": arguments(job, folder), "environment": dict(env or {}),
    }  # fmt: skip
    write_text(folder / ORDER, json.dumps(order, indent=1, ensure_ascii=True) + "\n")


def delete_folder(folder: Path) -> None:
    """Delete a job's folder with all that lies in it."""
    shutil.rmtree(folder, ignore_errors=True)
