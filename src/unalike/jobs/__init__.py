"""Chained jobs: actions in processes of their own, each completed from its parent job."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unalike.jobs.database import Job
    from unalike.jobs.tao_layout import data_sources
    from unalike.jobs.workspace import Workspace, create_job

_MODULES = {"Job": "unalike.jobs.database", "Workspace": "unalike.jobs.workspace", "create_job": "unalike.jobs.workspace",
           "data_sources": "unalike.jobs.tao_layout"}  # fmt: skip
__all__ = ["Job", "Workspace", "create_job", "data_sources"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'unalike.jobs' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
