"""Refuse to write where something exists, unless the user asked to overwrite it."""

from __future__ import annotations

from pathlib import Path

from unalike.errors import RunError, UnalikeError


def refuse_existing(
    path: str | Path, overwrite: bool | None = None, *, folder: bool = False, field: str = "", alternative: str = "",
    error: type[UnalikeError] = RunError,
) -> None:  # fmt: skip
    """Raise an error when an output exists and may not be overwritten.

    Args:
        path: The file, or with ``folder`` the folder, that is going to be written.
        overwrite: Whether the user asked to overwrite; None where the command has no such option.
        folder: Whether a folder is written; an empty one passes, a file is refused even with ``overwrite``.
        field: The spec field that names the path, for the message.
        alternative: Another remedy, such as ``use gallery add``.
        error: The class of the error; its exit code is the command's.
    """
    path = Path(path)
    place = f"{field}: {path}" if field else str(path)
    if folder and path.exists() and not path.is_dir():
        raise error(f"{place} is a file", expected="a folder", remedy="choose another name")
    if overwrite or not path.exists() or (folder and not any(path.iterdir())):
        return
    remedies = ["choose another name", *([alternative] if alternative else [])]
    remedies.append("delete it" if overwrite is None else "add --overwrite")
    state, expectation = ("is not empty", "a new or an empty folder") if folder else ("exists", "a new file")
    raise error(f"{place} {state}", expected=expectation, remedy=f"{', '.join(remedies[:-1])} or {remedies[-1]}")
