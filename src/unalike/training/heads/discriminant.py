"""A head from features alone, in seconds and without a training step: whitened within classes, classes drawn apart.

Within-class scatter is what makes images of one class differ (light, angle, shop); dividing by it leaves what tells
classes apart. It is estimated from few images in many dimensions, hence shrunk (Ledoit and Wolf, 2004), more so where it
is to serve classes that it was not estimated from. After whitening, the
directions in which the known classes differ count fully, all others with the weight ``residual``: 0 is linear
discriminant analysis (Fisher, 1936; Rao, 1948), best for the known classes, 1 whitening alone, kinder to classes never
seen. The whole is one linear map on features that may have had their square root taken (signed), which evens out a few
loud ones. Shape letters: N images, F features, C classes, D dimensions of the vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from unalike.errors import DataError
from unalike.metrics.covariance import covariance_and_share
from unalike.model.embedder import SQRT_EPS


@dataclass(frozen=True)
class Bend:
    """The perceptron of the head ``mlp``: x + gelu(x @ down_FH + down_H) @ up_HF + up_F."""

    down_FH: np.ndarray
    down_H: np.ndarray
    up_HF: np.ndarray
    up_F: np.ndarray

    def __call__(self, features_NF: np.ndarray) -> np.ndarray:
        hidden_NH = torch.from_numpy(np.ascontiguousarray(features_NF @ self.down_FH + self.down_H))
        return features_NF + torch.nn.functional.gelu(hidden_NH).numpy() @ self.up_HF + self.up_F


@dataclass(frozen=True)
class Discriminant:
    """vectors_ND = rooted(features_NF) @ matrix_FD - offset_D; ``rooted`` says whether the square root is taken.

    ``bend``, which only a training fits (``learn.trained_heads``), comes between the two.
    """

    matrix_FD: np.ndarray
    offset_D: np.ndarray
    rooted: bool
    bend: Bend | None = None

    def __call__(self, features_NF: np.ndarray) -> np.ndarray:
        features_NF = rooted(features_NF) if self.rooted else features_NF
        features_NF = self.bend(features_NF) if self.bend else features_NF
        return (features_NF @ self.matrix_FD - self.offset_D).astype(np.float32)

    @property
    def kind(self) -> str:
        """The name of such a head in ``model.head``."""
        if self.bend is not None:
            return "mlp"
        return "rooted" if self.rooted else "linear"

    def state(self) -> dict[str, torch.Tensor]:
        """The weights of such a head in a network, by name."""
        parts: dict[str, np.ndarray] = {"linear.weight": self.matrix_FD.T, "linear.bias": -self.offset_D}
        if self.bend is not None:
            parts |= {"adaptor.down.weight": self.bend.down_FH.T, "adaptor.down.bias": self.bend.down_H,
                      "adaptor.up.weight": self.bend.up_HF.T, "adaptor.up.bias": self.bend.up_F}  # fmt: skip
        return {name: torch.from_numpy(np.ascontiguousarray(part, np.float32)) for name, part in parts.items()}


@dataclass(frozen=True)
class Scatter:
    """What is computed once for all shrinkages: the scatter within the classes along its own axes, and the class means."""

    mean_F: np.ndarray
    axes_FF: np.ndarray  # orthonormal columns
    values_F: np.ndarray  # variance along each
    share: float  # Ledoit and Wolf's
    apart_CF: np.ndarray  # the classes' means less the mean of these, along the axes
    rooted: bool

    def along(self, features_NF: np.ndarray) -> np.ndarray:
        """Features less their mean, along the axes (N, F), in float32."""
        features_NF = rooted(features_NF) if self.rooted else features_NF
        along_NF: np.ndarray = (features_NF - self.mean_F).astype(np.float32) @ self.axes_FF.astype(np.float32)
        return along_NF

    def whitening(self, shrinkage: float = 1.0) -> Whitening:
        """With ``shrinkage`` times Ledoit and Wolf's share, at most all, of the scatter made the same in all directions."""
        share = min(1.0, shrinkage * self.share)
        values_F = (1 - share) * self.values_F + share * self.values_F.mean()
        values_F = np.maximum(values_F, values_F.max() * 1e-9)
        _, sizes, directions_CF = np.linalg.svd(self.apart_CF / np.sqrt(values_F), full_matrices=False)
        count = int((sizes > sizes[0] * 1e-6).sum())
        return Whitening(self, values_F, directions_CF[:count].T)


@dataclass(frozen=True)
class Whitening:
    """What is computed once for all weights of the residual: the shrunk scatter, and the classes' own directions."""

    scatter: Scatter
    values_F: np.ndarray  # variance along each axis, shrunk
    directions_FC: np.ndarray  # orthonormal columns, of whitened features; the largest differences between means first

    def head(self, residual: float, dim: int | None = None) -> Discriminant:
        """The linear map for one weight of the residual, cut to ``dim`` dimensions (None: as many as there are).

        The cut keeps the class directions first; the residual's dimensions follow in the order of what the whitening
        leaves of them, largest first.
        """
        directions_FC, scatter = self.directions_FC, self.scatter
        width = len(scatter.mean_F)
        if residual == 0 or (dim is not None and dim <= directions_FC.shape[1]):
            basis_FD = directions_FC[:, :dim]
        else:
            rest_FR = np.linalg.qr(np.hstack([directions_FC, np.eye(width)]))[0][:, directions_FC.shape[1] :]
            _, order = np.linalg.eigh((rest_FR.T * self.values_F) @ rest_FR)
            rest_FR = rest_FR @ order[:, ::-1]
            keep = None if dim is None else dim - directions_FC.shape[1]
            basis_FD = np.hstack([directions_FC, residual * rest_FR[:, :keep]])
        matrix_FD = (scatter.axes_FF / np.sqrt(self.values_F)) @ basis_FD
        return Discriminant(matrix_FD, scatter.mean_F @ matrix_FD, scatter.rooted)

    def parts(self, along_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of features along the scatter's axes: whitened (N, F), and their coordinates along the class directions (N, C).

        The vectors of ``head(r)`` have the scalar products of the second, and r * r times those of the first less the
        second's: many weights can be tried for one whitening.
        """
        whole_NF = along_NF / np.sqrt(self.values_F).astype(np.float32)
        return whole_NF, whole_NF @ self.directions_FC.astype(np.float32)


def rooted(features_NF: np.ndarray) -> np.ndarray:
    """Signed square root, as ``model.embedder.SquareRootHead`` takes it."""
    return features_NF / np.sqrt(np.abs(features_NF) + SQRT_EPS)


def scatter(features_NF: np.ndarray, labels_N: np.ndarray, *, root: bool) -> Scatter:
    """Fit on labelled features. Raises DataError when no class has two images, or all images are alike."""
    x_NF = np.asarray(features_NF, np.float64)
    x_NF = rooted(x_NF) if root else x_NF
    classes, code_N = np.unique(labels_N, return_inverse=True)
    counts_C = np.bincount(code_N)
    if len(classes) < 2 or counts_C.max() < 2:
        raise DataError(f"{len(classes)} classes, the largest of {counts_C.max()} images", expected="two classes, one of "
                        "them with two images")  # fmt: skip
    means_CF = np.stack([x_NF[code_N == c].mean(axis=0) for c in range(len(classes))])
    within_NF = (x_NF - means_CF[code_N])[counts_C[code_N] > 1]  # a class of one says nothing about scatter
    covariance_FF, share = covariance_and_share(within_NF)
    values_F, axes_FF = np.linalg.eigh(covariance_FF)
    if not values_F[-1] > 0:
        raise DataError("the features of every class are all alike", expected="images that differ")
    apart_CF = (means_CF - means_CF.mean(axis=0)) @ axes_FF
    return Scatter(x_NF.mean(axis=0), axes_FF, np.maximum(values_F, 0), share, apart_CF, root)


def whitening(features_NF: np.ndarray, labels_N: np.ndarray, *, root: bool, shrinkage: float = 1.0) -> Whitening:
    """``scatter`` and its ``Scatter.whitening`` in one."""
    return scatter(features_NF, labels_N, root=root).whitening(shrinkage)
