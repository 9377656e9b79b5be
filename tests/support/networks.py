"""Small networks and exports shared by the tests of engines, deploy and tasks. Exporting costs seconds: once a run."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import nn

from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View

SIZE = (48, 32)  # never square: a swap of height and width must show (D19)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


class SmallTrunk(nn.Module):
    """Convolutions with BatchNorm, and a weight a position, so that only 48 x 32 the right way round fits."""

    name = "small"

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.position = nn.Parameter(torch.randn(1, 8, SIZE[0] // 2, SIZE[1] // 2))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return (nn.functional.relu6(self.norm(self.conv(images_BCHW))) * self.position).mean((2, 3))


class SmallEmbedder(nn.Module):
    dim = 16

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = SmallTrunk()
        self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16))
        with torch.no_grad():
            self.trunk.norm.running_mean.normal_()
            self.trunk.norm.running_var.uniform_(0.5, 2)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(images_BCHW))


VIEW = View(*SIZE)
PREPROCESSING = Preprocessing(VIEW, MEAN, STD)


def pictures(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 (count, H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def plain_vectors(embedder: nn.Module, images_BHWC: np.ndarray) -> np.ndarray:
    """The slow oracle: one image at a time, in double precision, nothing of ours."""
    twin = SmallEmbedder().double().eval()
    twin.load_state_dict(embedder.state_dict())
    rows = []
    with torch.no_grad():
        for image in images_BHWC:
            pixels = (image.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
            rows.append(twin(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))[0].numpy())
    return np.stack(rows)


@functools.cache
def exported_bytes(embedded: bool = False, batch_size: int = -1, opset: int | None = None, seed: int = 0) -> bytes:
    """``SmallEmbedder(seed)`` as an ONNX file's content."""
    from unalike.deploy.onnx_export import build_facts, trace

    facts = build_facts(SmallEmbedder(seed), PREPROCESSING, embedded=embedded, metadata={"classes": ["a", "ü"]})
    proto = trace(SmallEmbedder(seed), SIZE, facts, batch_size=batch_size, opset=opset)
    return proto.SerializeToString()


def write_model(folder: Path, **settings: object) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(exported_bytes(**settings))  # type: ignore[arg-type]
    return path
