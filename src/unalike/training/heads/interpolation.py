"""Interpolate fine-tuned and pretrained weights (WiSE-FT), then fit the head anew.

Fine-tuning on few images moves a pretrained trunk further than new photographs tolerate. Weights between the pretrained and
the fine-tuned ones keep what was learned and most of what was known before (WiSE-FT: M. Wortsman et al., Robust fine-tuning
of zero-shot models, 2022). No existing head fits such a trunk, so one is fitted to its features in closed form
(``heads.discriminant``). Measurements of both are in docs/experiments/training.md.
Shape letters: N images, F features, D dimensions of the vector.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.errors import DataError
from unalike.inference.embedding import Embeddings, embed_files
from unalike.inference.engine_selection import create_engine, move_to_gpu
from unalike.model.backbones import Trunk
from unalike.model.embedder import Embedder
from unalike.model.frozen_trunk import FrozenTrunk
from unalike.progress import say
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import FittedHead
from unalike.training.heads.features import MirroringEngine
from unalike.training.heads.trained import fit_head

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.dataset import Dataset


def copy_weights(trunk: torch.nn.Module) -> dict[str, Tensor]:
    """Copy all weights and buffers of a trunk to the CPU, frozen ones too."""
    return {name: tensor.detach().cpu().clone() for name, tensor in trunk.state_dict().items()}


def interpolate_weights(trunk: Trunk, initial: Mapping[str, Tensor], trained_share: float) -> Trunk:
    """Return a copy of the trunk, on the CPU, with weights between the initial and its present ones.

    Args:
        trunk: the trained trunk; it stays as it is.
        initial: its weights and buffers before training.
        trained_share: 0 gives the initial weights, 1 the trained ones. Integers (batch counters) stay as they are.
    """
    result = copy.deepcopy(trunk).cpu()
    trained = result.state_dict()
    result.load_state_dict(
        {name: torch.lerp(initial[name], tensor, trained_share) if tensor.is_floating_point() else tensor
         for name, tensor in trained.items()}
    )  # fmt: skip
    return result


def attach_head(trunk: Trunk, head: FittedHead) -> Embedder:
    """Build the network of a trunk and a fitted head.

    Args:
        trunk: the trunk; it is not copied.
        head: a head for features of the trunk's width.

    Raises:
        ValueError: the head is for features of another width.
    """
    width, dim = head.matrix_FD.shape
    if trunk.width != width:
        raise ValueError(f"a head of {width} features for a trunk of {trunk.width}")
    embedder = Embedder(trunk, dim, head.kind)
    embedder.head.load_state_dict(head.state_dict())
    return embedder


def spec_with_head(spec: Experiment, network: Embedder) -> Experiment:
    """Copy a spec, with ``model.feat_dim`` and ``model.head`` of the network.

    Args:
        spec: the spec.
        network: the network.
    """
    return spec.with_values({"model.feat_dim": network.dim, "model.head": network.head_kind})


def embed_with_trunk(
    trunk: Trunk, images: ImageSet, preprocessing: Preprocessing, *, dataset: Dataset, notices: Notices,
    describe: str = "features of the trained trunk", mirrored: bool = False,
) -> Embeddings:  # fmt: skip
    """Compute a trained trunk's features, without the cache.

    Args:
        trunk: the trunk; it is copied.
        images: the images.
        preprocessing: the trunk's evaluation view, mean and std.
        dataset: number of workers and limits on unreadable images.
        notices: collects unreadable images.
        describe: label of the progress bar.
        mirrored: whether the features of the mirror images follow, as further rows with ``kept_N`` repeated.
    """
    frozen = FrozenTrunk(copy.deepcopy(trunk))
    move_to_gpu(frozen, "auto")
    engine = create_engine(frozen, preprocessing, images=(2 if mirrored else 1) * len(images))
    embedded = embed_files(
        MirroringEngine(engine) if mirrored else engine, images.paths, preprocessing.view, workers=dataset.workers, notices=notices,
        max_unreadable=dataset.max_unreadable, max_pixels=dataset.max_pixels, describe=describe,
    )  # fmt: skip
    if not mirrored:
        return embedded
    both_NF = np.concatenate(np.split(embedded.vectors_ND, 2, axis=1))
    return replace(embedded, vectors_ND=both_NF, kept_N=np.tile(embedded.kept_N, 2))


def refit_head(
    trunk: Trunk, features: Embeddings, labels_N: np.ndarray, config: HeadConfig, dim: int | None
) -> Embedder | None:
    """Fit a head to the trunk's features and attach it; print why and return None where that fails.

    Args:
        trunk: the trunk.
        features: its features of some of the images.
        labels_N: the labels of all images, indexed by ``features.kept_N``.
        config: which head.
        dim: largest number of dimensions of its vectors (None: no limit).
    """
    views = len(features.kept_N) // max(1, len(np.unique(features.kept_N)))
    try:
        head = fit_head(features.vectors_ND, labels_N[features.kept_N], config, dim, views=views)
    except DataError as error:
        say(f"the head stays as it was trained: {error}")
        return None
    return attach_head(trunk, head)
