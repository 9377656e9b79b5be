"""What an action wrote: the model that the next job takes, and the last line of its status."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

from unalike.errors import DataError, RunError
from unalike.jobs.database import Job
from unalike.runs.filenames import (
    AUTOMATIC_FILE,
    BEST_CHECKPOINT,
    LATEST_CHECKPOINT,
    PERIODIC_CHECKPOINTS,
    SEARCH_FILE,
    STATUS_FILE,
    STUDY_FILE,
    TRIAL_FOLDERS,
    TRIALS_FILE,
)
from unalike.runs.written_model import TRAININGS, WRITTEN_FILES, epoch_and_step, newest_file, trained_model
from unalike.sanitize import redact
from unalike.storage.filesystems import RemoteStore, uri_of

ENGINES = ("gen_trt_engine", "gen_engine")
# Any of these in a training's folder: a search or an automatic training, which resumes by its own record.
SEARCH_MARKS = (STUDY_FILE, TRIALS_FILE, SEARCH_FILE, AUTOMATIC_FILE, TRIAL_FOLDERS, f"*/{LATEST_CHECKPOINT}")


def expected_model(job: Job) -> str:
    """Names of the files that a job's model may have, for messages."""
    if job.action in TRAININGS:
        return f"{BEST_CHECKPOINT}, {LATEST_CHECKPOINT} or {PERIODIC_CHECKPOINTS}"
    return {"export": "an .onnx file", "quantize": "an .onnx file", "gen_trt_engine": "an .engine file",
            "gen_engine": "an .xml or _optimised.onnx file", "inspect_fit": "an .inspector file",
            "gallery_build": "a .gallery file", "verify": "a saved set"}.get(job.action, "a model")  # fmt: skip


# Action -> the field that names the file which it writes.
_OUTPUT_FIELDS = {"export": "export.onnx_file", "quantize": "quantize.output", "gen_engine": "gen_engine.engine",
                  "gen_trt_engine": "gen_trt_engine.trt_engine", "inspect_fit": "inspect_fit.inspector",
                  "verify": "verify.save", "gallery_build": "gallery_build.gallery"}  # fmt: skip


def field_of(job: Job, path: str) -> Any:
    """The value of a dotted field of a job: overridden, completed from the parent, or of the user's spec; else None."""
    for fields in (job.overrides, job.filled):  # a field that the user set is never completed
        if fields.get(path) is not None:
            return fields[path]
    value: Any = job.spec
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def written_file(job: Job) -> Path | None:
    """The file that an action of ``_OUTPUT_FIELDS`` wrote, or None."""
    name = field_of(job, _OUTPUT_FIELDS[job.action])
    if name:
        file = Path(job.cwd) / str(name)
        return file if file.is_file() and file.stat().st_size > 0 else None
    return newest_file(Path(job.run_dir), WRITTEN_FILES[job.action])


def find_model(job: Job) -> Path | str:
    """Find what a job wrote for the next one.

    Returns:
        A file, or its address where the results are in a remote store and no file is on this machine.

    Raises:
        RunError: There is none; the message names the folder and the files that were expected.
    """
    if job.action in TRAININGS:
        model: Path | str | None = trained_model(Path(job.run_dir))
    elif job.action in _OUTPUT_FIELDS:
        model = written_file(job)
    else:
        raise RunError(f"job {job.id} is {job.action}, which writes no model", expected="a parent that is "
                       f"{', '.join([*TRAININGS, *_OUTPUT_FIELDS])}")  # fmt: skip
    address = results_address(job)
    if model is None and address:
        model = _find_in_store(job, address)
    if model is None:
        name = field_of(job, _OUTPUT_FIELDS[job.action]) if job.action in _OUTPUT_FIELDS else None
        location = redact(address) or (Path(job.cwd) / str(name) if name else Path(job.run_dir))
        raise RunError(f"job {job.id} ({job.action}) wrote no model: {location} does not hold {expected_model(job)}",
                       remedy=f"see 'unalike job logs {job.id}', or name a model in the spec")  # fmt: skip
    return model


def folder_of(model: Path | str) -> str:
    """The folder of a model, a path or an address."""
    return str(model.parent) if isinstance(model, Path) else model.rpartition("/")[0]


def results_address(job: Job) -> str:
    """The address to which a job's action uploads its results; empty where they stay on a disk."""
    own = uri_of(str(field_of(job, f"{job.action}.results_dir") or ""))
    root = uri_of(job.results_dir)
    return own.rstrip("/") or (f"{root.rstrip('/')}/{job.action}" if root else "")


def _find_in_store(job: Job, address: str) -> str | None:
    """The address of a job's model in a remote store, where this machine no longer has the file."""
    try:
        listing = RemoteStore(address).listing()
    except DataError as error:
        raise RunError(
            f"results of job {job.id}: {error.found}", expected=error.expected, remedy=error.remedy
        ) from error
    names = [name for name in listing if "/" not in name] if isinstance(listing, dict) else []
    if job.action in TRAININGS:
        periodic = sorted(
            (n for n in names if PurePath(n).match(PERIODIC_CHECKPOINTS)), key=lambda n: epoch_and_step(Path(n))
        )
        matching = [name for name in (BEST_CHECKPOINT, LATEST_CHECKPOINT) if name in names] or periodic[-1:]
    else:
        matching = [n for pattern in WRITTEN_FILES[job.action] for n in sorted(names) if PurePath(n).match(pattern)]
    return f"{address}/{matching[0]}" if matching else None


def last_status(folder: Path, since: float = 0.0) -> dict[str, Any]:
    """The last complete line of ``status.json``, where it was written after ``since`` (seconds since 1970); else empty."""
    path = folder / STATUS_FILE
    try:
        if path.stat().st_mtime < since - 1:  # a second: clocks of files are coarse
            return {}
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            content = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        if isinstance(content, dict):
            return content
    return {}
