"""Refuse a job whose images or files are not there, before it is created."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unalike.data.archives import split_member
from unalike.data.tar_stream import expand_range, is_tar
from unalike.errors import DataError, closest
from unalike.jobs.database import Job
from unalike.jobs.outputs import field_of
from unalike.spec.fields import fields_of
from unalike.spec.load import DATA_FIELD
from unalike.storage.filesystems import uri_of
from unalike.storage.outside_files import expand_home

# Fields of the actions on a model that name images; those of other actions say it themselves (fact ``takes``).
_IMAGE_FIELDS = ("dataset.train_dataset", "dataset.val_dataset.reference", "dataset.val_dataset.query")
_PRETRAINED = "pretrained"


def refuse_missing_inputs(job: Job, workspace: Path) -> None:
    """Raise DataError for the first input of a local job that does not exist.

    Addresses, members of archives and what another job of the workspace may write are left to the job.

    Args:
        job: The job, whose relative paths are relative to ``cwd``.
        workspace: Folder of the jobs.
    """
    for field, value in _inputs(job):
        path = Path(job.cwd) / expand_home(value)
        if (
            uri_of(value)
            or value.startswith("file://")
            or split_member(value)
            or value.partition(":")[0] == _PRETRAINED
            or os.path.lexists(path)
            or _names_existing_tars(str(path))
            or path.resolve().is_relative_to(workspace.resolve())
        ):
            continue
        siblings = os.listdir(path.parent) if path.parent.is_dir() else []
        raise DataError(f"{field}: {value}: no such file or folder", expected="inputs that exist when a job is created",
                        remedy=closest(path.name, siblings) or f"relative paths begin at {job.cwd}")  # fmt: skip


def _names_existing_tars(pattern: str) -> bool:
    """Whether a path is a pattern of tar files (``part-{000..127}.tar``) that all exist."""
    return "{" in pattern and is_tar(pattern) and all(map(os.path.lexists, expand_range(pattern)))


def _inputs(job: Job) -> Iterator[tuple[str, str]]:
    """(field, path) of the inputs that the user named."""
    taking = [path for path, node in fields_of(job.action).items() if "takes" in node.facts]
    own = [DATA_FIELD[job.action]] if job.action in ("inference", "quantize", "gen_engine", "gen_trt_engine") else []
    for field in (*_IMAGE_FIELDS, *own, *taking):
        value: Any = field_of(job, field)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item:
                yield field, item
