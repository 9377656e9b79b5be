"""Export a trunk's feature maps to ONNX and check them against torch.

Its outputs are the vector (unless left out) and then the maps, which the metadata names with their strides and shapes;
any engine gives them by ``engine.maps(images)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.preprocessing import Preprocessing
from unalike.deploy.onnx_export import build_facts, trace
from unalike.deploy.parity import WORST_COSINE, compare_vectors, without_tf32
from unalike.engines.metadata import NetworkFacts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import ExportError
from unalike.storage.atomic import atomic_write

if TYPE_CHECKING:
    import onnx

    from unalike.model.feature_maps import FeatureMapNetwork

# Of the largest value that a map holds: how far two fp32 runtimes may be apart anywhere in it (seen: 4e-6, 2026-11-26).
LARGEST_SHARE = 1e-4
PROOFS = 3


@dataclass(frozen=True)
class MapParity:
    """How near the file's outputs are to torch's on made-up images: cosine and share of the largest value, the worst of all."""

    worst_cosine: float
    largest_share: float

    def __str__(self) -> str:
        return (
            f"maps equal torch's to {self.largest_share:.1e} of the largest value, worst cosine {self.worst_cosine:.7f}"
        )


def trace_feature_maps(
    mapped: FeatureMapNetwork, preprocessing: Preprocessing, **metadata: Any
) -> tuple[onnx.ModelProto, NetworkFacts]:
    """A mapped network as an ONNX graph in memory with its facts; the batch is left free. Raises ExportError."""
    facts = build_facts(mapped, preprocessing, metadata=metadata)
    return trace(mapped, preprocessing.input_size, facts, optimize=False), facts


def export_maps(
    mapped: FeatureMapNetwork, path: str | Path, preprocessing: Preprocessing, *, images_NHWC: np.ndarray | None = None,
    **metadata: Any,
) -> MapParity:  # fmt: skip
    """Write ``mapped`` to ``path`` and check_map_parity it on ``images_NHWC`` (uint8 of the view's size; made up where none are given).

    The file appears only after ONNX Runtime's maps (and vectors) equalled torch's; otherwise ExportError.
    """
    path = Path(path)
    proto, facts = trace_feature_maps(mapped, preprocessing, **metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(proto.SerializeToString())
        parity = check_map_parity(mapped, partial, facts, images_NHWC)
    return parity


def check_map_parity(
    mapped: FeatureMapNetwork, model: Path | bytes, facts: NetworkFacts, images_NHWC: np.ndarray | None
) -> MapParity:
    """Compare ONNX Runtime with torch, in fp32, output by output. Raises ExportError where they differ."""
    engine = OnnxEngine(model)
    if images_NHWC is None:
        images_NHWC = _made_up(engine.input_size)
    with without_tf32():
        expected = TorchEngine(mapped, facts.mean, facts.std, engine.input_size, precision="fp32")
        pairs = list(zip(expected.maps(images_NHWC), engine.maps(images_NHWC), strict=True))
        if engine.dim:
            pairs.append((expected(images_NHWC), engine(images_NHWC)))
    cosine, share = 1.0, 0.0
    for ours, found in pairs:
        cosine = min(cosine, compare_vectors(ours.reshape(len(ours), -1), found.reshape(len(found), -1))[0])
        share = max(share, float(np.abs(ours - found).max() / max(float(np.abs(ours).max()), 1e-12)))
    parity = MapParity(cosine, share)
    if not (cosine >= WORST_COSINE and share <= LARGEST_SHARE):
        raise ExportError(
            f"the exported network's maps differ from torch's ({parity})",
            expected=f"at most {LARGEST_SHARE} of the largest value",
            remedy="no file was written",
        )
    return parity


def _made_up(size: tuple[int, int]) -> np.ndarray:
    """Smooth shapes with noise: values in the range of photographs'."""
    draws = np.random.default_rng(0)
    y_H1, x_1W = np.linspace(0, 1, size[0])[:, None], np.linspace(0, 1, size[1])[None, :]
    images = []
    for _ in range(PROOFS):
        a, b, c = draws.uniform(3, 20, 3)
        wave_HW1 = (np.sin(a * x_1W + b * y_H1) * np.cos(c * y_H1))[..., None]
        noise = draws.normal(0, 12, (*size, 3))
        images.append(np.clip(127 + 100 * wave_HW1 * draws.uniform(0.4, 1, 3) + noise, 0, 255).astype(np.uint8))
    return np.stack(images)
