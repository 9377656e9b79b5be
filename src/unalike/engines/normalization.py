"""Normalization of pixels for networks that do not normalize in their graph: float32 ``(x / 255 - mean) / std``.

Shape letters: B images, H height, W width, C channels.
"""

from __future__ import annotations

import numpy as np

from unalike.engines.metadata import NetworkFacts


class Normalization:
    """Turns uint8 (B, H, W, C) into float32 (B, C, H, W) by one look-up table a channel.

    Args:
        facts: gives ``mean`` and ``std``, per channel, on the scale 0..1.
    """

    def __init__(self, facts: NetworkFacts) -> None:
        levels = np.arange(256, dtype=np.float64) / 255.0
        channels = zip(facts.mean, facts.std, strict=True)
        self._tables = [((levels - mean) / std).astype(np.float32) for mean, std in channels]

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Normalize uint8 images and move the channels to the front."""
        batch, height, width, channels = images_BHWC.shape
        pixels_BCHW = np.empty((batch, channels, height, width), np.float32)
        for channel, table in enumerate(self._tables):
            pixels_BCHW[:, channel] = table[images_BHWC[..., channel]]
        return pixels_BCHW


def network_input(images_BHWC: np.ndarray, facts: NetworkFacts) -> np.ndarray:
    """The input tensor of a network: uint8 (B, C, H, W) where its graph normalizes, else normalized float32."""
    if facts.preprocessing == "embedded":
        return np.ascontiguousarray(images_BHWC.transpose(0, 3, 1, 2))
    return Normalization(facts)(images_BHWC)
