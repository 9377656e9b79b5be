"""Drawn parts for inspection, and a network that gives their feature maps: fixed random filters, nothing to fetch."""

from __future__ import annotations

import functools

import numpy as np
import torch
from PIL import Image

from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.inference.engine_selection import engine_from_onnx
from unalike.inference.feature_map_model import FeatureMapModel
from unalike.inspection.anomaly_model import AnomalyModelConfig
from unalike.inspection.inspector import Inspector

SIZE = (64, 64)
PREPROCESSING = Preprocessing(View(*SIZE, 1.0), (0.5,) * 3, (0.25,) * 3)
CONFIG = AnomalyModelConfig(patches=1500, memory=300, folds=3, synthetic_defects=60)


class Edges(torch.nn.Module):
    """A trunk without weights to fetch: fixed random filters of strides 4 and 8, enough to see a scratch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.low = torch.nn.Conv2d(3, 12, 5, 4, 2)
        self.high = torch.nn.Conv2d(12, 16, 3, 2, 1)

    def forward(self, images):
        low = torch.relu(self.low(images))
        return low, torch.relu(self.high(low))


@functools.cache
def map_network():
    from unalike.deploy.onnx_export import trace
    from unalike.engines.metadata import MapFacts, NetworkFacts

    maps = (MapFacts("low", 4, 12, 16, 16), MapFacts("high", 8, 16, 8, 8))
    view = View(*SIZE, 1.0).to_dict()
    facts = NetworkFacts(mean=(0.5,) * 3, std=(0.25,) * 3, view=view, trunk="edges", licence="none", maps=maps)
    return trace(Edges(), SIZE, facts, optimize=False).SerializeToString(), maps


def map_model(runtime="onnxruntime", precision="fp32"):
    content, maps = map_network()
    return FeatureMapModel(
        engine_from_onnx(content, runtime, precision, 1), PREPROCESSING, maps, "edges", "edges", content, "none"
    )


def draw_part(seed, scratch=None, size=(64, 64)):
    draws = np.random.default_rng(seed)
    columns = 120 + draws.normal(0, 8, (1, size[1])).repeat(size[0], axis=0)
    image = columns + draws.normal(0, 3, size)
    image[8:16, 8:16] = 30  # a hole where all have it
    if scratch is not None:
        y, x = scratch
        image[y : y + 5, x : x + 12] = 230
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


GOOD_PARTS = [draw_part(seed) for seed in range(24)]


def write_images(folder, images, name="{:02d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(number))
    return folder


@functools.cache
def fitted_inspector(**options):
    """An inspector of the good parts; tests share it and do not change it."""
    return Inspector.fit(GOOD_PARTS, model=map_model(), rate=0.05, config=CONFIG, **options)
