"""Listing of image folders, the same on every platform, and the mapping from folder names to class names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unalike.data.class_names import check_class_name, normalize_class_name
from unalike.data.decode import IMAGE_SUFFIXES
from unalike.data.notices import Notices
from unalike.errors import DataError
from unalike.storage.filesystems import is_hidden
from unalike.storage.outside_files import expand_home, read_bytes, reader_errors

PathParts = tuple[str, ...]  # a path below the root
MAX_DEPTH = 100  # folders in folders
MAX_CLASS_MAP_BYTES = 16 << 20


@dataclass
class FolderListing:
    """Images and folders (of every level) below a root, both sorted."""

    images: list[PathParts] = field(default_factory=list)
    folders: list[PathParts] = field(default_factory=list)


def is_image(name: str) -> bool:
    """Whether the name has the suffix of a supported image format."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def list_folder(root: Path, notices: Notices) -> FolderListing:
    """List every image below ``root``; links are followed, other files go to ``notices``."""
    listing = FolderListing()
    _walk(root, (), {_identity(root)}, listing, notices)
    listing.images.sort(key=sort_key)
    listing.folders.sort(key=sort_key)
    return listing


def skip_wrapper_folders(root: Path, notices: Notices) -> Path:
    """Step into folders that only wrap the class folders, as archives often have them.

    A wrapper is the only folder of its parent, which has no images, and itself holds folders but no images: a class folder
    with images stays a class. Every wrapper goes to ``notices``.
    """
    while True:
        folders, images = _list_level(root)
        if images or len(folders) != 1:
            return root
        inner_folders, inner_images = _list_level(root / folders[0])
        if inner_images or not inner_folders:
            return root
        root = root / folders[0]
        notices.add("wrapper", root.name)


def sort_key(parts: PathParts) -> tuple[PathParts, PathParts]:
    return tuple(normalize_class_name(part) for part in parts), parts


def _identity(path: Path | str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _list_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted((e for e in listing if not is_hidden(e.name)), key=lambda e: e.name)
    except OSError as error:  # skipping it would silently lose a class
        raise DataError(f"{folder}: {error.strerror or error}", remedy="is the folder readable?") from error


def _list_level(folder: Path) -> tuple[list[str], list[str]]:
    entries = _list_entries(folder)
    folders = [e.name for e in entries if _is_folder(e)]
    return folders, [e.name for e in entries if is_image(e.name) and _is_file(e)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """As ``entry.is_dir()``, which raises for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _walk(
    folder: Path, above: PathParts, open_folders: set[tuple[int, int]], listing: FolderListing, notices: Notices
) -> None:
    """Add what is below ``folder``. ``open_folders`` are the ones from the root to here: a link to one would never end."""
    for entry in _list_entries(folder):
        parts = (*above, entry.name)
        if _is_folder(entry):
            identity = _identity(entry.path)
            if identity in open_folders:
                notices.add("link-loop", "/".join(parts))
                continue
            if len(parts) > MAX_DEPTH:
                raise DataError(f"{folder}: folders in folders, more than {MAX_DEPTH} deep")
            listing.folders.append(parts)
            _walk(folder / entry.name, parts, open_folders | {identity}, listing, notices)
        elif not _is_file(entry):
            notices.add("broken-link" if entry.is_symlink() else "stray", "/".join(parts))
        elif is_image(entry.name):
            listing.images.append(parts)
        else:
            from unalike.data.archives import is_archive  # a deployed model imports this module and unpacks none

            notices.add("nested-archive" if is_archive(entry.name) else "stray", "/".join(parts))


@dataclass(frozen=True)
class ClassMap:
    """Maps folder names to class names: by folder name (``by_name``), or by a list (``lines``); without both, no change."""

    by_name: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    path: str = ""

    @classmethod
    def read(cls, path: str | Path | None) -> ClassMap:
        """Read a YAML mapping, a YAML list or a text file with one class a line; None gives the empty map."""
        if path is None or str(path) == "":
            return cls()
        file = expand_home(path)
        with reader_errors(f"class map {path}: cannot be read", expected="a YAML or text file in UTF-8"):
            text = read_bytes(file, MAX_CLASS_MAP_BYTES).decode("utf-8-sig")
        if file.suffix.lower() in (".yaml", ".yml", ".json"):
            import yaml  # loaded here because a deployed model imports this module and reads no class map

            with reader_errors(f"class map {path}: not YAML", expected="folder name: class name, one a line"):
                if len(text) > MAX_CLASS_MAP_BYTES // 8:
                    raise DataError(f"class map {path}: more than {MAX_CLASS_MAP_BYTES // 8 >> 20} MiB of YAML",
                                    remedy="write a text file with one class a line")  # fmt: skip
                # every scalar as text: a folder named 007 or no must keep its name
                content = yaml.load(text, Loader=yaml.BaseLoader)
            if isinstance(content, Mapping) and all(isinstance(v, str) for v in content.values()):
                pairs = {normalize_class_name(k): _class_of_map(path, k, v) for k, v in content.items()}
                return cls(by_name=pairs, path=str(path))
            if isinstance(content, list) and all(isinstance(v, str) for v in content):
                text = "\n".join(content)
            elif not isinstance(content, str):
                raise DataError(
                    f"class map {path}: no mapping of names", expected="folder name: class name, one a line"
                )
        lines = tuple(normalize_class_name(line.strip()) for line in text.splitlines() if line.strip())
        return cls(lines=lines, path=str(path))

    def class_names(self, folders: Sequence[str], notices: Notices) -> dict[str, str]:
        """Map folder names to class names.

        Lines that name all folders leave them as they are, also when there are more lines: a query set may lack
        classes. Lines of other names are assigned to the sorted folders by position.

        Args:
            folders: The folder names, sorted, empty folders included.
            notices: Receives folders that a mapping lacks.

        Raises:
            DataError: Lines of other names, and not one for each folder.
        """
        if self.lines:
            if set(folders) <= set(self.lines):
                return {name: name for name in folders}
            if len(self.lines) != len(folders):
                missing = [name for name in folders if name not in self.lines]
                raise DataError(
                    f"class map {self.path}: {len(self.lines)} lines for {len(folders)} folders, without "
                    f"{', '.join(missing[:3])}",
                    expected="every folder's name, or one line for each folder in sorted order",
                    remedy="write it as YAML (folder name: class name)",
                )
            return dict(zip(folders, self.lines, strict=True))
        if self.by_name:
            for name in folders:
                if name not in self.by_name:
                    notices.add("unmapped-class", name)
        return {name: self.by_name.get(name, name) or name for name in folders}


def _class_of_map(path: str | Path, folder: str, name: str) -> str:
    """The class of a folder in a class map; empty where the folder's own name is meant."""
    try:
        return check_class_name(name) if name.strip() else ""
    except DataError as error:
        raise DataError(f"class map {path}: {folder}: {error.found}", expected=error.expected) from error
