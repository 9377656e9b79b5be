"""Text files that are never seen half written."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a whole file under a temporary name, then rename it: a kill at any moment leaves the old or the new one."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        # surrogateescape: a file name need not be valid UTF-8, and keeps its bytes wherever it is written
        with open(partial, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
