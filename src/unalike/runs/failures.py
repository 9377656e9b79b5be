"""One-line errors for known failures of a run: signals, a full disk, out of memory, an occupied folder."""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path

from unalike.errors import DeviceError, Interrupted, RunError, UnalikeError
from unalike.sanitize import one_line

# Failures of files and disks that say all with the file's name, and what to do.
_DISK_FAILURES = {
    errno.EACCES: "change its permissions, or name another file",
    errno.EPERM: "change its permissions, or name another file",
    errno.EROFS: "name a file on a disk that can be written to",
    errno.EIO: "the disk, or the connection to it, fails: copy the data to another one",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "remove the symbolic link that leads to itself",
    errno.ENOTDIR: "a file stands where a folder is expected",
    errno.EISDIR: "name a file in it",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "close some programs",
}


def known_failure(error: BaseException, signal_number: int = 0) -> UnalikeError | None:
    """The one-line form of an exception whose cause is a circumstance (signal, full disk, memory), else None."""
    if isinstance(error, UnalikeError):
        return error
    if isinstance(error, KeyboardInterrupt):
        number = signal_number or getattr(error, "signal_number", signal.SIGINT)
        return Interrupted(number, f"stopped by {signal_name(number)}")
    if isinstance(error, SystemExit):
        return None if error.code not in (0, None) else RunError("the run ended early by sys.exit")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return RunError(f"the disk is full{where}", remedy="free some space, then continue with --resume")
    if isinstance(error, FileNotFoundError) and "usable temporary directory" in str(error):
        return RunError("no temporary folder can be written", remedy="set TMPDIR to a folder that can")
    if isinstance(error, OSError) and error.errno in _DISK_FAILURES and error.filename:
        return RunError(f"{one_line(str(error.filename))}: {error.strerror}", remedy=_DISK_FAILURES[error.errno])
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return RunError("a file grew beyond the largest size that is allowed here", remedy="raise the limit: ulimit -f")
    if _is_out_of_memory(error):
        detail = str(error).strip().splitlines()
        return DeviceError(
            f"out of memory{' (' + detail[0][:160] + ')' if detail else ''}",
            remedy="lower the batch size or the image size; in a training also dataset.cache.limit_gb",
        )
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # torch is looked up, not imported: without it loaded its exceptions cannot have been raised.
    device_error = getattr(sys.modules.get("torch"), "OutOfMemoryError", None)
    if device_error is not None and isinstance(error, device_error):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def signal_name(number: int) -> str:
    """SIGTERM, or Ctrl-C as people call SIGINT."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def occupied_folder(location: str | Path) -> RunError:
    """The error for a results folder, or an address, that holds another run."""
    return RunError(
        f"{location} holds another run",
        remedy="continue it (--resume), replace it (--overwrite) or choose another folder (--results-dir)",
    )


def saved_traceback(error: BaseException) -> Path | None:
    """Where the run that raised this exception saved its traceback."""
    return getattr(error, "unalike_traceback", None)
