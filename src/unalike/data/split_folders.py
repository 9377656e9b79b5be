"""Class folders that are no classes: parts of a data set, or folders of classes; named, with the call that was meant."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from unalike.data.folders import PathParts
from unalike.data.notices import Notices

TRAIN_NAMES = ("train", "training")
QUERY_NAMES = ("val", "valid", "validation", "test", "testing", "query")
OTHER_NAMES = ("reference", "images", "imgs", "dataset")


def notice_split_folders(
    root: str, images: Sequence[PathParts], notices: Notices, *, for_training: bool = False
) -> None:  # fmt: skip
    """Add a notice where folders below ``root`` that are taken as classes are named like the parts of a data set.

    Args:
        root: The folder, as the user named it and with the wrappers that were stepped into.
        images: Paths of its images below it, as parts.
        notices: Receives the notice.
        for_training: Whether the images are those of a training: the notice then holds its command.
    """
    inner: dict[str, set[str]] = {}  # folder -> the folders in it that hold images; empty text for its own images
    for parts in images:
        if len(parts) > 1:
            inner.setdefault(parts[0], set()).add(parts[1] if len(parts) > 2 else "")
    by_name = {name.casefold(): name for name in inner}
    parts_of_split = [by_name[name] for name in (*TRAIN_NAMES, *QUERY_NAMES, *OTHER_NAMES) if name in by_name]
    if not parts_of_split:
        _notice_folders_of_classes(root, inner, notices, for_training)
        return
    nested = [name for name in parts_of_split if inner[name] - {""}]
    if nested:
        remedy = _nested_remedy(root, nested, inner, for_training)
    elif len(parts_of_split) < len(inner):  # a class of that name among others
        return
    elif for_training:
        remedy = f"without class folders: unalike train {_join(root, parts_of_split[0])} --no-labels"
    else:
        remedy = "expected one folder a class"
    notices.add("split-folder", f"{', '.join(parts_of_split)} in {root}", remedy)


def _notice_folders_of_classes(
    root: str, inner: Mapping[str, set[str]], notices: Notices, for_training: bool
) -> None:  # fmt: skip
    """Add a notice where every folder holds folders of images and no image: groups of classes, each taken as one class.

    Folders whose inner folders have the same names (days, cameras, sides) are classes.
    """
    names = [name for folders in inner.values() for name in folders]
    if not names or "" in names or len(set(names)) < len(names) or len(names) < 2 * len(inner):
        return
    remedy = "if the innermost folders are the classes: " + (
        f"unalike train {shlex.quote(root)} dataset.class_from=leaf"
        if for_training
        else "give one of them, or one folder a class"
    )
    notices.add(
        "folders-of-classes", f"{', '.join(sorted(inner)[:3])}{', ...' if len(inner) > 3 else ''} in {root}", remedy
    )


def _nested_remedy(root: str, nested: Sequence[str], inner: dict[str, set[str]], for_training: bool) -> str:
    """What to give in place of a folder whose folders hold class folders."""
    first = _join(root, nested[0])
    if not for_training:
        return f"if they hold the class folders, give {first} in place of {shlex.quote(root)}"
    command = f"unalike train {first}"
    query = next((name for name in nested[1:] if name.casefold() in QUERY_NAMES), None)
    if query is not None:
        # Known classes are looked up among the training images, new ones among themselves.
        field = "query" if inner[query] & inner[nested[0]] else "reference"
        command += f" dataset.val_dataset.{field}={_join(root, query)}"
    return f"if they hold the class folders: {command}"


def _join(root: str, name: str) -> str:
    return shlex.quote(f"{root.rstrip('/')}/{name}")
