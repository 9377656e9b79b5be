"""The table by which a job's spec is completed before it starts: which field gets what, from which parent.

What the user wrote is never touched. ``FUNCTIONS`` are TAO's names for the ways in which a value is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unalike.errors import SpecError
from unalike.jobs.database import Job
from unalike.jobs.outputs import SEARCH_MARKS, folder_of, model_of, newest_checkpoint
from unalike.runs.filenames import JOB_CALIBRATION_CACHE, JOB_ENGINE_FILE, JOB_ONNX_FILE
from unalike.storage.filesystems import uri_of


@dataclass(frozen=True)
class Setting:
    """What the functions know: the job, its own folder, its parent."""

    job: Job
    parent: Job | None


def output_dir(at: Setting) -> str:
    """The job's own results folder."""
    return at.job.results_dir


def parent_model(at: Setting) -> str | None:
    """What the parent left: its best checkpoint, else its newest; of a search its best trial's; its ONNX; its engine."""
    return None if at.parent is None else str(model_of(at.parent))


def parent_model_folder(at: Setting) -> str | None:
    """The folder of what ``parent_model`` gives."""
    return None if at.parent is None else folder_of(model_of(at.parent))


def resume_model(at: Setting) -> str | None:
    """The newest whole checkpoint of the job's own folder; None for a search, which goes on by its own record."""
    folder = Path(at.job.run_dir)
    if at.job.policy == "auto" or searches(folder):
        return None
    found = newest_checkpoint(folder)
    return None if found is None else str(found)


def ptm_if_no_resume_model(at: Setting) -> str | None:
    """The pretrained model (the parent's, where the parent is a training), only when there is nothing to resume."""
    return None if newest_checkpoint(Path(at.job.run_dir)) is not None else parent_model(at)


def _own_file(at: Setting, name: str) -> str | None:
    """A file of that name in the job's folder; of results that go to a store, whatever the action calls it."""
    return None if uri_of(at.job.results_dir) else str(Path(at.job.results_dir) / name)


def create_onnx_file(at: Setting) -> str | None:
    """``model.onnx`` in the job's folder."""
    return _own_file(at, JOB_ONNX_FILE)


def create_engine_file(at: Setting) -> str | None:
    """``model.engine`` in the job's folder."""
    return _own_file(at, JOB_ENGINE_FILE)


def create_cal_cache(at: Setting) -> str | None:
    """``cal.bin`` in the job's folder."""
    return _own_file(at, JOB_CALIBRATION_CACHE)


FUNCTIONS: Mapping[str, Callable[[Setting], str | None]] = {
    function.__name__: function
    for function in (output_dir, ptm_if_no_resume_model, resume_model, parent_model, parent_model_folder,
                     create_onnx_file, create_engine_file, create_cal_cache)
}  # fmt: skip


class Entry(NamedTuple):
    """A line of the table. ``parents``: only with a parent of these actions; ``unless``: fields that stand in its place."""

    action: str
    field: str
    function: str
    parents: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


EVERY = "*"
_NETWORKS = ("export", "quantize")
_MODELS = ("checkpoint", "onnx_file", "engine", "trt_engine")
TABLE = (
    Entry(EVERY, "results_dir", "output_dir"),
    Entry("train", "model.pretrained_model_path", "ptm_if_no_resume_model", ("train",),
          ("train.resume_training_checkpoint_path",)),
    Entry("train", "train.resume_training_checkpoint_path", "resume_model"),
    *(Entry(action, f"{action}.{field}", "parent_model", parents, tuple(f"{action}.{name}" for name in _MODELS))
      for action in ("evaluate", "inference")
      for field, parents in (("checkpoint", ("train",)), ("trt_engine", ("gen_trt_engine",)), ("onnx_file", _NETWORKS),
                             ("engine", ("gen_engine",)))),
    Entry("export", "export.checkpoint", "parent_model", ("train",)),
    Entry("export", "export.onnx_file", "create_onnx_file"),
    Entry("gen_trt_engine", "gen_trt_engine.onnx_file", "parent_model", _NETWORKS),
    Entry("gen_trt_engine", "gen_trt_engine.trt_engine", "create_engine_file"),
    Entry("gen_trt_engine", "gen_trt_engine.tensorrt.calibration.cal_cache_file", "create_cal_cache"),
    *(Entry(action, f"{action}.{field}", "parent_model", parents, tuple(f"{action}.{name}" for name in _MODELS[:2]))
      for action in ("quantize", "gen_engine") for field, parents in (("checkpoint", ("train",)), ("onnx_file", _NETWORKS))),
    Entry("inspect_fit", "inspect_fit.model", "parent_model", ("train",)),
    Entry("inspect_run", "inspect_run.inspector", "parent_model", ("inspect_fit",)),
    Entry("verify", "verify.model", "parent_model", ("train", *_NETWORKS)),
    Entry("verify", "verify.reference", "parent_model", ("verify",)),
    Entry("discover", "discover.model", "parent_model", ("train", *_NETWORKS)),
    Entry("gallery_build", "gallery_build.model", "parent_model", ("train", *_NETWORKS)),
    Entry("bench_engine", "bench_engine.model", "parent_model", ("train", *_NETWORKS, "gen_engine", "gen_trt_engine")),
)  # fmt: skip


def searches(folder: Path) -> bool:
    """Whether a training's folder holds a search or an automatic training."""
    return any(True for mark in SEARCH_MARKS for _ in folder.glob(mark))


def own_fields(job: Job) -> set[str]:
    """The dotted fields that the user wrote and that are not null."""
    found = {path for path, value in job.overrides.items() if value is not None}

    def walk(tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            elif value is not None and job.overrides.get(f"{prefix}{key}", value) is not None:
                found.add(f"{prefix}{key}")

    walk(job.spec or {}, "")
    return found


def _fitting(job: Job) -> list[Entry]:
    own = own_fields(job)
    entries = [e for e in TABLE if e.action in (EVERY, job.action)]
    return [e for e in entries if e.field not in own and not own.intersection(e.unless)]


def fill(job: Job, parent: Job | None) -> dict[str, Any]:
    """Field -> value of all that a job's spec gets before it starts. Raises RunError for a parent without its artefact."""
    filled: dict[str, Any] = {}
    at = Setting(job, parent)
    for entry in _fitting(job):
        if entry.parents and (parent is None or parent.action not in entry.parents):
            continue
        value = FUNCTIONS[entry.function](at)
        if value is not None:
            filled[entry.field] = value
    return filled


def refuse_parent(job: Job, parent: Job) -> None:
    """Raise SpecError when a parent has nothing that this action could take and the user named no model either."""
    entries = [e for e in TABLE if e.action == job.action and e.function == "parent_model"]
    wanted = dict.fromkeys(name for e in entries for name in e.parents)
    own = own_fields(job)
    if not entries or parent.action in wanted or any(e.field in own or own.intersection(e.unless) for e in entries):
        return
    raise SpecError(f"{job.action} with parent {parent.id}, which is {parent.action}",
                    expected=f"a parent that is {' or '.join(wanted)}",
                    remedy=f"name such a job, or set {entries[0].field}")  # fmt: skip
