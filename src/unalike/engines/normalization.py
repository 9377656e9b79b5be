"""uint8 pixels -> what a network without embedded preprocessing wants: float32, (x / 255 - mean) / std."""

from __future__ import annotations

import numpy as np

from unalike.engines.metadata import NetworkFacts


class Normalization:
    """uint8 (B, H, W, C) -> float32 (B, C, H, W), as one table look-up a channel."""

    def __init__(self, facts: NetworkFacts) -> None:
        steps = np.arange(256, dtype=np.float64) / 255.0
        pairs = zip(facts.mean, facts.std, strict=True)
        self._tables = [((steps - mean) / std).astype(np.float32) for mean, std in pairs]

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        batch, height, width, channels = images_BHWC.shape
        pixels_BCHW = np.empty((batch, channels, height, width), np.float32)
        for channel, table in enumerate(self._tables):
            pixels_BCHW[:, channel] = table[images_BHWC[..., channel]]
        return pixels_BCHW


def network_input(images_BHWC: np.ndarray, facts: NetworkFacts) -> np.ndarray:
    """What stands at a network's input: uint8 NCHW where the graph normalises, else float32, normalised."""
    if facts.preprocessing == "embedded":
        return np.ascontiguousarray(images_BHWC.transpose(0, 3, 1, 2))
    return Normalization(facts)(images_BHWC)
