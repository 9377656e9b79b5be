"""An immutable state of a gallery, which any number of threads may search while the gallery changes.

Shape letters: N enrolled vectors, M chosen ones, Q queries, K neighbors, D width, C classes, B rows of a tile of scores.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import overload

import numpy as np

from unalike.errors import DataError
from unalike.numerics.nearest_neighbors import EXCLUDED, scan
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.attributes import NO_ATTRIBUTES, Attributes, ReferenceAttributes
from unalike.storage.blockfile import Block, PackedTexts

# float16 rows that are widened at once: 4 MB of float32 at width 256, which stay in cache until they are multiplied.
HALF_ROWS = 4096
# Numbers that ``float16_to_float32`` moves at a time, so that its passes stay in cache; sign, exponent and fraction of a float16
# where a float32 has them.
WIDEN_NUMBERS, HALF_BITS = 2**18, np.int32(0x8FFFE000 - 2**32)

# So many names are searched in the bytes of all; more of them are looked up in the decoded list.
SEARCHED_NAMES = 4

# Overwrites scores of a tile (B x columns) with EXCLUDED; then the index of its first query and of its first vector.
Exclusion = Callable[[np.ndarray, int, int], None]


@dataclass(frozen=True)
class NearestNeighbors:
    """The K nearest enrolled vectors of every query, best first.

    Attributes:
        scores_QK: cosines.
        indices_QK: indices into the gallery.
        labels_QK: class names.
    """

    scores_QK: np.ndarray
    indices_QK: np.ndarray
    labels_QK: tuple[tuple[str, ...], ...]


class EnrolledNames(Sequence[str]):
    """Names of enrolled images: those of a file, which stay packed, and those added since, a list that grows.

    Args:
        packed: names in a file.
        added: names that come after them.
        rows_F: which names of the file they are, ascending; None for all.
    """

    def __init__(
        self, packed: PackedTexts | None = None, added: Sequence[str] = (), rows_F: np.ndarray | None = None
    ) -> None:
        self._packed, self._rows_F, self.added = packed, rows_F, list(added)
        self._in_file = 0 if packed is None else len(packed) if rows_F is None else len(rows_F)

    def __len__(self) -> int:
        return self._in_file + len(self.added)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self.unpack()[index]
        index = range(len(self))[index]
        if self._packed is None or index >= self._in_file:
            return self.added[index - self._in_file]
        return self._packed[index if self._rows_F is None else int(self._rows_F[index])]

    def unpack(self) -> list[str]:
        """All names, decoded."""
        in_file = [] if self._packed is None else self._packed.unpack()
        if self._rows_F is not None:
            in_file = [in_file[row] for row in self._rows_F.tolist()]
        return in_file + self.added

    def rows_of(self, names: Collection[str], count: int) -> dict[str, list[int]]:
        """Ascending rows among the first ``count`` that were enrolled under each of these names, by the name as given.

        Names in Unicode's composed and decomposed form are one name: macOS decomposes umlauts.
        """
        forms = {name: {name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))} for name in names}
        if self._packed is None or len(names) > SEARCHED_NAMES:
            all_names = self.unpack()[:count]
            rows: dict[str, list[int]] = {form: [] for each in forms.values() for form in each}
            for row, name in enumerate(all_names):
                if name in rows:
                    rows[name].append(row)
            return {name: sorted(row for form in each for row in rows[form]) for name, each in forms.items()}
        added = self.added[: count - self._in_file]
        result = {}
        for name, each in forms.items():
            in_file = np.array(sorted(row for form in each for row in self._packed.find(form)), np.int64)
            if self._rows_F is not None:
                in_file = np.searchsorted(self._rows_F, in_file[np.isin(in_file, self._rows_F)])
            result[name] = in_file.tolist() + [self._in_file + row for row, text in enumerate(added) if text in each]
        return result

    def select(self, kept_M: np.ndarray) -> EnrolledNames:
        """Some of the names, by ascending index; those of a file stay packed."""
        split = int(np.searchsorted(kept_M, self._in_file))
        rows_F = kept_M[:split] if self._rows_F is None else self._rows_F[kept_M[:split]]
        added = [self.added[i] for i in (kept_M[split:] - self._in_file).tolist()]
        return EnrolledNames(self._packed, added, None if self._packed is None else rows_F)

    def truncate(self, count: int) -> None:
        """Forget the names behind the first ``count``, which must hold those of the file."""
        del self.added[count - self._in_file :]

    def packed(self, count: int) -> tuple[Iterator[np.ndarray], list[np.ndarray]]:
        """The first ``count`` names for ``write_blocks``: bytes in parts, and parts of the offsets of their ends."""
        content, ends = PackedTexts.pack(self.added[: count - self._in_file])
        if self._packed is None:
            return iter([content]), [ends]
        if self._rows_F is not None:
            content, ends = PackedTexts.pack(self.unpack()[:count])
            return iter([content]), [ends]
        before, ends_before = self._packed.packed()
        start = int(ends_before[-1]) if len(ends_before) else 0
        return chain(before, [content]), [ends_before, ends + start]


@dataclass(frozen=True, eq=False)
class GallerySnapshot:
    """The vectors, classes and names of a gallery at one moment.

    Attributes:
        added_MD: vectors in memory, unit length, float32 or float16; they come after those of ``file``.
        codes_N: int32, index of each vector's class in ``classes``.
        ids_N: int64, ascending: a number for each vector, which it keeps while others are removed.
        classes: class names; may be longer than what this snapshot refers to, since the list only grows.
        names: what each vector was computed from (a path); may be longer too.
        file: the block of a gallery file that the first vectors lie in, or None.
        rows_F: which rows of ``file`` they are, int64, ascending; None for all of them.
        attributes: attributes of the vectors; None where no vector has any.
        revision: number of changes of vectors and of their classes (renaming a class is none); a measurement made at
            another revision does not hold.
        next_id: id of the next vector; ids of removed vectors are not used again.
    """

    added_MD: np.ndarray
    codes_N: np.ndarray
    ids_N: np.ndarray
    classes: Sequence[str]
    names: EnrolledNames
    file: Block | None = None
    revision: int = 0
    next_id: int = 0
    rows_F: np.ndarray | None = None
    attributes: ReferenceAttributes | None = None

    @classmethod
    def empty(cls, dim: int, half: bool = False) -> GallerySnapshot:
        """A snapshot without vectors, of width ``dim``."""
        vectors_0D, codes_0, ids_0 = (
            np.empty((0, dim), np.float16 if half else np.float32), np.empty(0, np.int32), np.empty(0, np.int64)
        )  # fmt: skip
        return cls(vectors_0D, codes_0, ids_0, [], EnrolledNames())

    def __len__(self) -> int:
        return len(self.codes_N)

    @property
    def in_file(self) -> int:
        """Number of vectors that lie in ``file``."""
        return 0 if self.file is None else len(self.file) if self.rows_F is None else len(self.rows_F)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.added_MD.shape[1])

    @property
    def half(self) -> bool:
        """Whether the vectors are kept in half precision."""
        return self.added_MD.dtype == np.float16

    @cached_property
    def counts_C(self) -> np.ndarray:
        """Number of vectors of each class."""
        return np.bincount(self.codes_N, minlength=int(self.codes_N.max(initial=-1)) + 1)

    @cached_property
    def first_rows_C(self) -> np.ndarray:
        """Index of the first vector of each class; the number of vectors where a class has none."""
        rows_C = np.full(len(self.counts_C), len(self), np.int64)
        rows_C[self.codes_N[::-1]] = np.arange(len(self) - 1, -1, -1)
        return rows_C

    def continues(self, earlier: GallerySnapshot) -> bool:
        """Whether this is a later state of the same gallery, or the same one, as far as revisions and checksums tell."""
        if self.revision != earlier.revision:
            return self.revision > earlier.revision
        sums = [None if snapshot.file is None else snapshot.file.checksums for snapshot in (self, earlier)]
        return sums[0] == sums[1]

    def stored(self, first: int, last: int, *, resident: bool = True) -> np.ndarray:
        """Vectors ``first`` to ``last`` (exclusive) as they are kept; those of a file are checked.

        Args:
            first, last: of the vectors.
            resident: whether what is read of a large file may stay in memory.
        """
        start = self.in_file
        if self.file is None or first >= start:
            return self.added_MD[first - start : last - start]
        if last <= start:
            return self._in_file_rows(first, last, resident)
        return np.concatenate([self._in_file_rows(first, start, resident), self.added_MD[: last - start]])

    def _in_file_rows(self, first: int, last: int, resident: bool) -> np.ndarray:
        assert self.file is not None
        if self.rows_F is not None:
            return self._taken(self.rows_F[first:last], resident)
        return self.file.check(first, last) if resident else self.file.copy(first, last)

    def _taken(self, rows: np.ndarray, resident: bool) -> np.ndarray:
        """Rows of the file, ascending."""
        assert self.file is not None
        if not len(rows):
            return self.added_MD[:0]
        low, reader = int(rows[0]), self.file.check if resident else self.file.copy
        return np.take(reader(low, int(rows[-1]) + 1), rows - low, axis=0)

    def stored_rows(self, rows_M: np.ndarray, *, resident: bool = True) -> np.ndarray:
        """The vectors at these ascending indices as they are kept; ``resident`` as of ``stored``."""
        split = int(np.searchsorted(rows_M, self.in_file))
        added_MD: np.ndarray = self.added_MD[rows_M[split:] - self.in_file]
        if not split:
            return added_MD
        in_file_MD = self._taken(rows_M[:split] if self.rows_F is None else self.rows_F[rows_M[:split]], resident)
        return in_file_MD if split == len(rows_M) else np.concatenate([in_file_MD, added_MD])

    def parts(self) -> Iterator[np.ndarray]:
        """All vectors as they are kept, part by part; those of a large file do not stay in memory."""
        if self.file is not None and self.rows_F is None:
            yield from self.file.rows()
        else:
            for first in range(0, self.in_file, HALF_ROWS):
                yield self.stored(first, min(first + HALF_ROWS, self.in_file))
        yield self.added_MD

    def select(self, kept_M: np.ndarray, codes_M: np.ndarray, classes: Sequence[str]) -> GallerySnapshot:
        """The state with some of the vectors, by ascending index, and their classes."""
        if len(kept_M) == len(self):
            return replace(self, codes_N=codes_M, classes=classes, revision=self.revision + 1)
        split = int(np.searchsorted(kept_M, self.in_file))
        rows_F = kept_M[:split] if self.rows_F is None else self.rows_F[kept_M[:split]]
        return replace(
            self, added_MD=self.added_MD[kept_M[split:] - self.in_file], codes_N=codes_M, ids_N=self.ids_N[kept_M],
            classes=classes, names=self.names.select(kept_M), revision=self.revision + 1,
            rows_F=None if self.file is None else rows_F,
            attributes=None if self.attributes is None else self.attributes.select(kept_M),
        )  # fmt: skip

    def stored_as(self, *, half: bool) -> GallerySnapshot:
        """The same state with its vectors in memory, as float16 or float32."""
        vectors_ND = np.empty((len(self), self.dim), np.float16 if half else np.float32)
        read_rows = self.reader()
        for first in range(0, len(self), HALF_ROWS):
            last = min(first + HALF_ROWS, len(self))
            vectors_ND[first:last] = read_rows(first, last)
        return replace(
            self,
            added_MD=vectors_ND,
            names=EnrolledNames(added=self.names.unpack()[: len(self)]),
            file=None,
            rows_F=None,
        )

    def reader(self, *, resident: bool = True) -> Callable[[int, int], np.ndarray]:
        """Return a function (first, last) -> float32 vectors, for one thread: it may reuse its memory.

        Args:
            resident: whether what is read of a large file may stay in memory, which makes the next scan faster.
        """
        if not self.half:
            return partial(self.stored, resident=resident)
        buffer = np.empty((min(HALF_ROWS, max(1, len(self))), self.dim), np.float32)

        def read(first: int, last: int) -> np.ndarray:
            return float16_to_float32(self.stored(first, last, resident=resident), buffer[: last - first])

        return read

    def vectors(self, indices_M: np.ndarray) -> np.ndarray:
        """float32 (M, D) of the vectors at these indices."""
        indices_M = np.asarray(indices_M, np.int64)
        chosen_MD = np.empty((len(indices_M), self.dim), np.float32)
        is_added_M = indices_M >= self.in_file
        chosen_MD[is_added_M] = self.added_MD[indices_M[is_added_M] - self.in_file]
        if self.file is not None and not is_added_M.all():
            in_file_M = indices_M[~is_added_M]
            in_file_M = in_file_M if self.rows_F is None else self.rows_F[in_file_M]
            rows_K, row_of_M = np.unique(in_file_M, return_inverse=True)
            near_KD = np.empty((len(rows_K), self.dim), np.float32)
            # Rows that follow one another are read some thousand at once: all of a gallery is a common choice.
            is_start_K = np.diff(rows_K, prepend=-2) > 1
            is_start_K[::HALF_ROWS] = True
            starts_S = np.flatnonzero(is_start_K)
            for start, stop in zip(starts_S.tolist(), [*starts_S[1:].tolist(), len(rows_K)], strict=True):
                near_KD[start:stop] = self.file.copy(int(rows_K[start]), int(rows_K[stop - 1]) + 1)
            chosen_MD[~is_added_M] = near_KD[row_of_M]
        return chosen_MD

    def search(self, vectors_QD: np.ndarray, k: int, hide: Exclusion | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest vectors of every query by cosine, exactly.

        Args:
            vectors_QD: queries of any length.
            k: number of neighbors, at least 1.
            hide: excludes pairs of query and vector, as in ``numerics.nearest_neighbors.scan``.

        Returns:
            (scores_QK, indices_QK), best first. K is ``k``, or the number of vectors when there are fewer; indices are -1
            where fewer count.

        Raises:
            DataError: the gallery is empty or ``k`` is below 1.
        """
        if not len(self):
            raise DataError("the gallery is empty", remedy="enrol reference images first")
        if k < 1:
            raise DataError(f"k is {k}", expected="at least 1 neighbor")
        columns = HALF_ROWS if self.half else None
        queries_QD = l2_normalize(vectors_QD, name="query vectors")
        return scan(queries_QD, self.reader(), len(self), min(k, len(self)), hide=hide, columns=columns)

    def exclude_rows(self, rows_Q: np.ndarray) -> Exclusion:
        """Exclude for each query one enrolled vector: the query itself, where queries are enrolled vectors."""

        def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
            column_B = rows_Q[top : top + len(scores_BC)] - left
            inside_B = np.flatnonzero((column_B >= 0) & (column_B < scores_BC.shape[1]))
            scores_BC[inside_B, column_B[inside_B]] = EXCLUDED

        return hide

    def exclude_classes(self, codes_Q: np.ndarray) -> Exclusion:
        """Exclude for each query all vectors of one class."""

        def hide(scores_BC: np.ndarray, top: int, left: int) -> None:
            code_B1 = codes_Q[top : top + len(scores_BC), None]
            scores_BC[code_B1 == self.codes_N[None, left : left + scores_BC.shape[1]]] = EXCLUDED

        return hide

    @cached_property
    def sums_CD(self) -> np.ndarray:
        """float64 sums of each class's vectors, from which prototypes are made."""
        sums_CD = np.zeros((len(self.counts_C), self.dim))
        read_rows = self.reader()
        for first in range(0, len(self), HALF_ROWS):
            last = min(first + HALF_ROWS, len(self))
            order_B = np.argsort(self.codes_N[first:last], kind="stable")
            codes_S, start_S = np.unique(self.codes_N[first:last][order_B], return_index=True)
            sums_CD[codes_S] += np.add.reduceat(read_rows(first, last)[order_B].astype(np.float64), start_S, axis=0)
        return sums_CD

    @cached_property
    def prototypes_CD(self) -> np.ndarray:
        """float32 unit vectors in the direction of each class's mean; zero for a class without vectors."""
        return l2_normalize(self.sums_CD, name="class sums")

    def attributes_of(self, row: int) -> Attributes:
        """The attributes of one vector."""
        return NO_ATTRIBUTES if self.attributes is None else self.attributes[row]

    def labels_of(self, codes: np.ndarray) -> list[str]:
        """Class names of these codes."""
        return [self.classes[code] for code in codes.tolist()]


def float16_to_float32(halves_ND: np.ndarray, out_ND: np.ndarray) -> np.ndarray:
    """Convert float16 to float32 by moving bits: exact for every finite number.

    Args:
        halves_ND: float16 (N, D).
        out_ND: float32 (N, D) in C order, which is overwritten.

    Returns:
        ``out_ND``.

    numpy's own conversion goes number by number: 3.0 ns each against 0.6 (own measurement, 2026-11-23).
    """
    bits_ND, wide_ND = halves_ND.view(np.int16), out_ND.view(np.int32)
    step = max(1, WIDEN_NUMBERS // max(1, halves_ND.shape[1]))
    for start in range(0, len(halves_ND), step):
        part = wide_ND[start : start + step]
        np.copyto(part, bits_ND[start : start + step])
        np.left_shift(part, 13, out=part)
        np.bitwise_and(part, HALF_BITS, out=part)
        # The exponents' origins lie 112 apart; the product also brings float16's subnormal numbers to their value.
        np.multiply(out_ND[start : start + step], np.float32(2.0**112), out=out_ND[start : start + step])
    return out_ND
