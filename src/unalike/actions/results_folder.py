"""Open the results folder of an action as a run, with status.json and run.json, and run the action in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.actions.result import Result
from unalike.actions.spec_resolution import Overrides, Spec, resolve_spec
from unalike.actions.unused_settings import say_unused_overrides
from unalike.errors import RunError, SpecError, UnalikeError
from unalike.runs.environment import refuse_several_processes
from unalike.runs.folder import holds_run, open_run, results_folder
from unalike.runs.inputs import refuse_written_inputs
from unalike.runs.record import failed_without_results, recorded_action
from unalike.spec.nodes import check_mandatory
from unalike.storage.downloads import policy_of_action
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment


def run_action(
    action: str, function: Callable[[Experiment, Run], tuple[Path, Mapping[str, Any]]], spec: Spec | Experiment,
    overrides: Overrides, data: str | Path | None, *, resume: bool, overwrite: bool, message: str = "written: {path}",
) -> Result:  # fmt: skip
    """Resolve the spec of a model action, open its results folder as a run, and call the function that does the work.

    Args:
        action: The action.
        function: Called as ``function(experiment, run)``; returns the main file that it wrote, and figures.
        spec, overrides, data: As in ``resolve_spec``.
        resume, overwrite: As in ``open_run``.
        message: Last message of the run; ``{path}`` is replaced by the main file.
    """
    refuse_several_processes(action)
    experiment = resolve_spec(action, spec, overrides, data)
    say_unused_overrides(experiment, action)
    policy = policy_of_action(experiment.model.download)
    with policy, open_run(action, experiment, resume=resume, overwrite=overwrite) as run:
        path, figures = function(experiment, run)
        run.conclude(message.format(path=path), figures, outputs=[path])
    return Result(run.dir, path, figures)


def output_file(
    run: Run | None, experiment: Experiment, field: str, default: str, *, overwrite: bool, alternative: str = "",
    error: type[UnalikeError] = RunError,
) -> Path:  # fmt: skip
    """The file that an action writes: that of the spec's ``field`` (``action.name``) if set, else ``default`` in its folder.

    Raises:
        SpecError: Neither file nor folder is set.
        RunError, or the class ``error``: The file exists and ``overwrite`` is not set, it is an input, or cannot be written.
    """
    action, name = field.split(".")
    path = getattr(getattr(experiment, action), name)
    if path is not None:
        refuse_existing(path, overwrite, alternative=alternative, error=error)
        refuse_written_inputs(action, experiment, [Path(path)], error)
        return Path(path)
    if run is None:
        raise SpecError(f"{field} is not set", expected="a file to write",
                        remedy="set it, or a folder for the results with results_dir=DIR")  # fmt: skip
    return run.dir / default


@contextmanager
def open_results(action: str, experiment: Experiment, *, overwrite: bool = False) -> Iterator[Run | None]:
    """Open the results folder of a standalone action as a run; None where the spec names no folder.

    A folder with files is refused unless ``overwrite``, which deletes the files of a former run of the same action and
    no others. A folder in which the same action failed before it wrote results is used again.

    Raises:
        SpecError: A mandatory field is not set.
        RunError: The folder cannot be used.
    """
    refuse_several_processes(action)
    check_mandatory(action, getattr(experiment, action))
    folder = results_folder(action, experiment)
    if folder is None:
        yield None
        return
    with open_run(action, experiment, overwrite=check_folder(folder, action, overwrite)) as run:
        yield run


def check_folder(folder: Path, action: str, overwrite: bool) -> bool:
    """Return whether a former run has to be deleted from a folder. Raises RunError where the folder may not be used."""
    if not folder.is_dir():
        return False  # a new folder; a file is refused when the run is opened
    has_run = holds_run(folder)
    if has_run and (other := recorded_action(folder)) not in (action, None):
        raise RunError(f"{folder} holds a run of {other}", expected=f"a folder for {action} alone",
                       remedy="name another folder")  # fmt: skip
    if has_run and failed_without_results(folder):
        return True
    refuse_existing(folder, overwrite, folder=True)
    return has_run
