"""The feature level of a comparison: two aligned pictures shown to one network, window by window, in bounded memory.

Shapes: H, W of the image, C channels, h, w of the grid of places.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unalike.comparison.feature_difference import FeatureDifference, distances, threshold_of
from unalike.comparison.pixel_difference import Light, aligned
from unalike.comparison.registration import Registration, opencv
from unalike.data.tiling import filled, starts
from unalike.errors import DataError, ModelError
from unalike.inference.open_maps import PRETRAINED, OpenMaps, open_maps

# Of a trunk as it came, which takes any size: the side of its windows.
SIDE = 448


class FeatureLevel:
    """Compares aligned pictures by the feature maps of one network; any number of threads may call it."""

    def __init__(self, opened: OpenMaps) -> None:
        self.engine, self.name = opened.engine, opened.trunk or opened.source
        finest = min(opened.maps, key=lambda fact: fact.stride)
        self.stride, self.grid = finest.stride, (finest.height, finest.width)
        self.height, self.width = (int(side) for side in opened.engine.input_size)
        if self.stride * finest.height != self.height or self.stride * finest.width != self.width:
            raise ModelError(f"maps of stride {finest.stride} on images of {self.width} x {self.height}",
                             expected="sides that are multiples of the stride")  # fmt: skip

    @classmethod
    def load(
        cls,
        model: str | Path = PRETRAINED,
        *,
        runtime: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> FeatureLevel:
        """From ``pretrained[:NAME]``, a checkpoint (both: extra ``train``) or a network that export-maps wrote.

        Raises the errors of ``tasks.dense.open_maps``, ModelError for maps that do not cover the network's image evenly.
        """
        size = (SIDE, SIDE) if str(model).split(":")[0] == PRETRAINED else None
        return cls(open_maps(model, size=size, vector=False, runtime=runtime, precision=precision, threads=threads))

    def windows(self, shape: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """The windows (left, top, right, bottom) of an image of ``shape`` that the network is shown."""
        factor = self._factor(shape)
        height, width = (round(side * factor) for side in shape)
        if factor > 1:
            return [(0, 0, shape[1], shape[0])]
        return [(left, top, min(left + self.width, width), min(top + self.height, height))
                for top in starts(height, self.height, self.stride)
                for left in starts(width, self.width, self.stride)]  # fmt: skip

    def _factor(self, shape: tuple[int, int]) -> float:
        """By how much a picture smaller than a window is enlarged."""
        return max(1.0, min(self.height / shape[0], self.width / shape[1]))

    def _skips(self, begins: Sequence[int], side: int) -> dict[int, int]:
        """By where a window begins: how many of its first places are left to the one before, which reaches into it.

        Half of what both see: features near a window's border know of the border.
        """
        begins = sorted(set(begins))
        shared = [0, *(before + side - begin for before, begin in itertools.pairwise(begins))]
        return {begin: part // 2 // self.stride for begin, part in zip(begins, shared, strict=True)}

    def __call__(
        self, reference_HWC: np.ndarray, image_HWC: np.ndarray, found: Registration, light: Light, *,
        advance: Callable[[int], object] | None = None,
    ) -> FeatureDifference:  # fmt: skip
        """Distances of the image and the reference that lies on it, in ``light``; ``advance(1)`` after each window.

        Raises DataError where the features are not finite.
        """
        shape = image_HWC.shape[:2]
        factor = self._factor(shape)
        rows, columns = (-(-round(side * factor) // self.stride) for side in shape)
        heat_hw, known_hw = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), bool)
        windows = self.windows(shape)
        down, across = (
            self._skips([w[1] for w in windows], self.height),
            self._skips([w[0] for w in windows], self.width),
        )
        unrelated = []
        for window in windows:
            left, top, right, bottom = window
            seen, inside = aligned(reference_HWC, found, shape, window)
            b = image_HWC[top:bottom, left:right]
            a = np.where(inside[..., None], light.applied(seen, window, shape), b)
            gap_hw, sure_hw, far = self._window(a, b, inside, factor)
            unrelated.append(far)
            y, x = top // self.stride, left // self.stride
            high, wide = min(gap_hw.shape[0], rows - y), min(gap_hw.shape[1], columns - x)
            skip_y, skip_x = down[top], across[left]
            place = np.s_[y + skip_y : y + high, x + skip_x : x + wide]
            heat_hw[place] = gap_hw[skip_y:high, skip_x:wide]
            known_hw[place] = sure_hw[skip_y:high, skip_x:wide]
            if advance is not None:
                advance(1)
        heat_hw[~known_hw] = 0
        cell = (self.stride / factor, self.stride / factor)
        return FeatureDifference(heat_hw, known_hw, cell, threshold_of(heat_hw, known_hw, float(np.median(unrelated))))

    def _window(
        self, a_HWC: np.ndarray, b_HWC: np.ndarray, inside_HW: np.ndarray, factor: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """(distances, whether all that a place sees is known, distance of unrelated places) of one window, on its grid."""
        cv2 = opencv()
        height, width = (round(side * factor) for side in b_HWC.shape[:2])
        shown = [
            filled(_resized(np.broadcast_to(part, (*part.shape[:2], 3)), (height, width)), (self.height, self.width))
            for part in (a_HWC, b_HWC)
        ]
        maps = self.engine.maps(np.stack(shown))
        gap_hw, unrelated = distances([found[0] for found in maps], [found[1] for found in maps], self.grid)
        if not np.isfinite(gap_hw).all():
            raise DataError(
                "features that are not finite", remedy="compare in another --precision, or check the network"
            )
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        part = cv2.resize(inside_HW.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) > 0.999
        # A place and its neighbourhood must be known: beyond the reference's edge the image was compared with itself.
        sure_hw = cv2.erode(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        return gap_hw[:rows, :columns], sure_hw, unrelated


def _resized(pixels_HW3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    cv2 = opencv()
    pixels_HW3 = np.ascontiguousarray(pixels_HW3)
    if pixels_HW3.shape[:2] == size:
        return pixels_HW3
    enlarged: np.ndarray = cv2.resize(pixels_HW3, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return enlarged
