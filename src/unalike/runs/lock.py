"""The lock on a run's folder: one process at a time; the lock of a dead process is taken over.

The lock is a file that records host, process number and the time at which that process began, since numbers are used
again. It is written by hand, not with filelock: a kernel's lock is inherited by forked data loader workers, which would
keep the folder locked after their trainer was killed, and it does not reach over a disk that several hosts share;
filelock's soft lock does not record which action holds the folder and since when.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime
from pathlib import Path

from unalike.errors import RunError
from unalike.progress import say
from unalike.runs.filenames import LOCK_FILE
from unalike.runs.processes import is_alive, process_start
from unalike.storage.atomic import create_text, temporary_path

# Folders that this process has locked: its own number in another folder's lock is that of an earlier process (containers reuse
# numbers).
_locked_folders: set[Path] = set()
_OTHER_FOLDER = "choose another folder with --results-dir"


def take_lock(folder: Path, action: str) -> None:
    """Lock a folder for this process.

    Raises:
        RunError: Another process holds the lock, or may hold it.
        OSError: The folder cannot be written.
    """
    lock = folder / LOCK_FILE
    record = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": process_start(os.getpid()),
              "action": action, "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}  # fmt: skip
    for _ in range(3):
        try:
            create_text(lock, json.dumps(record))
        except FileExistsError:
            _remove_stale_lock(lock)
            continue
        _locked_folders.add(folder.resolve())
        return
    raise RunError(f"{folder} is being locked by another process", remedy=_OTHER_FOLDER)


def _remove_stale_lock(lock: Path) -> None:
    """Remove the lock of a process that has ended. Raises RunError when the process may still run."""
    folder = lock.parent
    try:
        text = lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        return  # released meanwhile
    try:
        record = json.loads(text)
        pid, host = int(record["pid"]), str(record["host"])
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{lock} cannot be read", remedy="remove it when no run uses the folder") from None
    if host != socket.gethostname():
        raise RunError(f"{folder} is in use by process {pid} on {host}",
                       remedy=f"wait for it, or remove {LOCK_FILE} when that process has ended")  # fmt: skip
    if folder.resolve() in _locked_folders or (
        pid != os.getpid() and is_alive(pid, str(record.get("process_start") or ""))
    ):
        raise RunError(f"{folder} is in use by process {pid} on this machine", remedy="wait for it or stop it")
    # Only one of two racing processes can rename the file; the other finds the new lock at its next attempt.
    stale = temporary_path(lock)
    try:
        os.rename(lock, stale)
    except FileNotFoundError:
        return
    if stale.read_text(encoding="utf-8") != text:  # another process locked in between: restore its lock
        os.rename(stale, lock)
        raise RunError(f"{folder} is being locked by another process", remedy=_OTHER_FOLDER)
    stale.unlink()
    say(f"{folder}: took over the lock of process {pid}, which has ended")


def release_lock(folder: Path) -> None:
    """Release a folder that ``take_lock`` locked."""
    _locked_folders.discard(folder.resolve())
    (folder / LOCK_FILE).unlink(missing_ok=True)
