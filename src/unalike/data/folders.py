"""Walking a folder of images, the same way on every platform; and the names that classes are shown under."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unalike.data.decode import IMAGE_SUFFIXES
from unalike.data.notices import Notices
from unalike.errors import DataError
from unalike.storage.filesystems import is_hidden

Parts = tuple[str, ...]  # a path below the root, piece by piece


@dataclass
class Found:
    """Images and folders below a root, both sorted; ``folders`` holds those of every level."""

    images: list[Parts] = field(default_factory=list)
    folders: list[Parts] = field(default_factory=list)


def is_image(name: str) -> bool:
    """Whether the name ends like an image that is read here."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def normalize_class_name(text: str) -> str:
    """A class name in one Unicode form: macOS takes an umlaut apart, and the same class must have the same name."""
    return unicodedata.normalize("NFC", text)


def scan(root: Path, notices: Notices) -> Found:
    """Every image below ``root``, links followed, sorted by path; what is no image goes to ``notices``."""
    found = Found()
    _walk(root, (), {_identity(root)}, found, notices)
    found.images.sort(key=_order)
    found.folders.sort(key=_order)
    return found


def skip_wrapper_folders(root: Path, notices: Notices) -> Path:
    """Step into a single folder that only wraps the class folders, as archives often have; said once.

    A wrapper is the only folder of its parent, beside which no image lies, and holds folders but no image itself:
    a class folder with images stays a class.
    """
    while True:
        folders, images = _level(root)
        if images or len(folders) != 1:
            return root
        inner_folders, inner_images = _level(root / folders[0])
        if inner_images or not inner_folders:
            return root
        root = root / folders[0]
        notices.add("wrapper", root.name)


def _order(parts: Parts) -> tuple[Parts, Parts]:
    return tuple(normalize_class_name(part) for part in parts), parts


def _identity(path: Path | str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted((e for e in listing if not is_hidden(e.name)), key=lambda e: e.name)
    except OSError as fault:  # passing over it would lose a class without a word
        raise DataError(f"{folder}: {fault.strerror or fault}", remedy="is the folder readable?") from fault


def _level(folder: Path) -> tuple[list[str], list[str]]:
    entries = _entries(folder)
    folders = [e.name for e in entries if e.is_dir()]
    return folders, [e.name for e in entries if is_image(e.name) and e.is_file()]


def _walk(folder: Path, above: Parts, open_folders: set[tuple[int, int]], found: Found, notices: Notices) -> None:
    """``open_folders`` are those between the root and here: a link to one of them would go round for ever."""

    for entry in _entries(folder):
        parts = (*above, entry.name)
        if entry.is_dir():
            identity = _identity(entry.path)
            if identity in open_folders:
                notices.add("link-loop", "/".join(parts))
                continue
            found.folders.append(parts)
            _walk(folder / entry.name, parts, open_folders | {identity}, found, notices)
        elif not entry.is_file():
            notices.add("broken-link" if entry.is_symlink() else "stray", "/".join(parts))
        elif is_image(entry.name):
            found.images.append(parts)
        else:
            notices.add("stray", "/".join(parts))


@dataclass(frozen=True)
class ClassMap:
    """Folder name -> shown name (``by_name``), or names one a line (``lines``); neither changes nothing."""

    by_name: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    path: str = ""

    @classmethod
    def read(cls, path: str | Path | None) -> ClassMap:
        """Read a YAML mapping, a YAML list or a text file of one class a line; None gives the empty map."""
        if path is None or str(path) == "":
            return cls()
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as fault:
            raise DataError(f"class map {path}: {fault}", expected="a YAML or text file in UTF-8") from fault
        if Path(path).suffix.lower() in (".yaml", ".yml", ".json"):
            import yaml  # a deployed recogniser loads this module too, and reads no class map

            try:
                # every scalar as text: a folder called 007 or no must keep its name
                content = yaml.load(text, Loader=yaml.BaseLoader)
            except yaml.YAMLError as fault:
                raise DataError(f"class map {path}: not YAML ({' '.join(str(fault).split())})") from fault
            if isinstance(content, Mapping) and all(isinstance(v, str) for v in content.values()):
                pairs = {normalize_class_name(k): normalize_class_name(v) for k, v in content.items()}
                return cls(by_name=pairs, path=str(path))
            if isinstance(content, list) and all(isinstance(v, str) for v in content):
                text = "\n".join(content)
            elif not isinstance(content, str):
                raise DataError(
                    f"class map {path}: no mapping of names", expected="folder name: shown name, a line each"
                )
        lines = tuple(normalize_class_name(line.strip()) for line in text.splitlines() if line.strip())
        return cls(lines=lines, path=str(path))

    def shown(self, folders: Sequence[str], notices: Notices) -> dict[str, str]:
        """Shown name of each folder (given sorted, the empty ones too).

        Lines that name all folders leave them as they are, also when there are more lines: a query set may lack
        classes. Lines of other names go to the sorted folders by place, which needs one a folder; else ``DataError``.
        """
        if self.lines:
            if set(folders) <= set(self.lines):
                return {name: name for name in folders}
            if len(self.lines) != len(folders):
                missing = [name for name in folders if name not in self.lines]
                raise DataError(
                    f"class map {self.path}: {len(self.lines)} lines for {len(folders)} folders, without "
                    f"{', '.join(missing[:3])}",
                    expected="every folder's name, or one line a folder in sorted order",
                    remedy="write it as YAML (folder name: shown name)",
                )
            return dict(zip(folders, self.lines, strict=True))
        if self.by_name:
            for name in folders:
                if name not in self.by_name:
                    notices.add("unmapped-class", name)
        return {name: self.by_name.get(name, name) or name for name in folders}
