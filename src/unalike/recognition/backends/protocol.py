"""Protocols of a gallery: what it can do wherever it is kept, and a consistent state of it that is searched.

``recognition.backends.conformance`` states the laws that every implementation keeps, as tests.

Shape letters: M enrolled vectors, Q queries, K neighbors, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from unalike.numerics.arguments import check_count
from unalike.recognition.attributes import NO_ATTRIBUTES, Attributes, Where
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.snapshot import GallerySnapshot

Own = TypeVar("Own")


class Entry(NamedTuple):
    """One enrolled reference.

    Attributes:
        id: its number, which no other reference of this gallery ever has.
        label: its class.
        name: what its vector was computed from, such as a path; may be empty.
        attributes: such as its site or season, by name.
    """

    id: int
    label: str
    name: str
    attributes: Attributes = NO_ATTRIBUTES


@dataclass(frozen=True, eq=False)
class NearestReferences:
    """The K nearest references of every query, best first; equal scores by ascending id.

    Attributes:
        scores_QK: float32 cosines.
        ids_QK: int64 ids; -1 where fewer than K were found.
        entries_QK: the references; those that were found alone.
    """

    scores_QK: np.ndarray
    ids_QK: np.ndarray
    entries_QK: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True, eq=False)
class RankedClasses:
    """The two best classes of every query, and its nearest references.

    Attributes:
        label_Q: the best class; empty where no reference passes the filter.
        second_Q: the second class; None where there is none or it was not looked for.
        score_Q: cosine of the best class.
        margin_Q: lead of the best class over the second; infinite where there is no second.
        nearest: the nearest references.
    """

    label_Q: tuple[str, ...]
    second_Q: tuple[str | None, ...]
    score_Q: np.ndarray
    margin_Q: np.ndarray
    nearest: NearestReferences


class SearchIndex(Protocol):
    """An index for approximate search."""

    @property
    def recall(self) -> float:
        """Measured share of the true nearest neighbors that are found, 0..1."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Kind, effort, recall with its interval, number of neighbors and of trials that it was measured on: plain data."""
        ...


class GalleryView(Protocol):
    """A gallery at one moment: everything read through one view belongs to one state, whatever others change meanwhile.

    A view of a database holds a connection: close it, or use it as a context manager.
    """

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        ...

    @property
    def revision(self) -> int:
        """Number of changes of vectors and of their classes; renaming a class is none."""
        ...

    @property
    def calibration(self) -> GalleryCalibration | None:
        """Threshold and margin of decisions, or None."""
        ...

    @property
    def model_identity(self) -> ModelIdentity:
        """The network that the vectors come from."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Number of vectors, and of classes that have one."""
        ...

    def counts(self) -> dict[str, int]:
        """Number of vectors of each class, in the order of the classes' first enrollment."""
        ...

    def attributes(self) -> dict[str, dict[str, int]]:
        """Number of references by the name and the value of each attribute, both in alphabetical order."""
        ...

    def entries(
        self, label: str | None = None, after: int = -1, limit: int = 100, where: Where | None = None
    ) -> list[Entry]:
        """References by ascending id, a page at a time.

        Args:
            label: of this class alone.
            after: with a larger id than this: the id of the last one of the page before.
            limit: at most so many.
            where: those that pass this filter, as of ``search``.

        Raises:
            DataError: there is no such class or attribute, or ``limit`` is below 1.
        """
        ...

    def entry(self, id: int) -> Entry | None:
        """The reference with this id; None where there is none."""
        ...

    def ids_of_name(self, name: str) -> list[int]:
        """Ascending ids of the references that were enrolled under this name."""
        ...

    def first_entries(self, labels: Sequence[str]) -> dict[str, Entry]:
        """The reference with the smallest id of each of these classes, by class; classes without one are left out."""
        ...

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """float32 (M, D) vectors of the references with these ids, of unit length.

        Raises:
            DataError: there is no such reference.
        """
        ...

    def search_others(self, vectors_QD: np.ndarray, label: str) -> NearestReferences:
        """Find for every query the nearest reference (K = 1) of all classes but one, exactly.

        Args:
            vectors_QD: queries of any length.
            label: the class that is left out.

        Raises:
            DataError: there is no such class, or the vectors have another width.
        """
        ...

    def search(
        self, vectors_QD: np.ndarray, k: int = 1, index: Any = None, where: Where | None = None
    ) -> NearestReferences:
        """Find the nearest references of every query by cosine, exactly unless an index is given.

        Args:
            vectors_QD: queries of any length.
            k: number of neighbors; fewer where the gallery holds fewer, or fewer pass the filter.
            index: from ``open_index``; not used with a filter, so that this finds all that pass it.
            where: a filter: of each attribute that it names, references must have the value, or one of the values.

        Raises:
            DataError: the gallery is empty, ``k`` is below 1, the vectors have another width, or no reference has an attribute that
                the filter names.
        """
        ...

    def rank(
        self, vectors_QD: np.ndarray, rule: str = "nearest", voters: int = 10, *, k: int = 1, second: bool = True,
        index: Any = None, where: Where | None = None,
    ) -> RankedClasses:  # fmt: skip
        """Rank the classes for every query, as ``recognition.ranking.rank_classes`` does.

        Args:
            vectors_QD: queries of any length.
            rule: ``nearest``, ``prototype`` or ``vote``.
            voters: number of neighbors that vote.
            k: number of nearest references to return.
            second: whether the second class is searched beyond the nearest neighbors, under the rule ``nearest``.
            index: from ``open_index``; not used with a filter.
            where: a filter, as of ``search``; prototypes are then means of what passes it.

        Raises:
            DataError, SpecError.
        """
        ...

    def snapshot(self) -> GallerySnapshot:
        """All vectors, for calibration; those of a database are read into memory."""
        ...

    def continues(self, earlier: Any) -> bool:
        """Whether this is a later state of the gallery that another view is of, or the same state."""
        ...

    def is_unchanged_since(self, earlier: Any) -> bool:
        """Whether no reference and no class changed since another view of the same gallery, which may be closed, was made."""
        ...

    @property
    def stale(self) -> str:
        """Why the calibration no longer holds for this state; empty when it holds, or when there is none."""
        calibration, size = self.calibration, self.size
        if calibration is None or calibration.holds_for(*size, self.revision):
            return ""
        before = f"it was calibrated with {calibration.vectors} images of {calibration.classes} classes"
        if (calibration.vectors, calibration.classes) != size:
            return f"{before} and now has {size[0]} of {size[1]}"
        return f"{before}, and these are others by now"

    def close(self) -> None:
        """Give back what the view holds."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GalleryBackend(Protocol):
    """A gallery, wherever it is kept. Any number of threads may use one object, any number of processes one gallery.

    A change is made by ``enrol``, ``remove``, ``rename``, ``merge`` or by setting ``calibration``. Changes inside ``change``
    are one: others see all of them or none, and all are durable when it ends. Outside of it a change is durable at the
    latest when ``save`` returns.
    """

    @property
    def address(self) -> str:
        """Path or address, without a password; empty for a gallery that is kept nowhere."""
        ...

    @property
    def dim(self) -> int:
        """Width D of the vectors."""
        ...

    @property
    def half(self) -> bool:
        """Whether vectors are kept in half precision (float16)."""
        ...

    @property
    def calibration(self) -> GalleryCalibration | None:
        """Threshold and margin of decisions, or None."""
        ...

    @calibration.setter
    def calibration(self, calibration: GalleryCalibration | None) -> None: ...

    @property
    def model_identity(self) -> ModelIdentity:
        """The network that the vectors come from."""
        ...

    @model_identity.setter
    def model_identity(self, identity: ModelIdentity) -> None: ...

    def view(self) -> GalleryView:
        """The present state."""
        ...

    def enrol(
        self, vectors_MD: np.ndarray, labels: Sequence[str], names: Sequence[str] | None = None, attributes: Any = None
    ) -> list[int]:
        """Add references.

        Args:
            vectors_MD: embeddings of any length.
            labels: their class names.
            names: what each was computed from, such as a path.
            attributes: short texts by name, by which searches are filtered, such as ``{"site": "berlin"}``: one mapping for all,
                or a list with one each (``recognition.attributes``).

        Returns:
            Their ids.

        Raises:
            DataError: the numbers or widths differ, a label is empty, a vector is zero or not finite, or an attribute has another
                form.
        """
        ...

    def remove(self, labels: Sequence[str] = (), names: Sequence[str] = (), ids: Sequence[int] = ()) -> int:
        """Remove whole classes, and single references by name or id; nothing where one of them does not exist.

        Returns:
            The number of vectors removed.

        Raises:
            DataError: there is no such class, name or id.
        """
        ...

    def rename(self, label: str, new: str) -> None:
        """Rename a class. Raises DataError when there is no such class or the new name is taken or empty."""
        ...

    def merge(self, labels: Sequence[str], into: str) -> int:
        """Merge several classes into ``into``, which may be new.

        Returns:
            The number of vectors whose class changed.

        Raises:
            DataError: there is no such class, nothing is to merge, or ``into`` is empty.
        """
        ...

    def change(self) -> AbstractContextManager[GalleryBackend]:
        """Make several changes one, atomic and durable when the block ends; others who change the gallery wait.

        Yields:
            The gallery to change, with what others changed before. After an exception nothing is changed.
        """
        ...

    def save(self) -> object:
        """Make what was changed durable."""
        ...

    def refresh(self) -> bool:
        """Take over what others changed since; cheap where nothing changed.

        Returns:
            Whether there were changes.

        Raises:
            DataError: the gallery is gone or damaged.
            ModelError: it is now one of another network.
        """
        ...

    def drop_former(self, least_s: float = 0.0) -> None:
        """Remove what is kept of this gallery as it was with another network (``address.replace_gallery``), for those who read it.

        Args:
            least_s: what was replaced a shorter time ago stays, in seconds.
        """
        return

    def open_index(self) -> SearchIndex:
        """The index for approximate search, built where there is none yet; its recall is measured."""
        ...

    def close(self) -> None:
        """Give back connections."""
        return

    # ---- reading the present state ----

    def __len__(self) -> int:
        with self.view() as view:
            return view.size[0]

    @property
    def revision(self) -> int:
        """Number of changes of vectors and of their classes."""
        with self.view() as view:
            return view.revision

    @property
    def stale(self) -> str:
        """Why the calibration no longer holds for this gallery; empty when it holds, or when there is none."""
        with self.view() as view:
            return view.stale

    def counts(self) -> dict[str, int]:
        """As ``GalleryView.counts``."""
        with self.view() as view:
            return view.counts()

    def entries(
        self, label: str | None = None, after: int = -1, limit: int = 100, where: Where | None = None
    ) -> list[Entry]:
        """As ``GalleryView.entries``."""
        with self.view() as view:
            return view.entries(label, after, limit, where)

    def attributes(self) -> dict[str, dict[str, int]]:
        """As ``GalleryView.attributes``."""
        with self.view() as view:
            return view.attributes()

    def entry(self, id: int) -> Entry | None:
        """As ``GalleryView.entry``."""
        with self.view() as view:
            return view.entry(id)

    def ids_of_name(self, name: str) -> list[int]:
        """As ``GalleryView.ids_of_name``."""
        with self.view() as view:
            return view.ids_of_name(name)

    def has_name(self, name: str) -> bool:
        """Whether a reference was enrolled under this name."""
        return bool(self.ids_of_name(name))


def no_neighbors(count: int) -> NearestReferences:
    """The neighbors of so many queries where no reference passes a filter."""
    return NearestReferences(np.empty((count, 0), np.float32), np.empty((count, 0), np.int64), ((),) * count)


def no_classes(count: int) -> RankedClasses:
    """The classes of so many queries where no reference passes a filter: none, with the lowest of all cosines."""
    score_Q, margin_Q = np.full(count, -1, np.float32), np.full(count, np.inf)
    return RankedClasses(("",) * count, (None,) * count, score_Q, margin_Q, no_neighbors(count))


def check_limit(limit: int) -> int:
    """Return the length of a page. Raises DataError for what is no whole number of 1 or more."""
    return check_count("the number of references of a page", limit)


def pages(view: GalleryView, label: str | None = None, limit: int = 1000) -> Iterator[Entry]:
    """All references of a view by ascending id, read page by page."""
    after = -1
    while page := view.entries(label, after, limit):
        yield from page
        after = page[-1].id
