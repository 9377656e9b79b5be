"""Discriminant heads in closed form: within-class whitening to linear discriminant analysis.

Within-class scatter is the variation between images of one class (light, angle, shop); whitening by it leaves what
separates the classes. It is estimated from few images in many dimensions, hence shrunk (Ledoit and Wolf, 2004), and more
so where the head is used on classes that it was not estimated from. After whitening, the directions in which the known
classes differ have weight 1, all others the weight ``residual``: 0 is linear discriminant analysis (Fisher, 1936; Rao,
1948), best for the known classes; 1 is whitening alone, better for unseen classes. The result is one linear map. It may
follow a signed square root of the features, which reduces the influence of a few large ones.
Shape letters: N images, F features, C classes, D dimensions of the vector, K of them
that are kept, H hidden values of an MLP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from unalike.errors import DataError
from unalike.model.embedder import SQRT_EPS, hidden_width
from unalike.numerics.covariance import covariance_and_shrinkage, largest_directions
from unalike.numerics.normalization import l2_normalize


@dataclass(frozen=True)
class MLPResidual:
    """The MLP of the head ``mlp``: x + gelu(x @ down_FH + down_H) @ up_HF + up_F."""

    down_FH: np.ndarray
    down_H: np.ndarray
    up_HF: np.ndarray
    up_F: np.ndarray

    @classmethod
    def identity(cls, width: int) -> MLPResidual:
        """The MLP that returns its input, for features of ``width`` values."""
        hidden = hidden_width(width)
        return cls(*(np.zeros(shape, np.float32) for shape in ((width, hidden), hidden, (hidden, width), width)))

    def __call__(self, features_NF: np.ndarray) -> np.ndarray:
        hidden_NH = torch.from_numpy(np.ascontiguousarray(features_NF @ self.down_FH + self.down_H))
        output_NF: np.ndarray = features_NF + torch.nn.functional.gelu(hidden_NH).numpy() @ self.up_HF + self.up_F
        return output_NF


@dataclass(frozen=True)
class FittedHead:
    """A head as arrays: ``vectors_ND = x_NF @ matrix_FD - offset_D``.

    Attributes:
        matrix_FD: the linear map.
        offset_D: subtracted from its output.
        sqrt: whether ``x_NF`` is the signed square root of the features, or the features themselves.
        mlp: applied to ``x_NF`` before the linear map; only training fits one (``heads.trained``).
    """

    matrix_FD: np.ndarray
    offset_D: np.ndarray
    sqrt: bool
    mlp: MLPResidual | None = None

    def __call__(self, features_NF: np.ndarray) -> np.ndarray:
        """Map features (N, F) to vectors (N, D), float32."""
        features_NF = sqrt_features(features_NF) if self.sqrt else features_NF
        features_NF = self.mlp(features_NF) if self.mlp else features_NF
        vectors_ND: np.ndarray = (features_NF @ self.matrix_FD - self.offset_D).astype(np.float32)
        return vectors_ND

    def shorten(self, features_NF: np.ndarray, dim: int) -> FittedHead:
        """Keep the directions of the largest second moment of the vectors at unit length, which keep their cosines best.

        Beside the first class directions, 64 of them lose less on every set (docs/experiments/heads.md, 2026-12-01).

        Args:
            features_NF: the features that the head is fitted to (N, F).
            dim: number of dimensions D to keep; a head that has no more stays as it is.
        """
        if dim >= self.matrix_FD.shape[1]:
            return self
        axes_DK = largest_directions(l2_normalize(self(features_NF)), dim)
        return replace(self, matrix_FD=self.matrix_FD @ axes_DK, offset_D=self.offset_D @ axes_DK)

    @property
    def kind(self) -> Literal["linear", "rooted", "mlp"]:
        """The value of ``model.head`` for a network with this head."""
        if self.mlp is not None:
            return "mlp"
        return "rooted" if self.sqrt else "linear"

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights under the names that the head has in ``model.embedder``."""
        arrays: dict[str, np.ndarray] = {"linear.weight": self.matrix_FD.T, "linear.bias": -self.offset_D}
        if self.mlp is not None:
            arrays |= {"adaptor.down.weight": self.mlp.down_FH.T, "adaptor.down.bias": self.mlp.down_H,
                       "adaptor.up.weight": self.mlp.up_HF.T, "adaptor.up.bias": self.mlp.up_F}  # fmt: skip
        return {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in arrays.items()}


def identity_head(features_NF: np.ndarray, *, kind: str = "linear", dim: int | None = None) -> FittedHead:
    """Make the head of a frozen trunk that nothing is fitted to: its features, or a projection of them.

    Args:
        features_NF: features (N, F), by which the directions of a projection are chosen.
        kind: value of ``model.head``: ``linear``, ``rooted`` or ``mlp``; the latter two take the signed square root first.
        dim: number of dimensions D, those of the largest second moment, which keep scalar products best (None or F: all).
    """
    sqrt, width = kind != "linear", features_NF.shape[1]
    matrix_FD = np.eye(width, dtype=np.float32)
    if dim is not None and dim < width:
        matrix_FD = largest_directions(sqrt_features(features_NF) if sqrt else features_NF, dim)
    mlp = MLPResidual.identity(width) if kind == "mlp" else None
    return FittedHead(matrix_FD, -np.zeros(matrix_FD.shape[1], np.float32), sqrt, mlp)  # its bias is then 0, not -0


@dataclass(frozen=True)
class ClassScatter:
    """Within-class scatter in its own axes, and the class means; independent of shrinkage and residual.

    Attributes:
        mean_F: mean of all features.
        axes_FF: eigenvectors of the scatter, as orthonormal columns.
        values_F: its eigenvalues, the variance along each axis.
        share: Ledoit and Wolf's shrinkage, 0 to 1.
        means_CF: the class means along the axes, less the mean of these.
        sqrt: whether it describes the signed square root of the features.
    """

    mean_F: np.ndarray
    axes_FF: np.ndarray
    values_F: np.ndarray
    share: float
    means_CF: np.ndarray
    sqrt: bool

    def project(self, features_NF: np.ndarray) -> np.ndarray:
        """Center features and rotate them to the axes (N, F), float32."""
        features_NF = sqrt_features(features_NF) if self.sqrt else features_NF
        along_NF: np.ndarray = (features_NF - self.mean_F).astype(np.float32) @ self.axes_FF.astype(np.float32)
        return along_NF

    def whiten(self, shrinkage: float = 1.0) -> ClassWhitening:
        """Shrink the scatter towards a multiple of the identity and find the class directions after whitening by it.

        Args:
            shrinkage: multiple of ``share``; the product is at most 1.
        """
        share = min(1.0, shrinkage * self.share)
        values_F = (1 - share) * self.values_F + share * self.values_F.mean()
        values_F = np.maximum(values_F, values_F.max() * 1e-9)
        _, sizes, directions_CF = np.linalg.svd(self.means_CF / np.sqrt(values_F), full_matrices=False)
        count = int((sizes > sizes[0] * 1e-6).sum())
        return ClassWhitening(self, values_F, directions_CF[:count].T)


@dataclass(frozen=True)
class ClassWhitening:
    """The shrunk scatter and the directions in which classes differ after whitening; independent of the residual.

    Attributes:
        scatter: the scatter before shrinkage.
        values_F: variance along each of its axes after shrinkage.
        directions_FC: orthonormal columns in whitened space, by falling distance between the class means.
    """

    scatter: ClassScatter
    values_F: np.ndarray
    directions_FC: np.ndarray

    def head(self, residual: float) -> FittedHead:
        """Make the linear map for one weight of the residual directions: the class directions first, then the others.

        Args:
            residual: weight, 0 to 1, of the directions in which the classes do not differ; with 0 they are left out.
        """
        basis_FD, scatter = self.directions_FC, self.scatter
        if residual > 0:
            complete_FF = np.linalg.qr(np.hstack([basis_FD, np.eye(len(self.values_F))]))[0]
            basis_FD = np.hstack([basis_FD, residual * complete_FF[:, basis_FD.shape[1] :]])
        matrix_FD = (scatter.axes_FF / np.sqrt(self.values_F)) @ basis_FD
        return FittedHead(matrix_FD, scatter.mean_F @ matrix_FD, scatter.sqrt)

    def equivalent_vectors(self, features_NF: np.ndarray, residual: float) -> np.ndarray:
        """Map features to vectors with the scalar products of those of ``head(residual)``, in another basis.

        No basis of the residual directions is needed, which makes it much faster. For whitened features w and their
        projections c they are [sqrt(1 - r * r) c, r w].

        Args:
            features_NF: features (N, F).
            residual: weight, 0 to 1, of the directions in which the classes do not differ.
        """
        white_NF, class_NC = self.components(self.scatter.project(features_NF))
        weight = np.float32(np.sqrt(max(0.0, 1 - residual * residual)))
        return np.hstack([weight * class_NC, np.float32(residual) * white_NF]) if residual else class_NC

    def components(self, along_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whiten features and project them on the class directions.

        For whitened features w and their projections c, the vectors of ``head(r)`` have the scalar products
        c @ c.T + r * r * (w @ w.T - c @ c.T): many residuals can be evaluated with one whitening.

        Args:
            along_NF: the output of ``ClassScatter.project``.

        Returns:
            Whitened features (N, F) and their coordinates along the class directions (N, C).
        """
        white_NF = along_NF / np.sqrt(self.values_F).astype(np.float32)
        return white_NF, white_NF @ self.directions_FC.astype(np.float32)


def sqrt_features(features_NF: np.ndarray) -> np.ndarray:
    """Signed square root of each feature, as the head ``rooted`` of ``model.embedder`` computes it."""
    root_NF: np.ndarray = features_NF / np.sqrt(np.abs(features_NF) + SQRT_EPS)
    return root_NF


def fit_scatter(
    features_NF: np.ndarray, labels_N: np.ndarray, *, sqrt: bool, weights_N: np.ndarray | None = None
) -> ClassScatter:
    """Estimate the within-class scatter of labeled features.

    Args:
        features_NF: features (N, F).
        labels_N: an integer label per image.
        sqrt: whether to take the signed square root of the features first.
        weights_N: positive weight of each image in means and scatter (None: all count alike).

    Raises:
        DataError: no class has two images, or the images of every class have equal features.
    """
    x_NF = np.asarray(features_NF, np.float64)
    x_NF = sqrt_features(x_NF) if sqrt else x_NF
    classes, code_N = np.unique(labels_N, return_inverse=True)
    counts_C = np.bincount(code_N)
    if len(classes) < 2 or counts_C.max() < 2:
        raise DataError(f"{len(classes)} classes, the largest of {counts_C.max()} images", expected="two classes, one of "
                        "them with two images")  # fmt: skip
    several_N = counts_C[code_N] > 1  # a class of one image has no scatter
    if weights_N is None:
        mean_F, means_CF = x_NF.mean(axis=0), np.stack([x_NF[code_N == c].mean(axis=0) for c in range(len(classes))])
        within_NF = (x_NF - means_CF[code_N])[several_N]
    else:
        mean_F = np.average(x_NF, axis=0, weights=weights_N)
        means_CF = np.stack(
            [np.average(x_NF[code_N == c], axis=0, weights=weights_N[code_N == c]) for c in range(len(classes))]
        )
        root_N = np.sqrt(weights_N / weights_N[several_N].mean())
        within_NF = ((x_NF - means_CF[code_N]) * root_N[:, None])[several_N]
    covariance_FF, share = covariance_and_shrinkage(within_NF)
    values_F, axes_FF = np.linalg.eigh(covariance_FF)
    if not values_F[-1] > 0:
        raise DataError("the images of every class have equal features", expected="images that differ")
    centered_CF = (means_CF - means_CF.mean(axis=0)) @ axes_FF
    return ClassScatter(mean_F, axes_FF, np.maximum(values_F, 0), share, centered_CF, sqrt)


def fit_whitening(
    features_NF: np.ndarray, labels_N: np.ndarray, *, sqrt: bool, shrinkage: float = 1.0,
    weights_N: np.ndarray | None = None,
) -> ClassWhitening:  # fmt: skip
    """Fit the scatter and whiten by it: ``fit_scatter`` followed by ``ClassScatter.whiten``.

    Args:
        features_NF: features (N, F).
        labels_N: an integer label per image.
        sqrt: whether to take the signed square root of the features first.
        shrinkage: multiple of Ledoit and Wolf's shrinkage.
        weights_N: positive weight of each image (None: all count alike).

    Raises:
        DataError: no class has two images, or the images of every class have equal features.
    """
    return fit_scatter(features_NF, labels_N, sqrt=sqrt, weights_N=weights_N).whiten(shrinkage)
