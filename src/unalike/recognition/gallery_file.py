"""The file of a gallery: a state in blocks, and a journal of the changes since.

A small change is appended to the journal; when the journal has grown to a quarter of the file, or to half a gigabyte, all is written anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery_change import ChangeRecord, Enrollment, GalleryChange
from unalike.recognition.gallery_content import GalleryContent, read_calibration
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.snapshot import GallerySnapshot
from unalike.storage.blockfile import (
    ATTRIBUTE_VERSION,
    JOURNAL_VERSION,
    OpenBlockFile,
    content_errors,
    read_blocks,
    write_blocks,
)
from unalike.storage.journal import JournalEnd, append_record, is_beginning, is_end, read_records

# The journal may be this share of the file, and this long in any case; and no longer, since who reads it holds it in memory.
JOURNAL_SHARE, JOURNAL_BYTES, MOST_JOURNAL_BYTES = 0.25, 2**20, 2**29


@dataclass(frozen=True)
class GalleryFile:
    """The file of a gallery as it was when it was last read or written.

    Attributes:
        path: absolute.
        header_digest: of its header.
        status: inode, size and times.
        end: of its journal.
        start: offset at which the journal begins.
        has_journal: whether changes may be appended.
        has_attributes: whether these may hold attributes of references.
    """

    path: Path
    header_digest: bytes
    status: os.stat_result
    end: JournalEnd
    start: int
    has_journal: bool
    has_attributes: bool

    @classmethod
    def of(cls, path: Path, file: OpenBlockFile) -> GalleryFile:
        """A file that was opened just now, up to where its journal begins."""
        end, version = JournalEnd.of(file), file.version
        return cls(Path(os.path.abspath(path)), file.generation, file.status, end, end.offset,
                   version >= JOURNAL_VERSION, version >= ATTRIBUTE_VERSION)  # fmt: skip

    @property
    def generation(self) -> bytes:
        """Names the content of the file."""
        return self.end.digest

    def is_current(self) -> bool:
        """Whether the path still leads to this content."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        same = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
        return all(getattr(status, name) == getattr(self.status, name) for name in same) or self.has_content()

    def has_content(self) -> bool:
        """Whether the file has this content, whatever its times say."""
        return is_end(self.path, self.end, self.header_digest)

    def may_append(self, size: int) -> bool:
        """Whether so many bytes more do not make the journal too long."""
        longest = min(JOURNAL_SHARE * self.start, MOST_JOURNAL_BYTES)
        return self.end.offset - self.start + size <= max(JOURNAL_BYTES, longest)

    def append(self, changes: Sequence[GalleryChange], snapshot: GallerySnapshot) -> GalleryFile | None:
        """Append changes to the journal; None where all has to be written anew.

        Args:
            changes: since this content was read or written.
            snapshot: the state after them.

        Raises:
            DataError: they cannot be written.
        """
        path = Path(os.path.realpath(self.path))
        # A hard link is a copy that somebody keeps: the journal would change it too.
        if not self.has_journal or os.stat(path).st_nlink > 1 or not os.access(path, os.W_OK):
            return None
        if not self.has_attributes and any(isinstance(c, Enrollment) and c.attributes is not None for c in changes):
            return None  # a release that reads files of this version would lose them
        content = ChangeRecord(changes, snapshot.revision, snapshot.next_id).to_bytes()
        if not self.may_append(len(content)):
            return None
        end = append_record(path, self.end, content)
        return replace(self, end=end, status=os.stat(path))

    def read_appended(self, dim: int, dtype: np.dtype[Any]) -> tuple[GalleryFile, list[ChangeRecord]] | None:
        """Read what was appended since; None where the file was replaced.

        Raises:
            DataError: the file is damaged.
        """
        try:
            file = OpenBlockFile(self.path)
        except OSError:
            return None
        if not self.has_journal or not is_beginning(file, self.end, self.header_digest):
            return None
        with content_errors(self.path):
            end, records = _read_changes(file, self.end, dim, dtype)
        return replace(self, end=end, status=file.status), records  # as it was before the journal was read


def read_gallery_file(path: Path, *, verify: bool = False) -> tuple[GalleryFile, GalleryContent, list[ChangeRecord]]:
    """Open a gallery's file.

    Returns:
        The file, the state in its blocks, and the changes since.

    Raises:
        DataError: The file is missing, damaged, or of another release.
    """
    head, blocks = read_blocks(path)
    if "dim" not in head:
        raise DataError(f"{path} holds no gallery", expected="a file that gallery build wrote")
    if verify:
        for block in blocks.values():
            block.check()
    with content_errors(path):
        content = GalleryContent.read(head, blocks)
        block_file = content.vectors.file
        file = GalleryFile.of(path, block_file)
        if not file.has_journal:
            return file, content, []
        end, records = _read_changes(block_file, file.end, content.dim, content.vectors.dtype)
    return replace(file, end=end), content, records


def _read_changes(
    file: OpenBlockFile, end: JournalEnd, dim: int, dtype: np.dtype[Any]
) -> tuple[JournalEnd, list[ChangeRecord]]:
    """Read the changes after ``end``; the end of the journal and they."""
    records = []
    for content, after in read_records(file, end):
        records.append(ChangeRecord.from_bytes(content, dim, dtype, read_calibration))
        end = after
    return end, records


def write_gallery_file(
    path: Path, snapshot: GallerySnapshot, calibration: GalleryCalibration | None, model_identity: ModelIdentity
) -> GalleryFile:
    """Write all of a gallery. Raises DataError where the file cannot be written."""
    header = {
        "dim": snapshot.dim,
        "count": len(snapshot),
        "classes": list(snapshot.classes),
        "revision": snapshot.revision,
        "maker": model_identity.to_dict(),
        "calibration": None if calibration is None else calibration.to_dict(),
        # Without removals ids are 0, 1, 2, ...
        **({} if snapshot.next_id == len(snapshot) else {"next_id": snapshot.next_id}),
        **({} if snapshot.attributes is None else {"attributes": list(snapshot.attributes.sets)}),
    }
    version = JOURNAL_VERSION if snapshot.attributes is None else ATTRIBUTE_VERSION
    write_blocks(path, header, _blocks(snapshot, model_identity), version=version)
    return GalleryFile.of(path, read_blocks(path)[1]["codes"].file)


def _blocks(snapshot: GallerySnapshot, model_identity: ModelIdentity) -> Mapping[str, Iterable[np.ndarray]]:
    """The arrays of the file, read part by part: in all they may be larger than memory."""
    name_bytes, name_ends = snapshot.names.packed(len(snapshot))
    vectors: Iterator[np.ndarray] = snapshot.parts()
    return {
        "vectors": vectors,
        "codes": [snapshot.codes_N],
        "names": name_bytes,
        "name_ends": name_ends,
        "probe": [np.asarray(model_identity.probe_D, np.float32)],
        **({} if snapshot.next_id == len(snapshot) else {"ids": [snapshot.ids_N]}),
        **({} if snapshot.attributes is None else {"attributes": [snapshot.attributes.codes_N]}),
    }
