"""Drawing of synthetic defects on images of normal parts: spots, lines, foreign patches, uneven regions.

They model no real defect. They show a classifier which differences between patches are those of an intact surface and
which come from something on it, as CutPaste (Li et al., CVPR 2021) and DRAEM (Zavrtanik et al., ICCV 2021) do.

Shape letters: H x W the image, C its three channels. Alpha masks are float32 (H, W), 0..1; defect masks bool (H, W).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Smallest area in pixels and largest area as a share of the image, of a spot and of a region.
SPOT_AREA, REGION_AREA = (15.0, 0.1), (150.0, 0.4)
# A pixel is defective where it changed by this many gray levels, or by this share of the median level.
MIN_LEVELS, MIN_SHARE = 3.0, 0.06
MAX_DEFECTS = 3  # on one image

# (image, another normal image, generator) -> (image with the defect, its alpha mask).
DrawDefect = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def draw_defects(
    image_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one to ``MAX_DEFECTS`` defects on an image.

    Args:
        image_HWC: uint8 RGB image of a normal part.
        other_HWC: Another normal image, the source of foreign patches.
        rng: The source of all randomness.

    Returns:
        (uint8 image, bool mask of the defects). The mask may be empty where a defect changed next to nothing.
    """
    mask_HW = np.zeros(image_HWC.shape[:2], np.bool_)
    names = list(DEFECT_TYPES)
    weights = np.array([DEFECT_TYPES[name][1] for name in names])
    for _ in range(int(rng.integers(1, MAX_DEFECTS + 1))):
        draw = DEFECT_TYPES[names[int(rng.choice(len(names), p=weights / weights.sum()))]][0]
        before_HWC = image_HWC.astype(np.float32)
        after_HWC, alpha_HW = draw(before_HWC, other_HWC, rng)
        image_HWC = after_HWC.clip(0, 255).round().astype(np.uint8)
        change_HW = np.abs(_blurred_gray(image_HWC) - _blurred_gray(before_HWC.astype(np.uint8)))
        min_change = max(MIN_LEVELS, MIN_SHARE * float(np.median(before_HWC)))
        mask_HW |= (alpha_HW > 0.3) & (change_HW > min_change)
    return image_HWC, mask_HW


# ---- types of defects ----


def draw_spot(image_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a darker or brighter blob with a grainy surface."""
    height, width = image_HWC.shape[:2]
    alpha_HW = _blob(rng, height, width, _random_area(rng, SPOT_AREA, height * width))
    grain_HW = _smooth_noise(rng, height, width, 3.0) * (0.3 * rng.random() * max(4.0, float(image_HWC.std())))
    change_HW = alpha_HW * (rng.uniform(0.2, 0.9) * _brightness_step(image_HWC, rng) + grain_HW)
    return image_HWC + change_HW[..., None] * _tint(image_HWC, rng), alpha_HW


def draw_line(image_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a thin curved line, such as a scratch or a hair."""
    height, width = image_HWC.shape[:2]
    supersampling, steps = 4, 40
    length = np.exp(rng.uniform(np.log(12), np.log(max(13, height, width))))
    turns = rng.normal(0, 1.2) / steps + rng.normal(0, 0.12, steps)
    angles = rng.uniform(0, 2 * np.pi) + np.cumsum(turns)
    ys = rng.uniform(0, height) + np.cumsum(np.sin(angles)) * length / steps
    xs = rng.uniform(0, width) + np.cumsum(np.cos(angles)) * length / steps
    canvas = Image.new("L", (width * supersampling, height * supersampling))
    points = [(float(x) * supersampling, float(y) * supersampling) for y, x in zip(ys, xs, strict=True)]
    ImageDraw.Draw(canvas).line(points, fill=255, width=max(1, round(rng.uniform(0.5, 1.8) * supersampling)))
    alpha_HW = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    change_HW = alpha_HW * (rng.uniform(0.25, 1.0) * _brightness_step(image_HWC, rng))
    return image_HWC + change_HW[..., None] * _tint(image_HWC, rng), alpha_HW


def draw_foreign_patch(
    image_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a region of another image, turned and shifted."""
    height, width = image_HWC.shape[:2]
    rotated_HWC = np.rot90(other_HWC, int(rng.integers(4))) if rng.random() < 0.7 else other_HWC[::-1]
    rows, columns = (
        np.arange(side) % period for side, period in zip((height, width), rotated_HWC.shape[:2], strict=True)
    )
    shift = int(rng.integers(height)), int(rng.integers(width))
    foreign_HWC = np.roll(rotated_HWC[np.ix_(rows, columns)], shift, (0, 1)) * rng.uniform(0.8, 1.25)
    return _blend(image_HWC, foreign_HWC, _blob(rng, height, width, _random_area(rng, REGION_AREA, height * width)))


def draw_uneven_region(
    image_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Change brightness and contrast inside a region, or beyond a line across the image."""
    height, width = image_HWC.shape[:2]
    across = rng.random() < 0.4
    alpha_HW = (
        _half_plane(rng, height, width)
        if across
        else _blob(rng, height, width, _random_area(rng, REGION_AREA, height * width))
    )
    gain = rng.uniform(0.5, 0.85) if rng.random() < 0.5 else rng.uniform(1.15, 1.7)
    inside = alpha_HW > 0.5
    mean = image_HWC[inside].mean() if inside.any() else image_HWC.mean()
    return _blend(image_HWC, (image_HWC - mean) * rng.uniform(0.4, 1.8) + mean * gain, alpha_HW)


def draw_rough_region(
    image_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Blur a region as if it were rubbed, or add noise to it."""
    height, width = image_HWC.shape[:2]
    if rng.random() < 0.5:
        blurred = Image.fromarray(image_HWC.astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(1, 4)))
        changed_HWC = np.asarray(blurred, np.float32)
    else:
        deviation = max(4.0, float(image_HWC.std())) * rng.uniform(0.3, 1.0)
        changed_HWC = image_HWC + rng.normal(0, deviation, (height, width, 1)).astype(np.float32)
    return _blend(image_HWC, changed_HWC, _blob(rng, height, width, _random_area(rng, REGION_AREA, height * width)))


# Name -> (function, relative frequency).
DEFECT_TYPES: dict[str, tuple[DrawDefect, float]] = {
    "spot": (draw_spot, 0.3), "line": (draw_line, 0.25), "patch": (draw_foreign_patch, 0.2),
    "uneven": (draw_uneven_region, 0.15), "rough": (draw_rough_region, 0.1),
}  # fmt: skip


# ---- shapes, brightness and noise ----


def _blurred_gray(image_HWC: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image_HWC).convert("L").filter(ImageFilter.GaussianBlur(1)), np.float32)


def _random_area(rng: np.random.Generator, limits: tuple[float, float], pixels: int) -> float:
    """An area in pixels, log-uniform between ``limits``: a number of pixels and a share of the image."""
    least = min(limits[0], limits[1] * pixels)
    return float(np.exp(rng.uniform(np.log(least), np.log(limits[1] * pixels))))


def _brightness_step(image_HWC: np.ndarray, rng: np.random.Generator) -> float:
    """A change of brightness as large as the median level, darker twice as often as brighter."""
    return (1.0 if rng.random() < 1 / 3 else -1.0) * max(20.0, float(np.median(image_HWC)))


def _tint(image_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Factors of the channels: all 1 on a gray image and on half of the others."""
    is_gray = bool((image_HWC == image_HWC[..., :1]).all())
    return np.ones(3, np.float32) if is_gray or rng.random() < 0.5 else rng.uniform(-0.2, 1, 3).astype(np.float32)


def _blend(lower_HWC: np.ndarray, upper_HWC: np.ndarray, alpha_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alpha_HW1 = alpha_HW[..., None]
    return lower_HWC * (1 - alpha_HW1) + upper_HWC * alpha_HW1, alpha_HW


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """float32 (H, W): smooth noise of unit variance whose grains are ``cell`` pixels wide."""
    coarse = rng.normal(size=(max(2, int(height / cell) + 2), max(2, int(width / cell) + 2))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _blob(rng: np.random.Generator, height: int, width: int, area: float) -> np.ndarray:
    """Alpha mask of an ellipse with a ragged, more or less soft edge; one in four is centered on the image's border."""
    ratio = np.exp(rng.uniform(-1.1, 1.1))
    long, short = np.sqrt(area / np.pi * ratio), np.sqrt(area / np.pi / ratio)
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    if rng.random() < 0.25:
        y, x = [(0.0, x), (float(height), x), (y, 0.0), (y, float(width))][int(rng.integers(4))]
    angle = rng.uniform(0, np.pi)
    rows_H1, columns_1W = np.arange(height)[:, None] - y, np.arange(width)[None] - x
    along_HW = (columns_1W * np.cos(angle) + rows_H1 * np.sin(angle)) / long
    across_HW = (rows_H1 * np.cos(angle) - columns_1W * np.sin(angle)) / short
    small = min(long, short)
    ragged_HW = _smooth_noise(rng, height, width, max(3.0, 0.7 * small)) * rng.uniform(0, 0.3)
    softness = rng.uniform(0.5, 2.0) / max(1.0, small)
    alpha_HW: np.ndarray = np.clip((1 - np.hypot(along_HW, across_HW) - ragged_HW) / softness + 0.5, 0, 1)
    return alpha_HW.astype(np.float32)


def _half_plane(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Alpha mask of all that lies beyond a line across the image, mostly along its rows or columns."""
    angle = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.1)
    y, x = rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width
    beyond_HW = (np.arange(height)[:, None] - y) * np.sin(angle) + (np.arange(width)[None] - x) * np.cos(angle)
    ragged_HW = _smooth_noise(rng, height, width, 12.0) * rng.uniform(0, 3)
    alpha_HW: np.ndarray = np.clip((beyond_HW + ragged_HW) / rng.uniform(0.5, 4) + 0.5, 0, 1)
    return alpha_HW.astype(np.float32)
