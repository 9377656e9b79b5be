"""Files that are never seen half written: the one way in which this package writes a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a hidden name beside ``path`` to write to; what lies there at the end is forced to the disk and renamed.

    A kill at any moment leaves the old file or the new one. An exception leaves the old one and nothing else; nothing
    written is nothing replaced. The hidden name keeps the ending, by which some libraries choose a format.
    """
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        partial.unlink(missing_ok=True)  # a killed process's, whose number came round again
        yield partial
        if partial.exists():
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, UTF-8; surrogates keep the bytes of file names that are not."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file."""
    with replacing(path) as partial:
        partial.write_bytes(content)
