"""Complete a job's spec from its parent, by a table of fields, values and the parent's actions.

Fields that the user set are never changed. ``FUNCTIONS`` are TAO's names of the functions that compute a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unalike.errors import SpecError
from unalike.jobs.database import Job
from unalike.jobs.outputs import SEARCH_MARKS, field_of, find_model, folder_of
from unalike.progress import say
from unalike.runs.filenames import JOB_CALIBRATION_CACHE, JOB_ENGINE_FILE, JOB_ONNX_FILE
from unalike.runs.vector_folder import is_vector_folder
from unalike.runs.written_model import newest_checkpoint
from unalike.spec.mandatory import missing_fields
from unalike.storage.filesystems import uri_of


@dataclass(frozen=True)
class JobContext:
    """What the functions of ``FUNCTIONS`` take: a job, and its parent or None."""

    job: Job
    parent: Job | None


def output_dir(context: JobContext) -> str:
    """The job's own results folder."""
    return context.job.results_dir


def parent_model(context: JobContext) -> str | None:
    """The parent's model: its best checkpoint, else its newest (of a search its best trial's), its ONNX file, its engine."""
    return None if context.parent is None else str(find_model(context.parent))


def parent_model_folder(context: JobContext) -> str | None:
    """The folder of ``parent_model``."""
    return None if context.parent is None else folder_of(find_model(context.parent))


def resume_model(context: JobContext) -> str | None:
    """The newest complete checkpoint of the job's own folder; None for a search, which resumes by its own record."""
    folder = Path(context.job.run_dir)
    if context.job.policy == "auto" or holds_search(folder):
        return None
    checkpoint = newest_checkpoint(folder)
    return None if checkpoint is None else str(checkpoint)


def ptm_if_no_resume_model(context: JobContext) -> str | None:
    """The pretrained model (the parent's, where the parent is a training), only when there is nothing to resume."""
    return None if newest_checkpoint(Path(context.job.run_dir)) is not None else parent_model(context)


def _own_file(context: JobContext, name: str) -> str | None:
    """A file of that name in the job's folder; None for results in a remote store, where the action names the file."""
    return None if uri_of(context.job.results_dir) else str(Path(context.job.results_dir) / name)


def create_onnx_file(context: JobContext) -> str | None:
    """``model.onnx`` in the job's folder."""
    return _own_file(context, JOB_ONNX_FILE)


def create_engine_file(context: JobContext) -> str | None:
    """``model.engine`` in the job's folder."""
    return _own_file(context, JOB_ENGINE_FILE)


def create_cal_cache(context: JobContext) -> str | None:
    """``cal.bin`` in the job's folder."""
    return _own_file(context, JOB_CALIBRATION_CACHE)


FUNCTIONS: Mapping[str, Callable[[JobContext], str | None]] = {
    function.__name__: function
    for function in (output_dir, ptm_if_no_resume_model, resume_model, parent_model, parent_model_folder,
                     create_onnx_file, create_engine_file, create_cal_cache)
}  # fmt: skip


class FieldRule(NamedTuple):
    """A line of the table.

    Attributes:
        action: The job's action, or ``EVERY``.
        field: The dotted field that is set.
        function: Name of the function in ``FUNCTIONS`` that finds the value.
        parents: Actions of which the parent must be one; empty for a value that needs no parent.
        unless: Fields in whose presence this one is not set.
    """

    action: str
    field: str
    function: str
    parents: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()


EVERY = "*"
_NETWORKS = ("export", "quantize")
_TRAININGS = ("train", "distill")
_MODELS = ("checkpoint", "onnx_file", "engine", "trt_engine")
FIELD_RULES = (
    FieldRule(EVERY, "results_dir", "output_dir"),
    FieldRule("train", "model.pretrained_model_path", "ptm_if_no_resume_model", _TRAININGS,
          ("train.resume_training_checkpoint_path",)),
    FieldRule("train", "train.resume_training_checkpoint_path", "resume_model"),
    *(FieldRule(action, f"{action}.{field}", "parent_model", parents, tuple(f"{action}.{name}" for name in _MODELS))
      for action in ("evaluate", "inference")
      for field, parents in (("checkpoint", _TRAININGS), ("trt_engine", ("gen_trt_engine",)), ("onnx_file", _NETWORKS),
                             ("engine", ("gen_engine",)))),
    FieldRule("export", "export.checkpoint", "parent_model", _TRAININGS),
    FieldRule("export", "export.onnx_file", "create_onnx_file"),
    FieldRule("gen_trt_engine", "gen_trt_engine.onnx_file", "parent_model", _NETWORKS),
    FieldRule("gen_trt_engine", "gen_trt_engine.trt_engine", "create_engine_file"),
    FieldRule("gen_trt_engine", "gen_trt_engine.tensorrt.calibration.cal_cache_file", "create_cal_cache"),
    *(FieldRule(action, f"{action}.{field}", "parent_model", parents, tuple(f"{action}.{name}" for name in _MODELS[:2]))
      for action in ("quantize", "gen_engine") for field, parents in (("checkpoint", _TRAININGS), ("onnx_file", _NETWORKS))),
    FieldRule("inspect_fit", "inspect_fit.model", "parent_model", _TRAININGS),
    FieldRule("inspect_run", "inspect_run.inspector", "parent_model", ("inspect_fit",)),
    FieldRule("verify", "verify.model", "parent_model", (*_TRAININGS, *_NETWORKS)),
    FieldRule("verify", "verify.reference", "parent_model", ("verify",)),
    FieldRule("discover", "discover.model", "parent_model", (*_TRAININGS, *_NETWORKS)),
    FieldRule("distill", "distill.teachers", "parent_model", (*_TRAININGS, *_NETWORKS)),
    FieldRule("embed", "embed.model", "parent_model", (*_TRAININGS, *_NETWORKS, "gen_engine", "gen_trt_engine")),
    FieldRule("gallery_build", "gallery_build.model", "parent_model", (*_TRAININGS, *_NETWORKS)),
    FieldRule("bench_engine", "bench_engine.model", "parent_model", (*_TRAININGS, *_NETWORKS, "gen_engine", "gen_trt_engine")),
)  # fmt: skip


def holds_search(folder: Path) -> bool:
    """Whether a training's folder holds a search or an automatic training."""
    return any(True for mark in SEARCH_MARKS for _ in folder.glob(mark))


def own_fields(job: Job) -> set[str]:
    """The dotted fields that the user set to something other than null."""
    paths = {path for path, value in job.overrides.items() if value is not None}

    def walk(tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            elif value is not None and job.overrides.get(f"{prefix}{key}", value) is not None:
                paths.add(f"{prefix}{key}")

    walk(job.spec or {}, "")
    return paths


def fields_from_parent(job: Job, parent: Job | None) -> dict[str, Any]:
    """Find the values that complete a job's spec before it starts.

    Args:
        job: The job.
        parent: Its parent, complete, or None.

    Returns:
        Value by dotted field, of fields that the user did not set.

    Raises:
        RunError: The parent's model is missing.
    """
    own = own_fields(job)
    context = JobContext(job, parent)
    fields: dict[str, Any] = {}
    for rule in FIELD_RULES:
        if rule.action not in (EVERY, job.action) or rule.field in own or own.intersection(rule.unless):
            continue
        if rule.parents and (parent is None or parent.action not in rule.parents):
            continue
        value = FUNCTIONS[rule.function](context)
        if value is not None:
            fields[rule.field] = value
    return fields


def refuse_incomplete(job: Job, parent: Job | None) -> None:
    """Raise SpecError that names the mandatory fields which neither the user set nor the parent gives."""
    own = own_fields(job)
    field_names = {rule.field for rule in FIELD_RULES
             if rule.action in (EVERY, job.action) and rule.parents and parent is not None and parent.action in rule.parents}  # fmt: skip
    if job.action == "evaluate" and _evaluates_vectors(job):
        field_names.add("evaluate.checkpoint")  # its images were embedded before
    missing = missing_fields(job.action, lambda path: path in own or path in field_names)
    if missing:
        raise SpecError(f"{job.action}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
                        expected="everything that the job needs, before it is created",
                        remedy=f"set {'it' if len(missing) == 1 else 'them'} in the overrides or the spec")  # fmt: skip


def _evaluates_vectors(job: Job) -> bool:
    reference = field_of(job, "dataset.val_dataset.reference")
    if not isinstance(reference, str):
        return False
    return is_vector_folder(reference if uri_of(reference) else Path(job.cwd) / reference)


def refuse_parent(job: Job, parent: Job) -> None:
    """Raise SpecError when the parent writes no model that this action takes, and the user named none either.

    What takes nothing from a parent is said: it may still have to begin after it.
    """
    rules = [rule for rule in FIELD_RULES if rule.action == job.action and rule.function == "parent_model"]
    actions = dict.fromkeys(action for rule in rules for action in rule.parents)
    own = own_fields(job)
    has_field = any(rule.field in own or own.intersection(rule.unless) for rule in rules)
    if not rules:
        say(f"{job.action} takes nothing from its parent {parent.id}: it begins after it, no more")
    if not rules or parent.action in actions or has_field:
        return
    raise SpecError(f"{job.action} with parent {parent.id}, which is {parent.action}",
                    expected=f"a parent that is {' or '.join(actions)}",
                    remedy=f"name such a job, or set {rules[0].field}")  # fmt: skip
