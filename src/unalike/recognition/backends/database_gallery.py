"""What galleries in databases share: a state that is read through views, and changes that are durable when they end.

A backend adds how its state is read and searched (``DatabaseView``) and how a change is begun and made (``DatabaseGallery``).

Shape letters: M enrolled vectors, Q queries, K neighbors, D width, U queries whose second class is not among their neighbors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from unalike.errors import DataError
from unalike.numerics.arguments import check_count
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.attributes import Where
from unalike.recognition.backends.neighbor_rows import NeighborRows
from unalike.recognition.backends.protocol import (
    GalleryBackend,
    GalleryView,
    NearestReferences,
    RankedClasses,
    no_classes,
    no_neighbors,
)
from unalike.recognition.decision import GalleryCalibration, check_rule
from unalike.recognition.gallery_change import checked_enrollment
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.ranking import DEPTH, VOTERS, ClassRanking, check_vectors, rank_by_nearest, rank_by_vote


@dataclass(frozen=True, kw_only=True)
class DatabaseState:
    """What is known of a gallery at one moment without reading its references.

    Attributes:
        dim, half: width of the vectors, and whether they are rounded to half precision.
        vectors, classes: their numbers.
        revision: number of changes of vectors and of their classes.
        next_id: id of the next reference.
        model_identity: the network.
        calibration: threshold and margin, or None.
    """

    dim: int
    half: bool
    vectors: int
    classes: int
    revision: int
    next_id: int
    model_identity: ModelIdentity
    calibration: GalleryCalibration | None = None


class DatabaseView(GalleryView):
    """A view whose searches run on a server.

    Attributes:
        state: what is read.
    """

    state: DatabaseState

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        return self.state.dim

    @property
    def revision(self) -> int:
        """Number of changes of vectors and of their classes."""
        return self.state.revision

    @property
    def calibration(self) -> GalleryCalibration | None:
        """Threshold and margin, or None."""
        return self.state.calibration

    @property
    def model_identity(self) -> ModelIdentity:
        """The network that the vectors come from."""
        return self.state.model_identity

    @property
    def size(self) -> tuple[int, int]:
        """Number of vectors, and of classes."""
        return self.state.vectors, self.state.classes

    # ---- what a backend adds ----

    @abstractmethod
    def class_number(self, label: str) -> int:
        """The number of a class. Raises DataError where there is none of this name."""

    @abstractmethod
    def passing_sets(self, where: Where | None) -> list[int] | None:
        """Numbers of the sets of attributes that a filter lets pass, in a gallery with vectors; None without a filter."""

    @abstractmethod
    def find(
        self, vectors_QD: np.ndarray, k: int, index: Any = None, other_than_Q: np.ndarray | None = None,
        sets: Sequence[int] | None = None,
    ) -> NeighborRows:  # fmt: skip
        """Search unit-length queries in a gallery that has vectors.

        Args:
            vectors_QD: the queries.
            k: number of neighbors, at most that of the vectors.
            index: for approximate search; never together with ``sets``.
            other_than_Q: numbers of the classes that are left out.
            sets: numbers of sets of attributes, of which references must have one.
        """

    @abstractmethod
    def rank_by_prototypes(
        self, vectors_QD: np.ndarray, k: int, index: Any, sets: Sequence[int] | None, where: Where | None
    ) -> RankedClasses:
        """Rank the classes by the means of their vectors, as ``rank`` does."""

    # ---- search ----

    def search_others(self, vectors_QD: np.ndarray, label: str) -> NearestReferences:
        """Find for every query the nearest reference of all classes but one."""
        vectors_QD = self._unit(vectors_QD)
        other_than_Q = np.full(len(vectors_QD), self.class_number(label), np.int64)
        return self._search(vectors_QD, 1, other_than_Q=other_than_Q).first(1)

    def search(
        self, vectors_QD: np.ndarray, k: int = 1, index: Any = None, where: Where | None = None
    ) -> NearestReferences:
        """Find the nearest references of every query by cosine."""
        vectors_QD, k, sets = self._unit(vectors_QD), check_count("k", k), self._passing(where)
        return no_neighbors(len(vectors_QD)) if sets == [] else self._search(vectors_QD, k, index, sets=sets).first(k)

    def rank(
        self, vectors_QD: np.ndarray, rule: str = "nearest", voters: int = VOTERS, *, k: int = 1, second: bool = True,
        index: Any = None, where: Where | None = None,
    ) -> RankedClasses:  # fmt: skip
        """Rank the classes for every query, and find its nearest references."""
        check_rule(rule)
        k, voters, vectors_QD = check_count("k", k), check_count("voters", voters), self._unit(vectors_QD)
        sets = self._passing(where)
        if sets == []:
            return no_classes(len(vectors_QD))
        if rule == "prototype":
            self._require_vectors()
            return self.rank_by_prototypes(vectors_QD, k, index, sets, where)
        nearest = self._search(vectors_QD, max(k, voters if rule == "vote" else DEPTH), index, sets=sets)
        if rule == "vote":
            ranking, labels = (
                rank_by_vote(nearest.classes_QK, nearest.scores_QK, nearest.ids_QK, voters),
                nearest.labels,
            )
        else:
            ranking, labels = self._rank_by_nearest(vectors_QD, nearest, second, sets)
        return named_classes(ranking, labels, nearest.first(k))

    def _rank_by_nearest(
        self, vectors_QD: np.ndarray, nearest: NeighborRows, second: bool, sets: Sequence[int] | None
    ) -> tuple[ClassRanking, dict[int, str]]:
        """The ranking by the nearest reference, and the names of its classes."""
        labels = dict(nearest.labels)

        def find_second(rows_U: np.ndarray, best_U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            others = self._search(vectors_QD[rows_U], 1, other_than_Q=best_U, sets=sets)
            labels.update(others.labels)
            return others.scores_QK[:, 0], others.classes_QK[:, 0]

        is_complete = nearest.scores_QK.shape[1] >= self.state.vectors or self.state.classes < 2
        search = find_second if second and not is_complete else None
        return rank_by_nearest(nearest.classes_QK, nearest.scores_QK, nearest.ids_QK, search), labels

    def _search(
        self, vectors_QD: np.ndarray, k: int, index: Any = None, other_than_Q: np.ndarray | None = None,
        sets: Sequence[int] | None = None,
    ) -> NeighborRows:  # fmt: skip
        """As ``find``, for any gallery and ``k``. With ``sets`` exactly: of the nearest of all references few may have them."""
        self._require_vectors()
        return self.find(vectors_QD, min(k, self.state.vectors), index if sets is None else None, other_than_Q, sets)

    def _require_vectors(self) -> None:
        if not self.state.vectors:
            raise DataError("the gallery is empty", remedy="enrol reference images first")

    def _passing(self, where: Where | None) -> list[int] | None:
        """As ``passing_sets``; None for an empty gallery too."""
        return self.passing_sets(where) if self.state.vectors else None

    def _unit(self, vectors_QD: np.ndarray) -> np.ndarray:
        return l2_normalize(check_vectors(vectors_QD, self.dim), name="query vectors")


def named_classes(ranking: ClassRanking, labels: dict[int, str], nearest: NearestReferences) -> RankedClasses:
    """A ranking with the names of its classes.

    Args:
        ranking: by the numbers of classes.
        labels: names by number.
        nearest: the nearest references.
    """
    return RankedClasses(
        tuple(labels[code] for code in ranking.code_Q.tolist()),
        tuple(labels[code] if code >= 0 else None for code in ranking.second_Q.tolist()),
        ranking.score_Q, ranking.margin_Q, nearest,
    )  # fmt: skip


class DatabaseChange(Protocol):
    """One change of a gallery, made durable when the block that it belongs to ends."""

    def set_calibration(self, calibration: GalleryCalibration | None) -> None:
        """Set threshold and margin."""
        ...

    def set_identity(self, identity: ModelIdentity) -> None:
        """Set what is known of the network."""
        ...

    def enrol(self, vectors_MD: np.ndarray, labels: Sequence[str], names: Sequence[str], attributes: Any) -> list[int]:
        """Add references; their ids."""
        ...

    def remove(self, labels: Sequence[str], names: Sequence[str], ids: Sequence[int]) -> int:
        """Remove classes and references; the number of vectors removed."""
        ...

    def rename(self, label: str, new: str) -> None:
        """Rename a class."""
        ...

    def merge(self, labels: Sequence[str], into: str) -> int:
        """Merge classes; the number of vectors whose class changed."""
        ...


class DatabaseGallery(GalleryBackend):
    """A gallery that others change too: each change is one transaction of the server's.

    Args:
        state: as it was read last.
    """

    def __init__(self, state: DatabaseState) -> None:
        self._identity = state.model_identity  # what is written with the next change
        self._change: DatabaseChange | None = None  # in the object that ``change`` yields

    @property
    @abstractmethod
    def state(self) -> DatabaseState:
        """The gallery as it was read last."""

    @abstractmethod
    def _changing(self) -> AbstractContextManager[DatabaseChange]:
        """One change, made when the block ends; or the one that ``change`` began."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        return self.state.dim

    @property
    def half(self) -> bool:
        """Whether vectors are rounded to half precision."""
        return self.state.half

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their first vector."""
        return list(self.counts())

    @property
    def calibration(self) -> GalleryCalibration | None:
        """Threshold and margin of decisions, or None; what is assigned is durable at once."""
        with self.view() as view:
            return view.calibration

    @calibration.setter
    def calibration(self, calibration: GalleryCalibration | None) -> None:
        with self._changing() as change:
            change.set_calibration(calibration)

    @property
    def model_identity(self) -> ModelIdentity:
        """The network that the vectors come from; what is assigned is written with the next change."""
        return self._identity

    @model_identity.setter
    def model_identity(self, identity: ModelIdentity) -> None:
        self._identity = identity
        if self._change is not None:
            self._change.set_identity(identity)

    def _complete_identity(self, change: DatabaseChange, identity: ModelIdentity) -> None:
        """Write what this object knows of the network beyond what is stored. Raises ModelError for another network."""
        if not self._identity.equals(identity):
            identity.check_compatible(self._identity)
            change.set_identity(identity.with_decoding(identity.decoding.completed(self._identity.decoding)))

    # ---- changes ----

    def enrol(
        self, vectors_MD: np.ndarray, labels: Sequence[str], names: Sequence[str] | None = None, attributes: Any = None
    ) -> list[int]:
        """Add references; durable when this returns."""
        dtype = np.dtype(np.float16 if self.half else np.float32)
        enrollment = checked_enrollment(vectors_MD, labels, names, self.dim, dtype, attributes)
        if not enrollment.labels:
            return []
        with self._changing() as change:
            return change.enrol(enrollment.vectors_MD, enrollment.labels, enrollment.names, enrollment.attributes)

    def remove(self, labels: Sequence[str] = (), names: Sequence[str] = (), ids: Sequence[int] = ()) -> int:
        """Remove whole classes, and single references by name or id; the number of vectors removed."""
        with self._changing() as change:
            return change.remove(labels, names, ids)

    def rename(self, label: str, new: str) -> None:
        """Rename a class."""
        with self._changing() as change:
            change.rename(label, new)

    def merge(self, labels: Sequence[str], into: str) -> int:
        """Merge several classes into ``into``; the number of vectors whose class changed."""
        with self._changing() as change:
            return change.merge(labels, into)

    def save(self) -> None:
        """Nothing: every change is durable when it ends."""

    def _require_no_change(self) -> None:
        """Raise DataError where this object is sent elsewhere in the middle of a change."""
        if self._change is not None:
            raise DataError("a gallery in the middle of a change cannot be sent to another process")
