"""The interface of every engine: uint8 images in, float32 embeddings or feature maps out.

Shape letters: B images, H height, W width, C channels, D width of an embedding, h, w height and width of a feature map.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from unalike.engines.metadata import MapFacts
from unalike.errors import DataError, ModelError


@runtime_checkable
class Engine(Protocol):
    """Runs one network on any number of images a call; results do not depend on how images are grouped into calls."""

    @property
    def name(self) -> str:
        """``torch``, ``onnxruntime``, ``openvino`` or ``tensorrt``."""
        ...

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16``, ``fp16`` or ``int8``: what most layers compute in; embeddings are float32 always."""
        ...

    @property
    def dim(self) -> int:
        """Width of an embedding; 0 for a network that gives feature maps alone."""
        ...

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of its images, in pixels."""
        ...

    @property
    def batch(self) -> int:
        """Number of images a call that suits it best."""
        ...

    def describe(self) -> dict[str, Any]:
        """Runtime, version, precision, device and threads as plain data, for a run's record."""
        ...

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Compute embeddings.

        Args:
            images_BHWC: uint8 (B, H, W, 3), RGB, of ``input_size``.

        Returns:
            float32 (B, D); of unit length only where the network normalizes them itself.
        """
        ...


@runtime_checkable
class MapEngine(Engine, Protocol):
    """An engine of a network that gives feature maps. Where it gives maps alone, ``dim`` is 0 and a call is an error."""

    @property
    def map_facts(self) -> tuple[MapFacts, ...]:
        """Name, stride and shape of each feature map; empty for a network that was exported without."""
        ...

    def maps(self, images_BHWC: np.ndarray) -> list[np.ndarray]:
        """Compute feature maps: uint8 (B, H, W, 3) -> one float32 (B, C, h, w) each, in the order of ``map_facts``."""
        ...

    def vectors_and_maps(self, images_BHWC: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Compute embeddings and feature maps in one pass through the network."""
        ...


def require_vector(dim: int) -> None:
    """Raise ModelError for a network that gives feature maps alone."""
    if not dim:
        raise ModelError("this network gives feature maps alone, no vector", remedy="export it again with its vector")


def require_maps(map_facts: tuple[MapFacts, ...]) -> None:
    """Raise ModelError for a network that was exported without feature maps."""
    if not map_facts:
        raise ModelError(
            "this network was exported without feature maps",
            remedy="export one with: unalike export-maps MODEL -o FILE",
        )


def check_images(images_BHWC: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Return the images. Raises DataError unless they are uint8 (B, height, width, 3)."""
    images_BHWC = np.asarray(images_BHWC)
    height, width = input_size
    if images_BHWC.dtype != np.uint8 or images_BHWC.ndim != 4 or images_BHWC.shape[1:] != (height, width, 3):
        raise DataError(
            f"images of shape {images_BHWC.shape} and type {images_BHWC.dtype}",
            expected=f"uint8 of shape (any, {height}, {width}, 3): height, width, RGB",
            remedy="pass them through the evaluation view first",
        )
    return images_BHWC
