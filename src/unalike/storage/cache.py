"""The cache on this machine: limited in size, shared by processes, never emptied under one that reads.

An entry is a folder ``<cache>/<kind>/<key>``. Two lock files in ``<cache>/locks`` belong to it: ``<kind>-<key>.use``,
locked shared by every process that uses the entry until it ends, and ``<kind>-<key>.build``, locked by the one process
that makes the entry (filelock). The kernel releases both when a process is killed. The shared lock calls flock itself:
filelock's shared locks are databases of their own, and here one file holds the lock, the size and the time of last use.
Where the system has no flock (Windows), nothing is ever removed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unalike.errors import DataError
from unalike.progress import say, warn
from unalike.storage.digests import text_sha256
from unalike.storage.outside_files import expand_home, reason
from unalike.storage.process_lock import ProcessLock

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

KINDS = ("archives", "remote", "results", "indexes")
CACHE_VARIABLE = "UNALIKE_CACHE"
LIMIT_VARIABLE = "UNALIKE_CACHE_LIMIT"
# Share of the cache's disk that it may take where no limit is set.
DEFAULT_SHARE = 0.5
# Errors of a file system without locks; work goes on there without them.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_shared_locks: dict[Path, int] = {}  # lock file -> open descriptor
_shared_locks_guard = ProcessLock()


def default_cache_dir() -> Path:
    """``UNALIKE_CACHE``, else ``~/.cache/unalike``, else a folder of this user among the temporary files.

    The last where there is no home folder or it cannot be written, as in a container that runs under a number without a
    passwd entry; which folder is used is said once. Raises DataError where a temporary folder cannot be used either.
    """
    if os.environ.get(CACHE_VARIABLE):
        return expand_home(os.environ[CACHE_VARIABLE])
    home = home_folder()
    return _default_cache_dir(home, tempfile.tempdir or os.environ.get("TMPDIR", ""))


@contextlib.contextmanager
def cache_failures(cache: Path, variable: str = CACHE_VARIABLE) -> Iterator[None]:
    """While inside, a failure of the file system is a DataError that names the cache's folder and its variable.

    Args:
        cache: The folder that is written to.
        variable: The variable of the environment that names it.

    Raises:
        DataError: The folder is a file, cannot be written, or its disk is full.
    """
    try:
        yield
    except OSError as error:
        place = f"{cache}, which {variable} names," if os.environ.get(variable) else str(cache)
        raise DataError(f"the cache {place} cannot be written ({reason(error)})", expected="a folder that can be written",
                        remedy=f"free some space, or set {variable} to another folder") from error  # fmt: skip


def home_folder() -> Path | None:
    """The user's home folder, or None where the system knows none (no HOME and no passwd entry)."""
    try:
        return Path.home()
    except RuntimeError:
        return None


@functools.cache
def _default_cache_dir(home: Path | None, _temporary: str) -> Path:
    if home is not None and _can_write(folder := home / ".cache" / "unalike"):
        return folder
    cause = "there is no home folder" if home is None else f"{home / '.cache' / 'unalike'} cannot be written"
    user = os.getuid() if hasattr(os, "getuid") else ""
    try:
        folder = Path(tempfile.gettempdir()) / f"unalike-cache-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        # Another user could have made it first, as a folder or as a link.
        if not stat.S_ISDIR(status.st_mode) or (user != "" and status.st_uid != user):
            raise PermissionError(errno.EACCES, "it belongs to another user")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it cannot be written")
    except OSError as error:
        raise DataError(f"no folder for the cache: {cause}, and no temporary folder serves ({error})",
                        expected="a folder that can be written", remedy=f"set {CACHE_VARIABLE}=FOLDER") from error  # fmt: skip
    say(f"{cause}: the cache is {folder} ({CACHE_VARIABLE}=FOLDER names another)")
    return folder


def _can_write(folder: Path) -> bool:
    """Whether a folder, or the nearest one above it that exists, lets this process write."""
    for place in (folder, *folder.parents):
        try:
            if place.is_dir():
                return os.access(place, os.W_OK | os.X_OK) and not _is_read_only(place)
        except OSError:
            return False
    return False


def _is_read_only(folder: Path) -> bool:
    """Whether a file system takes no new files although the mode allows it, such as /proc."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return False
    except OSError:
        return True


def limit_bytes(cache: Path) -> int:
    """Size limit of the cache: ``UNALIKE_CACHE_LIMIT`` (GB), else half of its disk. Raises DataError for a bad number."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return int(shutil.disk_usage(cache).total * DEFAULT_SHARE)
    try:
        limit = float(text) * 1e9
        if not 0 < limit < float("inf"):
            raise ValueError
    except ValueError:
        raise DataError(f"{LIMIT_VARIABLE} is {text!r}", expected="a number of gigabytes above 0") from None
    return int(limit)


@dataclass(frozen=True)
class CacheEntry:
    """One folder of the cache, which may not exist yet; ``kind`` is one of ``KINDS``, ``key`` names it among its kind."""

    cache: Path
    kind: str
    key: str

    @property
    def path(self) -> Path:
        """The entry's folder."""
        return self.cache / self.kind / self.key

    @property
    def use_file(self) -> Path:
        """The lock file that users share; holds the entry's size, and its modification time is that of the last use."""
        return self.cache / "locks" / f"{self.kind}-{self.key}.use"

    def lock_shared(self) -> None:
        """Keep the entry from being removed until this process ends, and record that it is used now."""
        lock = self.use_file
        lock.parent.mkdir(parents=True, exist_ok=True)
        with _shared_locks_guard:
            if lock not in _shared_locks:
                handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
                _lock(handle, exclusive=False)
                _shared_locks[lock] = handle
        with contextlib.suppress(OSError):  # another user's file
            os.utime(lock)

    @contextlib.contextmanager
    def build_lock(self) -> Iterator[None]:
        """Hold the lock on making this entry; waits for a process that makes it now."""
        from filelock import FileLock, Timeout

        path = self.use_file.with_suffix(".build")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, mode=0o666)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                say(f"waiting for another process that writes {self.path}")
                lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        try:
            yield
        finally:
            lock.release()

    def set_size(self, size: int) -> None:
        """Record the entry's size in bytes, so that it is not counted again."""
        self.use_file.parent.mkdir(parents=True, exist_ok=True)
        self.use_file.write_text(
            str(size), encoding="ascii"
        )  # in place: processes that use the entry have this file locked

    def size(self) -> int:
        """Bytes on the disk, as recorded, else counted."""
        try:
            return int(self.use_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return folder_size(self.path)

    def last_used(self) -> float:
        """Time of the last use, in seconds since 1970; 0 when it is not known."""
        for path in (self.use_file, self.path):
            with contextlib.suppress(OSError):
                return path.stat().st_mtime
        return 0.0

    def remove(self) -> bool:
        """Delete the entry; returns False when a process uses it."""
        if fcntl is None:
            return False
        with _shared_locks_guard:
            if self.use_file in _shared_locks:
                return False
        self.use_file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.use_file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle, exclusive=True, wait=False):
                return False
            # Renamed first: another process must not find half of it.
            doomed = self.path.with_name(f".partial-doomed-{self.key}-{secrets.token_hex(8)}")
            self.path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            os.truncate(handle, 0)
            return True
        except OSError:
            return False
        finally:
            os.close(handle)


def _lock(handle: int, *, exclusive: bool, wait: bool = True) -> bool:
    """Lock an open file with flock; False when another process has it locked, True also where there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return wait  # a file system without locks: work goes on, but nothing is removed there
    return True


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def make_room(cache: Path, incoming: int = 0, description: str = "") -> None:
    """Remove the least recently used entries until ``incoming`` bytes fit below the limit; entries in use stay.

    Args:
        cache: The cache's folder.
        incoming: Bytes that are going to be written.
        description: What is going to be written, for messages.

    Raises:
        DataError: The bytes cannot fit: they are more than the limit, or than the disk has free.
    """
    limit = limit_bytes(cache)
    if incoming > limit:
        raise DataError(
            f"{description} is {incoming / 1e9:.1f} GB", expected=f"at most {limit / 1e9:.1f} GB, the limit of the cache {cache}",
            remedy=f"raise {LIMIT_VARIABLE} (GB), or set {CACHE_VARIABLE} to a larger disk",
        )  # fmt: skip
    for leftover in cache.glob("*/.partial-doomed-*"):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    entries = _entries(cache)
    sizes = {entry: entry.size() for entry in entries}
    total = sum(sizes.values()) + incoming
    for entry in sorted(entries, key=CacheEntry.last_used):
        if total <= limit and incoming <= shutil.disk_usage(cache).free:
            return
        if entry.remove():
            say(f"cache: removed {entry.path}, the least recently used", level=2)
            total -= sizes[entry]
    free = shutil.disk_usage(cache).free
    if incoming > free:
        raise DataError(
            f"{description} is {incoming / 1e9:.1f} GB, {cache} has {free / 1e9:.1f} GB free",
            remedy=f"free some space, or set {CACHE_VARIABLE} to a folder on a larger disk",
        )
    if total > limit:
        warn(
            f"the cache {cache} takes {total / 1e9:.1f} GB, more than its limit of {limit / 1e9:.1f}: all of it is in use"
        )


def _entries(cache: Path) -> list[CacheEntry]:
    entries = []
    for kind in KINDS:
        with contextlib.suppress(OSError):
            for name in os.listdir(cache / kind):
                entry = CacheEntry(cache, kind, name)
                # Results that were not uploaded yet have no use file, and must not be lost.
                if not name.startswith(".partial-") and (kind != "results" or entry.use_file.exists()):
                    entries.append(entry)
    return entries


def staging_entry(uri: str) -> CacheEntry:
    """The staging folder of a run whose results go to ``uri``; the same each time."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(uri.rstrip("/").split("/")[-2:]))[-60:].strip(".-")
    # the same address may mean another store
    digest = text_sha256(f"{uri.rstrip('/')}\n{os.environ.get('AWS_ENDPOINT_URL', '')}", 16)
    return CacheEntry(default_cache_dir().absolute(), "results", f"{stem}-{digest}")
