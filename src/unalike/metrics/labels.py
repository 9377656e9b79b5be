"""Check class labels that metrics are computed from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unalike.errors import UnalikeError


def as_labels(labels: np.ndarray | Sequence[int], count: int, name: str) -> np.ndarray:
    """Check labels.

    Args:
        labels: Integer labels (N,).
        count: Expected number N.
        name: What the labels are of, for the message.

    Returns:
        The labels as int64.

    Raises:
        UnalikeError: The length or the type is another, or a label is negative.
    """
    labels_N = np.asarray(labels)
    if labels_N.shape != (count,):
        raise UnalikeError(f"{name} labels have shape {labels_N.shape}", expected=f"one label a vector ({count})")
    if count and not np.issubdtype(labels_N.dtype, np.integer):
        raise UnalikeError(f"{name} labels are of type {labels_N.dtype}", expected="whole class numbers")
    if count and labels_N.min() < 0:
        raise UnalikeError(
            f"{np.count_nonzero(labels_N < 0)} {name} images have no label",
            expected="a class for every image",
            remedy="keep labeled images only",
        )
    return labels_N.astype(np.int64, copy=False)
