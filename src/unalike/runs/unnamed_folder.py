"""Folders of runs for which the user named none: ``runs/<date-time>-<action>``, the last one also ``runs/latest``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from unalike.errors import Interrupted, RunError
from unalike.runs.filenames import LATEST_RUN, RUNS_FOLDER
from unalike.runs.record import failed_without_results
from unalike.storage.atomic import link_file


def make_folder(action: str) -> Path:
    """Create a folder for a run, named by the time; raises RunError or OSError where that cannot be done."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{action}"
    for count in range(1, 1000):
        folder = Path(RUNS_FOLDER) / (stem if count == 1 else f"{stem}-{count}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not Path(RUNS_FOLDER).is_dir():
                raise
        else:
            return folder
    raise RunError(f"runs/ holds a thousand folders named {stem}", remedy="name one with --results-dir")


def keep_or_remove(folder: Path, failure: BaseException | None) -> None:
    """Remove the folder of a call that failed before it wrote results, or link it as the latest run."""
    try:
        is_empty = failure is not None and not isinstance(failure, Interrupted)
        if is_empty and (not any(folder.iterdir()) or failed_without_results(folder)):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        else:
            link_file(folder.parent / LATEST_RUN, folder)
    except OSError:
        pass  # a disk without links, or a folder in use by another program: the run itself is complete


@contextmanager
def named_for(action: str, folder: Path | None) -> Iterator[Path]:
    """The folder, or where it is None a new one, which is kept or removed in the end; for runs of other processes."""
    if folder is not None:
        yield folder
        return
    new = make_folder(action)
    try:
        yield new
    except BaseException as error:
        keep_or_remove(new, error)
        raise
    keep_or_remove(new, None)
