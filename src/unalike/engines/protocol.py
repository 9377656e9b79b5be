"""What every engine is: uint8 images in, float32 vectors out.

Shape letters: B images, H height, W width, C channels (RGB), D width of the vector.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from unalike.engines.metadata import MapFacts
from unalike.errors import DataError, ModelError


@runtime_checkable
class Engine(Protocol):
    """Runs one network. Any number of images a call; results do not depend on how images are grouped into calls."""

    @property
    def name(self) -> str:
        """``torch``, ``onnxruntime``, ``openvino`` or ``tensorrt``."""
        ...

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16``, ``fp16`` or ``int8``: what most of it computes in; vectors are float32 always."""
        ...

    @property
    def dim(self) -> int: ...

    @property
    def input_size(self) -> tuple[int, int]:
        """Height, width of its images."""
        ...

    @property
    def batch(self) -> int:
        """How many images a call suit it best."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, precision, device, threads: what a run notes down."""
        ...

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) RGB -> float32 (B, D), as the network gives them (unit length only if it says so)."""
        ...


@runtime_checkable
class MapEngine(Engine, Protocol):
    """An engine whose network gives feature maps. ``dim`` is 0, and calling it an error, where it gives maps alone."""

    @property
    def map_facts(self) -> tuple[MapFacts, ...]:
        """Name, stride and shape of each map; empty for a network that was written without."""
        ...

    def maps(self, images_BHWC: np.ndarray) -> list[np.ndarray]:
        """uint8 (B, H, W, 3) -> float32 (B, C, h, w) a map, in the order of ``map_facts``."""
        ...

    def vectors_and_maps(self, images_BHWC: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """What calling it and ``maps`` give, in one pass through the network."""
        ...


def require_vector(dim: int) -> None:
    """ModelError for a network that gives maps alone."""
    if not dim:
        raise ModelError("this network gives feature maps alone, no vector", remedy="write it anew with its vector")


def require_maps(map_facts: tuple[MapFacts, ...]) -> None:
    """ModelError for a network that was written without feature maps."""
    if not map_facts:
        raise ModelError(
            "this network was written without feature maps", remedy="write one with: unalike export-maps MODEL -o FILE"
        )


def check_images(images_BHWC: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """The array itself when it is uint8 (B, height, width, 3); DataError says what it is otherwise."""
    images_BHWC = np.asarray(images_BHWC)
    height, width = input_size
    if images_BHWC.dtype != np.uint8 or images_BHWC.ndim != 4 or images_BHWC.shape[1:] != (height, width, 3):
        raise DataError(
            f"images of shape {images_BHWC.shape} and type {images_BHWC.dtype}",
            expected=f"uint8 of shape (any, {height}, {width}, 3): height, width, RGB",
            remedy="pass them through the evaluation view first",
        )
    return images_BHWC
