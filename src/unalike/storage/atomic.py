"""Files that are never seen half written: the one way in which this package writes a file whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """Yields a hidden name beside ``path`` to write to; what lies there at the end is forced to the disk and renamed.

    A kill at any moment leaves the old file or the new one. An exception leaves the old one and nothing else; nothing
    written is nothing replaced. The hidden name keeps the ending, by which some libraries choose a format. ``alone``:
    nobody else writes this file, so what killed processes left of it (checkpoints are large) is removed first.
    """
    partial = _hidden(path)
    try:
        partial.unlink(missing_ok=True)  # a killed process's, whose number came round again
        for left in path.parent.glob(f".{glob.escape(path.stem)}.partial-*{glob.escape(path.suffix)}") if alone else ():
            left.unlink(missing_ok=True)
        yield partial
        if partial.exists():
            _force(partial, os.O_RDWR)
            os.replace(partial, path)
            with contextlib.suppress(OSError):  # the rename too; Windows cannot open folders and does without
                _force(path.parent, os.O_RDONLY)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, UTF-8; surrogates keep the bytes of file names that are not."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def copy_file(source: Path, path: Path, *, link: bool = False) -> None:
    """Copy a whole file's content; ``link``: as a hard link where the disk allows it, for sources never written again."""
    with replacing(path) as partial:
        if link:
            with contextlib.suppress(OSError):
                return os.link(source, partial)
        shutil.copyfile(source, partial)


def create_text(path: Path, text: str) -> None:
    """Create a whole text file, UTF-8, as only one of several racing processes can. Raises FileExistsError."""
    partial = _hidden(path)
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


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")


def _force(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
