"""Open the results folder of a standalone action as a run, where it has one, with status.json and run.json."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import RunError, SpecError
from unalike.runs.environment import refuse_several_processes
from unalike.runs.filenames import LOCK_FILE, RECORD_FILE, RUN_MARKS, STATUS_FILE, TRACEBACK_FILE
from unalike.runs.folder import holds_run, open_run, results_folder
from unalike.spec.actions import command_of
from unalike.spec.fields import fields_of
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment


def check_mandatory(action: str, experiment: Experiment) -> None:
    """Raise SpecError that names every mandatory field of an action's section that is not set."""
    missing = [
        path for path, node in fields_of(action).items()
        if node.facts.get("mandatory") and getattr(getattr(experiment, action), node.name) in (None, [])
    ]  # fmt: skip
    if missing:
        raise SpecError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
                        remedy=f"see unalike {command_of(action)} --help")  # fmt: skip


def parameters_from(section: Any, function: Callable[..., object]) -> dict[str, Any]:
    """The fields of a section that a function takes as parameters, by name."""
    names = inspect.signature(function).parameters
    return {name: getattr(section, name) for name in type(section).model_fields if name in names}


def output_file(
    run: Run | None, named: str | None, default: str, *, field: str, overwrite: bool, alternative: str = ""
) -> Path:
    """The file that an action writes: the one named, else ``default`` in its results folder.

    Raises:
        SpecError: Neither is named.
        RunError: The named file exists and ``overwrite`` is not set.
    """
    if named is not None:
        refuse_existing(named, overwrite, alternative=alternative)
        return Path(named)
    if run is None:
        raise SpecError(f"{field} is not set", expected="a file to write",
                        remedy="name it, or a folder for the results with results_dir=DIR")  # fmt: skip
    return run.dir / default


@contextmanager
def open_results(action: str, experiment: Experiment, *, overwrite: bool = False) -> Iterator[Run | None]:
    """Claim the results folder of a standalone action for the time of its work; None where the spec names no folder.

    A folder that holds files is refused unless ``overwrite``, which deletes what a former run of the same action wrote
    there and leaves other files alone. A folder in which the same action failed before it wrote anything is used again.

    Raises:
        SpecError: A mandatory field is not set.
        RunError: The folder cannot be used.
    """
    refuse_several_processes(action)
    check_mandatory(action, experiment)
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
    former = holds_run(folder)
    if former and (other := _action_of(folder)) not in (action, None):
        raise RunError(f"{folder} holds a run of {other}", expected=f"a folder for {action} alone",
                       remedy="name another folder")  # fmt: skip
    if former and failed_without_results(folder):
        return True
    refuse_existing(folder, overwrite, folder=True)
    return former


def _action_of(folder: Path) -> str | None:
    """The action of a run that this tool wrote; None where there is no record of one."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(record.get("action")) if isinstance(record, dict) else None


def failed_without_results(folder: Path) -> bool:
    """Whether a folder holds nothing but the record of a run that ended in failure."""
    if {path.name for path in folder.iterdir()} - {*RUN_MARKS, TRACEBACK_FILE, LOCK_FILE}:
        return False
    try:
        last = json.loads((folder / STATUS_FILE).read_bytes().splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return False
    return isinstance(last, dict) and last.get("status") == "FAILURE"
