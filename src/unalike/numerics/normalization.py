"""L2 normalization of embedding vectors: float32, of length 1.

Shape letters: N vectors, Q queries, R references, D vector width.
"""

from __future__ import annotations

import numpy as np

from unalike.errors import UnalikeError

# Numbers that are scaled at a time, so that the passes stay in cache: 20 ms against 7 for 20,000 vectors of 256 (2026-11-26).
BLOCK_NUMBERS = 2**16


class UnitVectors(np.ndarray):
    """L2-normalized vectors (N, D): float32, of length 1 (or zero), in C order, read-only.

    ``unit_vectors`` makes them, once for all that is computed from the vectors: every function that normalizes its input takes
    them as they are. What arithmetic or an index of numpy's own makes of them is no such array any more.
    """

    def rows(self, index_N: np.ndarray) -> UnitVectors:
        """The vectors at these indices."""
        return _marked(np.asarray(self)[index_N])

    def join(self, other: UnitVectors) -> UnitVectors:
        """These vectors, then those of ``other``."""
        return _marked(np.concatenate([np.asarray(self), np.asarray(other)]))


def unit_vectors(vectors_ND: np.ndarray, *, name: str = "vectors") -> UnitVectors:
    """Normalize vectors once: as ``l2_normalize``, but UnitVectors, which are not normalized again."""
    return vectors_ND if _is_marked(vectors_ND) else _marked(l2_normalize(vectors_ND, name=name))  # type: ignore[return-value]


def _marked(unit_ND: np.ndarray) -> UnitVectors:
    marked_ND = unit_ND.view(UnitVectors)
    marked_ND.flags.writeable = False
    return marked_ND


def _is_marked(vectors_ND: np.ndarray) -> bool:
    """Whether an array is what ``_marked`` made: views of columns are not contiguous, results of arithmetic are writable."""
    flags = vectors_ND.flags if isinstance(vectors_ND, UnitVectors) and vectors_ND.ndim == 2 else None
    return flags is not None and flags.c_contiguous and not flags.writeable


def l2_normalize(vectors_ND: np.ndarray, *, name: str = "vectors") -> np.ndarray:
    """Scale vectors to length 1.

    Args:
        vectors_ND: Vectors (N, D), of any float or integer type.
        name: What the vectors are, for the message.

    Returns:
        A float32 copy in C order; a zero vector stays zero (cosine 0 to every other). Of UnitVectors a view, no copy.

    Raises:
        UnalikeError: The array is not two-dimensional, or holds NaN or infinity.
    """
    if _is_marked(vectors_ND):
        return np.asarray(vectors_ND)
    vectors_ND = np.asarray(vectors_ND)
    if vectors_ND.ndim != 2 or not np.issubdtype(vectors_ND.dtype, np.number):
        raise UnalikeError(
            f"{name} have shape {vectors_ND.shape} and type {vectors_ND.dtype}", expected="numbers of shape (N, D)"
        )
    out_ND = np.array(vectors_ND, dtype=np.float32, order="C", copy=True)
    infinite = first = 0
    step = max(1, BLOCK_NUMBERS // max(1, out_ND.shape[1]))
    for start in range(0, len(out_ND), step):
        part_ND = out_ND[start : start + step]
        # Scaling by the largest entry first keeps the squares of very long or very short vectors inside float32.
        largest_N = np.abs(part_ND).max(axis=1, initial=0.0)
        finite_N = np.isfinite(largest_N)
        if not finite_N.all():
            first = first if infinite else start + int(np.argmin(finite_N))
            infinite += int(np.count_nonzero(~finite_N))
            continue
        part_ND /= np.where(largest_N > 0, largest_N, 1)[:, None]
        length_N = np.sqrt(np.einsum("nd,nd->n", part_ND, part_ND))
        part_ND /= np.where(length_N > 0, length_N, 1)[:, None]
    if infinite:
        raise UnalikeError(
            f"{infinite} of {len(out_ND)} {name} hold NaN or infinity, the first is number {first}",
            expected="finite vectors",
            remedy="look at the images of those rows and at the network's precision (fp16 overflows)",
        )
    return out_ND


def check_widths(query_QD: np.ndarray, reference_RD: np.ndarray) -> None:
    """Raise UnalikeError when queries (Q, D) and references (R, D) differ in width."""
    if query_QD.shape[1] != reference_RD.shape[1]:
        raise UnalikeError(
            f"query vectors have width {query_QD.shape[1]}, reference vectors {reference_RD.shape[1]}",
            expected="one network for both",
            remedy="embed query and reference with the same model",
        )
