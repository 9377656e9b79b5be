"""Application of changes to a snapshot of a gallery: each gives a further snapshot, which shares what did not change.

Shape letters: N enrolled vectors, M added or kept ones, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np

from unalike.data.class_names import normalize_class_name
from unalike.errors import DataError, closest
from unalike.recognition.attributes import join_attributes
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery_change import (
    ChangeRecord,
    Enrollment,
    GalleryChange,
    Merger,
    Recalibration,
    Removal,
    Renaming,
    merge_enrollments,
)
from unalike.recognition.snapshot import GallerySnapshot

Codes = dict[str, int]  # index of each class in ``snapshot.classes``, by name


def class_codes(classes: Sequence[str]) -> Codes:
    """The index of each class by its name."""
    return {label: code for code, label in enumerate(classes)}


def code_of(codes: Codes, label: str) -> int:
    """The index of a class. Raises DataError where there is none of this name."""
    name = normalize_class_name(label)
    if name not in codes:
        raise DataError(f"no class {label!r} in the gallery", remedy=closest(name, codes))
    return codes[name]


def apply_change(
    snapshot: GallerySnapshot, codes: Codes, change: GalleryChange
) -> tuple[GallerySnapshot, Codes]:  # fmt: skip
    """Apply a change whose values were checked.

    Only the latest snapshot may be changed: an enrollment writes behind the end of lists and arrays that it shares with the
    earlier ones (``sharing_undone`` takes that back).

    Args:
        snapshot: the latest state.
        codes: of its classes; an enrollment adds to it in place.
        change: a recalibration changes nothing here.

    Returns:
        The state after the change, and the codes of its classes.
    """
    match change:
        case Enrollment():
            return _append(snapshot, codes, change), codes
        case Removal():
            kept_M = np.flatnonzero(~np.isin(snapshot.ids_N, change.ids_R))
            return _keep(snapshot, kept_M, snapshot.codes_N, snapshot.classes)
        case Renaming():
            classes = list(snapshot.classes)
            classes[codes[change.label]] = change.new
            return replace(snapshot, classes=classes), class_codes(classes)
        case Merger():
            classes, merged = list(snapshot.classes), [codes[label] for label in change.labels]
            target = codes.get(change.into, merged[0])
            classes[target] = change.into
            codes_N = np.where(np.isin(snapshot.codes_N, merged), np.int32(target), snapshot.codes_N)
            return _keep(snapshot, np.arange(len(snapshot)), codes_N, classes)
        case Recalibration():
            return snapshot, codes


@contextmanager
def sharing_undone(snapshot: GallerySnapshot) -> Iterator[None]:
    """After an exception inside, take back what enrollments wrote behind the end of what ``snapshot`` shares with them."""
    count = len(snapshot.classes)
    try:
        yield
    except BaseException:
        _take_back(snapshot, count)
        raise


def codes_before(snapshot: GallerySnapshot) -> Codes:
    """Take back what a change that never ended wrote behind the end of ``snapshot``; the codes of its classes."""
    _take_back(snapshot, int(snapshot.codes_N.max(initial=-1)) + 1)  # no class is without vectors
    return class_codes(snapshot.classes)


def _take_back(snapshot: GallerySnapshot, class_count: int) -> None:
    if isinstance(snapshot.classes, list):
        del snapshot.classes[class_count:]
    snapshot.names.truncate(len(snapshot))


def _append(snapshot: GallerySnapshot, codes: Codes, change: Enrollment) -> GallerySnapshot:
    labels = change.labels
    # Before anything is written: too many different attributes are refused.
    attributes = join_attributes([(snapshot.attributes, len(snapshot)), (change.attributes, len(labels))])
    count, total = len(snapshot.added_MD), len(snapshot.added_MD) + len(labels)
    vectors = snapshot.added_MD
    buffer = vectors.base if vectors.base is not None and vectors.flags.writeable else vectors
    if buffer.ndim != 2 or len(buffer) < total:
        # The capacity doubles: enrolling one by one stays cheap.
        buffer = np.empty((max(total, 2 * count), snapshot.dim), vectors.dtype)
        buffer[:count] = vectors
    classes = snapshot.classes if isinstance(snapshot.classes, list) else list(snapshot.classes)
    for label in labels:
        if label not in codes:
            codes[label] = len(classes)
            classes.append(label)
    buffer[count:total] = change.vectors_MD
    snapshot.names.added.extend(change.names)
    new_codes_M = np.asarray([codes[label] for label in labels], np.int32)
    next_id = snapshot.next_id + len(labels)
    return GallerySnapshot(
        buffer[:total],
        np.concatenate([snapshot.codes_N, new_codes_M]),
        np.concatenate([snapshot.ids_N, np.arange(snapshot.next_id, next_id)]),
        classes, snapshot.names, snapshot.file, snapshot.revision + 1, next_id, snapshot.rows_F,
        attributes,
    )  # fmt: skip


def _keep(
    snapshot: GallerySnapshot, kept_M: np.ndarray, codes_N: np.ndarray, classes: Sequence[str]
) -> tuple[GallerySnapshot, Codes]:
    """Keep some of the vectors; classes without any are removed and the others move up."""
    codes_M = codes_N[kept_M]
    used_codes = np.unique(codes_M)
    new_code_C = np.zeros(len(classes), np.int32)
    new_code_C[used_codes] = np.arange(len(used_codes))
    used_classes = [classes[code] for code in used_codes.tolist()]
    return snapshot.select(kept_M, new_code_C[codes_M], used_classes), class_codes(used_classes)


def apply_records(
    snapshot: GallerySnapshot, codes: Mapping[str, int], calibration: GalleryCalibration | None,
    records: Sequence[ChangeRecord],
) -> tuple[GallerySnapshot, Codes, GalleryCalibration | None]:  # fmt: skip
    """Apply what a journal holds to a state, many enrollments as one. Raises ValueError where the changes do not fit."""
    codes = dict(codes)
    for change in merge_enrollments(chain.from_iterable(record.changes for record in records)):
        snapshot, codes = apply_change(snapshot, codes, change)
        calibration = change.calibration if isinstance(change, Recalibration) else calibration
    if records:
        if records[-1].next_id != snapshot.next_id:
            raise ValueError("the changes do not fit the gallery")
        snapshot = replace(snapshot, revision=records[-1].revision)
    return snapshot, codes, calibration
