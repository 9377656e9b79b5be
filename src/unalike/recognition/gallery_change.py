"""Changes of a gallery as data: how they are applied to it, and how they are written to the journal of its file.

Shape letters: M enrolled vectors, R removed ones, D width.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from unalike.data.class_names import check_class_name
from unalike.errors import DataError
from unalike.numerics.arguments import check_count, check_list, describe
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.attributes import (
    ReferenceAttributes,
    checked_attributes,
    join_attributes,
    read_reference_attributes,
)
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.ranking import check_vectors

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, eq=False)
class Enrollment:
    """Vectors that were added.

    Attributes:
        vectors_MD: unit length, float32 or, in a gallery of half precision, float16.
        labels: their class names.
        names: what each was computed from.
        attributes: of each; None where none has any.
    """

    vectors_MD: np.ndarray
    labels: Sequence[str]
    names: Sequence[str]
    attributes: ReferenceAttributes | None = None


@dataclass(frozen=True, eq=False)
class Removal:
    """Vectors that were removed: their ids, int64."""

    ids_R: np.ndarray


@dataclass(frozen=True)
class Renaming:
    """A class that has another name."""

    label: str
    new: str


@dataclass(frozen=True)
class Merger:
    """Classes that became one, ``into``."""

    labels: Sequence[str]
    into: str


@dataclass(frozen=True)
class Recalibration:
    """Another calibration, or none."""

    calibration: GalleryCalibration | None


def checked_enrollment(
    vectors_MD: np.ndarray, labels: Sequence[str], names: Sequence[str] | None, dim: int, dtype: np.dtype[Any],
    attributes: Any = None,
) -> Enrollment:  # fmt: skip
    """An enrollment of what a caller gave: vectors of unit length, class names in Unicode's composed form (NFC).

    Args:
        vectors_MD: embeddings of any length.
        labels: their class names.
        names: what each was computed from; empty names when None.
        dim: width D of the gallery.
        dtype: of its vectors.
        attributes: one mapping for all references, or a list with one each; None for none.

    Raises:
        DataError: the numbers or widths differ, a label is empty, a vector is zero or not finite, or an attribute has another form.
    """
    labels = [check_class_name(label) for label in check_list("labels", labels, "a class name")]
    names = (
        [""] * len(labels) if names is None else [_image_name(name) for name in check_list("names", names, "a name")]
    )
    if not labels and not np.size(vectors_MD):
        vectors_MD = np.empty((0, dim), np.float32)
    vectors_MD = check_vectors(vectors_MD, dim)
    if len(vectors_MD) != len(labels) or len(labels) != len(names):
        raise DataError(f"{len(vectors_MD)} vectors, {len(labels)} labels, {len(names)} names", expected="as many each")
    largest_M = np.abs(vectors_MD).max(axis=1, initial=0)
    if not (np.isfinite(largest_M).all() and (largest_M > 0).all()):
        raise DataError("a vector that is zero or not finite", remedy="check the image and the network it came from")
    unit_MD = l2_normalize(vectors_MD).astype(dtype, copy=False)
    return Enrollment(unit_MD, labels, names, checked_attributes(attributes, len(labels)))


def checked_removal(
    labels: Sequence[str], names: Sequence[str], ids: Sequence[int]
) -> tuple[list[str], list[str], list[int]]:
    """The lists of what a caller wants removed. Raises DataError for one text in place of a list, and for ids that are no ids."""
    return (
        check_list("labels", labels, "a class name", ordered=False),
        check_list("names", names, "the name of an image", ordered=False),
        [check_count("an id", number, 0) for number in check_list("ids", ids, "the id of an image", ordered=False)],
    )


def _image_name(name: Any) -> str:
    """What a vector was computed from, as text; empty for nothing. Raises DataError for what is no name."""
    if name is None:
        return ""
    if isinstance(name, str | os.PathLike | Integral) and not isinstance(name, bool):
        return str(name)
    raise DataError(f"the name of an image is {describe(name)}", expected="a text or a path")


GalleryChange = Enrollment | Removal | Renaming | Merger | Recalibration


@dataclass(frozen=True)
class ChangeRecord:
    """The changes that were stored together.

    Attributes:
        changes: in their order.
        revision: of the gallery afterwards.
        next_id: of the gallery afterwards.
    """

    changes: Sequence[GalleryChange]
    revision: int
    next_id: int

    def to_bytes(self) -> bytes:
        """The content of a record of the journal: the length of a JSON text, the text, and the arrays one after the other."""
        entries, arrays = zip(*(_encode(change) for change in self.changes), strict=True) if self.changes else ((), ())
        text = json.dumps(
            {"changes": entries, "revision": self.revision, "next_id": self.next_id},
            ensure_ascii=False,
            allow_nan=False,
        ).encode("utf-8", "surrogatepass")
        return b"".join([_LENGTH.pack(len(text)), text, *arrays])

    @classmethod
    def from_bytes(cls, content: bytes, dim: int, dtype: np.dtype[Any], read_calibration: Any) -> ChangeRecord:
        """Read what ``to_bytes`` wrote.

        Args:
            content: of the record.
            dim: width D of the gallery.
            dtype: of its vectors.
            read_calibration: makes a checked calibration of plain data.

        Raises:
            Exception: what a content that does not fit raises, to be named by ``blockfile.content_errors``.
        """
        (length,) = _LENGTH.unpack_from(content)
        start = _LENGTH.size + length
        record = json.loads(content[_LENGTH.size : start].decode("utf-8", "surrogatepass"))
        reader = _ArrayReader(memoryview(content)[start:])
        if type(record["changes"]) is not list:
            raise ValueError("no list of changes")
        changes = [_decode(entry, reader, dim, dtype, read_calibration) for entry in record["changes"]]
        reader.finish()
        revision, next_id = record["revision"], record["next_id"]
        if type(revision) is not int or type(next_id) is not int or min(revision, next_id) < 0:
            raise ValueError("the number of changes does not fit")
        return cls(changes, revision, next_id)


def merge_enrollments(changes: Iterator[GalleryChange]) -> Iterator[GalleryChange]:
    """The same changes with fewer steps: enrollments that follow one another are one."""
    waiting: list[Enrollment] = []
    for change in changes:
        if isinstance(change, Enrollment):
            waiting.append(change)
            continue
        yield from _joined(waiting)
        waiting = []
        yield change
    yield from _joined(waiting)


def _joined(parts: Sequence[Enrollment]) -> Iterator[Enrollment]:
    if parts:
        yield Enrollment(
            np.concatenate([part.vectors_MD for part in parts]),
            [label for part in parts for label in part.labels],
            [name for part in parts for name in part.names],
            join_attributes([(part.attributes, len(part.labels)) for part in parts]),
        )


def _encode(change: GalleryChange) -> tuple[Mapping[str, Any], bytes]:
    match change:
        case Enrollment():
            entry, content = {"enroll": list(change.labels), "names": list(change.names)}, change.vectors_MD.tobytes()
            if change.attributes is None:
                return entry, content
            return {**entry, "attributes": list(change.attributes.sets)}, content + change.attributes.codes_N.tobytes()
        case Removal():
            return {"remove": len(change.ids_R)}, change.ids_R.tobytes()
        case Renaming():
            return {"rename": change.label, "new": change.new}, b""
        case Merger():
            return {"merge": list(change.labels), "into": change.into}, b""
        case Recalibration():
            return {"calibration": None if change.calibration is None else change.calibration.to_dict()}, b""


def _decode(
    entry: Mapping[str, Any], reader: _ArrayReader, dim: int, dtype: np.dtype[Any], read_calibration: Any
) -> GalleryChange:
    match entry:
        case {"enroll": list(labels), "names": list(names)}:
            _require_texts(labels, names)
            if len(labels) != len(names) or not all(labels):
                raise ValueError("labels and names of enrolled images do not fit")
            vectors_MD, attributes = reader.take(len(labels) * dim, dtype).reshape(-1, dim), None
            if "attributes" in entry:
                codes_M = reader.take(len(labels), np.dtype(np.int32))
                attributes = read_reference_attributes(entry["attributes"], codes_M, len(labels))
            return Enrollment(vectors_MD, labels, names, attributes)
        case {"remove": int(count)}:
            return Removal(reader.take(count, np.dtype(np.int64)))
        case {"rename": label, "new": new}:
            _require_texts([label, new])
            return Renaming(label, new)
        case {"merge": list(labels), "into": into}:
            _require_texts(labels, [into])
            return Merger(labels, into)
        case {"calibration": None}:
            return Recalibration(None)
        case {"calibration": dict(values)}:
            return Recalibration(read_calibration(values))
    raise ValueError("a change of an unknown kind")


def _require_texts(*lists: Sequence[Any]) -> None:
    if not all(isinstance(text, str) for texts in lists for text in texts):
        raise ValueError("a name that is no text")


class _ArrayReader:
    """Takes arrays from bytes, one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._offset = content, 0

    def take(self, count: int, dtype: np.dtype[Any]) -> np.ndarray:
        size = count * dtype.itemsize
        if not 0 <= size <= len(self._content) - self._offset:
            raise ValueError("an array that is longer than the record")
        self._offset += size
        return np.frombuffer(self._content, dtype, count, self._offset - size)

    def finish(self) -> None:
        if self._offset != len(self._content):
            raise ValueError("a record that is longer than its arrays")
