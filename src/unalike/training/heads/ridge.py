"""A head by ridge regression: from the features of a trunk to vectors that are given, in closed form.

The strength of the penalty, and whether the signed square root of the features is taken, are chosen by the leave-one-out
predictions, which ridge regression has without a further fit (PRESS: D. M. Allen, 1974; G. Golub, M. Heath and G. Wahba,
1979): the residual of an image divided by one minus its leverage.
Shape letters: N images, J of them by which is chosen, F features, D dimensions of the vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unalike.numerics.normalization import l2_normalize
from unalike.training.heads.discriminant import FittedHead, sqrt_features

# Penalties that are tried, as multiples of the mean variance of a feature times the number of images.
PENALTIES = tuple(float(10.0**power) for power in np.arange(-4, 1.5, 0.5))
JUDGED_IMAGES = 1024  # leave-one-out predictions of at most so many images choose the penalty
BLOCK_IMAGES = 8192  # that are summed up at a time
MIN_PENALTY = 1e-12  # of features without variance


@dataclass(frozen=True)
class RidgeFit:
    """A head that was fitted.

    Attributes:
        head: the head.
        penalty: what is added to the diagonal of the features' scatter.
        cosine: mean cosine of the leave-one-out predictions and the vectors.
    """

    head: FittedHead
    penalty: float
    cosine: float


class _Regression:
    """Scatter of features and their products with vectors, both less their means; summed up block by block."""

    def __init__(self, features_NF: np.ndarray, vectors_ND: np.ndarray, *, sqrt: bool) -> None:
        self.features_NF, self.vectors_ND, self.sqrt, self.count = features_NF, vectors_ND, sqrt, len(features_NF)
        blocks = [slice(start, start + BLOCK_IMAGES) for start in range(0, self.count, BLOCK_IMAGES)]
        self.mean_F = sum(self._inputs(block).sum(axis=0) for block in blocks) / self.count
        self.mean_D = vectors_ND.mean(axis=0, dtype=np.float64)
        scatter_FF = np.zeros((features_NF.shape[1],) * 2)
        products_FD = np.zeros((features_NF.shape[1], vectors_ND.shape[1]))
        for block in blocks:
            x_NF = self._inputs(block) - self.mean_F
            scatter_FF += x_NF.T @ x_NF
            products_FD += x_NF.T @ (vectors_ND[block] - self.mean_D)
        values_F, self.axes_FF = np.linalg.eigh(scatter_FF)
        self.values_F, self.products_FD = np.maximum(values_F, 0), self.axes_FF.T @ products_FD

    def _inputs(self, rows: slice | np.ndarray) -> np.ndarray:
        x_NF = np.asarray(self.features_NF[rows], np.float64)
        return sqrt_features(x_NF) if self.sqrt else x_NF

    def penalty(self, multiple: float) -> float:
        return max(MIN_PENALTY, multiple * float(self.values_F.mean()))

    def left_out(self, penalties: Sequence[float], rows_J: np.ndarray) -> Iterator[np.ndarray]:
        """What the regression on all other images predicts for each of these (J, D), penalty by penalty."""
        along_JF = (self._inputs(rows_J) - self.mean_F) @ self.axes_FF
        y_JD = self.vectors_ND[rows_J] - self.mean_D
        for penalty in penalties:
            shrunk_F = 1 / (self.values_F + penalty)
            leverage_J = 1 / self.count + (along_JF**2) @ shrunk_F
            residual_JD = y_JD - along_JF @ (shrunk_F[:, None] * self.products_FD)
            yield self.vectors_ND[rows_J] - residual_JD / np.maximum(1 - leverage_J, 1e-9)[:, None]

    def head(self, penalty: float) -> FittedHead:
        matrix_FD = self.axes_FF @ (self.products_FD / (self.values_F + penalty)[:, None])
        return FittedHead(matrix_FD, self.mean_F @ matrix_FD - self.mean_D, self.sqrt)


def fit_ridge_head(features_NF: np.ndarray, vectors_ND: np.ndarray, *, seed: int = 0) -> RidgeFit:
    """Fit a head that maps features to vectors, compared by cosine.

    Args:
        features_NF: features of a trunk (N, F); at least two images.
        vectors_ND: the vector of each image (N, D).
        seed: of the draw of the images by which is chosen, where there are more than ``JUDGED_IMAGES``.
    """
    rows_J = np.arange(len(features_NF))
    if len(rows_J) > JUDGED_IMAGES:
        rows_J = np.sort(np.random.default_rng([seed, 43]).choice(rows_J, JUDGED_IMAGES, replace=False))
    unit_JD = l2_normalize(vectors_ND[rows_J])
    best: RidgeFit | None = None
    for sqrt in (False, True):
        regression = _Regression(features_NF, vectors_ND, sqrt=sqrt)
        penalties = [regression.penalty(multiple) for multiple in PENALTIES]
        cosines = [mean_cosine(left_out_JD, unit_JD) for left_out_JD in regression.left_out(penalties, rows_J)]
        place = int(np.argmax(cosines))
        if best is None or cosines[place] > best.cosine:
            best = RidgeFit(regression.head(penalties[place]), penalties[place], cosines[place])
    assert best is not None
    return best


def mean_cosine(vectors_ND: np.ndarray, unit_ND: np.ndarray) -> float:
    """Return the mean cosine of vectors, of any length, and unit vectors, row by row.

    Args:
        vectors_ND: vectors (N, D).
        unit_ND: vectors of length 1 (N, D).
    """
    return float(np.einsum("nd,nd->n", l2_normalize(vectors_ND), unit_ND).mean())
