"""Labeled images for a training: from references, corrected decisions and folders; one a content, checked, written as a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from unalike.data.decode import decode
from unalike.data.imageset import load_images
from unalike.data.manifests import write_manifest_rows
from unalike.data.notices import Notices
from unalike.data.regions import image_file
from unalike.errors import UnreadableImage
from unalike.runs.environment import usable_cores
from unalike.sanitize import one_line
from unalike.storage.digests import file_sha256

REFERENCE, CORRECTION, FOLDER = "reference", "correction", "folder"
# Of one content, the label that is taken: what people said about a decision, then what is enrolled, then old data.
_PRECEDENCE = {CORRECTION: 0, REFERENCE: 1, FOLDER: 2}
MAX_NAMED = 50


@dataclass(frozen=True)
class LabeledImage:
    """An image whose class is known.

    Attributes:
        sha256: of its content, in hex digits.
        label: its class.
        source: ``REFERENCE``, ``CORRECTION`` or ``FOLDER``.
        path: its file; empty where it is in an image store.
        time: when it came, in UTC; None where that is not known.
        name: what it is called in reports: the id of a decision, the name of a reference, a path.
    """

    sha256: str
    label: str
    source: str
    path: str = ""
    time: datetime | None = None
    name: str = ""


@dataclass
class DataReport:
    """What was found in the data of a training.

    Attributes:
        images: number of images by class.
        sources: number of images by source.
        duplicates: images that are there more than once, not counting the first.
        conflicts: contents that have two labels; that of the later or surer source is taken.
        unreadable: (name, reason) of images that cannot be decoded.
        missing: names of references without a picture.
    """

    images: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    conflicts: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def single(self) -> list[str]:
        """Classes with one image: nothing can be learned about how their images vary."""
        return sorted(label for label, count in self.images.items() if count == 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; lists of names are cut off, and their lengths say how many there are."""
        return {
            "images": sum(self.images.values()), "classes": len(self.images), "sources": self.sources,
            "largest_class": max(self.images.values(), default=0), "smallest_class": min(self.images.values(), default=0),
            "single": _cut(self.single), "duplicates": self.duplicates, "conflicts": _cut(self.conflicts),
            "unreadable": {"count": len(self.unreadable),
                           "names": [f"{one_line(name)}: {one_line(reason)}" for name, reason in self.unreadable[:MAX_NAMED]]},
            "missing": _cut(self.missing),
        }  # fmt: skip


def _cut(names: Sequence[str]) -> dict[str, Any]:
    return {"count": len(names), "names": [one_line(name) for name in names[:MAX_NAMED]]}


def read_folder(source: str | Path) -> list[LabeledImage]:
    """The images of class folders, an archive or a manifest, with the digests of their files.

    Raises:
        DataError: there is nothing usable.
    """
    images = load_images(source, notices=Notices())
    with ThreadPoolExecutor(max(2, usable_cores()), thread_name_prefix="digest") as pool:
        digests = list(pool.map(_digest, images.paths))
    return [
        LabeledImage(digest, label, FOLDER, str(path), name=str(path))
        for path, label, digest in zip(images.paths, images.label_names(), digests, strict=True)
        if digest
    ]


def _digest(path: Path) -> str:
    """The digest of a file's content; of a region of an image that of the file with the region's name; empty where it is gone."""
    file = Path(image_file(path))
    try:
        digest = file_sha256(file)
    except OSError:
        return ""
    return digest if file == path else f"{digest}{str(path)[len(str(file)) :]}"


def unite_images(images: Iterable[LabeledImage], report: DataReport) -> list[LabeledImage]:
    """One image for each content: of several the one whose label is surest, of equally sure ones the latest.

    Args:
        images: from all sources.
        report: gets duplicates, conflicts and counts.

    Returns:
        The images by class and digest, the same in any order of the input.
    """
    best: dict[str, LabeledImage] = {}
    conflicts: dict[str, str] = {}
    for image in images:
        other = best.get(image.sha256)
        if other is None:
            best[image.sha256] = image
            continue
        report.duplicates += 1
        if other.label != image.label:
            conflicts[image.sha256] = f"{image.name or image.sha256}: {other.label} and {image.label}"
        if _rank(image) < _rank(other):
            best[image.sha256] = image
    report.conflicts += sorted(conflicts.values())
    united = sorted(best.values(), key=lambda image: (image.label, image.sha256))
    count_images(united, report)
    return united


def _rank(image: LabeledImage) -> tuple[int, float]:
    return _PRECEDENCE[image.source], -image.time.timestamp() if image.time else 0.0


def count_images(images: Sequence[LabeledImage], report: DataReport) -> None:
    """Count images by class and by source."""
    report.images = dict(sorted(Counter(image.label for image in images).items()))
    report.sources = dict(sorted(Counter(image.source for image in images).items()))


def drop_unreadable(
    images: Sequence[LabeledImage],
    content_of: Callable[[LabeledImage], bytes | str],
    report: DataReport,
    *,
    max_pixels: int,
) -> list[LabeledImage]:
    """Decode all images and leave out those that cannot be.

    Args:
        images: the images.
        content_of: content or path of an image; raises UnalikeError where there is none.
        report: gets the unreadable ones, and the counts of the others.
        max_pixels: larger images count as unreadable.
    """

    def reason(image: LabeledImage) -> str:
        try:
            decode(content_of(image), max_pixels=max_pixels)
        except UnreadableImage as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(max(2, usable_cores()), thread_name_prefix="decode") as pool:
        reasons = list(pool.map(reason, images))
    report.unreadable += [
        (image.name or image.sha256, text) for image, text in zip(images, reasons, strict=True) if text
    ]
    readable = [image for image, text in zip(images, reasons, strict=True) if not text]
    count_images(readable, report)
    return readable


def write_training_manifest(path: Path, images: Sequence[LabeledImage]) -> Path:
    """Write the images as a manifest that ``unalike train`` reads; each has a file."""
    rows = [(Path(image.path), image.label, "", "") for image in images]
    return write_manifest_rows(path, rows, with_groups=False, by_source=False)
