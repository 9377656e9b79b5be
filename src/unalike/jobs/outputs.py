"""What an action left in its folder: the model that the next one takes, its last word, its figures.

Nothing half-written is ever given: a checkpoint counts when the end of its archive is there, and files that are being
written bear other names.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from unalike.errors import DataError, RunError, redact
from unalike.jobs.database import Job
from unalike.progress import say
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
from unalike.storage.filesystems import RemoteStore, uri_of

ENGINES = ("gen_trt_engine", "gen_engine")
# Any of these in a training's folder: a search or an automatic training, which goes on by itself.
SEARCH_MARKS = (STUDY_FILE, TRIALS_FILE, SEARCH_FILE, AUTOMATIC_FILE, TRIAL_FOLDERS, f"*/{LATEST_CHECKPOINT}")


def is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end (torch writes ZIP archives, whose table comes last)."""
    try:
        return path.stat().st_size > 0 and zipfile.is_zipfile(path)
    except OSError:
        return False


def _epoch_and_step(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.stem))


def checkpoints_of(folder: Path) -> Iterator[Path]:
    """Whole checkpoints of a training's folder, the newest first; one that is not whole is said and passed over."""
    latest = folder / LATEST_CHECKPOINT
    found = [latest.resolve()] if latest.exists() else []
    found += [
        p
        for p in sorted(folder.glob(PERIODIC_CHECKPOINTS), key=_epoch_and_step, reverse=True)
        if p.resolve() not in found
    ]
    for path in found:
        if is_whole(path):
            yield path
        else:
            say(f"{path} is not whole: passed over")


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a training's own folder."""
    return next(checkpoints_of(folder), None)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is not there or not readable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def best_trial_folder(folder: Path) -> Path | None:
    """The folder of a search's best trial, by its record; None where there is no search or nothing was measured."""
    best = read_json(folder / SEARCH_FILE).get("best") or {}
    return Path(best["folder"]) if best.get("folder") else None


def trained_model(folder: Path) -> Path | None:
    """A training's best checkpoint, else its newest; of a search its best trial's."""
    trial = best_trial_folder(folder)
    for place in [folder] if trial is None else [trial, folder]:
        if is_whole(place / BEST_CHECKPOINT):
            return place / BEST_CHECKPOINT
    return newest_checkpoint(trial or folder)


def looked_for(job: Job) -> str:
    """What a job's model is looked for as, in words."""
    if job.action == "train":
        return f"{BEST_CHECKPOINT}, {LATEST_CHECKPOINT} or {PERIODIC_CHECKPOINTS}"
    return {"export": "an .onnx file", "quantize": "an .onnx file", "gen_trt_engine": "an .engine file",
            "gen_engine": "an .xml or _optimised.onnx file", "inspect_fit": "an .inspector file",
            "gallery_build": "a .gallery file", "verify": "a saved set"}.get(job.action, "a model")  # fmt: skip


# The field that names the file which an action writes, and what files of that kind are called.
_WRITTEN = {"export": ("export.onnx_file", ("*.onnx",)), "quantize": ("quantize.output", ("*.onnx",)),
            "gen_engine": ("gen_engine.engine", ("*.xml", "*_optimised.onnx")),
            "gen_trt_engine": ("gen_trt_engine.trt_engine", ("*.engine",)),
            "inspect_fit": ("inspect_fit.inspector", ("*.inspector",)), "verify": ("verify.save", ()),
            "gallery_build": ("gallery_build.gallery", ("*.gallery",))}  # fmt: skip


def field_of(job: Job, path: str) -> Any:
    """What a job's spec says at a dotted path: completed, overridden, or in the user's own spec; else None."""
    for flat in (job.overrides, job.filled):  # a field of the user's is never filled
        if flat.get(path) is not None:
            return flat[path]
    value: Any = job.spec
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def written_file(job: Job) -> Path | None:
    """The file that an export or an engine's building left, or None."""
    path, patterns = _WRITTEN[job.action]
    named = field_of(job, path)
    if named:
        file = Path(job.cwd) / str(named)
        return file if file.is_file() and file.stat().st_size > 0 else None
    found = [f for pattern in patterns for f in Path(job.run_dir).glob(pattern) if not f.name.startswith(".")]
    return max(found, key=lambda file: file.stat().st_mtime, default=None)


def model_of(job: Job) -> Path | str:
    """What a job leaves for the next one: a file, or its address where the results lie in a store and none is here.

    Raises RunError that names the folder and what was looked for.
    """
    if job.action == "train":
        found: Path | str | None = trained_model(Path(job.run_dir))
    elif job.action in _WRITTEN:
        found = written_file(job)
    else:
        raise RunError(f"job {job.id} is {job.action}, which leaves no model", expected="a parent that is "
                       f"{', '.join(['train', *_WRITTEN])}")  # fmt: skip
    address = results_address(job)
    if found is None and address:
        found = _in_store(job, address)
    if found is None:
        named = field_of(job, _WRITTEN[job.action][0]) if job.action in _WRITTEN else None
        where = redact(address) or (Path(job.cwd) / str(named) if named else Path(job.run_dir))
        raise RunError(f"job {job.id} ({job.action}) left no model: {where} was looked into for {looked_for(job)}",
                       remedy=f"see 'unalike job logs {job.id}', or name a model in the spec")  # fmt: skip
    return found


def folder_of(model: Path | str) -> str:
    """The folder of a model, or its address."""
    return str(model.parent) if isinstance(model, Path) else model.rpartition("/")[0]


def results_address(job: Job) -> str:
    """Where a job's action sends its results; empty where they lie on this machine's disks."""
    own = uri_of(str(field_of(job, f"{job.action}.results_dir") or ""))
    root = uri_of(job.results_dir)
    return own.rstrip("/") or (f"{root.rstrip('/')}/{job.action}" if root else "")


def _in_store(job: Job, address: str) -> str | None:
    """The address of a job's model in a store, where this machine no longer has it."""
    try:
        listing = RemoteStore(address).listing()
    except DataError as error:
        raise RunError(
            f"results of job {job.id}: {error.found}", expected=error.expected, remedy=error.remedy
        ) from error
    names = [name for name in listing if "/" not in name] if isinstance(listing, dict) else []
    if job.action == "train":
        periodic = sorted(
            (n for n in names if PurePath(n).match(PERIODIC_CHECKPOINTS)), key=lambda n: _epoch_and_step(Path(n))
        )
        chosen = [name for name in (BEST_CHECKPOINT, LATEST_CHECKPOINT) if name in names] or periodic[-1:]
    else:
        chosen = [n for pattern in _WRITTEN[job.action][1] for n in sorted(names) if PurePath(n).match(pattern)]
    return f"{address}/{chosen[0]}" if chosen else None


# ---- what a run says of itself ----


def last_word(folder: Path, since: float = 0.0) -> dict[str, Any]:
    """The last whole line of ``status.json``, where it was written after ``since``; else an empty one."""
    path = folder / STATUS_FILE
    try:
        if path.stat().st_mtime < since - 1:  # a second: clocks of files are coarse
            return {}
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        if isinstance(found, dict):
            return found
    return {}
