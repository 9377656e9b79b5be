"""Reference vectors with their class names: what a recogniser compares with, and one file to keep them in.

Classes come and go without any training. Searching and changing may happen in several threads at once: a search sees the
gallery as it was when it began (``GallerySnapshot``).

Shape letters: N enrolled vectors, Q queries, K neighbours, D width.
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
from unalike.recognition.snapshot import HALF_ROWS, GallerySnapshot, SearchResult, as_list, empty_snapshot
from unalike.storage.blockfile import PackedTexts, read_blocks, write_blocks

# Cosine of two networks' vectors of the probe image from which they count as one where their keys do not tell: below
# what rounding to bfloat16 leaves, above what other weights give.
SAME_NETWORK = 0.98


@dataclass(frozen=True, eq=False)
class ModelIdentity:
    """The network that vectors come from.

    ``network`` is the key that goes with a network into every format (``engines.metadata.NetworkFacts``): an INT8 file is
    known for the network that it was made from, and two epochs of one training are told apart. Where that is not known,
    ``probe_D`` decides, which is what it makes of a fixed image (``tasks.recogniser``). ``view`` is the evaluation view (plain data),
    ``file`` where the model lay when the gallery was made, ``trunk`` its name. What is empty is not known.
    """

    probe_D: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    view: Mapping[str, Any] | None = None
    file: str = ""
    trunk: str = ""
    network: str = ""

    def check_compatible(self, other: ModelIdentity) -> None:
        """Raises ModelError when vectors of the two cannot be compared."""
        remedy = "enrol the references again with this network"
        if not self._same_network(other):
            was = f" ({self.file})" if self.file else ""
            raise ModelError(f"the gallery was made with another network{was}", remedy=remedy)
        if self.view is not None and other.view is not None and dict(self.view) != dict(other.view):
            odd = [
                f"{key} {self.view.get(key)}, not {value}"
                for key, value in other.view.items()
                if self.view.get(key) != value
            ]
            raise ModelError(f"the gallery was made with another view: {', '.join(odd)}", remedy=remedy)

    def _same_network(self, other: ModelIdentity) -> bool:
        if self.network and self.network == other.network:
            return True
        if self.network.startswith("weights") and other.network.startswith("weights"):
            return False
        if not len(self.probe_D) or len(self.probe_D) != len(other.probe_D):
            return True  # a width that differs is told by what compares the vectors
        return float(unit(self.probe_D[None])[0] @ unit(other.probe_D[None])[0]) >= SAME_NETWORK


class Gallery:
    """Enrolled unit vectors, all from one network, of width ``dim``; ``half`` keeps them in half precision (float16)."""

    def __init__(self, dim: int, model_identity: ModelIdentity | None = None, *, half: bool = False) -> None:
        self.dim, self.model_identity = dim, model_identity or ModelIdentity()
        self.calibration: GalleryCalibration | None = None
        self._held = empty_snapshot(dim, half)
        self._codes: dict[str, int] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def snapshot(self) -> GallerySnapshot:
        """The present state; it stays as it is while the gallery changes."""
        return self._held

    @property
    def half(self) -> bool:
        """Whether vectors are kept in half precision."""
        return self._held.half

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their first vector."""
        return list(self._held.classes)

    @property
    def vectors_ND(self) -> np.ndarray:
        """float32, unit length, in the order in which they were enrolled; a copy when kept otherwise."""
        held = self._held
        return held.stored(0, len(held)) if not held.half else held.vectors(np.arange(len(held)))

    @property
    def labels(self) -> tuple[str, ...]:
        """The class name of every vector."""
        held = self._held
        return tuple(held.labels_of(held.codes_N))

    @property
    def names(self) -> tuple[str, ...]:
        """What each vector was made from: a path, or what the caller gave."""
        held = self._held
        return tuple(held.names[: len(held)])

    def counts(self) -> dict[str, int]:
        """Vectors of each class, in the order of ``classes``."""
        held = self._held
        return {held.classes[code]: int(count) for code, count in enumerate(held.counts_C) if count}

    @property
    def stale(self) -> str:
        """Why the calibration no longer speaks of this gallery, or an empty text."""
        made, held = self.calibration, self._held
        now = int(np.count_nonzero(held.counts_C))
        if made is None:
            return ""
        was = f"it was calibrated with {made.vectors} images of {made.classes} classes"
        if (made.vectors, made.classes) != (len(held), now):
            return f"{was} and now has {len(held)} of {now}"
        return "" if made.revision == held.revision else f"{was}, and these are others by now"

    # ---- what changes it ----

    def enrol(self, vectors_ND: np.ndarray, labels: Sequence[str], names: Sequence[str] | None = None) -> None:
        """Add vectors (any length), their class names, and optionally what they came from.

        Raises DataError when the numbers or widths differ, a label is empty, or a vector is zero or not finite.
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
        lengths_N = np.abs(vectors_ND).max(axis=1, initial=0)
        if not (np.isfinite(lengths_N).all() and (lengths_N > 0).all()):
            raise DataError(
                "a vector that is zero or not finite", remedy="check the image and the network it came from"
            )
        with self._lock:
            self._append(unit(vectors_ND), labels, names)

    def _append(self, vectors_ND: np.ndarray, labels: Sequence[str], names: Sequence[str]) -> None:
        held = self._held
        count, total = len(held), len(held) + len(labels)
        vectors, codes = held.vectors_ND, held.codes_N
        room = vectors.base if vectors.base is not None and vectors.flags.writeable else vectors
        if (
            held.file is not None or room.ndim != 2 or len(room) < total
        ):  # room for as many again: enrolling one by one stays cheap
            room = np.empty((max(total, 2 * count), self.dim), vectors.dtype)
            for first in range(0, count, HALF_ROWS):
                last = min(first + HALF_ROWS, count)
                room[first:last] = held.stored(first, last)
            own = as_list(held.names)[:count]
            held = GallerySnapshot(room[:count], codes, list(held.classes), own, revision=held.revision)
        classes = held.classes
        assert isinstance(classes, list) and isinstance(held.names, list)  # what lay in a file was unpacked above
        for label in labels:
            if label not in self._codes:
                self._codes[label] = len(classes)
                classes.append(label)
        room[count:total] = vectors_ND
        held.names.extend(names)
        added = np.asarray([self._codes[label] for label in labels], np.int32)
        codes = np.concatenate([codes, added])
        self._held = GallerySnapshot(room[:total], codes, classes, held.names, revision=held.revision + 1)

    def remove(self, labels: Sequence[str] = (), names: Sequence[str] = ()) -> int:
        """Strike whole classes, and single images by the name under which they were enrolled; how many went.

        Raises DataError for a class or a name that is not there.
        """
        with self._lock:
            held = self._held
            own = held.names[: len(held)]
            codes = [self._code(label) for label in labels]
            known = set(own) if names else set()
            lost = [name for name in names if name not in known]
            if lost:
                raise DataError(f"no image {lost[0]!r} in the gallery", remedy=closest(lost[0], own[:10_000]))
            gone_N = np.isin(held.codes_N, codes)
            if names:
                wanted = set(names)
                gone_N |= np.fromiter((name in wanted for name in own), np.bool_, len(held))
            self._keep(np.flatnonzero(~gone_N), held.codes_N, list(held.classes))
            return int(gone_N.sum())

    def rename(self, label: str, new: str) -> None:
        """Give a class another name. Raises DataError when it is not there or the new name is taken."""
        with self._lock:
            code = self._code(label)
            if not new:
                raise DataError("an empty label", expected="a class name")
            if new == label:
                return
            if new in self._codes:
                raise DataError(f"{new!r} is in the gallery already", remedy=f"merge {label!r} into it instead")
            classes = list(self._held.classes)
            classes[code] = new
            held = self._held
            self._replace(replace(held, classes=classes))

    def merge(self, labels: Sequence[str], into: str) -> int:
        """Make one class ``into`` (new, or there already) of several; how many images changed their class."""
        with self._lock:
            held, classes = self._held, list(self._held.classes)
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
            moved_N = np.isin(held.codes_N, codes)
            changed_N = np.where(moved_N, np.int32(target), held.codes_N)
            self._keep(np.arange(len(held)), changed_N, classes)
            return int(moved_N.sum())

    def store(self, *, half: bool) -> None:
        """Keep vectors in half precision (a cosine changes by less than 5e-4) or in single precision from now on."""
        with self._lock:
            held = self._held
            if held.half == half:
                return
            vectors_ND = np.empty((len(held), self.dim), np.float16 if half else np.float32)
            read = held.reader()
            for first in range(0, len(held), HALF_ROWS):
                last = min(first + HALF_ROWS, len(held))
                vectors_ND[first:last] = read(first, last)
            names = as_list(held.names)[: len(held)]
            self._held = GallerySnapshot(vectors_ND, held.codes_N, list(held.classes), names, revision=held.revision)

    def _code(self, label: str) -> int:
        if label not in self._codes:
            raise DataError(f"no class {label!r} in the gallery", remedy=closest(label, self._codes))
        return self._codes[label]

    def _keep(self, kept_M: np.ndarray, codes_N: np.ndarray, classes: list[str]) -> None:
        """The gallery is these vectors now; classes without any are struck and the others move up."""
        held = self._held
        codes_M = codes_N[kept_M]
        there = np.unique(codes_M)
        place = np.zeros(len(classes), np.int32)
        place[there] = np.arange(len(there))
        whole = len(kept_M) == len(held)
        names = as_list(held.names)
        if whole:
            vectors_MD, file = held.vectors_ND, held.file
        else:
            vectors_MD, file = np.empty((len(kept_M), self.dim), held.vectors_ND.dtype), None
            for first in range(0, len(kept_M), HALF_ROWS):
                chosen = kept_M[first : first + HALF_ROWS]
                low, high = int(chosen[0]), int(chosen[-1]) + 1
                vectors_MD[first : first + len(chosen)] = held.stored(low, high)[chosen - low]
            names = [names[i] for i in kept_M.tolist()]
        named = [classes[c] for c in there.tolist()]
        self._replace(GallerySnapshot(vectors_MD, place[codes_M], named, names, file, held.revision + 1))

    def _replace(self, held: GallerySnapshot) -> None:
        self._codes = {label: code for code, label in enumerate(held.classes)}
        self._held = held

    # ---- what asks it ----

    def search(self, vectors_QD: np.ndarray, k: int = 1) -> SearchResult:
        """The ``k`` nearest enrolled vectors of every query by cosine, fewer when the gallery holds fewer.

        Exact. Memory beside the result is bounded (about 100 MB). Raises DataError for an empty gallery or vectors of
        another width.
        """
        held = self._held
        scores_QK, indices_QK = held.search(check_vectors(vectors_QD, self.dim), k)
        labels = tuple(tuple(held.labels_of(row)) for row in held.codes_N[indices_QK])
        return SearchResult(scores_QK, indices_QK, labels)

    # ---- the file ----

    def save(self, path: str | Path) -> Path:
        """Write one file (``storage``): version, checksums, vectors, names, calibration. A kill leaves the old one."""
        held = self._held
        content, ends = PackedTexts.pack(held.names[: len(held)])
        said = {
            "dim": self.dim,
            "count": len(held),
            "classes": list(held.classes),
            "revision": held.revision,
            "maker": {"view": None if self.model_identity.view is None else dict(self.model_identity.view), "file": self.model_identity.file,
                      "trunk": self.model_identity.trunk, "network": self.model_identity.network},
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }  # fmt: skip
        path = Path(path)
        blocks: dict[str, Any] = {
            "vectors": _parts(held.stored, len(held)),
            "codes": [held.codes_N],
            "names": [content],
            "name_ends": [ends],
            "probe": [np.asarray(self.model_identity.probe_D, np.float32)],
        }
        write_blocks(path, said, blocks)
        return path

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = False) -> Gallery:
        """A saved gallery, its vectors and names mapped from the file, not read.

        Damage to the file is found when the damaged part is first read; ``verify`` reads and checks all of it now.
        Raises DataError when it is missing, damaged, or of another release.
        """
        path = Path(path)
        said, blocks = read_blocks(path)
        if "dim" not in said:
            raise DataError(f"{path} holds no gallery", expected="a file that gallery build wrote")
        if verify:
            for block in blocks.values():
                block.check()
        maker = ModelIdentity(blocks["probe"].check().copy(), **said["maker"])
        gallery = cls(int(said["dim"]), maker)
        codes_N = blocks["codes"].check()
        if len(codes_N) and not 0 <= codes_N.min() <= codes_N.max() < len(said["classes"]):
            raise DataError(f"{path} is damaged: a class without a name", remedy="enrol again")
        vectors = blocks["vectors"]
        gallery._replace(
            GallerySnapshot(vectors.array, codes_N, said["classes"], PackedTexts(blocks["names"], blocks["name_ends"]), vectors,
                     said.get("revision", 0))
        )  # fmt: skip
        gallery.calibration = GalleryCalibration.from_dict(said["calibration"]) if said["calibration"] else None
        return gallery


def _parts(stored: Callable[[int, int], np.ndarray], count: int) -> Iterator[np.ndarray]:
    """All vectors, a few at a time."""
    yield stored(0, min(HALF_ROWS, count))
    for first in range(HALF_ROWS, count, HALF_ROWS):
        yield stored(first, min(first + HALF_ROWS, count))
