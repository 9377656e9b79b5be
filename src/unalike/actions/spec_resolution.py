"""Resolve the spec of an action from a file, a mapping, overrides or a data folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unalike.spec import Experiment, load_spec
from unalike.spec.declare import Section

# A YAML file, a mapping, or None; a folder, archive or manifest in place of the spec is taken as the data.
Spec = str | Path | Mapping[str, Any] | None
# Dotted: ``["train.num_epochs=5"]`` or ``{"train.num_epochs": 5}``.
Overrides = Sequence[str | tuple[str, Any]] | Mapping[str, Any]


def resolve_spec(action: str, spec: Spec | Experiment, overrides: Overrides, data: str | Path | None) -> Experiment:
    """Load and validate the spec of an action.

    Args:
        action: The action.
        spec: A spec file, a mapping, or a data folder, archive or manifest; an ``Experiment`` is returned as it is.
        overrides: Values by dotted path, which replace those of the spec.
        data: A data folder, archive or manifest.

    Raises:
        SpecError: The spec is invalid.
    """
    if isinstance(spec, Experiment):
        return spec
    spec, data = separate_data(spec, data)
    return load_spec(action, spec, overrides, data=data)


def separate_data(spec: Spec, data: str | Path | None) -> tuple[Spec, str | Path | None]:
    """A spec and its data; a path that is no YAML file is data, not a spec."""
    if isinstance(spec, str | Path) and data is None and Path(spec).suffix.lower() not in (".yaml", ".yml"):
        return None, spec
    return spec, data


def spec_with(action: str, **fields: object) -> Experiment:
    """The spec of a standalone action with these fields of its section. Raises SpecError."""
    return load_spec(action, None, [(f"{action}.{name}", value) for name, value in fields.items()])


def parameters_from(section: Section, function: Callable[..., object]) -> dict[str, Any]:
    """The fields of a section that a function takes as parameters, by name."""
    names = inspect.signature(function).parameters
    return {name: getattr(section, name) for name in type(section).model_fields if name in names}
