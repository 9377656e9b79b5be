"""L2 normalization of embedding vectors: float32, of length 1.

Shape letters: N vectors, Q queries, R references, D vector width.
"""

from __future__ import annotations

import numpy as np

from unalike.errors import UnalikeError

# Numbers that are scaled at a time, so that the passes stay in cache: 20 ms against 7 for 20,000 vectors of 256 (2026-11-26).
BLOCK_NUMBERS = 2**16


def l2_normalize(vectors_ND: np.ndarray, *, name: str = "vectors") -> np.ndarray:
    """Scale vectors to length 1.

    Args:
        vectors_ND: Vectors (N, D), of any float or integer type.
        name: What the vectors are, for the message.

    Returns:
        A float32 copy in C order; a zero vector stays zero (cosine 0 to every other).

    Raises:
        UnalikeError: The array is not two-dimensional, or holds NaN or infinity.
    """
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
