"""The folder of a run: choosing, locking, clearing and refusing it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unalike.errors import RunError, SpecError
from unalike.progress import say
from unalike.runs.environment import process_rank
from unalike.runs.failures import occupied_folder
from unalike.runs.filenames import (
    LATEST_RUN,
    OVERWRITABLE_FILES,
    RECORD_FILE,
    RUN_MARKS,
    RUNS_FOLDER,
    SUBRUN_FOLDERS,
    TENSORBOARD_FOLDER,
)
from unalike.runs.inputs import refuse_written_inputs
from unalike.runs.lock import release_lock, take_lock
from unalike.runs.mlflow_tracking import open_tracking
from unalike.runs.record import failed_without_results
from unalike.runs.run import Run
from unalike.runs.unnamed_folder import make_folder
from unalike.runs.upload import Uploader
from unalike.storage.cache import cache_failures, staging_entry
from unalike.storage.filesystems import uri_of
from unalike.storage.outside_files import expand_home

if TYPE_CHECKING:
    from unalike.spec import Experiment


def results_folder(action: str, experiment: Experiment | None) -> Path | None:
    """TAO's rule: ``<action>.results_dir``, else ``results_dir/<action>``; None when neither is set.

    Evaluate and inference on a TensorRT engine go to ``trt_evaluate`` and ``trt_inference``. Of a URI it is the staging
    folder on this machine.
    """
    address = results_address(action, experiment)
    uri = uri_of(address)
    return staging_entry(uri).path if uri else expand_home(address) if address else None


def results_address(action: str, experiment: Experiment | None) -> str:
    """The results folder as the spec names it, a path or a URI; empty when it names none."""
    section = getattr(experiment, action, None)
    own = getattr(section, "results_dir", None)
    root = getattr(experiment, "results_dir", None)
    engine = action in ("evaluate", "inference") and getattr(section, "trt_engine", None)
    return str(own) if own else f"{str(root).rstrip('/')}/{'trt_' * bool(engine)}{action}" if root else ""


def holds_run(folder: Path) -> bool:
    """Whether a folder holds the files of a run, of this tool's or of TAO's."""
    return any((folder / mark).exists() for mark in RUN_MARKS)


def require_folder(action: str, experiment: Experiment | None, *, resume: bool, overwrite: bool) -> None:
    """Raise SpecError for ``resume`` and ``overwrite`` together, and for ``resume`` without a results folder."""
    if resume and overwrite:
        raise SpecError("--resume and --overwrite together", remedy="choose one")
    if resume and results_folder(action, experiment) is None:
        raise SpecError("--resume without a results folder",
                        remedy=f"name the folder of the run: --results-dir DIR, {RUNS_FOLDER}/{LATEST_RUN} for the last one")  # fmt: skip


def open_run(
    action: str,
    experiment: Experiment | None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    rank: int | None = None,
) -> Run:
    """Lock the folder of a run; use the result as a context manager.

    Args:
        action: The action's name.
        experiment: The resolved spec, or None.
        resume: Continue the run that the folder holds; starts one where it holds none.
        overwrite: Delete the files that the former run wrote there, nothing else.
        rank: This process's rank; by default that of the environment.

    Raises:
        RunError: The folder holds another run, is locked, or cannot be written.
        SpecError: ``resume`` and ``overwrite`` together, or ``resume`` without a results folder.
    """
    require_folder(action, experiment, resume=resume, overwrite=overwrite)
    rank = process_rank() if rank is None else rank
    folder = results_folder(action, experiment)
    checkpoint = getattr(getattr(experiment, action, None), "resume_training_checkpoint_path", None)
    if checkpoint and folder is not None and Path(checkpoint).resolve().parent == folder.resolve():
        resume = resume or not overwrite  # the user named a checkpoint of this very folder
    if rank != 0:
        return Run(action, experiment, folder or Path(RUNS_FOLDER), resume=resume, rank=rank)
    uri = uri_of(results_address(action, experiment))
    uploader = Uploader(uri) if uri else None
    is_unnamed = folder is None
    try:
        folder = make_folder(action) if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        take_lock(folder, action)
    except OSError as error:
        if uploader is not None:
            with cache_failures(uploader.entry.cache):
                raise
        raise _folder_error(folder, error) from error
    try:
        if uploader is not None:
            uploader.prepare(resume=resume, overwrite=overwrite)
        resume = _prepare_folder(action, experiment, folder, resume=resume, overwrite=overwrite)
        if uploader is not None:
            uploader.delete_cleared()
    except BaseException:
        release_lock(folder)
        raise
    tracking = open_tracking(action, experiment)
    return Run(
        action, experiment, folder, resume=resume, rank=0, uploader=uploader, unnamed=is_unnamed, tracking=tracking
    )


def _folder_error(folder: Path | None, error: OSError) -> RunError:
    where = folder if folder is not None else Path(RUNS_FOLDER).resolve()
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return RunError(f"results folder {where} is a file", expected="a folder", remedy="choose another results_dir")
    reason = error.strerror or str(error)
    return RunError(f"results folder {where} cannot be written ({reason})", remedy="choose another with --results-dir")


def _prepare_folder(action: str, experiment: Experiment | None, folder: Path, *, resume: bool, overwrite: bool) -> bool:
    """Refuse or clear a folder that holds a run; returns whether there is a run to resume.

    A folder whose run failed before it wrote results is used again. One that is an input of the run, or whose files are, is
    refused.
    """
    if experiment is not None:
        refuse_written_inputs(action, experiment, [folder])
    if not holds_run(folder):
        if resume:
            say(f"{folder}: no run to resume there, starting from the beginning")
        return False
    if resume:
        return True
    if not overwrite and not failed_without_results(folder):
        raise occupied_folder(folder)
    files = _files_of_run(folder)
    if experiment is not None:
        refuse_written_inputs(action, experiment, [path for path in files if path.is_file()], in_folders=False)
    _clear(folder, files)
    return False


def _files_of_run(folder: Path) -> list[Path]:
    """The files that the former run wrote: those of its record, and those by the names that only we write.

    Only files of this folder and of the folders of its fine-tuning stages are such.
    """
    record: object = None
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass  # no record, or a torn one: the next lines refuse
    if not isinstance(record, dict) or record.get("tool") != "unalike":
        raise RunError(
            f"{folder} holds a run that this tool did not write (no run.json of ours)",
            remedy="remove it yourself or choose another folder with --results-dir",
        )
    stages = _stage_folders(folder)
    files = {path for parent in (folder, *stages) for pattern in OVERWRITABLE_FILES for path in parent.glob(pattern)}
    inside = folder.resolve()
    for name in record.get("files", []):
        path = folder / str(name)
        if path.parent.resolve() == inside:
            files.add(path)
    return sorted(files)


def _stage_folders(folder: Path) -> list[Path]:
    return [path for name in SUBRUN_FOLDERS for path in folder.glob(name) if path.is_dir() and not path.is_symlink()]


def _clear(folder: Path, files: Sequence[Path]) -> None:
    """Delete files of the former run, and the folders of its stages where these are empty then; links are not followed."""
    stages = _stage_folders(folder)
    for path in files:
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
    for path in (*(stage / TENSORBOARD_FOLDER for stage in stages), *stages, folder / TENSORBOARD_FOLDER):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
