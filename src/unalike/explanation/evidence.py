"""Compute evidence maps of two images: which parts make them similar, and which make them different.

Where an embedding is a sum over positions, so is its cosine to another one: ``decompose_similarity`` gives each position's
share of the score, exactly (the idea is that of class activation maps, Zhou et al., CVPR 2016, applied to references in place
of classes). The same sum for the image against itself is 1, so that the difference of both is what each position lacks to a
perfect score. Where no such sum exists, parts are occluded and the score is computed again (``occlude``; Zeiler and Fergus,
ECCV 2014).

Shape letters: H x W pixels, h x w positions, C channels, D width of an embedding, N occlusions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence for and against a match, by position of one image.

    Attributes:
        score: The cosine of both embeddings.
        for_hw: What each position adds to the score; by occlusion, how much the score falls when it is covered.
        against_hw: What each position lacks to a perfect score; by occlusion, how much the score rises when it is covered.
        exact: Whether ``for_hw.sum() + constant`` is the score and ``against_hw.sum() + constant_against`` is 1 - score.
        constant, constant_against: What the bias of the head adds, which has no position.
    """

    score: float
    for_hw: np.ndarray
    against_hw: np.ndarray
    exact: bool
    constant: float = 0.0
    constant_against: float = 0.0


def decompose_similarity(
    features_hwC: np.ndarray, weight_DC: np.ndarray, bias_D: np.ndarray, other_D: np.ndarray
) -> Evidence:
    """Decompose by position the cosine between the embedding ``mean(features) @ weight.T + bias`` and another; in float64.

    Args:
        features_hwC: Feature map of the image, whose mean over positions the head takes.
        weight_DC, bias_D: The linear head.
        other_D: The other embedding, of any length.
    """
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


def occlude(image_HWC: np.ndarray, grid: int = 7, reach: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Copy an image once for each position of a grid, with a square around the position in the image's mean color.

    Args:
        image_HWC: The image, uint8.
        grid: Number of positions a side; N is its square.
        reach: Number of neighboring positions each way that the square covers too, as far as the image goes.

    Returns:
        (copies (N, H, W, 3) uint8, row by row; masks (N, grid, grid) bool of the covered positions).
    """
    height, width = image_HWC.shape[:2]
    rows, columns = (np.linspace(0, side, grid + 1).round().astype(int) for side in (height, width))
    mean_color = image_HWC.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    images, masks = [], []
    for y in range(grid):
        for x in range(grid):
            top, bottom = max(0, y - reach), min(grid, y + reach + 1)
            left, right = max(0, x - reach), min(grid, x + reach + 1)
            copy = image_HWC.copy()
            copy[rows[top] : rows[bottom], columns[left] : columns[right]] = mean_color
            mask = np.zeros((grid, grid), np.bool_)
            mask[top:bottom, left:right] = True
            images.append(copy)
            masks.append(mask)
    return np.stack(images), np.stack(masks)


def occlusion_evidence(score: float, occluded_N: np.ndarray, masks_Nhw: np.ndarray) -> Evidence:
    """Average by position how much the score falls (for) and rises (against) over the occlusions that cover it.

    Args:
        score: Of the image itself.
        occluded_N: Scores of the copies of ``occlude``.
        masks_Nhw: Their masks.
    """
    fall_N = score - np.asarray(occluded_N, np.float64)
    count_hw = masks_Nhw.sum(axis=0)
    mean_hw = np.tensordot(fall_N, masks_Nhw.astype(np.float64), axes=1) / np.maximum(count_hw, 1)
    return Evidence(score, np.maximum(mean_hw, 0), np.maximum(-mean_hw, 0), False)
