"""The lock on a run's folder: one process at a time works there, and a dead one's claim does not last.

The file says host, process and when that process began, since process numbers are used again.
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
from unalike.storage.atomic import create_text
from unalike.storage.processes import is_alive, process_start

# Folders that this very process holds: its own pid in a lock file is otherwise a leftover (containers reuse pids).
_held: set[Path] = set()


def take_lock(folder: Path, action: str) -> None:
    """Claim a folder for this process; RunError when another one holds it or may hold it, OSError when it is not writable."""
    lock = folder / LOCK_FILE
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": process_start(os.getpid()),
            "action": action, "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}  # fmt: skip
    for _ in range(3):
        try:
            create_text(lock, json.dumps(mine))
        except FileExistsError:
            _drop_stale_lock(lock, mine["host"])
            continue
        _held.add(folder.resolve())
        return
    raise RunError(f"{folder} is being taken by another process", remedy="choose another folder with --results-dir")


def _drop_stale_lock(lock: Path, host: object) -> None:
    """Remove the lock of a process that is gone; RunError when it may still be at work."""
    folder = lock.parent
    try:
        text = lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        return  # released meanwhile
    try:
        holder = json.loads(text)
        pid, where = int(holder["pid"]), str(holder["host"])
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{lock} cannot be read", remedy="remove it when no run is at work there") from None
    if where != host:
        raise RunError(f"{folder} is in use by process {pid} on {where}",
                       remedy=f"wait for it, or remove {LOCK_FILE} when that process is gone")  # fmt: skip
    if folder.resolve() in _held or (pid != os.getpid() and is_alive(pid, str(holder.get("process_start") or ""))):
        raise RunError(f"{folder} is in use by process {pid} on this machine", remedy="wait for it or stop it")
    # Renaming is what only one of two racing processes can do; the loser finds the winner's lock at its next try.
    aside = lock.with_name(f".{LOCK_FILE}.partial-{os.getpid()}")
    try:
        os.rename(lock, aside)
    except FileNotFoundError:
        return
    if aside.read_text(encoding="utf-8") != text:  # a fresh lock came between: give it back
        os.rename(aside, lock)
        raise RunError(f"{folder} is being taken by another process", remedy="choose another folder with --results-dir")
    aside.unlink()
    say(f"{folder}: took over the lock of process {pid}, which is gone")


def release_lock(folder: Path) -> None:
    """Give up a folder that ``take_lock`` claimed."""
    _held.discard(folder.resolve())
    (folder / LOCK_FILE).unlink(missing_ok=True)
