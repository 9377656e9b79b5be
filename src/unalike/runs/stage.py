"""Finished stages of a run: arrays in a file, which a resumed run loads instead of computing them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unalike.progress import say
from unalike.storage.atomic import atomic_write

if TYPE_CHECKING:
    from unalike.runs.run import Run

FORMAT_VERSION = 1
_KEY, _VERSION = "stage_of", "format_version"


def load_or_compute(
    run: Run, path: Path, description: str, source: bytes, compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the arrays of a stage, from the file of an interrupted run where it resumes, else computed and saved.

    Args:
        run: The run; only one that resumes reads the file.
        path: The stage's file.
        description: What the arrays are, for a message.
        source: What the arrays are computed from; a file computed from something else is not used.
        compute: Computes the arrays by name.
    """
    stage = load_stage(run, path, description, source)
    if stage is not None:
        return stage
    arrays = dict(compute())
    save_stage(path, source, arrays)
    return arrays


def load_stage(run: Run, path: Path, description: str, source: bytes) -> dict[str, np.ndarray] | None:
    """Return the arrays of a stage where the run resumes and its file was computed from ``source``, else None."""
    if not (run.resuming and path.is_file()):
        return None
    arrays = _load(path, _digest(source))
    if arrays is not None:
        say(f"{description}: loaded from the run that is resumed")
    return arrays


def save_stage(path: Path, source: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    """Save the arrays of a stage that were computed from ``source``."""
    with atomic_write(path) as partial:
        np.savez(partial, **arrays, **{_KEY: np.array(_digest(source)), _VERSION: np.array(FORMAT_VERSION)})  # type: ignore[arg-type]


def _digest(source: bytes) -> str:
    return hashlib.blake2b(source, digest_size=16).hexdigest()


def _load(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays of a file; None when it cannot be read or was computed from something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file[_KEY]) != key or int(file[_VERSION]) != FORMAT_VERSION:
                return None
            return {name: file[name] for name in file.files if name not in (_KEY, _VERSION)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
