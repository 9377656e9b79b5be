"""Made-up flaws on pictures of good parts: spots, lines, foreign patches, uneven regions, rubbed or grainy ones.

They are no model of any real defect. They show a learner which differences between patches are those of a surface that is
whole and which come from something on it, as CutPaste (Li et al., CVPR 2021) and DRAEM (Zavrtanik et al., ICCV 2021) do.

Shapes: H, W of the picture, C its three channels; masks are bool (H, W).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Of the picture: the smallest and the largest area of a spot, and of a region.
SPOT, REGION = (15.0, 0.1), (150.0, 0.4)
# A pixel is flawed where it changed by this many grey levels, or by this share of the usual level.
LEVELS, SHARE = 3.0, 0.06
# At most this many flaws on one picture.
MOST = 3

Flaw = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def flawed(picture_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 picture with one to MOST flaws, where it is flawed). ``other_HWC``: another good picture, for foreign patches.

    Everything comes from ``rng``. The mask may be empty where a flaw changed next to nothing.
    """
    mask_HW = np.zeros(picture_HWC.shape[:2], np.bool_)
    names = list(FLAWS)
    chances = np.array([FLAWS[name][1] for name in names])
    for _ in range(int(rng.integers(1, MOST + 1))):
        make = FLAWS[names[int(rng.choice(len(names), p=chances / chances.sum()))]][0]
        before_HWC = picture_HWC.astype(np.float32)
        after_HWC, share_HW = make(before_HWC, other_HWC, rng)
        picture_HWC = after_HWC.clip(0, 255).round().astype(np.uint8)
        changed_HW = np.abs(_blurred_grey(picture_HWC) - _blurred_grey(before_HWC.astype(np.uint8)))
        floor = max(LEVELS, SHARE * float(np.median(before_HWC)))
        mask_HW |= (share_HW > 0.3) & (changed_HW > floor)
    return picture_HWC, mask_HW


def _spot(picture_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = picture_HWC.shape[:2]
    share_HW = _shape(rng, height, width, _area(rng, SPOT, height * width))
    grain_HW = _clouds(rng, height, width, 3.0) * (0.3 * rng.random() * max(4.0, float(picture_HWC.std())))
    change_HW = share_HW * (rng.uniform(0.2, 0.9) * _step(picture_HWC, rng) + grain_HW)
    return picture_HWC + change_HW[..., None] * _tint(picture_HWC, rng), share_HW


def _line(picture_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = picture_HWC.shape[:2]
    finer, steps = 4, 40
    length = np.exp(rng.uniform(np.log(12), np.log(max(13, height, width))))
    bends = rng.normal(0, 1.2) / steps + rng.normal(0, 0.12, steps)
    angles = rng.uniform(0, 2 * np.pi) + np.cumsum(bends)
    ys = rng.uniform(0, height) + np.cumsum(np.sin(angles)) * length / steps
    xs = rng.uniform(0, width) + np.cumsum(np.cos(angles)) * length / steps
    drawn = Image.new("L", (width * finer, height * finer))
    points = [(float(x) * finer, float(y) * finer) for y, x in zip(ys, xs, strict=True)]
    ImageDraw.Draw(drawn).line(points, fill=255, width=max(1, round(rng.uniform(0.5, 1.8) * finer)))
    share_HW = np.asarray(drawn.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    change_HW = share_HW * (rng.uniform(0.25, 1.0) * _step(picture_HWC, rng))
    return picture_HWC + change_HW[..., None] * _tint(picture_HWC, rng), share_HW


def _patch(picture_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = picture_HWC.shape[:2]
    turned = np.rot90(other_HWC, int(rng.integers(4))) if rng.random() < 0.7 else other_HWC[::-1]
    rows, columns = (np.arange(wanted) % have for wanted, have in zip((height, width), turned.shape[:2], strict=True))
    shift = int(rng.integers(height)), int(rng.integers(width))
    foreign_HWC = np.roll(turned[np.ix_(rows, columns)], shift, (0, 1)) * rng.uniform(0.8, 1.25)
    return _laid(picture_HWC, foreign_HWC, _shape(rng, height, width, _area(rng, REGION, height * width)))


def _uneven(picture_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Another brightness and contrast in a region with a rim, or beyond a line across the picture."""
    height, width = picture_HWC.shape[:2]
    across = rng.random() < 0.4
    share_HW = _side(rng, height, width) if across else _shape(rng, height, width, _area(rng, REGION, height * width))
    gain = rng.uniform(0.5, 0.85) if rng.random() < 0.5 else rng.uniform(1.15, 1.7)
    inside = share_HW > 0.5
    mean = picture_HWC[inside].mean() if inside.any() else picture_HWC.mean()
    return _laid(picture_HWC, (picture_HWC - mean) * rng.uniform(0.4, 1.8) + mean * gain, share_HW)


def _rough(picture_HWC: np.ndarray, other_HWC: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = picture_HWC.shape[:2]
    if rng.random() < 0.5:
        blurred = Image.fromarray(picture_HWC.astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(1, 4)))
        changed_HWC = np.asarray(blurred, np.float32)
    else:
        spread = max(4.0, float(picture_HWC.std())) * rng.uniform(0.3, 1.0)
        changed_HWC = picture_HWC + rng.normal(0, spread, (height, width, 1)).astype(np.float32)
    return _laid(picture_HWC, changed_HWC, _shape(rng, height, width, _area(rng, REGION, height * width)))


# Each kind and how often it is drawn.
FLAWS: dict[str, tuple[Flaw, float]] = {
    "spot": (_spot, 0.3), "line": (_line, 0.25), "patch": (_patch, 0.2), "uneven": (_uneven, 0.15), "rough": (_rough, 0.1)
}  # fmt: skip


# ---- what they are made of ----


def _blurred_grey(picture_HWC: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture_HWC).convert("L").filter(ImageFilter.GaussianBlur(1)), np.float32)


def _area(rng: np.random.Generator, limits: tuple[float, float], pixels: int) -> float:
    """Pixels, drawn evenly on a logarithmic scale between a number of them and a share of the picture."""
    least = min(limits[0], limits[1] * pixels)
    return float(np.exp(rng.uniform(np.log(least), np.log(limits[1] * pixels))))


def _step(picture_HWC: np.ndarray, rng: np.random.Generator) -> float:
    """A change of brightness as large as the usual level, darker twice as often as brighter."""
    return (1.0 if rng.random() < 1 / 3 else -1.0) * max(20.0, float(np.median(picture_HWC)))


def _tint(picture_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Factors of the channels: all 1 on a grey picture and on half of the others."""
    grey = bool((picture_HWC == picture_HWC[..., :1]).all())
    return np.ones(3, np.float32) if grey or rng.random() < 0.5 else rng.uniform(-0.2, 1, 3).astype(np.float32)


def _laid(picture_HWC: np.ndarray, upper_HWC: np.ndarray, share_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    share_HW1 = share_HW[..., None]
    return picture_HWC * (1 - share_HW1) + upper_HWC * share_HW1, share_HW


def _clouds(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """float32 (H, W): smooth noise of unit variance whose grains are ``cell`` pixels wide."""
    coarse = rng.normal(size=(max(2, int(height / cell) + 2), max(2, int(width / cell) + 2))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _shape(rng: np.random.Generator, height: int, width: int, area: float) -> np.ndarray:
    """float32 (H, W), 0..1: an ellipse with a ragged, more or less soft rim; one in four lies at the picture's edge."""
    ratio = np.exp(rng.uniform(-1.1, 1.1))
    long, short = np.sqrt(area / np.pi * ratio), np.sqrt(area / np.pi / ratio)
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    if rng.random() < 0.25:
        y, x = [(0.0, x), (float(height), x), (y, 0.0), (y, float(width))][int(rng.integers(4))]
    angle = rng.uniform(0, np.pi)
    rows_H1, columns_1W = np.arange(height)[:, None] - y, np.arange(width)[None] - x
    along_HW = (columns_1W * np.cos(angle) + rows_H1 * np.sin(angle)) / long
    aside_HW = (rows_H1 * np.cos(angle) - columns_1W * np.sin(angle)) / short
    small = min(long, short)
    ragged_HW = _clouds(rng, height, width, max(3.0, 0.7 * small)) * rng.uniform(0, 0.3)
    soft = rng.uniform(0.5, 2.0) / max(1.0, small)
    return np.clip((1 - np.hypot(along_HW, aside_HW) - ragged_HW) / soft + 0.5, 0, 1).astype(np.float32)


def _side(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 (H, W), 0..1: all that lies beyond a line across the picture, mostly along its rows or columns."""
    angle = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.1)
    y, x = rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width
    beyond_HW = (np.arange(height)[:, None] - y) * np.sin(angle) + (np.arange(width)[None] - x) * np.cos(angle)
    ragged_HW = _clouds(rng, height, width, 12.0) * rng.uniform(0, 3)
    return np.clip((beyond_HW + ragged_HW) / rng.uniform(0.5, 4) + 0.5, 0, 1).astype(np.float32)
