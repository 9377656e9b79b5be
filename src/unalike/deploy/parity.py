"""Check that an exported ONNX file gives the same vectors as the torch network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike import progress
from unalike.engines.metadata import NetworkFacts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import ExportError

IMAGES = 64
BATCHES = (1, 7, 64)
WORST_COSINE = 0.99999
LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Parity:
    """``worst_cosine`` and ``largest_difference`` (of unit vectors, any component) over every image and batch size."""

    worst_cosine: float
    largest_difference: float
    images: int
    made_up: int
    batches: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for status and model card."""
        return asdict(self)

    def __str__(self) -> str:
        copies = f" ({self.made_up} of them altered copies)" if self.made_up else ""
        return (
            f"parity on {self.images} images{copies} in batches of {', '.join(map(str, self.batches))}: worst cosine "
            f"{self.worst_cosine:.7f}, largest difference of unit vectors {self.largest_difference:.1e}"
        )


def compare_vectors(expected_ND: np.ndarray, found_ND: np.ndarray) -> tuple[float, float]:
    """(worst cosine, largest absolute difference of unit vectors); not finite anywhere: (-1, inf)."""
    expected_ND, found_ND = expected_ND.astype(np.float64), found_ND.astype(np.float64)
    if expected_ND.shape != found_ND.shape or not (np.isfinite(expected_ND).all() and np.isfinite(found_ND).all()):
        return -1.0, float("inf")
    a_ND, b_ND = (
        part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (expected_ND, found_ND)
    )
    return float((a_ND * b_ND).sum(1).min()), float(np.abs(a_ND - b_ND).max())


def fill_up_images(images_NHWC: np.ndarray, count: int = IMAGES, seed: int = 0) -> np.ndarray:
    """At least ``count`` images: those given, then altered copies of them (mirrored, rolled, lighter or darker)."""
    if not len(images_NHWC):
        raise ExportError("no image to compare the exported network on", remedy="name a dataset with readable images")
    draws = np.random.default_rng(seed)
    copies = []
    for number in range(max(0, count - len(images_NHWC))):
        image = images_NHWC[number % len(images_NHWC)].astype(np.float32)
        image = image[:, ::-1] if number % 2 == 0 else image
        image = np.roll(image, int(draws.integers(0, image.shape[1])), axis=1) * draws.uniform(0.6, 1.4)
        copies.append(np.clip(image + draws.uniform(-20, 20), 0, 255).astype(np.uint8))
    return np.concatenate([images_NHWC, np.stack(copies)]) if copies else images_NHWC


@contextmanager
def without_tf32() -> Iterator[None]:
    """cuDNN rounds fp32 convolutions to TF32's ten bits unless told not to: more than a proof may be off."""
    import torch

    cudnn: Any = torch.backends.cudnn
    with cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def check_parity(
    embedder: Any,
    path: str | Path,
    *,
    facts: NetworkFacts,
    images_NHWC: np.ndarray,
    batch_size: int = -1,
    batches: Sequence[int] = BATCHES,
) -> Parity:
    """Compare ONNX Runtime on ``path`` with torch on ``embedder``, both in fp32, and print the figures.

    ``images_NHWC``: uint8 of the network's size, filled up to 64 with altered copies. A file of fixed batch is run at
    that batch. Raises ExportError when they differ by more than WORST_COSINE or LARGEST_DIFFERENCE.
    """
    given = len(images_NHWC)
    images_NHWC = fill_up_images(np.asarray(images_NHWC))
    engine = OnnxEngine(Path(path))
    sizes = (batch_size,) if batch_size > 0 else tuple(batches)
    # The reference is the network itself, not the wrapper that was traced: a fault there must show.
    with without_tf32():
        torch_engine = TorchEngine(embedder, facts.mean, facts.std, engine.input_size, precision="fp32")
        expected_ND = torch_engine(images_NHWC)
    cosine, difference = 1.0, 0.0
    for size in sizes:
        if batch_size < 1:
            engine.batch = size
        found_ND = np.concatenate([engine(images_NHWC[i : i + size]) for i in range(0, len(images_NHWC), size)])
        lengths = np.linalg.norm(found_ND, axis=1)
        if facts.unit_length and not np.allclose(lengths, 1.0, atol=1e-4):
            raise ExportError(f"vectors of length {lengths.min():.5f} to {lengths.max():.5f}", expected="unit length")
        worst, largest = compare_vectors(expected_ND, found_ND)
        cosine, difference = min(cosine, worst), max(difference, largest)
    parity = Parity(cosine, difference, len(images_NHWC), len(images_NHWC) - given, sizes)
    if not (cosine >= WORST_COSINE and difference <= LARGEST_DIFFERENCE):
        raise ExportError(
            f"the exported network's vectors differ from the trained network's ({parity})",
            expected=f"cosine at least {WORST_COSINE}, difference at most {LARGEST_DIFFERENCE}",
            remedy="no file was written",
        )
    progress.say(str(parity))
    return parity
