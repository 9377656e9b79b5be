"""Reading of files that others wrote: regular files of bounded size, and every failure of a reader as one plain error.

Libraries raise nearly anything on damaged and forged files (zipfile alone: BadZipFile, LZMAError, UnicodeDecodeError,
struct.error, ValueError, NotImplementedError, RuntimeError). A list of exceptions in an ``except`` is therefore never complete:
readers of files from outside run inside ``reader_errors``, which turns all of them into an error of the product.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from unalike.errors import DataError, UnalikeError, closest

T = TypeVar("T")
WRITING_S, PAUSE_S = 5.0, 0.05  # how long, and how often, a file is read again that somebody writes to in place
_MAX_REASON = 200
_FILE_ADDRESS = re.compile(r"file:(?://([^/\\]*))?(?=/)", re.IGNORECASE)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Replace ``~`` and ``~user`` at the beginning of a path; a name of no user stays as it is, since a file may have it.

    An address ``file:///...`` of this machine is the path that it names.
    """
    return Path(os.path.expanduser(_path_of_address(os.fspath(path))))


def is_file_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is written as an address ``file:///...`` (``Path`` folds its slashes)."""
    return _FILE_ADDRESS.match(os.fspath(path)) is not None


def _path_of_address(text: str) -> str:
    """The path of an address ``file:///...``; any other text as it is. ``%20`` is a blank, unless a file has that name."""
    match = _FILE_ADDRESS.match(text)
    if match is None or os.path.lexists(text):
        return text
    if match[1] and match[1].lower() not in ("localhost", "127.0.0.1"):
        raise DataError(f"{text}: an address of the machine {match[1]}", expected="file:///PATH of this machine",
                        remedy="give the path under which its folder is mounted here")  # fmt: skip
    path = text[match.end() :]
    decoded = unquote(path, errors="surrogateescape")
    return path if decoded != path and os.path.lexists(path) else decoded


def find_other_case(path: str | Path) -> Path | None:
    """The file or folder whose path differs from one that does not exist in case alone, in Unicode's form or in what is not seen."""
    path = Path(path)
    parent = path.parent
    if parent == path or os.path.lexists(path):
        return None
    folder = parent if parent.is_dir() else find_other_case(parent)
    if folder is None or not folder.is_dir():
        return None
    try:
        names = sorted(name for name in os.listdir(folder) if _plain(name) == _plain(path.name))
    except OSError:
        return None
    return folder / names[0] if names else None


def _plain(name: str) -> str:
    visible = "".join(sign for sign in name if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFC", visible).casefold()


def missing_reason(path: str) -> str:
    """Why there is no file at a path, as far as that can be seen: what is there instead, or under a name like it; else empty."""
    if os.path.isdir(path):
        return "a folder"
    if os.path.islink(path):
        return "a link to nothing"
    plain = path if os.sep == "\\" else path.replace("\\", "/")
    decoded = unquote(plain, errors="surrogateescape")
    if decoded != plain and os.path.exists(decoded):
        return f"there is {decoded}"
    other = find_other_case(plain)
    if other is not None:
        return f"there is {other}: upper and lower case, or invisible characters, differ"
    stem = Path(plain)
    try:
        others = sorted(name for name in os.listdir(stem.parent) if Path(name).stem == stem.stem)
    except (OSError, ValueError):
        return ""
    return f"there is {stem.parent / others[0]}" if others else ""


def path_remedy(path: str | Path) -> str:
    """What to do where nothing is at a path: close names beside it, else the folder that lacks, or where it was looked for."""
    path = Path(path)
    other = find_other_case(path)
    if other is not None:
        return f"did you mean {str(other)!r}? Upper and lower case, or invisible characters, differ"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    if path.is_symlink() and not os.path.exists(path):
        return f"it is a symbolic link to {os.readlink(path)}, which leads to nothing"
    if os.path.lexists(path) and not (path.is_file() or path.is_dir()):
        return "it is there, and is neither a regular file nor a folder"
    try:
        near = closest(path.name, os.listdir(path.parent))
    except OSError:
        near = ""
    return near or ("" if path.is_absolute() else f"looked for in {Path.cwd()}")


def open_file(
    path: str | Path, *, error: type[UnalikeError] = DataError, limit: int | None = None
) -> io.BufferedReader:
    """Open a regular file for reading. Nothing is waited for: a named pipe without a writer would block for ever.

    Args:
        path: The file.
        error: The class of error to raise.
        limit: Most bytes that the file may have.

    Raises:
        UnalikeError: Of class ``error``: no such file, not a regular one, not readable, or too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as failure:
        raise error(f"{path}: {reason(failure)}") from failure
    try:
        status = os.fstat(descriptor)
        _require_regular(path, status, error)
        if limit is not None and status.st_size > limit:
            raise error(f"{path} has {_size_text(status.st_size)}", expected=f"at most {_size_text(limit)}")
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, limit: int, *, error: type[UnalikeError] = DataError) -> bytes:
    """Read a regular file of at most ``limit`` bytes. Raises an error of class ``error`` that names the file."""
    with open_file(path, error=error, limit=limit) as file, reader_errors(str(path), error=error):
        return file.read(limit)


def require_file(path: str | Path, *, error: type[UnalikeError] = DataError) -> None:
    """Raise an error of class ``error`` unless ``path`` is a regular file; for libraries that open files by themselves."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as failure:
        raise error(f"{path}: {reason(failure)}") from failure
    _require_regular(path, status, error)


def read_settled(path: Path, reader: Callable[[], T], *, error: type[UnalikeError] = DataError) -> T:
    """Return what ``reader`` makes of a file that nobody wrote over in place meanwhile (``cp``); it is read again until then.

    Such a reader may get the half of each content. A file that was renamed over the old one is whole, and so was the old one.

    Args:
        path: The file, which a library opens by its name.
        reader: Reads it.
        error: The class of error to raise.

    Raises:
        UnalikeError: Of class ``error``: it was written to for ``WRITING_S``; and what ``reader`` raises.
    """
    deadline = time.monotonic() + WRITING_S
    while True:
        before = _settled_status(path)
        failure: UnalikeError | None = None
        try:
            value = reader()
        except UnalikeError as raised:
            failure = raised
        after = _settled_status(path)
        if failure is None and (before is None or after is None or before[0] != after[0] or before == after):
            return value
        if failure is not None and before == after:
            raise failure
        if time.monotonic() > deadline:
            raise error(f"{path} is written to again and again while it is read", expected="a finished file",
                        remedy="to replace a file in use, write another one and rename it (mv)") from failure  # fmt: skip
        time.sleep(PAUSE_S)


def _settled_status(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written to in place; None where there is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def reader_errors(
    found: str, *, expected: str = "", remedy: str = "", error: type[UnalikeError] = DataError
) -> Iterator[None]:
    """While inside, turn whatever a reader raises into one error of class ``error``.

    Args:
        found: The file, and what failed with it; the reason is added.
        expected: What the file should be.
        remedy: What to do.
        error: The class of error to raise. Errors of the product pass unchanged.
    """
    try:
        yield
    except (UnalikeError, MemoryError):
        raise
    except Exception as failure:  # see the top of this module
        raise error(f"{found} ({reason(failure)})", expected=expected, remedy=remedy) from failure


def reason(failure: BaseException) -> str:
    """The cause of a failure in one short line: of OSError the system's words, else the exception's text."""
    if isinstance(failure, FileNotFoundError):
        return "no such file or folder"
    if isinstance(failure, OSError) and failure.strerror:
        return "the disk is full" if failure.errno in (errno.ENOSPC, errno.EDQUOT) else failure.strerror
    if isinstance(failure, RecursionError):
        return "nested too deeply"
    text = shorten(str(failure))
    if isinstance(failure, LookupError) or not text:
        text = f"{type(failure).__name__} {text}".strip()
    return shorten(text)


def shorten(text: str) -> str:
    """A text of the file's as an error quotes it: on one line, cut after 200 characters."""
    text = " ".join(text[: 2 * _MAX_REASON].split())
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 3] + "..."


def _require_regular(path: str | Path, status: os.stat_result, error: type[UnalikeError]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "no regular file")
        raise error(f"{path} is {kind}", expected="a regular file")


def _size_text(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size} bytes"
