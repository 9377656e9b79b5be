"""Labeled images of a service: its references with pictures, and its decisions that people corrected or confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unalike.data.class_names import normalize_class_name
from unalike.data.decode import IMAGE_SUFFIXES
from unalike.errors import NoSuchImage
from unalike.learning.labeled_images import (
    CORRECTION,
    REFERENCE,
    DataReport,
    LabeledImage,
    read_folder,
    unite_images,
)
from unalike.recognition.backends.protocol import Entry
from unalike.serve.store import DecisionFilter, DecisionRecord, Store
from unalike.serve.store.records import MAX_PAGE, TEACHING
from unalike.serve.store.references import hash_of_reference
from unalike.storage.digests import file_sha256


@dataclass
class Originals:
    """Pictures of the references of a gallery: in the image store, at the path of their name, or in a folder that somebody names.

    Attributes:
        store: the store of the service.
        source: a folder in which pictures are searched that are not at the path of their name: by as much of the path as both
            have in common from its end.
    """

    store: Store
    source: Path | None = None
    _files: dict[str, list[Path]] | None = field(default=None, repr=False)

    def read(self, entry: Entry) -> bytes | None:
        """The content of the picture of a reference; None where there is none."""
        sha = hash_of_reference(entry.name)
        if sha is not None:
            try:
                return self.store.images.get(sha)
            except NoSuchImage:
                return None
        path = self.path(entry)
        try:
            return None if path is None else path.read_bytes()
        except OSError:
            return None

    def path(self, entry: Entry) -> Path | None:
        """The file of a reference that was not enrolled through the service; None where there is none."""
        path = Path(entry.name)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            return None
        if path.is_file():
            return path
        if self.source is None:
            return None
        candidates = self._by_name().get(path.name, [])
        common = [(_common_end(path, candidate), candidate) for candidate in candidates]
        most = max((length for length, _ in common), default=0)
        best = [candidate for length, candidate in common if length == most]
        return best[0] if len(best) == 1 else None

    def _by_name(self) -> dict[str, list[Path]]:
        if self._files is None:
            self._files = {}
            assert self.source is not None
            for path in sorted(self.source.rglob("*")):
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                    self._files.setdefault(path.name, []).append(path)
        return self._files

    def exists(self, entry: Entry) -> bool:
        """Whether a reference has a picture; it is not read."""
        sha = hash_of_reference(entry.name)
        return self.path(entry) is not None if sha is None else self.store.images.exists(sha)

    def digest(self, entry: Entry) -> str | None:
        """The digest of the picture of a reference; None where there is none."""
        sha = hash_of_reference(entry.name)
        if sha is not None:
            return sha if self.store.images.exists(sha) else None
        path = self.path(entry)
        try:
            return None if path is None else file_sha256(path)
        except OSError:
            return None

    def content(self, image: LabeledImage) -> bytes | str:
        """The content of a labeled image in the store, or the path of its file, for ``decode``. Raises NoSuchImage."""
        return image.path or self.store.images.get(image.sha256)


def _common_end(first: Path, second: Path) -> int:
    """Number of parts that two paths have in common from their ends."""
    count = 0
    for one, other in zip(reversed(first.parts), reversed(second.parts), strict=False):
        if one != other:
            break
        count += 1
    return count


def label_of_correction(record: DecisionRecord) -> str | None:
    """The class that people gave the image of a decision; None where they gave none."""
    if not record.feedback or record.image is None:
        return None
    last = record.feedback[-1]
    if last.verdict == "confirmed":
        return record.label
    label = last.label if last.verdict in TEACHING else None
    return normalize_class_name(label) or None if label else None


def corrections(store: Store, gallery: str) -> Iterator[LabeledImage]:
    """Images of decisions on a gallery whose class people gave or confirmed, and which are kept, the newest first."""
    for verdict in TEACHING:
        selection, after = DecisionFilter(kind="identify", resource=gallery, verdict=verdict), None
        while True:
            page = store.decisions.find(selection, after, MAX_PAGE)
            for record in page.items:
                label = label_of_correction(record)
                if label is not None and record.image is not None and store.images.exists(record.image):
                    yield LabeledImage(record.image, label, CORRECTION, time=record.time, name=f"decision {record.id}")
            after = page.next
            if after is None:
                break


def references(entries: list[Entry], originals: Originals, report: DataReport) -> Iterator[LabeledImage]:
    """References of a gallery that have a picture; the names of the others go into the report."""
    for entry in entries:
        digest = originals.digest(entry)
        if digest is None:
            report.missing.append(entry.name)
            continue
        path = originals.path(entry)
        yield LabeledImage(digest, entry.label, REFERENCE, "" if path is None else str(path), name=entry.name)


def collect_images(
    store: Store, gallery: str, entries: list[Entry], originals: Originals, *, folder: str | None = None,
    with_service: bool = True,
) -> tuple[list[LabeledImage], DataReport]:  # fmt: skip
    """All labeled images for a training, one for each content.

    Args:
        store: the store of the service.
        gallery: name of the gallery.
        entries: its references.
        originals: reads their pictures.
        folder: class folders, an archive or a manifest of further images; those of the service are surer.
        with_service: whether the references and corrections of the service are taken.

    Raises:
        DataError: the folder holds nothing usable.
    """
    report = DataReport()
    images: list[LabeledImage] = []
    if with_service:
        images += [*corrections(store, gallery), *references(entries, originals, report)]
    if folder is not None:
        images += read_folder(folder)
    return unite_images(images, report), report
