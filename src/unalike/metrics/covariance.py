"""Covariance from few rows in many dimensions. Shape letters: N rows, F features."""

from __future__ import annotations

import numpy as np


def covariance_and_share(centred_NF: np.ndarray) -> tuple[np.ndarray, float]:
    """The covariance of centred rows, and the share of it that is better replaced by its mean variance in all directions.

    Source: O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004, lemma 3.2-3.4.
    """
    count, width = centred_NF.shape
    covariance_FF = centred_NF.T @ centred_NF / count
    scale = float(np.trace(covariance_FF)) / width
    if scale <= 0:
        return covariance_FF, 0.0
    squares_NF = centred_NF**2
    sum_of_squares = float((covariance_FF**2).sum())
    distance = sum_of_squares / width - scale**2
    noise = (float((squares_NF.sum(axis=1) ** 2).sum()) / count - sum_of_squares) / (width * count)
    share = min(noise, distance) / distance if distance > 0 else 1.0
    return covariance_FF, min(max(share, 0.0), 1.0)


def shrunk_covariance(centred_NF: np.ndarray) -> tuple[np.ndarray, float]:
    """The covariance of centred rows, drawn towards a multiple of the identity by Ledoit and Wolf's share (given too)."""
    covariance_FF, share = covariance_and_share(centred_NF)
    width = len(covariance_FF)
    return (1 - share) * covariance_FF + share * np.trace(covariance_FF) / width * np.eye(width), share
