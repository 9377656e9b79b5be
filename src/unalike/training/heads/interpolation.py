"""The last step of fine-tuning: trained and original weights are blended, and the head is fitted anew in one go.

Fine-tuning on few images bends a pretrained trunk further than new photographs bear. A point on the way back, some of the
trained weights and the rest as they came, keeps what was learnt and most of what was known (M. Wortsman et al., Robust
fine-tuning of zero-shot models, 2022). No head fits such a trunk until one is fitted: the closed form of
``learn.discriminant`` on the images' features. What both are worth stands in docs/experiments/training.md.
Shape letters: N images, F features, D dimensions of the vector.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.errors import DataError
from unalike.inference.embedding import Embeddings, embed_files
from unalike.inference.engine_selection import create_engine, move_to_gpu
from unalike.model.embedder import Embedder
from unalike.model.frozen import FrozenTrunk
from unalike.progress import say
from unalike.training.heads.discriminant import Discriminant
from unalike.training.heads.features import BothViews
from unalike.training.heads.trained import Form, fitted_head


def weights_now(trunk: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of the weights that learning starts from; what rests is part of it."""
    return {name: tensor.detach().cpu().clone() for name, tensor in trunk.state_dict().items()}


def blended(trunk: torch.nn.Module, began: Mapping[str, Tensor], share: float) -> torch.nn.Module:
    """A copy of the trunk on the CPU: ``share`` of the way from ``began`` to its present weights and buffers.

    Whole numbers (counters of batches) are taken as they are now.
    """
    mixed = copy.deepcopy(trunk).cpu()
    now = mixed.state_dict()
    mixed.load_state_dict(
        {name: torch.lerp(began[name], tensor, share) if tensor.is_floating_point() else tensor
         for name, tensor in now.items()}
    )  # fmt: skip
    return mixed


def with_fitted_head(trunk: Any, head: Discriminant) -> Embedder:
    """The network of a trunk and a head in closed form."""
    width, dim = head.matrix_FD.shape
    if trunk.width != width:
        raise ValueError(f"a head of {width} features for a trunk of {trunk.width}")
    embedder = Embedder(trunk, dim, head.kind)
    embedder.head.load_state_dict(head.state())
    return embedder


def with_head_of(network: Embedder, spec: Any) -> Any:
    """The spec of a network whose head another way of fitting made."""
    settled = spec.model_copy(deep=True)
    settled.model.feat_dim, settled.model.head = network.dim, network.head_kind
    return settled


def trunk_vectors(
    trunk: Any, images: ImageSet, preprocessing: Preprocessing, *, dataset: Any, notices: Notices,
    describe: str = "features of the trained trunk", mirrored: bool = False,
) -> Embeddings:  # fmt: skip
    """The trunk's features of the images, as vectors_NF; with ``mirrored`` those of the mirror images follow, kept_N twice.

    ``dataset``: workers and limits of unreadable images.
    """
    frozen = FrozenTrunk(copy.deepcopy(trunk))
    move_to_gpu(frozen, "auto")
    engine: Any = create_engine(frozen, preprocessing, images=(2 if mirrored else 1) * len(images))
    done = embed_files(
        BothViews(engine) if mirrored else engine, images.paths, preprocessing.view, workers=dataset.workers, notices=notices,
        max_unreadable=dataset.max_unreadable, max_pixels=dataset.max_pixels, describe=describe,
    )  # fmt: skip
    if not mirrored:
        return done
    both_NF = np.concatenate(np.split(done.vectors_ND, 2, axis=1))
    return replace(done, vectors_ND=both_NF, kept_N=np.tile(done.kept_N, 2))


def finished(trunk: Any, done: Embeddings, labels_N: np.ndarray, form: Form, dim: int | None) -> Embedder | None:
    """The trunk with a head fitted to its features ``done`` of images with these labels; None, said, where none can be.

    ``form`` and ``dim`` as in ``fitted_head``.
    """
    try:
        head = fitted_head(done.vectors_ND, labels_N[done.kept_N], form, dim)
    except DataError as error:
        say(f"the head stays as it was trained: {error}")
        return None
    return with_fitted_head(trunk, head)
