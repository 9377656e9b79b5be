"""Names of images as their user knows them: ``archive!member`` and addresses, in place of copies in the cache.

Archives are unpacked, and remote files fetched, into folders of the cache that differ from machine to machine and are removed
some day. What fills such a folder registers it here; whatever names a file in a result or a message passes the path through
``source_name``, or a text through ``with_source_names``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

_MEMBER = "!"  # between an archive and the path of a member
_prefixes: dict[
    str, str
] = {}  # folder of the cache, with a separator at its end -> what stands in its place, with a mark at its end
_names: dict[str, dict[str, str]] = {}  # folder of the cache -> names of single files in it, by path


def register_archive(folder: str | os.PathLike[str], archive: str) -> None:
    """Register the folder that an archive is unpacked into.

    Args:
        folder: the folder.
        archive: the archive as the user named it, without passwords.
    """
    _prefixes[os.path.join(folder, "")] = archive + _MEMBER


def register_shard(path: str, address: str) -> None:
    """Register a tar file of a store whose images are read where they are.

    Args:
        path: as paths of its images begin.
        address: the user's, without passwords.
    """
    _prefixes[path + _MEMBER] = address + _MEMBER


def register_folder(folder: str | os.PathLike[str], address: str) -> None:
    """Register the folder that a remote folder is fetched into; ``address`` is the user's, without passwords."""
    _prefixes[os.path.join(folder, "")] = address.rstrip("/") + "/"


def register_files(folder: str | os.PathLike[str], names: Mapping[str, str]) -> None:
    """Register single files that are fetched into a folder.

    Args:
        folder: the folder of the cache.
        names: address without passwords, by local path.
    """
    _names.setdefault(os.path.join(folder, ""), {}).update(names)


def source_name(path: str | os.PathLike[str]) -> str:
    """Return the name of an image, or of a region of one, as the user knows it; a path outside the cache is its own name."""
    text = os.fspath(path)
    for folder, prefix in _prefixes.items():
        if text.startswith(folder):
            return prefix + text[len(folder) :].replace(os.sep, "/")
        if text == folder[:-1]:
            return prefix[:-1]
    for folder, names in _names.items():
        if text.startswith(folder):
            file, mark, region = text.rpartition("#")
            return names.get(text) or (names[file] + mark + region if file in names else text)
    return text


def absolute_source_name(path: str | os.PathLike[str]) -> str:
    """Return ``source_name`` with the absolute path of a local file or archive, for tables that are read from elsewhere."""
    name = source_name(path)
    if name == os.fspath(path):
        return str(Path(name).absolute())
    archive, mark, member = name.partition(_MEMBER)
    return name if "://" in name else f"{Path(archive).absolute()}{mark}{member}"


def with_source_names(text: str) -> str:
    """Return a text in which paths of registered files are replaced by the names of their sources."""
    for folder, prefix in _prefixes.items():
        if folder[:-1] in text:
            root = re.escape(folder[:-1]) + r"(?![\w.-])"  # the folder itself, not one whose name begins like its
            text = prefix[:-1].join(re.split(root, text.replace(folder, prefix)))
    for folder, names in _names.items():
        if folder in text:
            for path in sorted((path for path in names if path in text), key=len, reverse=True):
                text = text.replace(path, names[path])
    return text
