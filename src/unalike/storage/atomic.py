"""Write files atomically: a reader, or a kill at any moment, finds the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from unalike.storage.digests import text_sha256

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# ``.name.partial-<boot><random>.suffix``: the boot of the kernel that wrote it, and 16 random digits.
_PARTIAL = re.compile(r"\..*\.partial-(?P<boot>[0-9a-f]{8})[0-9a-f]{16}(\.[^.]*)?", re.DOTALL)
# A partial file of another machine, or of an earlier boot, counts as left behind when it was not written to for so long.
_ABANDONED_S = 24 * 3600.0
# A folder of more entries than this is searched for partial files once a minute, others at every write.
_MANY_ENTRIES, _PAUSE_S = 1000, 60.0
_next_search: dict[str, float] = {}


@contextmanager
def atomic_write(
    path: Path, *, follow_links: bool = True, sync: bool = True, beside: Path | None = None
) -> Iterator[Path]:
    """Yield an empty temporary file beside ``path``; what is written there is synced to disk and renamed to ``path``.

    An exception leaves the old file alone and removes the temporary one. The temporary name is random, so that any number
    of threads, processes and containers may write one file: the last one wins, none sees another's half. It keeps the
    suffix, by which some libraries choose a format. The new file gets the mode and the owner of the old one. Temporary
    files that killed processes left in the folder are removed. A device or a pipe is written in place.

    Args:
        path: The file to replace or create; its folder must exist.
        follow_links: Write the file that a symbolic link leads to; False: replace the link by a file.
        sync: Wait for the disk. Without, a kill leaves the old file or the new one, but a loss of power may leave neither.
        beside: The temporary file of another write, whose name this one gets with the suffix of ``path``: for libraries that
            make the name of a second file of that of the first.
    """
    path = _target(path) if follow_links else path
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    _remove_abandoned(path.parent)
    partial, descriptor, mode = _create_partial(path, beside)
    try:
        yield partial
        if mode is not None:
            with contextlib.suppress(OSError):
                os.chmod(partial, mode)
        if sync:
            sync_file(partial)
        if fcntl is None:  # Windows renames no open file
            os.close(descriptor)
            descriptor = -1
        os.replace(partial, path)
        if sync:
            sync_folder(path.parent)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8; surrogates keep the bytes of file names that are not UTF-8."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def copy_file(source: Path, path: Path, *, link: bool = False) -> None:
    """Copy a file's content atomically; a symbolic link at ``path`` is replaced by the copy.

    Args:
        source: The file to copy.
        path: The copy.
        link: Make a hard link where the disk allows it; only for sources that are never written again.
    """
    if link:
        with contextlib.suppress(OSError):
            return _replace(path, lambda name: os.link(source, name))
    with atomic_write(path, follow_links=False) as partial:
        shutil.copyfile(source, partial)


def link_file(path: Path, target: Path) -> None:
    """Make ``path`` a symbolic link to ``target`` in one step, relative to its folder; a copy where links are not supported."""
    try:
        _replace(path, lambda name: os.symlink(os.path.relpath(target, path.parent), name))
    except OSError:
        copy_file(target, path)


def create_text(path: Path, text: str) -> None:
    """Create a text file, UTF-8, with its content; of several racing processes one succeeds. Raises FileExistsError."""
    partial = temporary_path(path)
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links: there a reader may find it empty for a moment
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    finally:
        partial.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """A hidden name beside ``path`` that no other thread, process or machine chooses."""
    suffix = path.suffix if len(path.suffix) <= 16 else ""
    return path.with_name(f".{path.stem[:50]}.partial-{_boot()}{secrets.token_hex(8)}{suffix}")


def _target(path: Path) -> Path:
    """The file that a symbolic link leads to, or the path itself. Raises PermissionError for another user's trap."""
    if not path.is_symlink():
        return path
    folder, link = path.parent.stat(), path.lstat()
    is_shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
    if is_shared and hasattr(os, "geteuid") and link.st_uid not in (os.geteuid(), folder.st_uid):
        # As Linux itself does (fs.protected_symlinks): anybody can leave a link in /tmp under a name that we will write.
        raise PermissionError(errno.EACCES, "another user's symbolic link in a folder that all can write", str(path))
    return Path(os.path.realpath(path))


def _create_partial(path: Path, beside: Path | None = None) -> tuple[Path, int, int | None]:
    """Create an empty file, locked for as long as it is written.

    Returns:
        Its path, its descriptor, and the mode of ``path`` that it gets at the end; None where there is no such file.
    """
    try:
        old = path.stat()
    except OSError:
        old = None
    mode = None if old is None else stat.S_IMODE(old.st_mode)
    while True:
        partial = temporary_path(path) if beside is None else beside.with_suffix(path.suffix)
        # While it is written, only its owner has rights that the old file does not give.
        descriptor = os.open(
            partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600 | (mode & 0o666)
        )
        if old is not None:
            for user, group in ((-1, old.st_gid), (old.st_uid, -1)):
                with contextlib.suppress(OSError, AttributeError):  # only root gives files away
                    os.fchown(descriptor, user, group)
        # Where another process searched the folder before the lock was taken, the file is gone.
        if not _try_lock(descriptor, wait=True) or os.fstat(descriptor).st_nlink:
            return partial, descriptor, mode
        os.close(descriptor)


def _replace(path: Path, create: Callable[[Path], None]) -> None:
    """Create a link under a temporary name and rename it to ``path``."""
    _remove_abandoned(path.parent)
    for attempt in range(10):
        partial = temporary_path(path)
        try:
            create(partial)
            return os.replace(partial, path)
        except FileNotFoundError:
            if attempt == 9 or not path.parent.is_dir():  # else another process took it for one that was left behind
                raise
        finally:
            partial.unlink(missing_ok=True)  # a rename between two names of one file leaves both


def _remove_abandoned(folder: Path) -> None:
    """Remove partial files whose writers have ended: the kernel releases a writer's lock, however it ended."""
    key = os.path.abspath(folder)
    if time.monotonic() < _next_search.get(key, 0.0):
        return
    try:
        names = os.listdir(folder)
    except OSError:
        return  # the write itself fails with the reason
    if len(names) > _MANY_ENTRIES:
        _next_search[key] = time.monotonic() + _PAUSE_S
    for name in names:
        match = _PARTIAL.fullmatch(name) if name.startswith(".") else None
        if match:
            with contextlib.suppress(OSError):
                _remove_if_abandoned(folder / name, match["boot"] == _boot())


def _remove_if_abandoned(partial: Path, this_boot: bool) -> None:
    status = partial.lstat()
    if fcntl is None or not this_boot or not stat.S_ISREG(status.st_mode):
        if time.time() - status.st_mtime > _ABANDONED_S:
            partial.unlink()
        return
    descriptor = os.open(partial, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if _try_lock(descriptor, wait=False):
            partial.unlink()
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file for this process; False where another has it, or where the file system has no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@cache
def _boot() -> str:
    """Eight digits of the kernel's present boot: its processes, in any container, see each other's locks."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = socket.gethostname()
    return text_sha256(boot, 8)


def sync_file(path: Path) -> None:
    """Wait until the disk has the content of a file, whoever wrote it."""
    _sync(path, os.O_RDWR)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    with contextlib.suppress(OSError):  # Windows cannot open folders
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
