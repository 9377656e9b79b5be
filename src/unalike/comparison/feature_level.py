"""Feature comparison of two aligned images: one network, window by window, in bounded memory.

Shapes: H, W of the image, C channels, h, w of the grid of cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unalike.comparison.deformation import warp_ignored, warp_window
from unalike.comparison.feature_difference import FeatureDifference, compute_distances, compute_threshold
from unalike.comparison.lighting import LightingCorrection
from unalike.comparison.registration import Registration, import_opencv
from unalike.data.tiling import pad_by_reflection, tile_starts
from unalike.errors import DataError, ModelError
from unalike.inference.feature_map_model import FeatureMapModel, load_feature_maps
from unalike.inference.model_files import PRETRAINED

# Side of the windows, in pixels, of a pretrained trunk, which takes any size.
WINDOW_SIDE = 448


class FeatureLevel:
    """Compares aligned images by the feature maps of one network; any number of threads may call it.

    Args:
        opened: The network, opened for feature maps.

    Raises:
        ModelError: The maps do not cover the network's input evenly.
    """

    def __init__(self, model: FeatureMapModel) -> None:
        self.engine, self.name = model.engine, model.trunk or model.source
        finest = min(model.maps, key=lambda fact: fact.stride)
        self.stride, self.grid = finest.stride, (finest.height, finest.width)
        self.height, self.width = (int(side) for side in model.engine.input_size)
        if self.stride * finest.height != self.height or self.stride * finest.width != self.width:
            raise ModelError(f"maps of stride {finest.stride} on images of {self.width} x {self.height}",
                             expected="sides that are multiples of the stride")  # fmt: skip

    @classmethod
    def load(
        cls,
        model: str | Path | FeatureMapModel = PRETRAINED,
        *,
        runtime: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> FeatureLevel:
        """Open a network for feature comparison.

        Args:
            model: ``pretrained[:NAME]`` or a checkpoint (both need the extra ``train``), or a file of export-maps; a network that
                is loaded already is taken as it is.
            runtime: auto, openvino, onnxruntime or torch.
            precision: auto, fp32 or bf16.
            threads: CPU threads; all if unset.

        Raises:
            ModelError: The maps do not cover the network's input evenly; and the errors of ``load_feature_maps``.
        """
        if isinstance(model, FeatureMapModel):
            return cls(model)
        size = (WINDOW_SIDE, WINDOW_SIDE) if str(model).split(":")[0] == PRETRAINED else None
        return cls(
            load_feature_maps(model, size=size, vector=False, runtime=runtime, precision=precision, threads=threads)
        )

    def compare(
        self, reference_HWC: np.ndarray, image_HWC: np.ndarray, registration: Registration,
        lighting: LightingCorrection, *, ignored_HW1: np.ndarray | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> FeatureDifference:  # fmt: skip
        """Compute the feature distances of an image and the reference that it is aligned to.

        Args:
            reference_HWC: uint8, 1 or 3 channels.
            image_HWC: uint8, as many channels.
            registration: How the image is aligned to the reference.
            lighting: Correction of the reference to the image's lighting.
            ignored_HW1: uint8 mask of the reference, above 0 where differences are ignored.
            advance: Called with 1 after each of ``windows``.

        Raises:
            DataError: The features are not finite.
        """
        shape = image_HWC.shape[:2]
        factor = self._enlargement(shape)
        rows, columns = (-(-round(side * factor) // self.stride) for side in shape)
        heat_hw, known_hw = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), bool)
        windows = self.windows(shape)
        skips_y = self._skipped_cells([window[1] for window in windows], self.height)
        skips_x = self._skipped_cells([window[0] for window in windows], self.width)
        far_distances = []
        for window in windows:
            left, top, right, bottom = window
            warped, inside = warp_window(reference_HWC, registration, shape, window)
            inside = inside & ~warp_ignored(ignored_HW1, registration, shape, window)
            b = image_HWC[top:bottom, left:right]
            a = np.where(inside[..., None], lighting.apply(warped, window, shape), b)
            distance_hw, window_known_hw, far = self._compare_window(a, b, inside, factor)
            far_distances.append(far)
            y, x = top // self.stride, left // self.stride
            high, wide = min(distance_hw.shape[0], rows - y), min(distance_hw.shape[1], columns - x)
            skip_y, skip_x = skips_y[top], skips_x[left]
            cells = np.s_[y + skip_y : y + high, x + skip_x : x + wide]
            heat_hw[cells] = distance_hw[skip_y:high, skip_x:wide]
            known_hw[cells] = window_known_hw[skip_y:high, skip_x:wide]
            if advance is not None:
                advance(1)
        heat_hw[~known_hw] = 0
        cell = (self.stride / factor, self.stride / factor)
        threshold = compute_threshold(heat_hw, known_hw, float(np.median(far_distances)))
        return FeatureDifference(heat_hw, known_hw, cell, threshold)

    def windows(self, shape: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        """Return the windows (left, top, right, bottom) of an image of ``shape`` that the network runs on."""
        factor = self._enlargement(shape)
        height, width = (round(side * factor) for side in shape)
        if factor > 1:
            return [(0, 0, shape[1], shape[0])]
        return [(left, top, min(left + self.width, width), min(top + self.height, height))
                for top in tile_starts(height, self.height, self.stride)
                for left in tile_starts(width, self.width, self.stride)]  # fmt: skip

    def _enlargement(self, shape: tuple[int, ...]) -> float:
        """The factor by which an image smaller than a window is enlarged."""
        return max(1.0, min(self.height / shape[0], self.width / shape[1]))

    def _skipped_cells(self, begins: Sequence[int], side: int) -> dict[int, int]:
        """How many of a window's first cells are taken from the window before, which overlaps it, by where it begins.

        Half of the overlap: features near a window's border are affected by the border.
        """
        begins = sorted(set(begins))
        overlaps = [0, *(before + side - begin for before, begin in itertools.pairwise(begins))]
        return {begin: overlap // 2 // self.stride for begin, overlap in zip(begins, overlaps, strict=True)}

    def _compare_window(
        self, a_HWC: np.ndarray, b_HWC: np.ndarray, inside_HW: np.ndarray, factor: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return (distances, whether all pixels of a cell are known, distance of unrelated places) of one window."""
        cv2 = import_opencv()
        height, width = (round(side * factor) for side in b_HWC.shape[:2])
        inputs = [
            pad_by_reflection(
                _resize(np.broadcast_to(part, (*part.shape[:2], 3)), (height, width)), (self.height, self.width)
            )
            for part in (a_HWC, b_HWC)
        ]
        maps = self.engine.maps(np.stack(inputs))
        distance_hw, far_distance = compute_distances([pair[0] for pair in maps], [pair[1] for pair in maps], self.grid)
        if not np.isfinite(distance_hw).all():
            raise DataError(
                "features that are not finite", remedy="compare in another --precision, or check the network"
            )
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        inside_hw = cv2.resize(inside_HW.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) > 0.999
        # A cell and its neighborhood must be known: beyond the reference's edge the image was compared with itself.
        known_hw: np.ndarray = cv2.erode(inside_hw.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        return distance_hw[:rows, :columns], known_hw, far_distance


def _resize(pixels_HW3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    cv2 = import_opencv()
    pixels_HW3 = np.ascontiguousarray(pixels_HW3)
    if pixels_HW3.shape[:2] == size:
        return pixels_HW3
    resized: np.ndarray = cv2.resize(pixels_HW3, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return resized
