"""Files that are opened as they are, or as a member of a tar file that is not unpacked (``archive.tar!name``)."""

from __future__ import annotations

import io
import os
from pathlib import Path

from unalike.errors import DataError, UnalikeError
from unalike.storage.outside_files import open_file


def member_content(path: str | Path) -> bytes | None:
    """The content of a member of a tar file; None for the path of a file, and for one of nothing.

    Raises:
        DataError: The tar file was changed, or cannot be read.
    """
    text = os.fspath(path)
    if "!" not in text or os.path.lexists(text):
        return None
    from unalike.data.tar_members import read_member  # a deployed model imports this module and has no tar files

    return read_member(text)


def open_image_file(path: str | Path, *, error: type[UnalikeError] = DataError) -> io.BufferedIOBase:
    """Open a file, or a member of a tar file, for reading. Raises an error of class ``error`` as ``outside_files.open_file``."""
    content = member_content(path)
    return io.BytesIO(content) if content is not None else open_file(path, error=error)


def is_image_file(path: str | Path) -> bool:
    """Whether a path is that of a file, or of a member of a tar file."""
    return os.path.isfile(path) or ("!" in os.fspath(path) and file_size(path) >= 0)


def file_size(path: str | Path) -> int:
    """Bytes of a file or of a member of a tar file; -1 where there is none."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        if "!" not in os.fspath(path):
            return -1
    from unalike.data.tar_members import member_size

    return member_size(path)
