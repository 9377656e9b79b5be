"""Export a trunk's feature maps to ONNX and check them against torch.

The outputs are the vector (unless left out) and the maps, whose names, strides and shapes are in the metadata; every engine
computes them by ``engine.maps(images)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.preprocessing import Preprocessing
from unalike.deploy.onnx_export import build_facts
from unalike.deploy.parity import WORST_COSINE, compare_vectors, without_tf32
from unalike.deploy.trace_cache import cached_trace
from unalike.engines.checksum import append_onnx_checksum
from unalike.engines.metadata import NetworkFacts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import ExportError
from unalike.storage.atomic import atomic_write

if TYPE_CHECKING:
    import onnx

    from unalike.model.feature_maps import FeatureMapNetwork

# Largest difference of two fp32 runtimes anywhere in a map, relative to its largest value (measured: 4e-6, 2026-11-26).
LARGEST_SHARE = 1e-4
SYNTHETIC_IMAGES = 3


@dataclass(frozen=True)
class MapParity:
    """Comparison of an exported file's outputs with torch's, the worst of all images.

    Attributes:
        worst_cosine: of a flattened output.
        largest_share: largest difference, relative to the largest value of the output.
    """

    worst_cosine: float
    largest_share: float

    def __str__(self) -> str:
        return (
            f"maps equal torch's to {self.largest_share:.1e} of the largest value, worst cosine {self.worst_cosine:.7f}"
        )


def trace_feature_maps(
    network: FeatureMapNetwork, preprocessing: Preprocessing, **metadata: Any
) -> tuple[onnx.ModelProto, NetworkFacts]:
    """Trace a network with feature maps into an ONNX graph in memory with free batch.

    Args:
        network: the network.
        preprocessing: view, mean and std of its images.
        **metadata: as in ``onnx_export.build_facts``.

    Returns:
        The graph and its metadata.

    Raises:
        ExportError, MissingExtra: as in ``onnx_export.trace``.
    """
    facts = build_facts(network, preprocessing, metadata=metadata)
    return cached_trace(network, preprocessing.input_size, facts), facts


def export_maps(
    network: FeatureMapNetwork, path: str | Path, preprocessing: Preprocessing, *, images_NHWC: np.ndarray | None = None,
    **metadata: Any,
) -> MapParity:  # fmt: skip
    """Export a network with feature maps to an ONNX file.

    The file gets its name only after its maps (and vectors) in ONNX Runtime agreed with torch's.

    Args:
        network: the network.
        path: the file to write.
        preprocessing: view, mean and std of its images.
        images_NHWC: uint8 images of the view's size to compare on; synthetic ones when None.
        **metadata: as in ``onnx_export.build_facts``.

    Raises:
        ExportError: the network cannot be traced, or its outputs differ; no file is written.
        MissingExtra: onnx, onnxscript or ONNX Runtime is not installed.
    """
    path = Path(path)
    proto, facts = trace_feature_maps(network, preprocessing, **metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(append_onnx_checksum(proto.SerializeToString()))
        parity = check_map_parity(network, partial, facts, images_NHWC)
    return parity


def check_map_parity(
    network: FeatureMapNetwork, model: Path | bytes, facts: NetworkFacts, images_NHWC: np.ndarray | None
) -> MapParity:
    """Compare each output in ONNX Runtime with torch's, both in fp32. Raises ExportError where they differ."""
    engine = OnnxEngine(model)
    if images_NHWC is None:
        images_NHWC = _synthetic_images(engine.input_size)
    with without_tf32():
        torch_engine = TorchEngine(network, facts.mean, facts.std, engine.input_size, precision="fp32")
        pairs = list(zip(torch_engine.maps(images_NHWC), engine.maps(images_NHWC), strict=True))
        if engine.dim:
            pairs.append((torch_engine(images_NHWC), engine(images_NHWC)))
    cosine, share = 1.0, 0.0
    for torch_output, output in pairs:
        cosine = min(cosine, compare_vectors(torch_output.reshape(len(output), -1), output.reshape(len(output), -1))[0])
        largest = max(float(np.abs(torch_output).max()), 1e-12)
        share = max(share, float(np.abs(torch_output - output).max() / largest))
    parity = MapParity(cosine, share)
    if not (cosine >= WORST_COSINE and share <= LARGEST_SHARE):
        raise ExportError(
            f"the exported network's maps differ from torch's ({parity})",
            expected=f"at most {LARGEST_SHARE} of the largest value",
            remedy="no file was written",
        )
    return parity


def _synthetic_images(size: tuple[int, int]) -> np.ndarray:
    """Generate smooth patterns with noise, uint8, with values as in photographs."""
    rng = np.random.default_rng(0)
    y_H1, x_1W = np.linspace(0, 1, size[0])[:, None], np.linspace(0, 1, size[1])[None, :]
    images = []
    for _ in range(SYNTHETIC_IMAGES):
        a, b, c = rng.uniform(3, 20, 3)
        wave_HW1 = (np.sin(a * x_1W + b * y_H1) * np.cos(c * y_H1))[..., None]
        noise = rng.normal(0, 12, (*size, 3))
        images.append(np.clip(127 + 100 * wave_HW1 * rng.uniform(0.4, 1, 3) + noise, 0, 255).astype(np.uint8))
    return np.stack(images)
