"""What differs between an asset and a picture in which its place is known: form, colour, parts, each measured by itself.

The picture is drawn into the asset's frame at a size at which both show the same detail. What the ground would look
like there is fitted to what is seen beside the asset; what light does, to the asset's own ink. From these the picture is
expected; the place is settled once more on it, to a tenth of a pixel or so, and two questions are asked:

- where is the picture neither between the darkest and the lightest that is expected within a pixel (``parts``)?
- where is too much or too little of anything, when differences are blurred with their sign (``balance``)? What blur, JPEG
  and an edge that lies a little off do cancels there; a stroke that is thicker by half a pixel does not.

Shapes: H, W of the frame (the asset with a margin).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.localization import MARGIN, Place, Template, shrink

# The asset's longer side in the frame, pixels, at most and at least.
LARGEST, SMALLEST = 192, 40
# What light may do to colours: gain, and grey levels that a veil adds.
GAIN, VEIL = (0.55, 1.45), (-20.0, 40.0)
# Differences are told in shares of the asset's contrast with its ground, which counts as this much at least.
LEAST_CONTRAST = 40.0
# Grey levels of difference that JPEG and noise leave anywhere.
SLACK = 10.0
# A difference is looked for in squares of this share of the asset's longer side.
WINDOW = 0.045
# Differences are balanced over this share of the longer side (a Gaussian's width, pixels of the frame at least).
BALANCED, LEAST_BALANCED = 0.018, 0.8
# What harmless changes leave of it: so many pixels of the blurred picture's slope and of its curvature, and grey levels.
SLOPE, CURVE, LEFT = 0.25, 0.25, 6.0
# Times the place is settled on the expected picture, and the most that one time may move it (in the frame's units).
SETTLED, MOST_MOVED = 2, 2.0
MEASURES = ("edges", "distortion", "colour", "parts", "balance")


@dataclass(frozen=True, eq=False)
class Difference:
    """What was measured of one asset in one picture.

    ``measures``: ``edges`` 1 - correlation of edge maps (0..2), ``distortion`` (see Place), ``colour`` the ink's mean
    difference beyond light, ``parts`` the greatest difference in one spot, ``balance`` the greatest surplus or lack in one,
    these three in shares of the contrast; ``area`` the share of the asset that differs, ``hidden`` that lies outside.
    ``place`` is settled anew. ``heat_HW``: difference at every pixel of the frame (float32, 0 where
    none). ``seen_HW3`` the picture in the frame, ``expected_HW3`` what it was compared with (uint8).
    ``to_picture_23``: x, y of the frame -> of the picture.
    """

    place: Place
    measures: dict[str, float]
    heat_HW: np.ndarray
    seen_HW3: np.ndarray
    expected_HW3: np.ndarray
    to_picture_23: np.ndarray


def compare_laid(template: Template, picture_HW3: np.ndarray, place: Place) -> Difference:
    """Measure what differs between the asset at its place and the picture there."""
    cv2 = import_opencv()
    asset = template.asset
    longest = max(asset.size)
    side = float(np.clip(place.scale * longest, SMALLEST, LARGEST))
    layer, part = shrink(asset.layer_HW4, side)
    edge = max(3, round(MARGIN * side))
    opaque = asset.ground == "none"
    layer = cv2.copyMakeBorder(layer, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
    to_layer = np.array([[1 / part, 0, (0.5 - edge) / part - 0.5], [0, 1 / part, (0.5 - edge) / part - 0.5], [0, 0, 1]])
    to_picture = np.vstack([place.matrix_23, [0, 0, 1]]) @ to_layer
    seen, inside = _drawn_in(picture_HW3, to_picture, layer.shape[:2])
    first = _expected(layer, seen, inside, opaque)
    for _ in range(SETTLED):
        moved = _moved(first, seen, inside)
        if moved is None:
            break
        to_picture = to_picture @ moved
        seen, inside = _drawn_in(picture_HW3, to_picture, layer.shape[:2])
    place = Place((to_picture @ np.linalg.inv(to_layer))[:2], place.fit)
    told = _expected(layer, seen, inside, opaque)
    alpha, expected, contrast, ink = told.alpha, told.expected, told.contrast, told.ink
    low, high = _range(expected)
    beyond = np.maximum(np.maximum(low - seen, seen - high), 0).max(axis=2)
    counted = inside & (~_outside(alpha) if opaque else np.ones_like(inside))
    noise = SLACK + 2.0 * told.ground_spread
    heat = np.where(counted, np.maximum(beyond - noise, 0) / contrast, 0).astype(np.float32)
    window = max(2, round(WINDOW * side)) | 1
    spots = cv2.blur(np.minimum(heat, 1.5), (window, window), borderType=cv2.BORDER_CONSTANT)
    # The ink's own colour, or where strokes are thin that mixed with ground: whichever explains more.
    away = min(
        (float(np.abs((seen - one)[ink].mean(axis=0)).max()) for one in (told.lit, expected) if ink.any()), default=0.0
    )
    measures = {
        "edges": 1.0 - place.fit,
        "distortion": place.distortion,
        "colour": away / contrast if ink.any() else 1.0,
        "parts": float(spots.max()),
        "balance": _unbalanced(seen, expected, counted, side) / contrast,
        "area": float((heat > 0.25).sum() / max(1.0, float((alpha > 0.5).sum()))),
        "hidden": float((alpha * ~inside).sum() / max(1.0, float(alpha.sum()))),
    }
    return Difference(
        place, measures, heat, seen.astype(np.uint8), np.clip(expected, 0, 255).astype(np.uint8), to_picture[:2]
    )


@dataclass(frozen=True, eq=False)
class _Expected:
    """What a frame should show: the asset's ``alpha`` and its colours in this light (``lit``), the whole (``expected``, as
    sharp as what is seen), the ground's spread and the contrast in grey levels, and where nothing but ink is (``ink``)."""

    alpha: np.ndarray
    lit: np.ndarray
    expected: np.ndarray
    ground_spread: float
    contrast: float
    ink: np.ndarray


def _expected(layer: np.ndarray, seen: np.ndarray, inside: np.ndarray, opaque: bool) -> _Expected:
    alpha, colour = layer[..., 3].astype(np.float32) / 255, layer[..., :3].astype(np.float32)
    ground, ground_spread = fit_ground(seen, inside & (_grown(alpha, 2) < 0.03))
    ink = inside & (_shrunk(alpha, 1) > 0.95)
    if ink.sum() < 30:
        ink = inside & (alpha > 0.7)
    lit = fit_light(colour, seen, ink)
    expected = _as_sharp(lit * alpha[..., None] + ground * (1 - alpha[..., None]), seen, inside)
    return _Expected(alpha, lit, expected, ground_spread, _contrast(lit, ground, alpha, expected, opaque), ink)


def _moved(told: _Expected, seen: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """The 3 x 3 map of the frame that lays ``seen`` better on what is expected, or None where too little is seen.

    One step of Gauss and Newton for an affine move, on edges alone; what differs beyond the common is weighted down.
    """
    height, width = inside.shape
    steep_x, steep_y = _slopes(told.expected)
    edges = inside & ((np.abs(steep_x) + np.abs(steep_y)).max(axis=2) > 0.02 * told.contrast)
    if edges.sum() < 30:
        return None
    rows, columns = np.nonzero(edges)
    step = max(1, len(rows) // 6000)
    rows, columns = rows[::step], columns[::step]
    at = np.stack([columns / width - 0.5, rows / height - 0.5, np.ones(len(rows))], axis=1)[:, None, :]
    along_x, along_y, left = steep_x[rows, columns], steep_y[rows, columns], (seen - told.expected)[rows, columns]
    terms = np.concatenate([along_x[..., None] * at, along_y[..., None] * at], axis=2).reshape(-1, 6)
    away = np.abs(left).max(axis=1) / told.contrast
    weight = np.repeat(1 / (1 + (away / (2 * max(1.5 * float(np.median(away)), 0.03))) ** 2), 3)[:, None]
    square = (terms * weight).T @ terms
    moves = np.linalg.solve(square + np.eye(6) * 1e-3 * np.trace(square) / 6, (terms * weight).T @ left.reshape(-1))
    by_x, by_y = np.clip(moves, -MOST_MOVED, MOST_MOVED).reshape(2, 3)
    # seen(x) is expected(x + move(x)): what lies at x belongs to x - move(x).
    moved = np.eye(3)
    for row, (x, y, one) in enumerate((by_x, by_y)):
        moved[row] -= (x / width, y / height, one - 0.5 * (x + y))
    return moved if np.isfinite(moved).all() else None


def _slopes(shown_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels a pixel along x and along y."""
    cv2 = import_opencv()
    along_x, along_y = (cv2.Scharr(shown_HW3, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1)))
    return along_x, along_y


def _unbalanced(seen: np.ndarray, expected: np.ndarray, counted: np.ndarray, side: float) -> float:
    """The greatest surplus or lack in one spot beyond what harmless changes leave, in grey levels."""
    cv2 = import_opencv()
    blur = max(BALANCED * side, LEAST_BALANCED)
    left = np.abs(cv2.GaussianBlur((seen - expected) * counted[..., None], (0, 0), blur))
    soft = cv2.GaussianBlur(expected, (0, 0), blur)
    along_x, along_y = _slopes(soft)
    curved = np.abs(cv2.Laplacian(soft, cv2.CV_32F))
    return float(np.maximum(left - SLOPE * np.hypot(along_x, along_y) - CURVE * curved - LEFT, 0).max())


def _drawn_in(picture_HW3: np.ndarray, to_picture: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The picture in the frame (float32), antialiased, and which pixels of the frame lie inside the picture."""
    cv2 = import_opencv()
    scale = float(np.sqrt(abs(np.linalg.det(to_picture[:2, :2]))))
    shown, less = shrink(picture_HW3, max(picture_HW3.shape[:2]) / max(scale, 1.0))
    # Pixel centres: x of the small copy is (x + 0.5) * less - 0.5.
    into = np.array([[less, 0, (less - 1) / 2], [0, less, (less - 1) / 2], [0, 0, 1]])
    back = (into @ to_picture)[:2]
    size_xy = (size[1], size[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(shown, back, size_xy, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    whole = np.ones(shown.shape[:2], np.uint8)
    inside = cv2.warpAffine(whole, back, size_xy, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return seen, inside > 0


def fit_ground(seen_HW3: np.ndarray, free_HW: np.ndarray) -> tuple[np.ndarray, float]:
    """What lies behind the asset: a smooth surface through what is seen beside it, (H, W, 3), and how far that is off.

    Quadratic in x and y where enough is seen; what does not belong (something added) is weighted down.
    """
    height, width = free_HW.shape
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = grid_x / width - 0.5, grid_y / height - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    rows, values = terms[free_HW], seen_HW3[free_HW]
    if len(rows) < 40:
        values = seen_HW3.reshape(-1, 3) if not len(values) else values
        flat = np.broadcast_to(np.median(values, axis=0), seen_HW3.shape)
        return flat.astype(np.float32), 0.0
    step = max(1, len(rows) // 4000)
    rows, values = rows[::step], values[::step]
    weight = np.ones(len(rows), np.float32)
    ridge = np.diag([1e-6, 1e-3, 1e-3, 1e-2, 1e-2, 1e-2]) * len(rows)
    for _ in range(8):
        weighted = rows * weight[:, None]
        surface = np.linalg.solve(weighted.T @ rows + ridge, weighted.T @ values)
        away = np.abs(values - rows @ surface).max(axis=1)
        spread = max(float(np.median(away)) * 1.5, 2.0)
        weight = (1 / (1 + (away / (2 * spread)) ** 2) ** 2).astype(np.float32)
    return (terms @ surface).astype(np.float32), float(np.median(away))


def fit_light(colour_HW3: np.ndarray, seen_HW3: np.ndarray, ink_HW: np.ndarray) -> np.ndarray:
    """The asset's colours in the picture's light: one gain that may fall off to a side, and one veil, for all channels.

    One for all channels, so that light cannot turn red into blue; within ``GAIN`` and ``VEIL``, so that it cannot turn
    black into white.
    """
    height, width = ink_HW.shape
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = grid_x / width - 0.5, grid_y / height - 0.5
    gain, slope_x, slope_y, veil = 1.0, 0.0, 0.0, 0.0
    colours, values, xs, ys = colour_HW3[ink_HW], seen_HW3[ink_HW], x[ink_HW], y[ink_HW]
    if len(colours):
        step = max(1, len(colours) // 3000)
        colours, values, xs, ys = colours[::step], values[::step], xs[::step], ys[::step]
        rows = np.stack([colours, colours * xs[:, None], colours * ys[:, None], np.full_like(colours, 64.0)], axis=-1)
        weight = np.ones(len(colours), np.float32)
        wanted, ridge = np.array([1.0, 0, 0, 0]), np.diag([100.0, 400.0, 400.0, 100.0]) * len(colours)
        for _ in range(6):
            weighted = rows * weight[:, None, None]
            square = np.einsum("nci,ncj->ij", weighted, rows) + ridge
            gain, slope_x, slope_y, veil = np.linalg.solve(
                square, np.einsum("nci,nc->i", weighted, values) + ridge @ wanted
            )
            away = np.abs(values - rows @ np.array([gain, slope_x, slope_y, veil])).max(axis=1)
            spread = max(float(np.median(away)) * 1.5, 6.0)
            weight = (1 / (1 + (away / (2 * spread)) ** 2)).astype(np.float32)
    gain, veil = float(np.clip(gain, *GAIN)), float(np.clip(veil * 64, *VEIL))
    slope_x, slope_y = (float(np.clip(s, -0.35 * gain, 0.35 * gain)) for s in (slope_x, slope_y))
    light = gain + slope_x * x + slope_y * y
    return np.clip(colour_HW3 * light[..., None] + veil, 0, 255).astype(np.float32)


def _as_sharp(expected: np.ndarray, seen: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The expected picture blurred as the seen one is: the blur (pixels) that leaves the least difference."""
    cv2 = import_opencv()
    drawn = [expected if blur == 0 else cv2.GaussianBlur(expected, (0, 0), blur) for blur in (0, 0.6, 1.0, 1.5, 2.2)]
    return min(drawn, key=lambda one: float(np.abs(one - seen)[inside].mean()) if inside.any() else 0.0)


def _range(expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The darkest and the lightest that is expected within a pixel of each."""
    cv2 = import_opencv()
    near = np.ones((3, 3), np.uint8)
    return cv2.erode(expected, near), cv2.dilate(expected, near)


def _contrast(lit: np.ndarray, ground: np.ndarray, alpha: np.ndarray, expected: np.ndarray, opaque: bool) -> float:
    """How far ink and ground (of an opaque asset: its own light and dark) are apart, grey levels."""
    ink = alpha > 0.7
    if not ink.any():
        return LEAST_CONTRAST
    if opaque:
        apart = float((np.quantile(expected[ink], 0.95, axis=0) - np.quantile(expected[ink], 0.05, axis=0)).max())
    else:
        apart = float(np.median(np.abs(lit - ground).max(axis=2)[ink]))
    return max(apart, LEAST_CONTRAST)


def _grown(alpha: np.ndarray, reach: int) -> np.ndarray:
    return import_opencv().dilate(alpha, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))


def _shrunk(alpha: np.ndarray, reach: int) -> np.ndarray:
    return import_opencv().erode(alpha, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))


def _outside(alpha: np.ndarray) -> np.ndarray:
    return _shrunk(alpha, 2) < 0.5
