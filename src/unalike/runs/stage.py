"""A stage of a run that is finished: its arrays in a file, so that --resume takes them instead of doing it again."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unalike.progress import say
from unalike.storage.atomic import atomic_write

FORMAT_VERSION = 1
KEY, VERSION = "stage_of", "format_version"


def stage(
    run: Any, path: Path, what: str, of: bytes, make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What ``make`` gives, or the file that it left in an earlier part of this run where it was made of the same: ``of``.

    ``what`` names it for a person. Only a run that resumes looks at the file; one that cannot be read is made anew.
    """
    key = hashlib.blake2b(of, digest_size=16).hexdigest()
    if run.resuming and path.is_file():
        found = _read(path, key)
        if found is not None:
            say(f"{what}: taken from the run that goes on")
            return found
    made = dict(make())
    with atomic_write(path) as partial:
        np.savez(partial, **made, **{KEY: np.array(key), VERSION: np.array(FORMAT_VERSION)})  # type: ignore[arg-type]
    return made


def _read(path: Path, key: str) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file[KEY]) != key or int(file[VERSION]) != FORMAT_VERSION:
                return None
            return {name: file[name] for name in file.files if name not in (KEY, VERSION)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
