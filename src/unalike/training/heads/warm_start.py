"""Fine-tuning begins where the frozen features end: with the fitted head, and with the loss's proxies at its classes.

A head that is right for the frozen trunk keeps the first gradients from pulling good features apart (A. Kumar et al.,
Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, 2022: first the head, then the network).
Shape letters: N images, F features, D dimensions of the vector, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.errors import SpecError
from unalike.metrics.knn import unit
from unalike.model.embedder import build_embedder
from unalike.model.frozen import FrozenTrunk
from unalike.spec import settle
from unalike.training.heads.discriminant import Discriminant
from unalike.training.heads.features import trunk_features
from unalike.training.heads.trained import Form, fitted_head
from unalike.training.losses import initialize_proxies


def head_of_frozen(spec: Any, images: ImageSet, notices: Notices) -> tuple[Discriminant, np.ndarray, np.ndarray]:
    """The head that ``train.finish`` describes, fitted to the trunk as the spec has it, with the features and their labels.

    It is as wide as ``model.feat_dim`` where that was set, which is settled otherwise, as ``model.head`` is. Raises
    DataError where no head can be fitted, SpecError where none is so wide.
    """
    finish, model = spec.train.finish, spec.model
    if model.head == "residual":
        raise SpecError("model.head is residual, which no closed form fits", expected="linear, rooted or mlp",
                        remedy="leave model.head out")  # fmt: skip
    if model.head == "auto":
        settle(spec, "model.head", "rooted", "a head that is fitted in closed form")
        model.head = "rooted"  # where auto was written out, too
    trunk = FrozenTrunk(build_embedder(spec).trunk)
    features = trunk_features(
        model.backbone, images, View.from_spec(spec), notices, spec, mirrored=finish.mirrored, trunk=trunk
    )
    x_NF, labels_N = features.both(np.arange(len(features.kept_N)), images.labels_N[features.kept_N])
    dim = model.feat_dim if spec.is_set("model.feat_dim") else None
    head = fitted_head(x_NF, labels_N, Form.of(spec), dim)
    width = head.matrix_FD.shape[1]
    if dim is not None and width != dim:
        raise SpecError(f"model.feat_dim is {dim}", expected=f"at most {width}: there are so many directions with "
                        f"train.finish.residual {finish.residual:g}", remedy="leave model.feat_dim out, or raise the residual")  # fmt: skip
    settle(spec, "model.feat_dim", width, "as many directions as the fitted head has")
    return head, x_NF, labels_N


def fitted_start(head: Discriminant, features_NF: np.ndarray, labels_N: np.ndarray) -> Callable[[Any, nn.Module], None]:
    """What ``train_embedder`` calls before the first step: the network's Linear is the fitted head, at the scale of a fresh
    one, and the loss's proxies, where it has any, are the means of the classes' vectors."""
    vectors_ND = unit(head(features_NF))
    means_CD = unit(np.stack([vectors_ND[labels_N == label].mean(axis=0) for label in np.unique(labels_N)]))

    def begin(embedder: Any, criterion: nn.Module) -> None:
        fresh = embedder.head.linear.weight
        scale = float(np.sqrt((fresh**2).mean().item()) / np.sqrt((head.matrix_FD**2).mean()))
        scaled = replace(head, matrix_FD=head.matrix_FD * scale, offset_D=head.offset_D * scale)
        embedder.head.load_state_dict(scaled.state(), strict=embedder.head_kind == head.kind)
        initialize_proxies(criterion, means_CD)

    return begin
