"""A gallery: reference embeddings with their class names, which a recognizer searches, kept in one file.

Classes are added and removed without training. Any number of threads may search and change a gallery at once: a search sees
the gallery as it was when the search began (``GallerySnapshot``).

Shape letters: N enrolled vectors, M kept ones, Q queries, K neighbors, D width, C classes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from unalike.data.folders import normalize_class_name
from unalike.errors import DataError, ModelError, closest
from unalike.numerics.normalization import l2_normalize
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
from unalike.recognition.gallery_file import GalleryFile, read_gallery_file, write_gallery_file
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.ranking import check_vectors
from unalike.recognition.snapshot import HALF_ROWS, EnrolledNames, GallerySnapshot, NearestNeighbors
from unalike.storage.blockfile import content_errors
from unalike.storage.file_lock import file_lock


class Gallery:
    """Enrolled unit vectors of one network, with class names.

    Args:
        dim: width of the vectors.
        model_identity: the network that they come from.
        half: keep them in half precision (float16).

    Attributes:
        calibration: threshold and margin of its decisions, or None.
    """

    def __init__(self, dim: int, model_identity: ModelIdentity | None = None, *, half: bool = False) -> None:
        self.dim, self.model_identity = dim, model_identity or ModelIdentity()
        self.calibration: GalleryCalibration | None = None
        self._snapshot = GallerySnapshot.empty(dim, half)
        self._codes: dict[str, int] = {}
        self._lock, self._reloads = threading.RLock(), 0
        self._files: dict[str, GalleryFile] = {}  # those that it was loaded from or saved to, by their real path
        self._file: GalleryFile | None = None  # the last of them
        self._saved: tuple[GallerySnapshot, GalleryCalibration | None] | None = None  # the state that it holds
        self._unsaved: list[GalleryChange] | None = None  # since; None where it has to be written anew

    def __len__(self) -> int:
        return len(self._snapshot)

    @property
    def snapshot(self) -> GallerySnapshot:
        """The present state, which does not change when the gallery does."""
        return self._snapshot

    def decision_state(self) -> tuple[GallerySnapshot, GalleryCalibration | None]:
        """The present state with its calibration, both from before or both from after a ``reload`` in another thread."""
        reloads, state = self._reloads, (self._snapshot, self.calibration)
        if reloads % 2 == 0 and self._reloads == reloads:
            return state
        with self._lock:
            return self._snapshot, self.calibration

    @contextmanager
    def _reloading(self) -> Iterator[None]:
        """Hold the lock on a change of both; ``_reloads`` is odd meanwhile."""
        with self._lock:
            self._reloads += 1
            try:
                yield
            finally:
                self._reloads += 1

    @property
    def half(self) -> bool:
        """Whether vectors are kept in half precision."""
        return self._snapshot.half

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their first vector."""
        return list(self._snapshot.classes)

    @property
    def vectors_ND(self) -> np.ndarray:
        """float32, unit length, in the order in which they were enrolled; a copy where they are kept otherwise."""
        snapshot = self._snapshot
        if snapshot.half or 0 < snapshot.in_file < len(snapshot):
            return snapshot.vectors(np.arange(len(snapshot)))
        return snapshot.stored(0, len(snapshot))

    @property
    def labels(self) -> tuple[str, ...]:
        """The class name of every vector."""
        snapshot = self._snapshot
        return tuple(snapshot.labels_of(snapshot.codes_N))

    @property
    def names(self) -> tuple[str, ...]:
        """What each vector was computed from: a path, or what the caller gave."""
        snapshot = self._snapshot
        return tuple(snapshot.names[: len(snapshot)])

    def counts(self) -> dict[str, int]:
        """Number of vectors of each class, in the order of ``classes``."""
        snapshot = self._snapshot
        return {snapshot.classes[code]: int(count) for code, count in enumerate(snapshot.counts_C) if count}

    @property
    def stale(self) -> str:
        """Why the calibration no longer holds for this gallery; empty when it holds, or when there is none."""
        calibration, snapshot = self.calibration, self._snapshot
        if calibration is None:
            return ""
        size = len(snapshot), int(np.count_nonzero(snapshot.counts_C))
        if calibration.holds_for(*size, snapshot.revision):
            return ""
        before = f"it was calibrated with {calibration.vectors} images of {calibration.classes} classes"
        if (calibration.vectors, calibration.classes) != size:
            return f"{before} and now has {size[0]} of {size[1]}"
        return f"{before}, and these are others by now"

    # ---- changes ----

    def enrol(self, vectors_ND: np.ndarray, labels: Sequence[str], names: Sequence[str] | None = None) -> None:
        """Add reference vectors.

        Args:
            vectors_ND: embeddings of any length.
            labels: their class names.
            names: what each was computed from, such as a path.

        Raises:
            DataError: the numbers or widths differ, a label is empty, or a vector is zero or not finite.
        """
        vectors_ND = np.atleast_2d(np.asarray(vectors_ND))
        labels = [normalize_class_name(str(label)) for label in labels]
        names = [str(name) for name in names] if names is not None else [""] * len(labels)
        if len(vectors_ND) != len(labels) or len(labels) != len(names):
            raise DataError(
                f"{len(vectors_ND)} vectors, {len(labels)} labels, {len(names)} names", expected="as many each"
            )
        if not all(labels):
            raise DataError("an empty label", expected="a class name for every vector")
        vectors_ND = check_vectors(vectors_ND, self.dim)
        largest_N = np.abs(vectors_ND).max(axis=1, initial=0)
        if not (np.isfinite(largest_N).all() and (largest_N > 0).all()):
            raise DataError(
                "a vector that is zero or not finite", remedy="check the image and the network it came from"
            )
        with self._lock:
            dtype = self._snapshot.added_MD.dtype
            self._change(Enrollment(l2_normalize(vectors_ND).astype(dtype, copy=False), labels, names))

    def _change(self, change: GalleryChange) -> None:
        """Apply a change whose values were checked, and keep it for the journal of the file."""
        self._apply(change)
        if self._unsaved is not None:
            self._unsaved.append(change)
            self._unsaved_bytes += change.vectors_MD.nbytes if isinstance(change, Enrollment) else 0
            if self._file is None or not self._file.may_append(self._unsaved_bytes):
                self._unsaved = None

    def _apply(self, change: GalleryChange) -> None:
        snapshot = self._snapshot
        match change:
            case Enrollment():
                self._append(change.vectors_MD, change.labels, change.names)
            case Removal():
                self._keep(np.flatnonzero(~np.isin(snapshot.ids_N, change.ids_R)), snapshot.codes_N, snapshot.classes)
            case Renaming():
                classes = list(snapshot.classes)
                classes[self._codes[change.label]] = change.new
                self._replace(replace(snapshot, classes=classes))
            case Merger():
                classes, codes = list(snapshot.classes), [self._codes[label] for label in change.labels]
                target = self._codes.get(change.into, codes[0])
                classes[target] = change.into
                codes_N = np.where(np.isin(snapshot.codes_N, codes), np.int32(target), snapshot.codes_N)
                self._keep(np.arange(len(snapshot)), codes_N, classes)
            case Recalibration():
                self.calibration = change.calibration

    def _append(self, vectors_ND: np.ndarray, labels: Sequence[str], names: Sequence[str]) -> None:
        snapshot = self._snapshot
        count, total = len(snapshot.added_MD), len(snapshot.added_MD) + len(labels)
        vectors = snapshot.added_MD
        buffer = vectors.base if vectors.base is not None and vectors.flags.writeable else vectors
        if buffer.ndim != 2 or len(buffer) < total:
            # The capacity doubles: enrolling one by one stays cheap.
            buffer = np.empty((max(total, 2 * count), self.dim), vectors.dtype)
            buffer[:count] = vectors
        classes = snapshot.classes if isinstance(snapshot.classes, list) else list(snapshot.classes)
        for label in labels:
            if label not in self._codes:
                self._codes[label] = len(classes)
                classes.append(label)
        buffer[count:total] = vectors_ND
        snapshot.names.added.extend(names)
        new_codes_M = np.asarray([self._codes[label] for label in labels], np.int32)
        next_id = snapshot.next_id + len(labels)
        self._snapshot = GallerySnapshot(
            buffer[:total],
            np.concatenate([snapshot.codes_N, new_codes_M]),
            np.concatenate([snapshot.ids_N, np.arange(snapshot.next_id, next_id)]),
            classes, snapshot.names, snapshot.file, snapshot.revision + 1, next_id, snapshot.rows_F,
        )  # fmt: skip

    def remove(self, labels: Sequence[str] = (), names: Sequence[str] = ()) -> int:
        """Remove whole classes, and single images by the name under which they were enrolled.

        Returns:
            The number of vectors removed.

        Raises:
            DataError: there is no such class or name.
        """
        with self._lock:
            snapshot = self._snapshot
            enrolled_names = snapshot.names.unpack() if names else []
            codes = [self._code(label) for label in labels]
            existing = set(map(normalize_class_name, enrolled_names))
            missing = [name for name in names if normalize_class_name(name) not in existing]
            if missing:
                raise DataError(
                    f"no image {missing[0]!r} in the gallery", remedy=closest(missing[0], enrolled_names[:10_000])
                )
            removed_N = np.isin(snapshot.codes_N, codes)
            if names:
                removed_names = set(map(normalize_class_name, names))
                is_removed = (normalize_class_name(name) in removed_names for name in enrolled_names)
                removed_N |= np.fromiter(is_removed, np.bool_, len(snapshot))
            self._change(Removal(snapshot.ids_N[removed_N]))
            return int(removed_N.sum())

    def rename(self, label: str, new: str) -> None:
        """Rename a class. Raises DataError when there is no such class or the new name is taken."""
        with self._lock:
            self._code(label)
            label, new = normalize_class_name(label), normalize_class_name(new)
            if not new:
                raise DataError("an empty label", expected="a class name")
            if new == label:
                return
            if new in self._codes:
                raise DataError(f"{new!r} is in the gallery already", remedy=f"merge {label!r} into it instead")
            self._change(Renaming(label, new))

    def merge(self, labels: Sequence[str], into: str) -> int:
        """Merge several classes into ``into``, which may be new.

        Returns:
            The number of vectors whose class changed.

        Raises:
            DataError: there is no such class, nothing is to merge, or ``into`` is empty.
        """
        with self._lock:
            into = normalize_class_name(into)
            merged = [name for label in labels if (name := normalize_class_name(label)) != into]
            codes = [self._code(label) for label in merged]
            if not codes:
                raise DataError("nothing to merge", expected="at least one class other than the one to merge into")
            if not into:
                raise DataError("an empty label", expected="a class name")
            count = int(np.isin(self._snapshot.codes_N, codes).sum())
            self._change(Merger(merged, into))
            return count

    def store(self, *, half: bool) -> None:
        """Keep vectors in half precision from now on (a cosine changes by less than 5e-4), or in single precision."""
        with self._lock:
            snapshot = self._snapshot
            if snapshot.half == half:
                return
            vectors_ND = np.empty((len(snapshot), self.dim), np.float16 if half else np.float32)
            read_rows = snapshot.reader()
            for first in range(0, len(snapshot), HALF_ROWS):
                last = min(first + HALF_ROWS, len(snapshot))
                vectors_ND[first:last] = read_rows(first, last)
            names = EnrolledNames(added=snapshot.names.unpack()[: len(snapshot)])
            self._snapshot = replace(snapshot, added_MD=vectors_ND, names=names, file=None, rows_F=None)
            self._unsaved = None

    def _code(self, label: str) -> int:
        name = normalize_class_name(label)
        if name not in self._codes:
            raise DataError(f"no class {label!r} in the gallery", remedy=closest(name, self._codes))
        return self._codes[name]

    def _keep(self, kept_M: np.ndarray, codes_N: np.ndarray, classes: Sequence[str]) -> None:
        """Replace the gallery by some of its vectors; classes without any are removed and the others move up."""
        codes_M = codes_N[kept_M]
        used_codes = np.unique(codes_M)
        new_code_C = np.zeros(len(classes), np.int32)
        new_code_C[used_codes] = np.arange(len(used_codes))
        used_classes = [classes[code] for code in used_codes.tolist()]
        self._replace(self._snapshot.select(kept_M, new_code_C[codes_M], used_classes))

    def _replace(self, snapshot: GallerySnapshot) -> None:
        self._codes = {label: code for code, label in enumerate(snapshot.classes)}
        self._snapshot = snapshot

    # ---- search ----

    def search(self, vectors_QD: np.ndarray, k: int = 1) -> NearestNeighbors:
        """Find the ``k`` nearest enrolled vectors of every query by cosine, exactly; fewer when the gallery holds fewer.

        Memory beside the result is bounded (about 100 MB).

        Raises:
            DataError: the gallery is empty or the vectors have another width.
        """
        snapshot = self._snapshot
        scores_QK, indices_QK = snapshot.search(check_vectors(vectors_QD, self.dim), k)
        labels = tuple(tuple(snapshot.labels_of(row)) for row in snapshot.codes_N[indices_QK])
        return NearestNeighbors(scores_QK, indices_QK, labels)

    # ---- the file ----

    @property
    def path(self) -> Path | None:
        """The file that it was loaded from, or saved to since; None where there is none."""
        return None if self._file is None else self._file.path

    def changed_on_disk(self) -> bool:
        """Whether its file was replaced or written to since it was loaded or saved; this gallery stays as it is."""
        return self._file is not None and not self._file.is_current()

    def save(self, path: str | Path, *, overwrite: bool = True) -> Path:
        """Write one file: vectors, names, calibration (``recognition.gallery_file``).

        A small change of the file that it was loaded from or saved to is appended to it; it is on the disk when this returns.
        A process that is killed meanwhile leaves an older file of that name complete. Of several threads or processes that
        load a file, change it and save it, one is first; the others are refused, since their save would undo its change.
        ``edit`` makes them wait for each other instead.

        Args:
            path: the file; what a symbolic link leads to.
            overwrite: replace a file that this gallery was not loaded from.

        Raises:
            DataError: the file cannot be written, exists, or was changed since this gallery was loaded from it.
        """
        path = Path(path)
        with file_lock(path):
            self._write(path, overwrite)
        return path

    @classmethod
    @contextmanager
    def edit(cls, path: str | Path) -> Iterator[Gallery]:
        """Load a gallery for a change and save it at the end, while other threads and processes wait to do the same.

        Examples:
            >>> with Gallery.edit("shop.gallery") as gallery:   # doctest: +SKIP
            ...     gallery.enrol(vectors_ND, labels)

        Embed images before: nobody else can change the file in between. After an exception nothing is saved.

        Raises:
            DataError: as of ``load`` and ``save``, or another process edits it for ten minutes.
        """
        with file_lock(path):
            gallery = cls.load(path)
            yield gallery
            if not gallery.is_saved:
                gallery._write(Path(path), True)

    def reload(self) -> None:
        """Take over the present content of its file; changes that were not saved are dropped.

        Raises:
            DataError: there is no file, or it is damaged.
            ModelError: the file is now one of another network.
        """
        if self._file is None:
            raise DataError("a gallery without a file cannot be loaded again", remedy="save it first")
        with self._lock:
            appended = self._file.read_appended(self.dim, self._snapshot.added_MD.dtype) if self.is_saved else None
            if appended is not None:
                with self._reloading():
                    self._replay(*appended)
                return
        newer = Gallery.load(self._file.path)
        if newer.dim != self.dim:
            raise ModelError(f"{self._file.path} now has width {newer.dim}, not {self.dim}",
                             remedy="start again with the network that it was made with")  # fmt: skip
        newer.model_identity.check_compatible(self.model_identity)
        with self._reloading():
            self._replace(newer._snapshot)
            self.calibration, self._file, self._files = newer.calibration, newer._file, newer._files
            self._saved, self._unsaved, self._unsaved_bytes = newer._saved, newer._unsaved, 0

    @property
    def is_saved(self) -> bool:
        """Whether its file holds this very state."""
        return self._saved is not None and self._saved[0] is self._snapshot and self._saved[1] is self.calibration

    def _write(self, path: Path, overwrite: bool) -> None:
        """Write the file, whose lock is held."""
        target = os.path.realpath(path)
        own_file = self._files.get(target)
        if own_file is None and not overwrite and os.path.lexists(path):
            raise DataError(f"{path} exists", expected="a new file", remedy="choose another name or overwrite it")
        if own_file and os.path.exists(path) and not own_file.has_content():
            raise DataError(
                f"{path} was changed by another thread or process since it was loaded: saving would undo that change",
                remedy="load it again (reload) and repeat the change, or change it inside Gallery.edit(path)",
            )
        with self._lock:
            snapshot, calibration = self._snapshot, self.calibration
            file = None
            if own_file and own_file is self._file and self._unsaved is not None and os.path.exists(path):
                changes = self._unsaved
                if self._saved is None or self._saved[1] is not calibration:
                    changes = [*changes, Recalibration(calibration)]
                file = own_file.append(changes, snapshot) if changes else own_file
            if file is None:
                file = write_gallery_file(path, snapshot, calibration, self.model_identity)
            self._file = self._files[target] = file
            self._saved, self._unsaved, self._unsaved_bytes = (snapshot, calibration), [], 0

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = False) -> Gallery:
        """Open a saved gallery; its vectors and names are read when they are needed.

        Args:
            path: a file that ``save`` wrote.
            verify: read and check all of it now; otherwise damage is found when the damaged part is first read.

        Raises:
            DataError: the file is missing, damaged, or of another release.
        """
        path = Path(path)
        file, content, records = read_gallery_file(path, verify=verify)
        gallery = cls(content.dim, content.model_identity)
        vectors = content.vectors
        gallery._replace(
            GallerySnapshot(np.empty((0, gallery.dim), vectors.dtype), content.codes_N, content.ids_N, content.classes,
                            EnrolledNames(content.names), vectors, content.revision, content.next_id)
        )  # fmt: skip
        gallery.calibration = content.calibration
        gallery._replay(file, records)
        return gallery

    def _replay(self, file: GalleryFile, records: Sequence[ChangeRecord]) -> None:
        """Apply what its file holds beyond the present state.

        Raises:
            DataError: the changes do not fit; the gallery may have some of them.
        """
        with content_errors(file.path):
            for change in merge_enrollments(chain.from_iterable(record.changes for record in records)):
                self._apply(change)
            if records:
                if records[-1].next_id != self._snapshot.next_id:
                    raise ValueError("the changes do not fit the gallery")
                self._snapshot = replace(self._snapshot, revision=records[-1].revision)
        self._file = self._files[os.path.realpath(file.path)] = file
        self._saved, self._unsaved, self._unsaved_bytes = (self._snapshot, self.calibration), [], 0

    # ---- other processes ----

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the path of its file where that holds this state, else all of it."""
        if self._file is not None and self.is_saved and not self.changed_on_disk():
            return {"path": self._file.path, "generation": self._file.generation}
        state = self.__dict__.copy()
        del state["_lock"], state["_saved"], state["_unsaved"]
        snapshot = state.pop("_snapshot")
        every = np.arange(len(snapshot))
        vectors_ND = snapshot.vectors(every).astype(snapshot.added_MD.dtype)
        names = EnrolledNames(added=snapshot.names.unpack()[: len(snapshot)])
        return {**state, "_snapshot": replace(snapshot, added_MD=vectors_ND, names=names, file=None, rows_F=None),
                "_codes": dict(self._codes)}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "path" in state:
            gallery = Gallery.load(state["path"])
            if gallery._file is None or gallery._file.generation != state["generation"]:
                raise DataError(f"{state['path']} was changed while a gallery was sent to another process",
                                remedy="load it again (reload) and send it once more")  # fmt: skip
            self.__dict__.update(gallery.__dict__)
            return
        self.__dict__.update(state)
        self._lock, self._saved, self._unsaved, self._reloads = threading.RLock(), None, None, 0
