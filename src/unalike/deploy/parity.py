"""Check that an exported ONNX file gives the same vectors as the torch network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike import progress
from unalike.engines.metadata import NetworkFacts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import ExportError

if TYPE_CHECKING:
    import torch

IMAGES = 64
BATCHES = (1, 7, 64)
WORST_COSINE = 0.99999
LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Parity:
    """Comparison of an exported network's vectors with torch's.

    Attributes:
        worst_cosine: the lowest cosine of any image in any batch size.
        largest_difference: the largest absolute difference of a component of the unit vectors.
        images: number of images.
        altered_copies: how many of them are altered copies; ``made_up`` in stored files.
        batches: the batch sizes.
    """

    worst_cosine: float
    largest_difference: float
    images: int
    altered_copies: int
    batches: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for status and model card."""
        return {
            "worst_cosine": self.worst_cosine,
            "largest_difference": self.largest_difference,
            "images": self.images,
            "made_up": self.altered_copies,
            "batches": self.batches,
        }

    def __str__(self) -> str:
        copies = f" ({self.altered_copies} of them altered copies)" if self.altered_copies else ""
        return (
            f"parity on {self.images} images{copies} in batches of {', '.join(map(str, self.batches))}: worst cosine "
            f"{self.worst_cosine:.7f}, largest difference of unit vectors {self.largest_difference:.1e}"
        )


def compare_vectors(expected_ND: np.ndarray, actual_ND: np.ndarray) -> tuple[float, float]:
    """Compare two sets of vectors row by row.

    Returns:
        The lowest cosine and the largest absolute difference of unit vectors; (-1, inf) where a value is not finite.
    """
    expected_ND, actual_ND = expected_ND.astype(np.float64), actual_ND.astype(np.float64)
    if expected_ND.shape != actual_ND.shape or not (np.isfinite(expected_ND).all() and np.isfinite(actual_ND).all()):
        return -1.0, float("inf")
    a_ND, b_ND = (
        vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
        for vectors_ND in (expected_ND, actual_ND)
    )
    return float((a_ND * b_ND).sum(1).min()), float(np.abs(a_ND - b_ND).max())


def fill_up_images(images_NHWC: np.ndarray, count: int = IMAGES, seed: int = 0) -> np.ndarray:
    """Extend images to at least ``count`` with altered copies (mirrored, shifted, lighter or darker).

    Raises ExportError without any image.
    """
    if not len(images_NHWC):
        raise ExportError("no image to compare the exported network on", remedy="name a dataset with readable images")
    rng = np.random.default_rng(seed)
    copies = []
    for number in range(max(0, count - len(images_NHWC))):
        image = images_NHWC[number % len(images_NHWC)].astype(np.float32)
        image = image[:, ::-1] if number % 2 == 0 else image
        image = np.roll(image, int(rng.integers(0, image.shape[1])), axis=1) * rng.uniform(0.6, 1.4)
        copies.append(np.clip(image + rng.uniform(-20, 20), 0, 255).astype(np.uint8))
    return np.concatenate([images_NHWC, np.stack(copies)]) if copies else images_NHWC


@contextmanager
def without_tf32() -> Iterator[None]:
    """Make cuDNN compute fp32 convolutions in fp32. By default it uses TF32, whose error exceeds the limits of parity."""
    import torch

    cudnn: Any = torch.backends.cudnn
    with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def check_parity(
    embedder: torch.nn.Module,
    path: str | Path,
    *,
    facts: NetworkFacts,
    images_NHWC: np.ndarray,
    batch_size: int = -1,
    batches: Sequence[int] = BATCHES,
) -> Parity:
    """Compare an exported file in ONNX Runtime with its network in torch, both in fp32, and print the figures.

    Args:
        embedder: the network.
        path: the ONNX file.
        facts: its metadata.
        images_NHWC: uint8 images of the network's size; extended to 64 with altered copies.
        batch_size: fixed batch of the file; -1 for any.
        batches: batch sizes to compare in, where any is allowed.

    Raises:
        ExportError: a cosine is below WORST_COSINE, a difference above LARGEST_DIFFERENCE, or vectors that should have unit
            length do not.
        MissingExtra: ONNX Runtime is not installed.
    """
    original_count = len(images_NHWC)
    images_NHWC = fill_up_images(np.asarray(images_NHWC))
    engine = OnnxEngine(Path(path))
    sizes = (batch_size,) if batch_size > 0 else tuple(batches)
    # The network itself, not the module that was traced around it: errors of that module must be found too.
    with without_tf32():
        torch_engine = TorchEngine(embedder, facts.mean, facts.std, engine.input_size, precision="fp32")
        expected_ND = torch_engine(images_NHWC)
    cosine, difference = 1.0, 0.0
    for size in sizes:
        if batch_size < 1:
            engine.batch = size
        actual_ND = np.concatenate([engine(images_NHWC[i : i + size]) for i in range(0, len(images_NHWC), size)])
        lengths = np.linalg.norm(actual_ND, axis=1)
        if facts.unit_length and not np.allclose(lengths, 1.0, atol=1e-4):
            raise ExportError(f"vectors of length {lengths.min():.5f} to {lengths.max():.5f}", expected="unit length")
        worst, largest = compare_vectors(expected_ND, actual_ND)
        cosine, difference = min(cosine, worst), max(difference, largest)
    parity = Parity(cosine, difference, len(images_NHWC), len(images_NHWC) - original_count, sizes)
    if not (cosine >= WORST_COSINE and difference <= LARGEST_DIFFERENCE):
        raise ExportError(
            f"the exported network's vectors differ from the trained network's ({parity})",
            expected=f"cosine at least {WORST_COSINE}, difference at most {LARGEST_DIFFERENCE}",
            remedy="no file was written",
        )
    progress.say(str(parity))
    return parity
