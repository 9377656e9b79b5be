"""Covariance from few samples in many dimensions, with the shrinkage of Ledoit and Wolf, and directions of the largest second moment.

The former is the same as scikit-learn's ``ledoit_wolf``, in numpy alone: a deployed recognizer has no scikit-learn.

Shape letters: N samples, F features.
"""

from __future__ import annotations

import numpy as np

BLOCK_ROWS = 8192  # that are summed up at a time: in double precision, all would take twice their memory


def covariance_and_shrinkage(centered_NF: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute the empirical covariance and the shrinkage coefficient of Ledoit and Wolf.

    Source: O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004, lemma 3.2-3.4.

    Args:
        centered_NF: Samples with zero mean.

    Returns:
        The covariance (F, F) and the shrinkage, 0..1.
    """
    count, width = centered_NF.shape
    covariance_FF = centered_NF.T @ centered_NF / count
    scale = float(np.trace(covariance_FF)) / width
    if scale <= 0:
        return covariance_FF, 0.0
    squares_NF = centered_NF**2
    sum_of_squares = float((covariance_FF**2).sum())
    distance = sum_of_squares / width - scale**2
    noise = (float((squares_NF.sum(axis=1) ** 2).sum()) / count - sum_of_squares) / (width * count)
    shrinkage = min(noise, distance) / distance if distance > 0 else 1.0
    return covariance_FF, min(max(shrinkage, 0.0), 1.0)


def ledoit_wolf(centered_NF: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute the covariance shrunk towards a multiple of the identity.

    Args:
        centered_NF: Samples with zero mean.

    Returns:
        The shrunk covariance (F, F) and the shrinkage, 0..1.
    """
    covariance_FF, shrinkage = covariance_and_shrinkage(centered_NF)
    width = len(covariance_FF)
    return (1 - shrinkage) * covariance_FF + shrinkage * np.trace(covariance_FF) / width * np.eye(width), shrinkage


def largest_directions(x_NF: np.ndarray, dim: int) -> np.ndarray:
    """Find the directions that keep scalar products best: those of the largest second moment (PCA without centering).

    Args:
        x_NF: Samples.
        dim: Number of directions D, at most F.

    Returns:
        Orthonormal columns (F, D), float32, by falling second moment.
    """
    moment_FF = np.zeros((x_NF.shape[1],) * 2)
    for start in range(0, len(x_NF), BLOCK_ROWS):
        block_NF = np.asarray(x_NF[start : start + BLOCK_ROWS], np.float64)
        moment_FF += block_NF.T @ block_NF
    directions_FD: np.ndarray = np.linalg.eigh(moment_FF)[1][:, ::-1][:, :dim].astype(np.float32)
    return directions_FD
