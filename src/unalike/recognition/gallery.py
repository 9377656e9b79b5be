"""A gallery: reference embeddings with their class names, which a recognizer searches, kept in one file.

Classes are added and removed without training. Any number of threads may search and change a gallery at once: a search sees
the gallery as it was when the search began (``GallerySnapshot``).

Shape letters: N enrolled vectors, M kept ones, Q queries, K neighbors, D width, C classes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import DataError, ModelError, closest
from unalike.metrics.knn import unit
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.ranking import check_vectors
from unalike.recognition.snapshot import HALF_ROWS, GallerySnapshot, NearestNeighbors, as_list
from unalike.storage.blockfile import PackedTexts, read_blocks, write_blocks

# Cosine of two networks' embeddings of the probe image from which they count as one network where their keys do not tell:
# below what rounding to bfloat16 leaves, above what other weights give.
SAME_NETWORK = 0.98


@dataclass(frozen=True, eq=False)
class ModelIdentity:
    """The network that embeddings were computed with; an empty attribute is not known.

    Attributes:
        probe_D: embedding of a fixed image (``recognizer.probe_embedding``), compared where no key decides.
        view: the evaluation view, plain data.
        file: where the model lay when the gallery was made.
        trunk: name of its trunk.
        network: key that goes with a network into every format (``engines.metadata.NetworkFacts``): an INT8 file has that
            of the network it was quantized from, and two epochs of one training have different ones.
    """

    probe_D: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    view: Mapping[str, Any] | None = None
    file: str = ""
    trunk: str = ""
    network: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a file's head; ``probe_D`` is kept apart, as an array."""
        view = None if self.view is None else dict(self.view)
        return {"view": view, "file": self.file, "trunk": self.trunk, "network": self.network}

    def check_compatible(self, other: ModelIdentity) -> None:
        """Raise ModelError when embeddings of this network cannot be compared with those of ``other``."""
        remedy = "enrol the references again with this network"
        if not self._same_network(other):
            source = f" ({self.file})" if self.file else ""
            raise ModelError(f"the gallery was made with another network{source}", remedy=remedy)
        if self.view is not None and other.view is not None and dict(self.view) != dict(other.view):
            differences = [
                f"{key} {self.view.get(key)}, not {value}"
                for key, value in other.view.items()
                if self.view.get(key) != value
            ]
            raise ModelError(f"the gallery was made with another view: {', '.join(differences)}", remedy=remedy)

    def _same_network(self, other: ModelIdentity) -> bool:
        if self.network and self.network == other.network:
            return True
        if self.network.startswith("weights") and other.network.startswith("weights"):
            return False
        if not len(self.probe_D) or len(self.probe_D) != len(other.probe_D):
            return True  # another width is found where the vectors are compared
        return float(unit(self.probe_D[None])[0] @ unit(other.probe_D[None])[0]) >= SAME_NETWORK


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
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._snapshot)

    @property
    def snapshot(self) -> GallerySnapshot:
        """The present state, which does not change when the gallery does."""
        return self._snapshot

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
        return snapshot.vectors(np.arange(len(snapshot))) if snapshot.half else snapshot.stored(0, len(snapshot))

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
        before = f"it was calibrated with {calibration.vectors} images of {calibration.classes} classes"
        if (calibration.vectors, calibration.classes) != size:
            return f"{before} and now has {size[0]} of {size[1]}"
        return "" if calibration.revision == snapshot.revision else f"{before}, and these are others by now"

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
        labels = [str(label) for label in labels]
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
            self._append(unit(vectors_ND), labels, names)

    def _append(self, vectors_ND: np.ndarray, labels: Sequence[str], names: Sequence[str]) -> None:
        snapshot = self._snapshot
        count, total = len(snapshot), len(snapshot) + len(labels)
        vectors, codes = snapshot.vectors_ND, snapshot.codes_N
        buffer = vectors.base if vectors.base is not None and vectors.flags.writeable else vectors
        if snapshot.file is not None or buffer.ndim != 2 or len(buffer) < total:
            # The capacity doubles: enrolling one by one stays cheap.
            buffer = np.empty((max(total, 2 * count), self.dim), vectors.dtype)
            for first in range(0, count, HALF_ROWS):
                last = min(first + HALF_ROWS, count)
                buffer[first:last] = snapshot.stored(first, last)
            unpacked_names = as_list(snapshot.names)[:count]
            snapshot = GallerySnapshot(
                buffer[:count], codes, list(snapshot.classes), unpacked_names, revision=snapshot.revision
            )
        classes, all_names = snapshot.classes, snapshot.names
        assert isinstance(classes, list) and isinstance(all_names, list)  # what lay in a file was unpacked above
        for label in labels:
            if label not in self._codes:
                self._codes[label] = len(classes)
                classes.append(label)
        buffer[count:total] = vectors_ND
        all_names.extend(names)
        codes = np.concatenate([codes, np.asarray([self._codes[label] for label in labels], np.int32)])
        self._snapshot = GallerySnapshot(buffer[:total], codes, classes, all_names, revision=snapshot.revision + 1)

    def remove(self, labels: Sequence[str] = (), names: Sequence[str] = ()) -> int:
        """Remove whole classes, and single images by the name under which they were enrolled.

        Returns:
            The number of vectors removed.

        Raises:
            DataError: there is no such class or name.
        """
        with self._lock:
            snapshot = self._snapshot
            enrolled_names = snapshot.names[: len(snapshot)]
            codes = [self._code(label) for label in labels]
            known = set(enrolled_names) if names else set()
            missing = [name for name in names if name not in known]
            if missing:
                raise DataError(
                    f"no image {missing[0]!r} in the gallery", remedy=closest(missing[0], enrolled_names[:10_000])
                )
            removed_N = np.isin(snapshot.codes_N, codes)
            if names:
                removed_names = set(names)
                removed_N |= np.fromiter((name in removed_names for name in enrolled_names), np.bool_, len(snapshot))
            self._keep(np.flatnonzero(~removed_N), snapshot.codes_N, list(snapshot.classes))
            return int(removed_N.sum())

    def rename(self, label: str, new: str) -> None:
        """Rename a class. Raises DataError when there is no such class or the new name is taken."""
        with self._lock:
            code = self._code(label)
            if not new:
                raise DataError("an empty label", expected="a class name")
            if new == label:
                return
            if new in self._codes:
                raise DataError(f"{new!r} is in the gallery already", remedy=f"merge {label!r} into it instead")
            classes = list(self._snapshot.classes)
            classes[code] = new
            self._replace(replace(self._snapshot, classes=classes))

    def merge(self, labels: Sequence[str], into: str) -> int:
        """Merge several classes into ``into``, which may be new.

        Returns:
            The number of vectors whose class changed.

        Raises:
            DataError: there is no such class, nothing is to merge, or ``into`` is empty.
        """
        with self._lock:
            snapshot, classes = self._snapshot, list(self._snapshot.classes)
            codes = [self._code(label) for label in labels if label != into]
            if not codes:
                raise DataError("nothing to merge", expected="at least one class other than the one to merge into")
            if not into:
                raise DataError("an empty label", expected="a class name")
            if into not in self._codes:
                classes[codes[0]] = into
                target = codes[0]
            else:
                target = self._codes[into]
            moved_N = np.isin(snapshot.codes_N, codes)
            codes_N = np.where(moved_N, np.int32(target), snapshot.codes_N)
            self._keep(np.arange(len(snapshot)), codes_N, classes)
            return int(moved_N.sum())

    def store(self, *, half: bool) -> None:
        """Keep vectors in half precision from now on (a cosine changes by less than 5e-4), or in single precision."""
        with self._lock:
            snapshot = self._snapshot
            if snapshot.half == half:
                return
            vectors_ND = np.empty((len(snapshot), self.dim), np.float16 if half else np.float32)
            read = snapshot.reader()
            for first in range(0, len(snapshot), HALF_ROWS):
                last = min(first + HALF_ROWS, len(snapshot))
                vectors_ND[first:last] = read(first, last)
            names = as_list(snapshot.names)[: len(snapshot)]
            self._snapshot = GallerySnapshot(
                vectors_ND, snapshot.codes_N, list(snapshot.classes), names, revision=snapshot.revision
            )

    def _code(self, label: str) -> int:
        if label not in self._codes:
            raise DataError(f"no class {label!r} in the gallery", remedy=closest(label, self._codes))
        return self._codes[label]

    def _keep(self, kept_M: np.ndarray, codes_N: np.ndarray, classes: list[str]) -> None:
        """Replace the gallery by some of its vectors; classes without any are removed and the others move up."""
        snapshot = self._snapshot
        codes_M = codes_N[kept_M]
        used_codes = np.unique(codes_M)
        new_code_C = np.zeros(len(classes), np.int32)
        new_code_C[used_codes] = np.arange(len(used_codes))
        names = as_list(snapshot.names)
        if len(kept_M) == len(snapshot):
            vectors_MD, file = snapshot.vectors_ND, snapshot.file
        else:
            vectors_MD, file = np.empty((len(kept_M), self.dim), snapshot.vectors_ND.dtype), None
            for first in range(0, len(kept_M), HALF_ROWS):
                chosen = kept_M[first : first + HALF_ROWS]
                low, high = int(chosen[0]), int(chosen[-1]) + 1
                vectors_MD[first : first + len(chosen)] = snapshot.stored(low, high)[chosen - low]
            names = [names[i] for i in kept_M.tolist()]
        used_classes = [classes[code] for code in used_codes.tolist()]
        self._replace(
            GallerySnapshot(vectors_MD, new_code_C[codes_M], used_classes, names, file, snapshot.revision + 1)
        )

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

    def save(self, path: str | Path) -> Path:
        """Write one file: version, checksums, vectors, names, calibration (``storage.blockfile``).

        A process that is killed meanwhile leaves an older file of that name whole.
        """
        snapshot = self._snapshot
        name_bytes, name_ends = PackedTexts.pack(snapshot.names[: len(snapshot)])
        head = {
            "dim": self.dim,
            "count": len(snapshot),
            "classes": list(snapshot.classes),
            "revision": snapshot.revision,
            "maker": self.model_identity.to_dict(),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }
        path = Path(path)
        blocks: dict[str, Any] = {
            "vectors": _chunks(snapshot.stored, len(snapshot)),
            "codes": [snapshot.codes_N],
            "names": [name_bytes],
            "name_ends": [name_ends],
            "probe": [np.asarray(self.model_identity.probe_D, np.float32)],
        }
        write_blocks(path, head, blocks)
        return path

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = False) -> Gallery:
        """Open a saved gallery; its vectors and names are mapped from the file, not read.

        Args:
            path: a file that ``save`` wrote.
            verify: read and check all of it now; otherwise damage is found when the damaged part is first read.

        Raises:
            DataError: the file is missing, damaged, or of another release.
        """
        path = Path(path)
        head, blocks = read_blocks(path)
        if "dim" not in head:
            raise DataError(f"{path} holds no gallery", expected="a file that gallery build wrote")
        if verify:
            for block in blocks.values():
                block.check()
        gallery = cls(int(head["dim"]), ModelIdentity(blocks["probe"].check().copy(), **head["maker"]))
        codes_N = blocks["codes"].check()
        if len(codes_N) and not 0 <= codes_N.min() <= codes_N.max() < len(head["classes"]):
            raise DataError(f"{path} is damaged: a class without a name", remedy="enrol again")
        vectors, names = blocks["vectors"], PackedTexts(blocks["names"], blocks["name_ends"])
        gallery._replace(
            GallerySnapshot(vectors.array, codes_N, head["classes"], names, vectors, head.get("revision", 0))
        )
        gallery.calibration = GalleryCalibration.from_dict(head["calibration"]) if head["calibration"] else None
        return gallery


def _chunks(stored: Callable[[int, int], np.ndarray], count: int) -> Iterator[np.ndarray]:
    """All vectors, HALF_ROWS at a time."""
    yield stored(0, min(HALF_ROWS, count))
    for first in range(HALF_ROWS, count, HALF_ROWS):
        yield stored(first, min(first + HALF_ROWS, count))
