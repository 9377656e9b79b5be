"""Every option, declared once; loading, settling, schemas and templates."""

from __future__ import annotations

from unalike.spec.actions import ACTIONS
from unalike.spec.experiment import Experiment, Settled, settle
from unalike.spec.load import load_spec
from unalike.spec.schema import schema_for
from unalike.spec.template import template_for

__all__ = [
    "ACTIONS", "Experiment", "Settled", "load_spec", "schema_for", "settle", "template_for",
]  # fmt: skip
