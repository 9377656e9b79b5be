"""A gallery: reference embeddings with their class names, which a recognizer searches, kept in one file.

Classes are added and removed without training. Any number of threads may search and change a gallery at once: a search sees
the gallery as it was when the search began (``GallerySnapshot``).

Shape letters: N enrolled vectors, M kept ones, Q queries, K neighbors, D width, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.class_names import check_class_name, normalize_class_name
from unalike.errors import DataError, ModelError, closest
from unalike.numerics.arguments import check_count, check_list
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.change_application import (
    Codes,
    apply_change,
    apply_records,
    class_codes,
    code_of,
    codes_before,
    sharing_undone,
)
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery_change import (
    ChangeRecord,
    Enrollment,
    GalleryChange,
    Merger,
    Recalibration,
    Removal,
    Renaming,
    checked_enrollment,
    checked_removal,
)
from unalike.recognition.gallery_file import GalleryFile, read_gallery_file, write_gallery_file
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.ranking import check_vectors
from unalike.recognition.snapshot import EnrolledNames, GallerySnapshot, NearestNeighbors
from unalike.recognition.snapshot_view import SnapshotView
from unalike.storage.blockfile import content_errors
from unalike.storage.file_lock import file_lock
from unalike.storage.process_lock import ProcessLock

if TYPE_CHECKING:
    from unalike.recognition.faiss_index import FaissIndex


class Gallery(GalleryBackend):
    """Enrolled unit vectors of one network, with class names.

    Args:
        dim: width of the vectors.
        model_identity: the network that they come from.
        half: keep them in half precision (float16).
    """

    def __init__(self, dim: int, model_identity: ModelIdentity | None = None, *, half: bool = False) -> None:
        snapshot = GallerySnapshot.empty(check_count("the width of a gallery's vectors", dim), half)
        self._state = SnapshotView(snapshot, None, model_identity or ModelIdentity())
        self._codes: Codes = {}
        self._lock = ProcessLock(self._take_back)  # one thread changes it at a time; none waits to read it
        self._turn = ProcessLock()  # of threads that wait for the lock of the file, which is taken first
        self._files: dict[str, GalleryFile] = {}  # those that it was loaded from or saved to, by their real path
        self._file: GalleryFile | None = None  # the last of them
        self._saved: SnapshotView | None = None  # the state that it holds
        self._is_draft = False  # the one that ``change`` yields
        self._unsaved: list[GalleryChange] | None = None  # since; None where it has to be written anew
        self._unsaved_bytes = 0

    @classmethod
    def of_state(cls, state: SnapshotView) -> Gallery:
        """A gallery in this state, kept nowhere yet."""
        gallery = cls(state.dim, state.model_identity, half=state.snapshot().half)
        gallery._state, gallery._codes = state, class_codes(state.snapshot().classes)
        return gallery

    def __len__(self) -> int:
        return len(self.snapshot)

    def view(self) -> SnapshotView:
        """The present state, which does not change when the gallery does."""
        return self._state

    @property
    def snapshot(self) -> GallerySnapshot:
        """The vectors, classes and names of the present state."""
        return self._state.snapshot()

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        return self._state.dim

    @property
    def calibration(self) -> GalleryCalibration | None:
        """Threshold and margin of its decisions, or None."""
        return self._state.calibration

    @calibration.setter
    def calibration(self, calibration: GalleryCalibration | None) -> None:
        with self._lock:
            if calibration is not self.calibration:
                self._state = SnapshotView(self.snapshot, calibration, self.model_identity)

    @property
    def model_identity(self) -> ModelIdentity:
        """The network that the vectors come from."""
        return self._state.model_identity

    @model_identity.setter
    def model_identity(self, identity: ModelIdentity) -> None:
        with self._lock:
            if not identity.equals(self.model_identity):
                self._state = SnapshotView(self.snapshot, self.calibration, identity)

    @property
    def half(self) -> bool:
        """Whether vectors are kept in half precision."""
        return self.snapshot.half

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their first vector."""
        return list(self.snapshot.classes)

    @property
    def vectors_ND(self) -> np.ndarray:
        """float32, unit length, in the order in which they were enrolled; a copy where they are kept otherwise."""
        snapshot = self.snapshot
        if snapshot.half or 0 < snapshot.in_file < len(snapshot):
            return snapshot.vectors(np.arange(len(snapshot)))
        return snapshot.stored(0, len(snapshot))

    @property
    def labels(self) -> tuple[str, ...]:
        """The class name of every vector."""
        snapshot = self.snapshot
        return tuple(snapshot.labels_of(snapshot.codes_N))

    @property
    def names(self) -> tuple[str, ...]:
        """What each vector was computed from: a path, or what the caller gave."""
        snapshot = self.snapshot
        return tuple(snapshot.names[: len(snapshot)])

    # ---- changes ----

    def enrol(
        self, vectors_ND: np.ndarray, labels: Sequence[str], names: Sequence[str] | None = None, attributes: Any = None
    ) -> list[int]:
        """Add reference vectors.

        Args:
            vectors_ND: embeddings of any length.
            labels: their class names.
            names: what each was computed from, such as a path.
            attributes: as of ``GalleryBackend.enrol``.

        Returns:
            Their ids.

        Raises:
            DataError: the numbers or widths differ, a label is empty, or a vector is zero or not finite.
        """
        change = checked_enrollment(vectors_ND, labels, names, self.dim, self.snapshot.added_MD.dtype, attributes)
        if not change.labels:
            return []
        with self._lock:
            first = self.snapshot.next_id
            change = replace(change, vectors_MD=change.vectors_MD.astype(self.snapshot.added_MD.dtype, copy=False))
            self._change(change)
            return list(range(first, self.snapshot.next_id))

    def _change(self, change: GalleryChange) -> None:
        """Apply a change whose values were checked, and keep it for the journal of the file."""
        self._set(*apply_change(self.snapshot, self._codes, change))
        if self._unsaved is not None:
            self._unsaved.append(change)
            self._unsaved_bytes += change.vectors_MD.nbytes if isinstance(change, Enrollment) else 0
            if self._file is None or not self._file.may_append(self._unsaved_bytes):
                self._unsaved = None

    def _set(self, snapshot: GallerySnapshot, codes: Codes) -> None:
        self._codes = codes
        self._state = SnapshotView(snapshot, self.calibration, self.model_identity)

    def remove(self, labels: Sequence[str] = (), names: Sequence[str] = (), ids: Sequence[int] = ()) -> int:
        """Remove whole classes, and single images by the name under which they were enrolled, or by id.

        Returns:
            The number of vectors removed.

        Raises:
            DataError: there is no such class, name or id; nothing is removed then.
        """
        labels, names, ids = checked_removal(labels, names, ids)
        with self._lock:
            snapshot = self.snapshot
            removed_N = np.isin(snapshot.codes_N, [code_of(self._codes, label) for label in labels])
            for name, rows in (snapshot.names.rows_of(names, len(snapshot)) if names else {}).items():
                if not rows:
                    raise DataError(f"no image {name!r} in the gallery", remedy=closest(name, self.names[:10_000]))
                removed_N[rows] = True
            if missing := set(ids) - set(snapshot.ids_N[np.isin(snapshot.ids_N, ids)].tolist()):
                raise DataError(f"no image of id {min(missing)} in the gallery")
            removed_N |= np.isin(snapshot.ids_N, ids)
            if removed_N.any():
                self._change(Removal(snapshot.ids_N[removed_N]))
            return int(removed_N.sum())

    def rename(self, label: str, new: str) -> None:
        """Rename a class. Raises DataError when there is no such class or the new name is taken."""
        with self._lock:
            code_of(self._codes, label)
            label, new = normalize_class_name(label), check_class_name(new)
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
            into, names = normalize_class_name(into), check_list("labels", labels, "a class name", ordered=False)
            merged = [name for label in names if (name := normalize_class_name(label)) != into]
            codes = [code_of(self._codes, label) for label in merged]
            if not codes:
                raise DataError("nothing to merge", expected="at least one class other than the one to merge into")
            into = into if into in self._codes else check_class_name(into)
            count = int(np.isin(self.snapshot.codes_N, codes).sum())
            self._change(Merger(merged, into))
            return count

    def store(self, *, half: bool) -> None:
        """Keep vectors in half precision from now on (a cosine changes by less than 5e-4), or in single precision."""
        with self._lock:
            if self.half != half:
                self._set(self.snapshot.stored_as(half=half), self._codes)
                self._unsaved = None

    # ---- search ----

    def search(self, vectors_QD: np.ndarray, k: int = 1) -> NearestNeighbors:
        """Find the ``k`` nearest enrolled vectors of every query by cosine, exactly; fewer when the gallery holds fewer.

        Memory beside the result is bounded (about 100 MB).

        Raises:
            DataError: the gallery is empty or the vectors have another width.
        """
        snapshot, k = self.snapshot, check_count("k", k)
        scores_QK, indices_QK = snapshot.search(check_vectors(vectors_QD, self.dim), k)
        labels = tuple(tuple(snapshot.labels_of(row)) for row in snapshot.codes_N[indices_QK])
        return NearestNeighbors(scores_QK, indices_QK, labels)

    def open_index(self) -> FaissIndex:
        """An index for approximate search through faiss (extra ``ann``), kept beside its file."""
        from unalike.recognition.faiss_index import open_index

        return open_index(self)

    # ---- the file ----

    @property
    def path(self) -> Path | None:
        """The file that it was loaded from, or saved to since; None where there is none."""
        return None if self._file is None else self._file.path

    @property
    def address(self) -> str:
        """The path of its file; empty where there is none."""
        return "" if self._file is None else str(self._file.path)

    def changed_on_disk(self) -> bool:
        """Whether its file was replaced or written to since it was loaded or saved; this gallery stays as it is."""
        return self._file is not None and not self._file.is_current()

    def save(self, path: str | Path | None = None, *, overwrite: bool = True) -> Path:
        """Write one file: vectors, names, calibration (``recognition.gallery_file``).

        A small change of the file that it was loaded from or saved to is appended to it; it is on the disk when this returns.
        A process that is killed meanwhile leaves an older file of that name complete. Of several threads or processes that
        load a file, change it and save it, one is first; the others are refused, since their save would undo its change.
        ``change`` and ``edit`` make them wait for each other instead.

        Args:
            path: the file; what a symbolic link leads to. None: the one that it was loaded from or saved to.
            overwrite: replace a file that this gallery was not loaded from.

        Raises:
            DataError: the file cannot be written, exists, or was changed since this gallery was loaded from it.
        """
        if path is None and self._file is None:
            raise DataError("a gallery without a file", remedy="name the file to save it to")
        path = Path(path if path is not None else self.address)
        if not self._is_draft:  # the end of ``change`` saves it
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

    @contextmanager
    def change(self) -> Iterator[Gallery]:
        """Change this gallery and its file in one step, while other threads and processes wait to do the same.

        Searches go on with the state before until the change is on the disk. Embed images before.

        Yields:
            A gallery to change: this one with what others changed before. It must not be changed after the block.

        Raises:
            DataError, ModelError: as of ``refresh`` and ``save``. After any exception nothing is changed.
        """
        if self._is_draft:
            yield self
            return
        with self._turn, file_lock(self.address) if self._file is not None else nullcontext(), self._lock:
            if self.is_saved:
                self.refresh()
            draft = Gallery.__new__(Gallery)
            draft.__dict__.update(self.__dict__, _codes=dict(self._codes), _files=dict(self._files), _is_draft=True)
            draft._unsaved = None if self._unsaved is None else list(self._unsaved)
            with sharing_undone(self.snapshot):
                yield draft
                if self._file is not None and not draft.is_saved:
                    draft._write(self._file.path, True)
            self.__dict__.update(draft.__dict__, _is_draft=False)

    def refresh(self) -> bool:
        """Take over the present content of its file, where that changed; changes that were not saved are dropped then."""
        if not self.changed_on_disk():
            return False
        self.reload()
        return True

    def reload(self) -> None:
        """Take over the present content of its file; changes that were not saved are dropped.

        Raises:
            DataError: there is no file, or it is damaged.
            ModelError: the file is now one of another network.
        """
        if self._file is None:
            raise DataError("a gallery without a file cannot be loaded again", remedy="save it first")
        with self._lock:
            appended = self._file.read_appended(self.dim, self.snapshot.added_MD.dtype) if self.is_saved else None
            if appended is not None:
                self._replay(self._state, *appended)
                return
        newer = Gallery.load(self._file.path)
        if newer.dim != self.dim:
            raise ModelError(f"{self._file.path} now has width {newer.dim}, not {self.dim}",
                             remedy="start again with the network that it was made with")  # fmt: skip
        newer.model_identity.check_compatible(self.model_identity)
        with self._lock:
            self.__dict__.update(newer.__dict__, _lock=self._lock, _turn=self._turn)

    @property
    def is_saved(self) -> bool:
        """Whether its file holds these vectors, classes, names and this calibration."""
        file_state = self._saved
        return (
            file_state is not None
            and file_state.snapshot() is self.snapshot
            and file_state.calibration is self.calibration
        )

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
            state, file_state, file = self._state, self._saved, None
            is_own = own_file is not None and own_file is self._file and os.path.exists(path)
            # The journal holds no network: where its decoding was completed since, all is written anew.
            if (
                is_own
                and own_file
                and file_state
                and self._unsaved is not None
                and file_state.model_identity.equals(state.model_identity)
            ):
                changes = self._unsaved
                if file_state.calibration is not state.calibration:
                    changes = [*changes, Recalibration(state.calibration)]
                file = own_file.append(changes, state.snapshot()) if changes else own_file
            if file is None:
                file = write_gallery_file(path, state.snapshot(), state.calibration, state.model_identity)
            self._file = self._files[target] = file
            self._saved, self._unsaved, self._unsaved_bytes = state, [], 0

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
        snapshot = GallerySnapshot(
            np.empty((0, content.dim), vectors.dtype), content.codes_N, content.ids_N, content.classes,
            EnrolledNames(content.names), vectors, content.revision, content.next_id, None, content.attributes,
        )  # fmt: skip
        gallery._codes = class_codes(snapshot.classes)
        gallery._replay(SnapshotView(snapshot, content.calibration, content.model_identity), file, records)
        return gallery

    def _replay(self, state: SnapshotView, file: GalleryFile, records: Sequence[ChangeRecord]) -> None:
        """Take over a state with what the file holds beyond it; readers see all of that or nothing.

        Raises:
            DataError: the changes do not fit.
        """
        snapshot = state.snapshot()
        with content_errors(file.path), sharing_undone(snapshot):
            snapshot, codes, calibration = apply_records(snapshot, self._codes, state.calibration, records)
        self._state, self._codes = SnapshotView(snapshot, calibration, state.model_identity), codes
        self._file = self._files[os.path.realpath(file.path)] = file
        self._saved, self._unsaved, self._unsaved_bytes = self._state, [], 0

    # ---- other processes ----

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the path of its file where that holds this state, else all of it."""
        if self._file is not None and self.is_saved and not self.changed_on_disk():
            return {"path": self._file.path, "generation": self._file.generation}
        state = self.__dict__.copy()
        del state["_lock"], state["_turn"], state["_saved"], state["_unsaved"]
        snapshot = self.snapshot.stored_as(half=self.half)
        return {
            **state,
            "_state": SnapshotView(snapshot, self.calibration, self.model_identity),
            "_codes": dict(self._codes),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "path" in state:
            gallery = Gallery.load(state["path"])
            if gallery._file is None or gallery._file.generation != state["generation"]:
                raise DataError(f"{state['path']} was changed while a gallery was sent to another process",
                                remedy="load it again (reload) and send it once more")  # fmt: skip
            self.__dict__.update(gallery.__dict__)
            return
        self.__dict__.update(state)
        self._lock, self._turn, self._saved, self._unsaved = ProcessLock(self._take_back), ProcessLock(), None, None

    def _take_back(self) -> None:
        """In a process that was forked in the middle of a change: return to the state before it."""
        self._codes, self._unsaved = codes_before(self.snapshot), None
