"""The spec: declarations of all options, loading and validation, JSON schemas and templates.

The names are imported when they are first used: a command that needs one section alone does not build the whole spec.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unalike.spec.actions import ACTIONS
    from unalike.spec.experiment import Experiment, SettledField, settle
    from unalike.spec.load import load_spec
    from unalike.spec.schema import schema_for
    from unalike.spec.template import template_for

__all__ = [
    "ACTIONS", "Experiment", "SettledField", "load_spec", "schema_for", "settle", "template_for",
]  # fmt: skip
_MODULES = {"ACTIONS": "actions", "load_spec": "load", "schema_for": "schema", "template_for": "template"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unalike.spec' has no attribute {name!r}")
    return getattr(import_module(f"unalike.spec.{_MODULES.get(name, 'experiment')}"), name)
