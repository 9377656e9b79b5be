"""Files of inspectors that were fitted by a service: ``inspectors/NAME.inspector`` in its folder, and one of each name that was removed."""

from __future__ import annotations

import re
from pathlib import Path

from unalike.storage.atomic import copy_file

FOLDER, REMOVED, SUFFIX = "inspectors", "removed", ".inspector"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def inspector_file(folder: Path, name: str) -> Path:
    """The file of an inspector of the service of a folder."""
    return folder / FOLDER / f"{name}{SUFFIX}"


def removed_file(folder: Path, name: str) -> Path:
    """The file of the inspector of a name that was removed last."""
    return folder / FOLDER / REMOVED / f"{name}{SUFFIX}"


def list_inspectors(folder: Path) -> list[str]:
    """Names of the inspectors of the service of a folder."""
    names = [path.name.removesuffix(SUFFIX) for path in (folder / FOLDER).glob(f"*{SUFFIX}")]
    return sorted(name for name in names if NAME.fullmatch(name))


def copy_inspectors(source: Path, target: Path) -> None:
    """Copy the inspectors of one folder of a service to another, for a backup or from one; those that are there stay."""
    for name in list_inspectors(source):
        copy = inspector_file(target, name)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy_file(inspector_file(source, name), copy)
