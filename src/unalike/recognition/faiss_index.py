"""Approximate nearest neighbors through faiss (extra ``ann``), for galleries whose exact search takes too long.

Neighbors that faiss returns are scored again with the gallery's own vectors, so that scores mean the same as those of exact
search. Recall is measured: for a sample of the gallery's own vectors, the share of their true nearest others that is found.

Shape letters: N enrolled vectors, M indexed ones, S a sample of those, Q queries, K neighbors, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.engines.process_local import ForkCheck, limit_faiss_threads
from unalike.errors import DataError, SpecError, closest, missing_extra
from unalike.numerics.nearest_neighbors import EXCLUDED, scan
from unalike.progress import say
from unalike.recognition.snapshot import HALF_ROWS, GallerySnapshot
from unalike.storage.blockfile import read_blocks, write_blocks

if TYPE_CHECKING:
    from unalike.recognition.gallery import Gallery

# What faiss builds: vectors in half precision, in cells around centroids or in a graph.
KINDS = {"cells": "IVF{cells},SQfp16", "graph": "HNSW32_SQfp16"}
# Target recall, the number of neighbors that it counts, and the number of vectors that it is measured on.
RECALL, RECALL_AT, SAMPLE = 0.99, 10, 256
TRAINING_VECTORS = 50  # vectors a cell that the centroids are computed from
# An index serves a gallery as long as this share of its vectors is still there, unchanged but for rounding to half precision.
LEAST_LEFT, SAME_VECTOR = 0.5, 2e-3
MAGIC, FORMAT_VERSION = b"UNALIKEX", 1


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """An approximate index over the vectors that a gallery had at one moment, usable for its later states too.

    Vectors that were enrolled since are searched exactly, and removed ones are left out: vectors are known by their ids
    (``GallerySnapshot.ids_N``). Scores are computed from the gallery's own vectors.

    Attributes:
        faiss_index: the index of faiss.
        ids_M: int64, ascending: ids of the indexed vectors.
        sample_S: rows of ``ids_M``.
        sample_SD: their vectors, by which the gallery is recognized.
        kind: ``cells`` or ``graph``.
        effort: cells that a search visits, or candidates that it keeps in a graph.
        recall: measured for ``RECALL_AT`` neighbors when it was built, 0..1.
    """

    faiss_index: Any
    ids_M: np.ndarray
    sample_S: np.ndarray
    sample_SD: np.ndarray = field(repr=False)
    kind: str
    effort: int
    recall: float
    forked: ForkCheck = field(default_factory=ForkCheck, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Kind, effort, measured recall, and on how many of the gallery's vectors it was measured: plain data."""
        return {"kind": self.kind, "effort": self.effort, "recall": self.recall,
                "neighbours": RECALL_AT, "trials": min(SAMPLE, len(self.ids_M))}  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        import faiss

        state = {name: value for name, value in self.__dict__.items() if name != "_served"}
        return {**state, "faiss_index": faiss.serialize_index(self.faiss_index)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import faiss

        self.__dict__.update(state, faiss_index=faiss.deserialize_index(state["faiss_index"]))

    def pending(self, snapshot: GallerySnapshot) -> int:
        """Number of vectors that were enrolled since, which a search compares one by one."""
        return len(snapshot) - self._first_pending(snapshot)

    def _first_pending(self, snapshot: GallerySnapshot) -> int:
        return int(np.searchsorted(snapshot.ids_N, self.ids_M[-1], side="right"))

    def serves(self, snapshot: GallerySnapshot) -> bool:
        """Whether it holds vectors of this gallery, and most of them are still there."""
        if self.__dict__.get("_served") is snapshot:
            return True
        ids_S = self.ids_M[self.sample_S]
        rows_S, is_there_S = _find_rows(snapshot, ids_S)
        if snapshot.dim != self.sample_SD.shape[1] or is_there_S.mean() < LEAST_LEFT:
            return False
        vectors_SD = snapshot.vectors(rows_S[is_there_S])
        if np.abs(vectors_SD - self.sample_SD[is_there_S]).max() > SAME_VECTOR:
            return False
        self.__dict__["_served"] = snapshot
        return True

    def search(self, vectors_QD: np.ndarray, k: int, snapshot: GallerySnapshot) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest vectors of unit-length queries in a state of the gallery that it ``serves``.

        Returns:
            (scores_QK, indices_QK), best first; indices are rows of ``snapshot``; EXCLUDED and -1 where fewer were found.
        """
        limit_faiss_threads(self.forked)
        vectors_QD = np.ascontiguousarray(vectors_QD, np.float32)
        first_pending = self._first_pending(snapshot)
        removed_count = len(self.ids_M) - first_pending
        k = min(k, len(snapshot))
        _, position_QK = self.faiss_index.search(vectors_QD, min(k + min(removed_count, k), len(self.ids_M)))
        rows_QK, is_there_QK = _find_rows(snapshot, self.ids_M[np.maximum(position_QK, 0)])
        rows_QK = np.where(is_there_QK & (position_QK >= 0), rows_QK, -1)
        near_KD = snapshot.vectors(np.maximum(rows_QK, 0).ravel()).reshape(*rows_QK.shape, -1)
        scores_QK = np.einsum("qkd,qd->qk", near_KD, vectors_QD).astype(np.float32)
        scores_QK[rows_QK < 0] = EXCLUDED
        if first_pending < len(snapshot):
            read_rows = snapshot.reader()
            pending_QK, pending_rows_QK = scan(
                vectors_QD, lambda first, last: read_rows(first_pending + first, first_pending + last),
                len(snapshot) - first_pending, min(k, len(snapshot) - first_pending),
                columns=HALF_ROWS if snapshot.half else None,
            )  # fmt: skip
            pending_rows_QK = np.where(pending_rows_QK >= 0, pending_rows_QK + first_pending, -1)
            scores_QK = np.concatenate([scores_QK, pending_QK], axis=1)
            rows_QK = np.concatenate([rows_QK, pending_rows_QK], axis=1)
        order_QK = np.lexsort((rows_QK, -scores_QK), axis=1)[:, :k]
        scores_QK, rows_QK = np.take_along_axis(scores_QK, order_QK, 1), np.take_along_axis(rows_QK, order_QK, 1)
        few_Q = (rows_QK < 0).any(axis=1) if removed_count else np.zeros(len(vectors_QD), np.bool_)
        if few_Q.any():  # too many of their neighbors were removed
            scores_QK[few_Q], rows_QK[few_Q] = snapshot.search(vectors_QD[few_Q], k)
        return scores_QK, rows_QK

    def save(self, path: str | Path) -> Path:
        """Write it to a file, which ``load_index`` reads."""
        import faiss

        header = {"index_version": FORMAT_VERSION, "kind": self.kind, "effort": self.effort, "recall": self.recall}
        blocks = {"faiss": [faiss.serialize_index(self.faiss_index)], "ids": [self.ids_M],
                  "sample": [self.sample_S], "sample_vectors": [self.sample_SD]}  # fmt: skip
        write_blocks(Path(path), header, blocks, magic=MAGIC)
        return Path(path)


def _find_rows(snapshot: GallerySnapshot, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, whether they are there) of vectors with these ids."""
    rows = np.minimum(np.searchsorted(snapshot.ids_N, ids), max(0, len(snapshot) - 1))
    return rows, (snapshot.ids_N[rows] == ids) if len(snapshot) else np.zeros(ids.shape, np.bool_)


def index_path(gallery: Path) -> Path:
    """The file of a gallery's index."""
    return gallery.with_name(f"{gallery.name}.index")


def open_index(gallery: Gallery) -> FaissIndex:
    """The index of a gallery: that of the file beside its own, with what was enrolled since; or a new one.

    A new one, and one that was added to, is kept in that file, where the gallery is saved and the folder can be written.

    Raises:
        MissingExtra, DataError: as of ``build_index``.
    """
    path = None if gallery.path is None else index_path(gallery.path)
    snapshot, index = gallery.snapshot, None
    if path is not None and path.is_file():
        try:
            index = load_index(path)
        except DataError as error:
            say(f"{error}: the index is built again")
        if index is not None and index.serves(snapshot) and not index.pending(snapshot):
            return index
    index = build_index(gallery) if index is None else update_index(index, snapshot)
    if path is not None and gallery.is_saved:
        try:
            if path.exists() and not path.is_file():  # a named pipe would be waited for
                raise DataError(f"{path} is no regular file")
            index.save(path)
            say(f"index for approximate search written: {path}")
        except DataError as error:
            say(f"the index for approximate search is not kept: {error}", once=True)
    return index


def load_index(path: str | Path) -> FaissIndex:
    """Read a file that ``FaissIndex.save`` wrote. faiss trusts its content: take such files from those you trust.

    Raises:
        DataError: it is missing, damaged or of a newer version.
        MissingExtra: faiss is not installed.
    """
    faiss = _import_faiss()
    header, blocks = read_blocks(Path(path), magic=MAGIC, kind="index")
    if header.get("index_version") != FORMAT_VERSION:
        raise DataError(f"{path} has index version {header.get('index_version')}", expected=str(FORMAT_VERSION),
                        remedy="delete it: it is built again")  # fmt: skip
    try:
        faiss_index = faiss.deserialize_index(np.array(blocks["faiss"].check()))
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read by faiss: {str(error).splitlines()[0][:120]}",
                        remedy="delete it: it is built again") from error  # fmt: skip
    ids_M = blocks["ids"].check()
    if faiss_index.ntotal != len(ids_M) or not len(ids_M):
        raise DataError(f"{path} holds {faiss_index.ntotal} vectors and {len(ids_M)} ids", remedy="delete it")
    return FaissIndex(faiss_index, ids_M, blocks["sample"].check(), blocks["sample_vectors"].check(),
                      str(header["kind"]), int(header["effort"]), float(header["recall"]))  # fmt: skip


def update_index(index: FaissIndex, snapshot: GallerySnapshot) -> FaissIndex:
    """An index that also holds the vectors enrolled since; a new one where most of the old ones were removed."""
    if not index.serves(snapshot):
        return _build(snapshot, index.kind, RECALL, 0)
    faiss, first = _import_faiss(), index._first_pending(snapshot)
    if first == len(snapshot):
        return index
    limit_faiss_threads(index.forked)
    faiss_index = faiss.clone_index(index.faiss_index)  # others may be searching the old one
    _add(faiss_index, snapshot, first)
    return replace(index, faiss_index=faiss_index, ids_M=np.concatenate([index.ids_M, snapshot.ids_N[first:]]))


def build_index(gallery: Gallery, kind: str = "cells", *, recall: float = RECALL, seed: int = 0) -> FaissIndex:
    """Index the present state of a gallery.

    Args:
        gallery: its vectors are indexed.
        kind: ``cells`` (inverted file) or ``graph`` (HNSW).
        recall: the effort of a search is raised until this recall (0..1) is measured, as far as it can be.
        seed: draws the training vectors and the vectors that recall is measured on.

    Raises:
        MissingExtra: faiss is not installed.
        DataError: the gallery is empty.
        SpecError: there is no such kind.
    """
    if kind not in KINDS:
        raise SpecError(f"an index of kind {kind!r}", expected=" or ".join(KINDS), remedy=closest(kind, KINDS))
    return _build(gallery.snapshot, kind, recall, seed)


def _build(snapshot: GallerySnapshot, kind: str, recall: float, seed: int) -> FaissIndex:
    if not len(snapshot):
        raise DataError("the gallery is empty", remedy="enrol reference images first")
    faiss = _import_faiss()
    count = len(snapshot)
    cells = max(1, min(round(4 * math.sqrt(count)), count // TRAINING_VECTORS))
    faiss_index = faiss.index_factory(snapshot.dim, KINDS[kind].format(cells=cells), faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(seed)
    faiss_index.train(snapshot.vectors(np.sort(rng.choice(count, min(count, TRAINING_VECTORS * cells), replace=False))))
    _add(faiss_index, snapshot, 0)
    sample_Q = np.sort(rng.choice(count, min(SAMPLE, count), replace=False))
    queries_QD = snapshot.vectors(sample_Q)
    # One more than counts: the nearest of an enrolled vector is itself, which any index finds.
    true_QK = snapshot.search(queries_QD, RECALL_AT + 1)[1]
    inner: Any = faiss.downcast_index(faiss_index)
    effort, largest = 1, cells if kind == "cells" else count
    while True:
        if kind == "cells":
            inner.nprobe = effort
        else:
            inner.hnsw.efSearch = max(effort, RECALL_AT + 1)
        index = FaissIndex(faiss_index, snapshot.ids_N, sample_Q, queries_QD, kind, effort, 0.0)
        sample_recall = _recall(true_QK, index.search(queries_QD, RECALL_AT + 1, snapshot)[1], sample_Q)
        if sample_recall >= recall or effort >= largest:
            return replace(index, recall=sample_recall)
        effort = min(largest, 2 * effort)


def _add(faiss_index: Any, snapshot: GallerySnapshot, start: int) -> None:
    """Add the vectors from row ``start`` on."""
    read_rows = snapshot.reader()
    for first in range(start, len(snapshot), HALF_ROWS):
        faiss_index.add(np.ascontiguousarray(read_rows(first, min(first + HALF_ROWS, len(snapshot)))))


def _import_faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise missing_extra("faiss", "ann", "approximate search") from error
    module: ModuleType = faiss
    return module


def _recall(true_QK: np.ndarray, found_QK: np.ndarray, row_Q: np.ndarray) -> float:
    """Share of the true neighbors that were found, the query itself (``row_Q``) left out."""
    is_found_QK = (true_QK[:, :, None] == found_QK[:, None, :]).any(axis=2)
    counts_QK = true_QK != row_Q[:, None]
    return float(is_found_QK[counts_QK].mean()) if counts_QK.any() else 1.0
