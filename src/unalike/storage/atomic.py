"""Write files atomically: a reader, or a kill at any moment, finds the old file or the new one."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path, *, single_writer: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; the file written there is synced to disk and renamed to ``path`` at the end.

    An exception leaves the old file alone and removes the temporary one; when nothing was written, nothing is replaced.
    The temporary name keeps the suffix, by which some libraries choose a format.

    Args:
        path: The file to replace or create; its folder must exist.
        single_writer: No other process writes this file: temporary files that killed processes left (checkpoints are
            large) are removed first.
    """
    partial = _temporary_path(path)
    try:
        partial.unlink(missing_ok=True)  # left by a killed process that had this process's number
        if single_writer:
            for leftover in path.parent.glob(f".{glob.escape(path.stem)}.partial-*{glob.escape(path.suffix)}"):
                leftover.unlink(missing_ok=True)
        yield partial
        if partial.exists():
            _sync(partial, os.O_RDWR)
            os.replace(partial, path)
            with contextlib.suppress(OSError):  # the rename too; Windows cannot open folders
                _sync(path.parent, os.O_RDONLY)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8; surrogates keep the bytes of file names that are not UTF-8."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def copy_file(source: Path, path: Path, *, link: bool = False) -> None:
    """Copy a file's content atomically.

    Args:
        source: The file to copy.
        path: The copy.
        link: Make a hard link where the disk allows it; only for sources that are never written again.
    """
    with atomic_write(path) as partial:
        if link:
            with contextlib.suppress(OSError):
                return os.link(source, partial)
        shutil.copyfile(source, partial)


def create_text(path: Path, text: str) -> None:
    """Create a text file, UTF-8, with its content; of several racing processes one succeeds. Raises FileExistsError."""
    partial = _temporary_path(path)
    try:
        partial.write_text(text, encoding="utf-8")
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links: there a reader may find it empty for a moment
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    finally:
        partial.unlink(missing_ok=True)


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
