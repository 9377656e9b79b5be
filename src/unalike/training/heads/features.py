"""Compute the features of a frozen trunk; they are cached on disk by file content.

Shape letters: N images, F features, B batch, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.inference.engine_selection import create_engine, move_to_gpu
from unalike.model.backbones import PretrainedConfig
from unalike.model.frozen_trunk import FrozenTrunk, build_starting_trunk
from unalike.training.heads.cached_vectors import VectorLimit, compute_vectors

if TYPE_CHECKING:
    from unalike.spec import Experiment

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TrunkFeatures:
    """Pooled features of a trunk for a set of images.

    Attributes:
        backbone: the trunk's name.
        view: the evaluation view of the images.
        facts: source and license of the trunk; mean and std by which its images are normalized.
        vectors_NF: float32 features, one row per readable image.
        kept_N: the index of each row's image in the image set.
        rate: images per second of the engine, measured now or when the cached rows were computed.
        mirrored_NF: features of a second view of each image, or None: mirrored left to right, or augmented.
        tried: number of images that were to be embedded, unreadable ones included; None for all.
        setup_seconds: time that it took to create the engine; 0 where all features were cached.
    """

    backbone: str
    view: View
    facts: PretrainedConfig
    vectors_NF: np.ndarray
    kept_N: np.ndarray
    rate: float
    mirrored_NF: np.ndarray | None = None
    tried: int | None = None
    setup_seconds: float = 0.0

    @property
    def preprocessing(self) -> Preprocessing:
        """What lies between the image files and the trunk."""
        return Preprocessing(self.view, self.facts.mean, self.facts.std)

    @property
    def views(self) -> int:
        """Views of each image among ``training_rows``."""
        return 1 if self.mirrored_NF is None else 2

    def training_rows(self, rows: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features and labels to fit a head to.

        Args:
            rows: the images to fit to.
            labels_N: an integer label per row of ``vectors_NF``.

        Returns:
            Features and labels of ``rows``, followed by those of the mirror images where there are any.
        """
        if self.mirrored_NF is None:
            return self.vectors_NF[rows], labels_N[rows]
        return np.concatenate([self.vectors_NF[rows], self.mirrored_NF[rows]]), np.tile(labels_N[rows], 2)


class MirroringEngine:
    """An engine that embeds each image and its mirror image: vectors of twice the width, the image's own first."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.dim = engine, 2 * engine.dim

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        mirrored_BHWC = np.ascontiguousarray(images_BHWC[:, :, ::-1])
        return np.concatenate([self.engine(images_BHWC), self.engine(mirrored_BHWC)], axis=1)


def compute_features(
    backbone: str, images: ImageSet, view: View, notices: Notices, spec: Experiment, *, mirrored: bool = False,
    trunk: FrozenTrunk | None = None, limit: VectorLimit | None = None, order_N: np.ndarray | None = None,
    expected_images: int | None = None,
) -> TrunkFeatures:  # fmt: skip
    """Compute the features of every readable image, or read them from the cache.

    Args:
        backbone: the trunk's name.
        images: the images.
        view: how the images are resized and cropped.
        notices: collects unreadable images.
        spec: ``spec.dataset`` holds the number of workers and the limits on unreadable images.
        mirrored: whether to compute the features of the mirror images too.
        trunk: the network, where it is not the one that training starts from.
        limit: says when to stop, so that only the first images of ``order_N`` have features.
        order_N: all rows of the images, in the order in which they are embedded; by default their own.
        expected_images: how many images will be embedded with this trunk in all, where these are but some of them; the engine is
            chosen by it.

    Raises:
        WeightsError: the trunk has no pretrained weights.
        DataError: too many files cannot be read.
    """
    network = trunk or build_starting_trunk(spec, backbone, (view.height, view.width))
    facts = normalization_facts(spec, network.trunk.facts)

    def create(count: int) -> Engine:
        move_to_gpu(network, "auto")
        engine = create_engine(network, Preprocessing(view, facts.mean, facts.std), images=count)
        return cast(Engine, MirroringEngine(engine)) if mirrored else engine

    vectors = compute_vectors(
        _cache_key(network, view, facts, mirrored), create, images, view, notices, spec.dataset,
        describe=f"features of {backbone}", dim=network.dim * (2 if mirrored else 1), views=2 if mirrored else 1, limit=limit,
        order_N=order_N, expected_images=expected_images,
    )  # fmt: skip
    vectors_NF = vectors.vectors_ND[:, : network.dim]
    mirrored_NF = vectors.vectors_ND[:, network.dim :] if mirrored else None
    return TrunkFeatures(
        backbone,
        view,
        facts,
        vectors_NF,
        vectors.kept_N,
        vectors.rate,
        mirrored_NF,
        vectors.tried,
        vectors.setup_seconds,
    )


def normalization_facts(spec: Experiment, facts: PretrainedConfig) -> PretrainedConfig:
    """Return a trunk's facts with the mean and std that its network will use: the user's own where the spec sets them.

    Args:
        spec: the spec.
        facts: mean and std of the trunk's pretraining.
    """
    dataset = spec.dataset
    mean = tuple(dataset.pixel_mean) if spec.is_set("dataset.pixel_mean") else facts.mean
    std = tuple(dataset.pixel_std) if spec.is_set("dataset.pixel_std") else facts.std
    return replace(facts, mean=mean, std=std)


def _cache_key(trunk: FrozenTrunk, view: View, facts: PretrainedConfig, mirrored: bool) -> str:
    """Name the cache file by everything that determines a row: weights, view, normalization, mirrored or not."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trunk.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(repr((sorted(view.to_dict().items()), facts.mean, facts.std, mirrored, FORMAT_VERSION)).encode())
    return f"{trunk.trunk.name.replace('/', '_')}-{digest.hexdigest()}"
