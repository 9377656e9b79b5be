"""Refuse to write where something exists, unless the user asked to overwrite it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from unalike.errors import RunError, UnalikeError

# What becomes of the scheme of an address where a path is made of it; one letter is a drive of Windows.
_SCHEME = re.compile(r"[\s'\"]*([A-Za-z][A-Za-z0-9+.-]+):(?!$)")


def refuse_address(
    path: str | Path, error: type[UnalikeError] = RunError, form: str = "a path on this machine"
) -> None:
    """Raise an error for an address where a path is meant: a folder named after its scheme would be made here, and the file in it.

    The address may hold a password, and is not repeated.

    Args:
        path: What the user named, perhaps made a path already, so that it has one slash less.
        error: The class of the error.
        form: What the error says that may stand here.
    """
    match = _SCHEME.match(str(path).partition("/")[0] + "/")
    if match is None:
        return
    is_file = match[1].lower() == "file"
    raise error(f"{match[1]}:... is an address", expected=form,
                remedy="write the path alone" if is_file else "copy files from and to other stores with their programs")  # fmt: skip


def refuse_unwritable(path: Path, error: type[UnalikeError] = RunError) -> None:
    """Raise an error where nothing can be created at a path, before the work whose result would be lost.

    Args:
        path: A file or folder that need not exist yet, nor the folders above it.
        error: The class of the error.
    """
    refuse_address(path, error)
    above = Path(os.path.abspath(path))
    above = above if above.is_dir() else above.parent
    while not os.path.lexists(above) and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise error(
            f"{path} cannot be written: {above} is no folder",
            expected="a folder that can be written",
            remedy="choose another name",
        )
    if not os.access(above, os.W_OK | os.X_OK) and not (path.exists() and not path.is_file() and not path.is_dir()):
        raise error(f"{path} cannot be written: no right to create files in {above}", expected="a folder that can be written",
                    remedy="choose another name, or change the folder's permissions")  # fmt: skip


def refuse_unchangeable(path: str | Path, error: type[UnalikeError] = RunError) -> None:
    """Raise an error where neither an existing file nor its folder can be written, before the work of the change."""
    target = Path(os.path.realpath(path))
    if target.is_file() and not os.access(target, os.W_OK) and not os.access(target.parent, os.W_OK | os.X_OK):
        raise error(f"{path} cannot be written: no right to change it, nor to create files in {target.parent}",
                    remedy="copy it to a folder of your own, or change the permissions")  # fmt: skip


def refuse_existing(
    path: str | Path, overwrite: bool | None = None, *, folder: bool = False, field: str = "", alternative: str = "",
    error: type[UnalikeError] = RunError,
) -> None:  # fmt: skip
    """Raise an error when an output exists and may not be overwritten, or cannot be written at all.

    Args:
        path: The file, or with ``folder`` the folder, that is going to be written.
        overwrite: Whether the user asked to overwrite; None where the command has no such option.
        folder: Whether a folder is written; an empty one passes, a file is refused even with ``overwrite``.
        field: The spec field that names the path, for the message.
        alternative: Another remedy, such as ``use gallery add``.
        error: The class of the error; its exit code is the command's.
    """
    path = Path(path)
    refuse_unwritable(path, error)
    place = f"{field}: {path}" if field else str(path)
    if folder and path.exists() and not path.is_dir():
        raise error(f"{place} is a file", expected="a folder", remedy="choose another name")
    if overwrite or not path.exists() or (folder and not any(path.iterdir())):
        return
    remedies = ["choose another name", *([alternative] if alternative else [])]
    remedies.append("delete it" if overwrite is None else "add --overwrite")
    state, expectation = ("is not empty", "a new or an empty folder") if folder else ("exists", "a new file")
    raise error(f"{place} {state}", expected=expectation, remedy=f"{', '.join(remedies[:-1])} or {remedies[-1]}")
