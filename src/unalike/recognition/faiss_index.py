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
from unalike.metrics.intervals import mean_interval
from unalike.numerics.nearest_neighbors import EXCLUDED, scan
from unalike.progress import say
from unalike.recognition.snapshot import HALF_ROWS, GallerySnapshot
from unalike.storage.blockfile import read_blocks, write_blocks

if TYPE_CHECKING:
    from unalike.recognition.gallery import Gallery

# What faiss builds: vectors in half precision, in cells around centroids or in a graph; or in cells, each vector as codes of
# a byte for every few dimensions (product quantization: Jegou, Douze, Schmid, 2011), by which candidates are found only.
KINDS = {"cells": "IVF{cells},SQfp16", "graph": "HNSW32_SQfp16", "compact": "IVF{cells},PQ{codes}"}
# Where vectors in half precision would take more than so many bytes, ``compact`` is chosen.
COMPACT_BYTES = 2**30
CODE_DIMENSIONS = 4  # dimensions a code, or more where they do not divide the width
# Candidates of ``compact`` that are scored with the gallery's own vectors: at least, and for each neighbor asked for.
LEAST_CANDIDATES, CANDIDATES_EACH = 200, 10
RESCORED_AT_ONCE = 2**14  # candidates of several queries whose vectors are read at a time
# The effort of ``compact`` is not doubled again where that gained less recall than this, once so much is found.
LEAST_GAIN, LEAST_SHARE = 0.001, 0.5
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
        kind: one of ``KINDS``.
        effort: cells that a search visits, or candidates that it keeps in a graph.
        recall: measured for ``RECALL_AT`` neighbors when it was built, 0..1.
        bounds: 95 % interval of the recall; NaN in an index of an earlier version.
    """

    faiss_index: Any
    ids_M: np.ndarray
    sample_S: np.ndarray
    sample_SD: np.ndarray = field(repr=False)
    kind: str
    effort: int
    recall: float
    bounds: tuple[float, float] = (math.nan, math.nan)
    forked: ForkCheck = field(default_factory=ForkCheck, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Kind, effort, measured recall with its interval, and on how many of the gallery's vectors it was measured: plain data."""
        facts = {"kind": self.kind, "effort": self.effort, "recall": self.recall,
                 "neighbours": RECALL_AT, "trials": min(SAMPLE, len(self.ids_M))}  # fmt: skip
        return facts if math.isnan(self.bounds[0]) else {**facts, "recall_interval": list(self.bounds)}

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
        candidates = k + min(removed_count, k)
        if self.kind == "compact":
            candidates = max(LEAST_CANDIDATES, CANDIDATES_EACH * candidates)
        _, position_QK = self.faiss_index.search(vectors_QD, min(candidates, len(self.ids_M)))
        rows_QK, is_there_QK = _find_rows(snapshot, self.ids_M[np.maximum(position_QK, 0)])
        rows_QK = np.where(is_there_QK & (position_QK >= 0), rows_QK, -1)
        scores_QK = _exact_scores(vectors_QD, rows_QK, snapshot)
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

        header = {"index_version": FORMAT_VERSION, "kind": self.kind, "effort": self.effort, "recall": self.recall,
                  **({} if math.isnan(self.bounds[0]) else {"bounds": list(self.bounds)})}  # fmt: skip
        blocks = {"faiss": [faiss.serialize_index(self.faiss_index)], "ids": [self.ids_M],
                  "sample": [self.sample_S], "sample_vectors": [self.sample_SD]}  # fmt: skip
        write_blocks(Path(path), header, blocks, magic=MAGIC)
        return Path(path)


def _exact_scores(vectors_QD: np.ndarray, rows_QK: np.ndarray, snapshot: GallerySnapshot) -> np.ndarray:
    """float32 (Q, K) cosines of queries and rows of a gallery, EXCLUDED where a row is -1."""
    scores_QK = np.full(rows_QK.shape, EXCLUDED, np.float32)
    step = max(1, RESCORED_AT_ONCE // max(1, rows_QK.shape[1]))
    for first in range(0, len(rows_QK), step):
        part = slice(first, first + step)
        near_QKD = snapshot.vectors(np.maximum(rows_QK[part], 0).ravel()).reshape(*rows_QK[part].shape, -1)
        np.copyto(scores_QK[part], np.einsum("qkd,qd->qk", near_QKD, vectors_QD[part]), where=rows_QK[part] >= 0)
    return scores_QK


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
        faiss_index = faiss.deserialize_index(blocks["faiss"].load())
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read by faiss: {str(error).splitlines()[0][:120]}",
                        remedy="delete it: it is built again") from error  # fmt: skip
    ids_M = blocks["ids"].load()
    low, high = map(float, header.get("bounds", (math.nan, math.nan)))
    if faiss_index.ntotal != len(ids_M) or not len(ids_M):
        raise DataError(f"{path} holds {faiss_index.ntotal} vectors and {len(ids_M)} ids", remedy="delete it")
    return FaissIndex(faiss_index, ids_M, blocks["sample"].load(), blocks["sample_vectors"].load(),
                      str(header["kind"]), int(header["effort"]), float(header["recall"]),
                      (low, high))  # fmt: skip


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


def build_index(gallery: Gallery, kind: str | None = None, *, recall: float = RECALL, seed: int = 0) -> FaissIndex:
    """Index the present state of a gallery.

    Args:
        gallery: its vectors are indexed.
        kind: ``cells`` (inverted file), ``graph`` (HNSW) or ``compact`` (inverted file of product-quantized vectors, whose
            candidates are scored with the gallery's own); None takes ``compact`` where ``cells`` would need more than
            ``COMPACT_BYTES``, else ``cells``.
        recall: the effort of a search is raised until this recall (0..1) is measured, as far as it can be.
        seed: draws the training vectors and the vectors that recall is measured on.

    Raises:
        MissingExtra: faiss is not installed.
        DataError: the gallery is empty.
        SpecError: there is no such kind.
    """
    snapshot = gallery.snapshot
    if kind is None:
        kind = "compact" if 2 * len(snapshot) * snapshot.dim > COMPACT_BYTES else "cells"
    if kind not in KINDS:
        raise SpecError(f"an index of kind {kind!r}", expected=" or ".join(KINDS), remedy=closest(kind, KINDS))
    return _build(snapshot, kind, recall, seed)


def _build(snapshot: GallerySnapshot, kind: str, recall: float, seed: int) -> FaissIndex:
    if not len(snapshot):
        raise DataError("the gallery is empty", remedy="enrol reference images first")
    cells, rng = _cells(len(snapshot), kind), np.random.default_rng(seed)
    faiss_index = _new_index(snapshot.dim, kind, cells)
    rows_M = np.sort(rng.choice(len(snapshot), min(len(snapshot), TRAINING_VECTORS * cells), replace=False))
    faiss_index.train(snapshot.vectors(rows_M))
    _add(faiss_index, snapshot, 0)
    sample_Q = np.sort(rng.choice(len(snapshot), min(SAMPLE, len(snapshot)), replace=False))
    index = FaissIndex(faiss_index, snapshot.ids_N, sample_Q, snapshot.vectors(sample_Q), kind, 1, 0.0)
    return _with_effort(index, snapshot, recall)


def _new_index(dim: int, kind: str, cells: int) -> Any:
    """An empty index of faiss."""
    codes = next(number for number in range(max(1, dim // CODE_DIMENSIONS), 0, -1) if dim % number == 0)
    faiss = _import_faiss()
    return faiss.index_factory(dim, KINDS[kind].format(cells=cells, codes=codes), faiss.METRIC_INNER_PRODUCT)


def _cells(count: int, kind: str) -> int:
    """Number of cells for so many vectors; ``compact`` compares so quickly that fewer, larger ones cost less than finding them."""
    return max(1, min(round((1 if kind == "compact" else 4) * math.sqrt(count)), count // TRAINING_VECTORS))


def _with_effort(index: FaissIndex, snapshot: GallerySnapshot, recall: float) -> FaissIndex:
    """Raise the effort of a search until a recall is measured, as far as that helps."""
    inner, kind, sample_Q = _import_faiss().downcast_index(index.faiss_index), index.kind, index.sample_S
    # One more than counts: the nearest of an enrolled vector is itself, which any index finds.
    true_QK = _true_neighbors(index.sample_SD, snapshot, RECALL_AT + 1)
    effort, largest, earlier = 1, len(snapshot) if kind == "graph" else inner.nlist, -1.0
    while True:
        if kind == "graph":
            inner.hnsw.efSearch = max(effort, RECALL_AT + 1)
        else:
            inner.nprobe = effort
        recall_Q = _recall(true_QK, index.search(index.sample_SD, RECALL_AT + 1, snapshot)[1], sample_Q)
        value = float(recall_Q.mean())
        is_exhausted = kind == "compact" and earlier > LEAST_SHARE and value - earlier < LEAST_GAIN
        if value >= recall or effort >= largest or is_exhausted:
            interval = mean_interval(recall_Q)
            return replace(index, effort=effort, recall=value, bounds=(interval.low, interval.high))
        effort, earlier = min(largest, 2 * effort), value


def _true_neighbors(queries_QD: np.ndarray, snapshot: GallerySnapshot, k: int) -> np.ndarray:
    """Rows (Q, K) of the nearest vectors by an exact search, which leaves nothing of a large file in memory."""
    return scan(queries_QD, snapshot.reader(resident=False), len(snapshot), min(k, len(snapshot)), columns=HALF_ROWS)[1]


def _add(faiss_index: Any, snapshot: GallerySnapshot, start: int) -> None:
    """Add the vectors from row ``start`` on."""
    read_rows = snapshot.reader(resident=False)
    for first in range(start, len(snapshot), HALF_ROWS):
        faiss_index.add(np.ascontiguousarray(read_rows(first, min(first + HALF_ROWS, len(snapshot)))))


def _import_faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise missing_extra("faiss", "ann", "approximate search") from error
    module: ModuleType = faiss
    return module


def _recall(true_QK: np.ndarray, found_QK: np.ndarray, row_Q: np.ndarray) -> np.ndarray:
    """Share of each query's true neighbors that were found, the query itself (``row_Q``) left out; 1 where it has no other."""
    is_found_QK = (true_QK[:, :, None] == found_QK[:, None, :]).any(axis=2)
    counts_QK = true_QK != row_Q[:, None]
    share_Q: np.ndarray = (is_found_QK & counts_QK).sum(axis=1) / np.maximum(counts_QK.sum(axis=1), 1)
    return np.where(counts_QK.any(axis=1), share_Q, 1.0)
