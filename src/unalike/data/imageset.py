"""Image sets: the paths and class labels of folders, archives, manifests and single files.

In every set (train, validation, reference, query) a class is identified by its name, never by its index. Labels are indices
into ``classes`` of the same set; ``align_labels`` brings several sets to one list of classes.

Shape letters: N images.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unalike.data.archives import ARCHIVE_SUFFIXES, is_archive, split_member, unpack_source
from unalike.data.class_names import find_similar_names, normalize_class_name
from unalike.data.decode import IMAGE_SUFFIXES
from unalike.data.folders import ClassMap, FolderListing, PathParts, is_image, list_folder, skip_wrapper_folders
from unalike.data.manifests import MANIFEST_SUFFIXES, plain_split, read_manifest, select_distinct_rows
from unalike.data.member_files import file_size, is_image_file
from unalike.data.notices import Notices
from unalike.data.regions import image_file
from unalike.data.split_folders import notice_split_folders
from unalike.data.tar_sets import MemberPaths, TarSource, find_tars, list_tars
from unalike.errors import DataError, SpecError, closest
from unalike.sanitize import redact
from unalike.storage.fetch import local_path, uri_of
from unalike.storage.outside_files import expand_home, is_file_address, missing_reason, path_remedy, require_file

__all__ = ["CLASS_FROM", "IMAGE_SUFFIXES", "ImageSet", "align_labels", "load_images", "resolve_source"]
MAX_LOOKED_FOR = 20  # missing files of a manifest that are looked for in another case
_QUOTED = re.compile(r"(?:^|[/\\])['\"`‘’“”„«»][^/\\]|[^/\\]['\"`‘’“”«»]$")
# What programs write for a value that is missing; a class may have such a name (NA is Namibia), seldom by intention.
MISSING_VALUES = ("nan", "NaN", "NA", "N/A", "<NA>", "None", "none", "null", "NULL", "NaT")
CLASS_FROM = ("top", "leaf", "path")
# Suffixes of files that users give in place of images -> what to do with them.
_OTHER_KINDS = {
    (".xls", ".xlsx", ".xlsm", ".ods", ".numbers"): "save the table as CSV (UTF-8)",
    (
        ".mp4",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".m4v",
    ): "write frames of the video as images, such as: ffmpeg -i VIDEO -r 1 FOLDER/%05d.jpg",
    (".rar", ".7z", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".br"): "unpack it, and give what was in it",
    (
        ".txt",
        ".json",
        ".jsonl",
        ".lst",
        ".list",
        ".yaml",
        ".yml",
        ".xml",
    ): "write a table as .csv: a line path,label, then one row an image",
    (".cr2", ".cr3", ".nef", ".arw", ".dng", ".svg", ".pdf", ".psd"): "convert it to PNG, TIFF or JPEG",
}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Paths of images and their class labels.

    Attributes:
        paths: One path an image: a tuple, or ``MemberPaths`` of tar files that are read where they are.
        labels_N: int64, indices into ``classes``; -1 for an unlabeled image.
        classes: Class names, sorted.
        groups: Group of each image (a scene, a day, a part number), from a manifest with such a column; else None.
        splits: Split of each image, from a manifest with such a column; else None.
        cells: Cells of further columns of a manifest, those that were asked for; else None.
        source: Where the set was loaded from, for messages.
    """

    paths: Sequence[Path]
    labels_N: np.ndarray
    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    cells: tuple[tuple[str, ...], ...] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels_N", np.asarray(self.labels_N, np.int64))
        for column in (self.labels_N, self.groups, self.splits, self.cells):
            if column is not None and len(column) != len(self.paths):
                raise ValueError(f"{len(self.paths)} paths and a column of {len(column)}")
        if len(self.labels_N) and not -1 <= self.labels_N.min() <= self.labels_N.max() < max(len(self.classes), 0):
            raise ValueError("a label outside the list of classes")

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Sequence[int] | np.ndarray) -> ImageSet:
        """Select images by indices or by a boolean mask, in that order; ``classes`` stays the same."""
        rows = np.arange(len(self))[np.asarray(indices, dtype=None if len(indices) else np.int64)]
        groups, splits = self.groups, self.splits
        return replace(
            self,
            paths=_take(self.paths, rows),
            labels_N=self.labels_N[rows],
            groups=None if groups is None else tuple(groups[i] for i in rows),
            splits=None if splits is None else tuple(splits[i] for i in rows),
            cells=None if self.cells is None else tuple(self.cells[i] for i in rows),
        )

    def counts(self) -> np.ndarray:
        """Number of images of each class, int64, in the order of ``classes``."""
        return np.bincount(self.labels_N[self.labels_N >= 0], minlength=len(self.classes)).astype(np.int64)

    def drop_empty_classes(self) -> ImageSet:
        """The same images without the classes that have no image; labels keep naming the same classes."""
        codes = np.flatnonzero(self.counts())
        if len(codes) == len(self.classes):
            return self
        index = np.full(len(self.classes) + 1, -1, np.int64)  # the last entry is for label -1
        index[codes] = np.arange(len(codes))
        return replace(self, labels_N=index[self.labels_N], classes=tuple(self.classes[i] for i in codes))

    def label_names(self) -> tuple[str, ...]:
        """The class name of each image; an empty string for an unlabeled one."""
        return tuple(self.classes[label] if label >= 0 else "" for label in self.labels_N)

    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the paths below their common folder, file sizes and class names, in any order.

        Pixels are not read: two sets that differ only in file contents of equal length have the same fingerprint.
        """
        texts, sizes = _absolute_paths(self.paths)
        root = os.path.commonpath({os.path.dirname(text) for text in texts}) if texts else ""
        lines = []
        for text, size, name in zip(texts, sizes, self.label_names(), strict=True):
            inner = text[len(root) :].replace(os.sep, "/").lstrip("/")
            lines.append(f"{inner}\0{size}\0{name}\n".encode("utf-8", "surrogateescape"))
        digest = hashlib.sha256()
        for line in sorted(lines):
            digest.update(line)
        return digest.hexdigest()


def _take(paths: Sequence[Path], rows: np.ndarray) -> Sequence[Path]:
    return paths.take(rows) if isinstance(paths, MemberPaths) else tuple(paths[i] for i in rows.tolist())


def _absolute_paths(paths: Sequence[Path]) -> tuple[Sequence[str], Iterable[int]]:
    """Absolute paths and sizes of files; of images in tar files as if all were unpacked into one folder."""
    if isinstance(paths, MemberPaths):
        names, sizes = zip(*paths.names_and_sizes(), strict=True) if len(paths) else ((), ())
        return [f"/{name}" for name in names], sizes
    texts = [os.path.abspath(path) for path in paths]
    return texts, (file_size(image_file(text)) for text in texts)


def load_images(
    source: str | Path,
    *,
    class_from: str = "top",
    class_map: str | Path | None = None,
    labeled: bool = True,
    notices: Notices | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    cache_dir: Path | None = None,
    for_training: bool = False,
    further: Sequence[str] = (),
    in_place: bool = False,
) -> ImageSet:
    """List the images of a folder, an archive, a manifest (CSV, Parquet), a single file, or a URI of one of these.

    Args:
        source: Where the images are.
        class_from: Which folder names the class: ``top`` the first level, ``leaf`` the folder of the image, ``path`` all
            levels, joined by ``/``.
        class_map: A YAML file of folder name -> class name, or a list with one class a line.
        labeled: False takes every image below the source, in whatever arrangement, with label -1. A single file needs it.
        notices: Receives empty classes, unreadable files and so on; by default they are printed.
        columns: Names of a manifest's columns, by the keys path, label, split, group.
        split: Takes only this split of a manifest; ``classes`` stays that of the whole manifest.
        cache_dir: Where archives and remote files are kept.
        for_training: Whether the images are trained on, for the remedy of a notice.
        further: Names of further columns of a manifest, whose ``cells`` the set gets.
        in_place: Whether tar files that are not compressed are read where they are (``data.tar_sets``); else they are unpacked.

    Returns:
        The images, sorted by path; those of a manifest in its order.

    Raises:
        DataError: Nothing usable in the source.
        SpecError: An unknown ``class_from``.
    """
    if class_from not in CLASS_FROM:
        raise SpecError(
            f"class_from {class_from!r}", expected=", ".join(CLASS_FROM), remedy=closest(class_from, CLASS_FROM)
        )
    own_notices = Notices() if notices is None else notices
    class_map = local_path(class_map, cache_dir) if class_map else None
    tars = find_tars(source, cache_dir) if in_place else None
    path, source = Path(source) if tars is not None else resolve_source(source, cache_dir), uri_of(source) or source
    name = redact(str(source))
    suffix = path.suffix.lower()
    if split is not None and suffix not in MANIFEST_SUFFIXES:
        raise DataError(f"{name}: asked for split {split!r}", expected="a manifest (CSV, Parquet) with a split column")
    if further and suffix not in MANIFEST_SUFFIXES:
        raise DataError(f"{name}: asked for the columns {', '.join(further)}", expected="a manifest (CSV, Parquet)")
    if tars is not None:
        images = _from_tars(tars, name, class_from, class_map, labeled, own_notices, for_training)
    elif path.is_dir() or is_archive(path):
        root = path if path.is_dir() else unpack_source(source, cache_dir, local_file=path)
        images = _from_folder(root, name, class_from, class_map, labeled, own_notices, for_training)
    elif suffix in MANIFEST_SUFFIXES:
        images = _from_manifest(path, str(source), class_map, labeled, own_notices, columns, split, cache_dir, further,
                                in_place)  # fmt: skip
    elif is_image(image_file(path)):
        if labeled:
            raise DataError(f"{name}: one image, which has no class", expected="class folders or a manifest")
        images = ImageSet((path,), np.full(1, -1), source=name)
    else:
        raise DataError(
            f"{name}: unknown kind of data",
            expected=f"a folder, an archive ({', '.join(ARCHIVE_SUFFIXES)}), a manifest "
            f"({', '.join(MANIFEST_SUFFIXES)}) or an image ({', '.join(sorted(IMAGE_SUFFIXES))})",
            remedy=next((remedy for suffixes, remedy in _OTHER_KINDS.items() if suffix in suffixes), ""),
        )
    if labeled:
        _notice_odd_classes(images, own_notices)
    if notices is None:
        own_notices.say()
    return images


def _notice_odd_classes(images: ImageSet, notices: Notices) -> None:
    """Name classes of one image, those whose name stands for a missing value, and those whose names are alike."""
    for label in np.flatnonzero(images.counts() == 1):
        notices.add("class-of-one", images.classes[label])
    for class_name in images.classes:
        if class_name in MISSING_VALUES:
            notices.add("missing-values", class_name)
    for group in find_similar_names(images.classes):
        notices.add("similar-classes", " and ".join(map(repr, sorted(group))))


def resolve_source(source: str | Path, cache_dir: Path | None = None) -> Path:
    """Find the local path of a source; remote files are fetched into the cache, archives of ``archive!member`` are unpacked.

    Raises DataError where there is nothing.
    """
    text = str(source)
    if is_file_address(text):
        text = str(expand_home(text))
    if not text:
        raise DataError("no data given", expected="a folder, an archive, a manifest, an image or an address of one")
    member = None if os.path.lexists(image_file(text)) else split_member(text)
    if member is None:
        path = local_path(text, cache_dir, select=is_image)
    else:
        path = unpack_source(member[0], cache_dir) / member[1]
        if not os.path.lexists(image_file(path)) and split_member(member[1]):  # an archive in the archive
            return resolve_source(path, cache_dir)
    if not os.path.exists(image_file(path)):
        raise DataError(f"{source}: no such file or folder", remedy=path_remedy(path))
    if not path.is_dir():
        require_file(image_file(path))
    return path


def align_labels(*sets: ImageSet) -> tuple[ImageSet, ...]:
    """Relabel image sets over one list of classes, the sorted union of theirs: equal labels then mean equal names."""
    union = tuple(sorted({name for images in sets for name in images.classes}))
    return tuple(_relabel(images, union) for images in sets)


def _relabel(images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    if images.classes == classes:
        return images
    index_of = {name: i for i, name in enumerate(classes)}
    index = np.array([index_of[name] for name in images.classes] + [-1], np.int64)  # the last entry is for label -1
    return replace(images, labels_N=index[images.labels_N], classes=classes)


def _from_folder(
    root: Path, source: str, class_from: str, class_map: str | Path | None, labeled: bool, notices: Notices,
    for_training: bool,
) -> ImageSet:  # fmt: skip
    top = root
    if labeled:
        root = skip_wrapper_folders(root, notices)
    listing = list_folder(root, notices)
    inside = root.relative_to(top).as_posix()
    paths = tuple(root.joinpath(*parts) for parts in listing.images)
    return _from_listing(listing, paths, inside, source, class_from, class_map, labeled, notices, for_training)


def _from_tars(
    tars: TarSource, source: str, class_from: str, class_map: str | Path | None, labeled: bool, notices: Notices,
    for_training: bool,
) -> ImageSet:  # fmt: skip
    content = list_tars(tars, notices, labeled=labeled)
    return _from_listing(content.listing, content.paths, content.wrapper or ".", source, class_from, class_map, labeled, notices,
                         for_training)  # fmt: skip


def _from_listing(
    listing: FolderListing, every_path: Sequence[Path], inside: str, source: str, class_from: str, class_map: str | Path | None,
    labeled: bool, notices: Notices, for_training: bool,
) -> ImageSet:  # fmt: skip
    """The set of a listing whose images have these paths; ``inside`` is the folder of the source that was listed."""
    if not labeled:
        if not listing.images:
            raise _empty_error(source, "images", notices)
        return ImageSet(every_path, np.full(len(listing.images), -1), source=source)
    rows, folders = [], []
    for row, parts in enumerate(listing.images):
        if len(parts) == 1:
            notices.add("root-image", parts[0])
        else:
            rows.append(row)
            folders.append(normalize_class_name(_class_folder(parts, class_from)))
    if not rows:
        raise _empty_error(source, "class folders with images", notices)
    paths = _take(every_path, np.array(rows))
    if class_from == "top" and not class_map:
        notice_split_folders(f"{source.rstrip('/')}/{inside}" if inside != "." else source, listing.images, notices,
                             for_training=for_training)  # fmt: skip
    all_folders = sorted(
        set(folders) | {normalize_class_name(parts[0]) for parts in listing.folders if len(parts) == 1}
    )
    nonempty = {parts[0] for parts in listing.images if len(parts) > 1}
    for parts in listing.folders:
        if len(parts) == 1 and parts[0] not in nonempty:
            notices.add("empty-class", parts[0])
    # a list of names by position must count the empty folders too, or every later name would shift
    class_names = ClassMap.read(class_map).class_names(
        all_folders if class_from == "top" else sorted(set(folders)), notices
    )
    return _labelled(paths, [class_names[folder] for folder in folders], source)


def _class_folder(parts: PathParts, class_from: str) -> str:
    """The part of an image's path below the root that names its class."""
    if class_from == "path":
        return "/".join(parts[:-1])
    return parts[0] if class_from == "top" else parts[-2]


def _from_manifest(
    path: Path,
    source: str,
    class_map: str | Path | None,
    labeled: bool,
    notices: Notices,
    columns: Mapping[str, str] | None,
    split: str | None,
    cache_dir: Path | None,
    further: Sequence[str],
    in_place: bool,
) -> ImageSet:
    rows = read_manifest(
        path,
        columns=columns,
        labeled=labeled,
        uri=uri_of(source),
        cache_dir=cache_dir,
        notices=notices,
        further=further,
        in_place=in_place,
    )
    rows = select_distinct_rows(rows if labeled else replace(rows, labels=("",) * len(rows.paths)), notices)
    source = redact(source)
    exists_N = np.array([is_image_file(image_file(p)) for p in rows.paths], bool)
    for number, i in enumerate(np.flatnonzero(~exists_N)):
        reason = missing_reason(image_file(rows.paths[i])) if number < MAX_LOOKED_FOR else ""
        notices.add("missing", rows.paths[i], reason)
    if not exists_N.any():
        raise DataError(
            f"{source}: none of its {len(exists_N)} files exists, first {rows.paths[0]}",
            expected="paths that are absolute or relative to the manifest",
            remedy=_foreign_path_remedy(str(rows.paths[0])),
        )
    if labeled:
        names = [normalize_class_name(label) for label in rows.labels]
        class_names = ClassMap.read(class_map).class_names(sorted(set(names)), notices)
        images = _labelled(list(rows.paths), [class_names[name] for name in names], source)
    else:
        images = ImageSet(tuple(rows.paths), np.full(len(rows.paths), -1), source=source)
    images = replace(images, groups=rows.groups, splits=rows.splits, cells=rows.cells).select(exists_N)
    if labeled:
        for label in np.flatnonzero(images.counts() == 0):
            notices.add("empty-class", images.classes[label])
        images = images.drop_empty_classes()
    if split is None:
        return images
    if images.splits is None:
        raise DataError(f"{source}: no split column, asked for split {split!r}")
    in_split = np.array([s == plain_split(split) for s in images.splits], bool)
    if not in_split.any():
        raise DataError(f"{source}: no row of split {split!r}", expected=" or ".join(sorted(set(images.splits))))
    return images.select(in_split)


def _foreign_path_remedy(path: str) -> str:
    if reason := missing_reason(image_file(path)):
        return reason
    if _QUOTED.search(path):
        return "its paths have quotation marks around them, which are taken as part of the name: remove them"
    if "\\" in path and os.sep == "/":
        return "its paths are of Windows (backslashes): write them relative to the table, with /"
    return "is the table in the folder that its paths are relative to?"


def _labelled(paths: Sequence[Path], names: Sequence[str], source: str) -> ImageSet:
    classes = tuple(sorted(set(names)))
    index_of = {name: i for i, name in enumerate(classes)}
    return ImageSet(paths, np.array([index_of[name] for name in names], np.int64), classes, source=source)


def _empty_error(source: str, expectation: str, notices: Notices) -> DataError:
    """The error for a folder without anything usable, naming what it holds instead."""
    archives = [
        f"{source.rstrip('/')}{'!' if is_archive(source) else '/'}{name}" for name in notices.names("nested-archive")
    ]
    if archives:
        return DataError(
            f"{source}: holds archives, no {expectation}", remedy=f"give one of them: {', '.join(archives[:5])}"
        )
    counts = notices.counts
    if counts.get("root-image"):
        content = f"{counts['root-image']} images directly in it, no class folders"
    else:
        content = f"no image, {counts.get('stray', 0)} other files"
    return DataError(
        f"{source}: {content}",
        expected=expectation,
        remedy="give one folder a class, or a manifest with path and label",
    )
