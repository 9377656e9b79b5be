"""The lock on changing a file: reading it, changing it and writing it back by one thread or process at a time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unalike.errors import DataError
from unalike.progress import say
from unalike.storage.outside_files import reason

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TIMEOUT_S, _POLL_S, _SILENT_S = 600.0, 0.02, 1.0


@contextmanager
def file_lock(path: str | Path, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Hold the lock on changing a file; the kernel releases it when a process is killed, and nothing is left behind.

    The file itself is locked, or its folder while there is no such file. A file that was replaced while this process waited
    is another one: the lock is then taken on the new one. Where the file system has no locks, work goes on without.

    Args:
        path: The file, or a symbolic link to it. One thread may not take its lock twice.
        timeout_s: How long to wait for another holder.

    Raises:
        DataError: Another thread or process holds the lock for longer, or there can be no file of that name.
    """
    try:
        target = Path(os.path.realpath(path))
        target.exists()
    except (OSError, ValueError) as error:  # too long, or with a NUL character
        raise DataError(f"{path}: {reason(error)}", expected="the path of a file") from error
    if fcntl is None:
        from filelock import FileLock

        with FileLock(target.with_name(f".{target.name}.lock")):
            yield
        return
    descriptor = _acquire(target, time.monotonic() + timeout_s, timeout_s)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where the process was forked meanwhile
            os.close(descriptor)


def is_locked(path: str | Path) -> bool:
    """Whether a process holds the lock on an existing file or folder now; False where the file system has no locks."""
    descriptor = None if fcntl is None else _open(Path(path))
    if descriptor is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path, deadline: float, timeout_s: float) -> int | None:
    """A descriptor of the file, or of its folder, that is locked; None where there is nothing to lock, or no locks."""
    start, has_said = time.monotonic(), False
    while True:
        place = path if path.exists() else path.parent
        descriptor = _open(place)
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(descriptor, path if path.exists() else path.parent):
                return descriptor
        except BlockingIOError:
            if not has_said and time.monotonic() - start > _SILENT_S:
                say(f"waiting for another process that changes {path}")
                has_said = True
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise DataError(
                    f"{path} is being changed by another process for more than {timeout_s:g} s",
                    remedy="wait for that process, or end it",
                ) from None
            time.sleep(_POLL_S)
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        os.close(descriptor)


def _open(place: Path) -> int | None:
    """Network file systems lock only what was opened for writing; folders, and files of others, can only be read."""
    for flags in (os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(OSError):
            return os.open(place, flags | os.O_NONBLOCK)
    return None


def _is_same(descriptor: int, place: Path) -> bool:
    """Whether ``place`` is still what was opened."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), place.stat())
    return False
