"""Resolve the spec of an action, and run an action that writes one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.actions.result import Result
from unalike.runs.environment import refuse_several_processes

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

# A YAML file, a mapping, or None; a folder, archive or manifest in place of the spec is taken as the data.
Spec = str | Path | Mapping[str, Any] | None
# Dotted: ``["train.num_epochs=5"]`` or ``{"train.num_epochs": 5}``.
Overrides = Sequence[str | tuple[str, Any]] | Mapping[str, Any]


def resolve_spec(action: str, spec: Spec | Experiment, overrides: Overrides, data: str | Path | None) -> Experiment:
    """The validated spec of an action. Raises SpecError."""
    from unalike.spec import Experiment, load_spec

    if isinstance(spec, Experiment):
        return spec
    if isinstance(spec, str | Path) and data is None and Path(spec).suffix.lower() not in (".yaml", ".yml"):
        spec, data = None, spec
    return load_spec(action, spec, overrides, data=data)


def spec_with(action: str, **fields: object) -> Experiment:
    """The spec of a standalone action with these fields of its section. Raises SpecError."""
    from unalike.spec import load_spec

    return load_spec(action, None, [(f"{action}.{name}", value) for name, value in fields.items()])


def run_to_file(
    action: str, function: Callable[[Experiment, Run], tuple[Path, Mapping[str, Any]]], spec: Spec | Experiment,
    overrides: Overrides, data: str | Path | None, *, resume: bool, overwrite: bool,
) -> Result:  # fmt: skip
    """Resolve the spec, open a run, call ``function(experiment, run)``; the result's path is the file that it wrote."""
    from unalike.runs.folder import open_run

    refuse_several_processes(action)
    experiment = resolve_spec(action, spec, overrides, data)
    with open_run(action, experiment, resume=resume, overwrite=overwrite) as run:
        path, figures = function(experiment, run)
        run.conclude(f"written: {path}", figures)
    return Result(run.dir, path, figures)
