"""Settings that can be changed while the service runs: how long decisions and their images are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unalike.serve.problems import Problem

if TYPE_CHECKING:
    from unalike.spec.serve import Serve

# Name of a setting, which is that of its start option -> what it is.
CHANGEABLE = {
    "retention_days": "How long decisions keep their images, in days; 0: for ever.",
    "decision_days": "How long decisions are kept, in days; 0: for ever.",
}
MAX_DAYS = 36_500.0


def retention_days(settings: Serve, changes: Mapping[str, Any]) -> tuple[float, float]:
    """Days that images and decisions are kept; 0 for ever.

    Args:
        settings: the start options.
        changes: what was changed since (``Settings.read``).
    """
    values = describe_settings(settings, changes)
    return values["retention_days"]["value"], values["decision_days"]["value"]


def describe_settings(settings: Serve, changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each setting: its value, that of the start option, and whether it was changed."""
    return {
        name: {"value": float(changes.get(name, getattr(settings, name))), "default": float(getattr(settings, name)),
               "is_changed": name in changes}
        for name in CHANGEABLE
    }  # fmt: skip


def read_changes(values: Mapping[str, Any]) -> dict[str, float | None]:
    """The changes that a request asks for; None: the start option holds again. Raises Problem (422)."""
    changes: dict[str, float | None] = {}
    for name, value in values.items():
        if name not in CHANGEABLE:
            raise Problem(
                422, "unknown-parameter", f"the setting {str(name)[:64]!r}", expected=f"one of {', '.join(CHANGEABLE)}"
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_DAYS
        if value is not None and not is_number:
            raise Problem(
                422, "invalid-value", f"{name}: {str(value)[:64]}", expected=f"0 to {MAX_DAYS:g} days, or null"
            )
        changes[name] = None if value is None else float(value)
    if not changes:
        raise Problem(422, "invalid-value", "no setting", expected=f"some of {', '.join(CHANGEABLE)}")
    return changes
