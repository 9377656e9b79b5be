"""Start fine-tuning from a head fitted to frozen features, with proxies at the class means.

A head that fits the frozen trunk keeps the first gradients from distorting good features (A. Kumar et al., Fine-Tuning can
Distort Pretrained Features and Underperform Out-of-Distribution, 2022: first the head, then the network).
Shape letters: N images, F features, D dimensions of the vector, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.errors import SpecError
from unalike.model.embedder import Embedder, build_embedder
from unalike.model.frozen_trunk import FrozenTrunk
from unalike.numerics.normalization import l2_normalize
from unalike.spec import settle
from unalike.training.heads.config import HeadConfig, requested_dim, too_many_dimensions
from unalike.training.heads.discriminant import FittedHead
from unalike.training.heads.features import compute_features
from unalike.training.heads.trained import fit_head
from unalike.training.losses import initialize_proxies

if TYPE_CHECKING:
    from unalike.spec import Experiment


def refuse_head(spec: Experiment) -> None:
    """Raise SpecError for a head that no closed form fits."""
    if spec.model.head == "residual":
        raise SpecError("model.head is residual, which no closed form fits", expected="linear, rooted or mlp",
                        remedy="leave model.head out")  # fmt: skip


def fit_initial_head(spec: Experiment, images: ImageSet, notices: Notices) -> tuple[FittedHead, np.ndarray, np.ndarray]:
    """Fit the head that ``train.finish`` describes to the features of the spec's trunk.

    Args:
        spec: settles ``model.head`` where it is ``auto``, and ``model.feat_dim`` where the user did not set it.
        images: training images.
        notices: collects unreadable images.

    Returns:
        The head, the features (N, F) that it was fitted to, and their labels (N).

    Raises:
        DataError: no head can be fitted to these images.
        SpecError: ``model.head`` has no closed form, or ``model.feat_dim`` is larger than the head allows.
    """
    finish, model = spec.train.finish, spec.model
    refuse_head(spec)
    if model.head == "auto":
        settle(spec, "model.head", "rooted", "a head that is fitted in closed form")
        spec.set_value("model.head", "rooted")  # `settle` keeps an `auto` that the user wrote
    trunk = FrozenTrunk(build_embedder(spec).trunk)
    features = compute_features(
        model.backbone, images, View.from_spec(spec), notices, spec, mirrored=finish.mirrored, trunk=trunk
    )
    x_NF, labels_N = features.training_rows(np.arange(len(features.kept_N)), images.labels_N[features.kept_N])
    dim = requested_dim(spec)
    head = fit_head(x_NF, labels_N, HeadConfig.from_spec(spec), dim, views=features.views)
    width = head.matrix_FD.shape[1]
    if dim is not None and width != dim:
        raise too_many_dimensions(dim, width, finish.residual)
    settle(spec, "model.feat_dim", width, "as many directions as the fitted head has")
    return head, x_NF, labels_N


def start_from_head(
    head: FittedHead, features_NF: np.ndarray, labels_N: np.ndarray, classes: int | None = None
) -> Callable[[Embedder, nn.Module], None]:
    """Make the function that ``train_embedder`` calls with network and criterion before the first step.

    It loads the fitted head, at the scale of a newly initialized one, and puts the loss's proxies, where it has any, at the
    class means of the head's vectors.

    Args:
        head: the fitted head.
        features_NF: frozen features (N, F).
        labels_N: their labels, 0 to C - 1.
        classes: number of classes C, where features of some are missing: their proxies start at random.
    """
    vectors_ND = l2_normalize(head(features_NF))
    present = np.unique(labels_N)
    means_CD = l2_normalize(np.stack([vectors_ND[labels_N == label].mean(axis=0) for label in present]))
    if classes is not None and len(present) < classes:
        random_CD = np.random.default_rng(0).normal(size=(classes, means_CD.shape[1])).astype(means_CD.dtype)
        random_CD[present] = means_CD
        means_CD = l2_normalize(random_CD)

    def initialize(embedder: Embedder, criterion: nn.Module) -> None:
        load_scaled_head(embedder, head)
        initialize_proxies(criterion, means_CD)

    return initialize


def load_scaled_head(embedder: Embedder, head: FittedHead) -> None:
    """Load a fitted head at the scale of the present, newly initialized one: rates of learning are made for that.

    Args:
        embedder: the network; its head is changed.
        head: the fitted head; its vectors keep their directions.
    """
    initial_weight = embedder.head.get_parameter("linear.weight")
    scale = float(np.sqrt((initial_weight**2).mean().item()) / np.sqrt((head.matrix_FD**2).mean()))
    scaled = replace(head, matrix_FD=head.matrix_FD * scale, offset_D=head.offset_D * scale)
    embedder.head.load_state_dict(scaled.state_dict(), strict=embedder.head_kind == head.kind)
