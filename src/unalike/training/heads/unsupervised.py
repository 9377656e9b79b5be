"""A head fitted without labels: the neighbor whitening of discovery as the head of an embedder.

Shape letters: N images, F features, D dimensions of the vector.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from unalike.discovery.neighbor_whitening import NeighborWhitening
from unalike.training.heads.discriminant import FittedHead, MLPResidual, identity_head, sqrt_features


def fit_neighbor_whitening(features_NF: np.ndarray, *, sqrt: bool, seed: int, dim: int | None = None) -> FittedHead:
    """Fit whitening by neighbors as a head.

    Args:
        features_NF: frozen features (N, F).
        sqrt: whether to take the signed square root of the features first.
        seed: seed of the sample of neighbor pairs.
        dim: number of dimensions to keep, those of the largest variance after whitening (None: all).
    """
    x_NF = sqrt_features(features_NF) if sqrt else features_NF
    whitening = NeighborWhitening.fit(x_NF, seed=seed)
    matrix_FD, offset_D = whitening.matrix_FD, whitening.offset_D
    if dim is not None and dim < matrix_FD.shape[1]:
        white_NF = whitening.transform(x_NF).astype(np.float64)
        _, axes_FF = np.linalg.eigh(white_NF.T @ white_NF)
        axes_FD = axes_FF[:, ::-1][:, :dim].astype(np.float32)
        matrix_FD, offset_D = matrix_FD @ axes_FD, offset_D @ axes_FD
    return FittedHead(matrix_FD, offset_D, sqrt)


def fit_unlabeled_head(
    features_NF: np.ndarray, sqrt: bool | None, *, seed: int, dim: int | None, kind: str
) -> FittedHead:
    """Fit the head of a candidate of training without labels.

    Args:
        features_NF: frozen features (N, F).
        sqrt: whether whitening by neighbors follows the signed square root; None for no whitening (``identity_head``).
        seed: seed of the sample of neighbor pairs.
        dim: number of dimensions to keep (None: all).
        kind: value of ``model.head``; with ``mlp``, the MLP is the identity.
    """
    if sqrt is None:
        return identity_head(features_NF, kind=kind, dim=dim)
    head = fit_neighbor_whitening(features_NF, sqrt=sqrt, seed=seed, dim=dim)
    return replace(head, mlp=MLPResidual.identity(features_NF.shape[1])) if kind == "mlp" else head
