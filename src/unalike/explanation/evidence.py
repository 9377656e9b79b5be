"""Why two images are alike: the parts of the one that make it so, and those that speak against it.

Where a vector is a sum over positions, so is its cosine to another: each position's share of the score, exactly
(``decompose``; the idea is that of class activation maps, Zhou et al., CVPR 2016, turned from classes to references). The
same sum for the image against itself is 1, so that the difference of the two tells, position by position, what is missing
to 1. Where no such sum exists, parts are covered up and the score is taken again (``covers``; Zeiler and Fergus, ECCV 2014).

Shape letters: h x w positions, C channels, D width of a vector, N covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Evidence:
    """``for_hw``: what each position adds to the score; ``against_hw``: what it lacks to a perfect one.

    ``exact``: ``for_hw.sum() + constant`` is the score and ``against_hw.sum() + constant_against`` is 1 - score. Otherwise
    (``covered``) ``for_hw`` is how much the score falls when the position is covered and ``against_hw`` how much it rises.
    """

    score: float
    for_hw: np.ndarray
    against_hw: np.ndarray
    exact: bool
    constant: float = 0.0
    constant_against: float = 0.0


def decompose(features_hwC: np.ndarray, weight_DC: np.ndarray, bias_D: np.ndarray, other_D: np.ndarray) -> Evidence:
    """The cosine of an image's vector, ``mean(features) @ weight.T + bias``, to ``other_D``, by position; float64."""
    features = np.asarray(features_hwC, np.float64)
    weight, bias, other = (np.asarray(part, np.float64) for part in (weight_DC, bias_D, other_D))
    own = weight @ features.mean(axis=(0, 1)) + bias
    length = max(float(np.linalg.norm(own)), 1e-12)
    own_unit, other_unit = own / length, other / max(float(np.linalg.norm(other)), 1e-12)
    positions = features.shape[0] * features.shape[1]
    share = features / (positions * length)
    for_hw, self_hw = share @ (other_unit @ weight), share @ (own_unit @ weight)
    return Evidence(
        float(own_unit @ other_unit), for_hw, self_hw - for_hw, True, float(other_unit @ bias) / length,
        float((own_unit - other_unit) @ bias) / length,
    )  # fmt: skip


def covers(image_HWC: np.ndarray, grid: int = 7, reach: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Copies of an image, each with a square around one position of a grid x grid covered by the image's mean colour.

    (N, H, W, 3) uint8 with N = grid * grid, row by row, and the covers (N, grid, grid) as bool: ``reach`` positions around the
    middle one lie under it too... as far as the image goes.
    """
    height, width = image_HWC.shape[:2]
    rows, columns = (np.linspace(0, side, grid + 1).round().astype(int) for side in (height, width))
    mean = image_HWC.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    images, hidden = [], []
    for y in range(grid):
        for x in range(grid):
            top, bottom = max(0, y - reach), min(grid, y + reach + 1)
            left, right = max(0, x - reach), min(grid, x + reach + 1)
            copy = image_HWC.copy()
            copy[rows[top] : rows[bottom], columns[left] : columns[right]] = mean
            mask = np.zeros((grid, grid), np.bool_)
            mask[top:bottom, left:right] = True
            images.append(copy)
            hidden.append(mask)
    return np.stack(images), np.stack(hidden)


def from_covers(score: float, covered_N: np.ndarray, hidden_Nhw: np.ndarray) -> Evidence:
    """Each position's mean fall of the score (for) and rise (against) over the covers that hid it."""
    fall_N = score - np.asarray(covered_N, np.float64)
    weight_hw = hidden_Nhw.sum(axis=0)
    mean_hw = np.tensordot(fall_N, hidden_Nhw.astype(np.float64), axes=1) / np.maximum(weight_hw, 1)
    return Evidence(score, np.maximum(mean_hw, 0), np.maximum(-mean_hw, 0), False)
