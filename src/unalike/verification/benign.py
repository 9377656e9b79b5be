"""What may happen to an asset without harm: another scale, ground, light, a small rotation, compression.

A picture of the asset is drawn as a publisher's tools or a camera straight before it would give it. Everything about it
comes from one random generator, so that (asset, seed) is (picture).

Shapes: H, W of the picture; a place is a 2 x 3 matrix that maps (x, y, 1) of the layer to x, y of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from unalike.errors import SpecError, closest
from unalike.verification.asset import Asset

HARMLESS = ("scale", "rotation", "ground", "lighting", "compression")
# The asset's longer side in the picture, pixels: from a thumbnail to more than is compared.
SMALLEST, LARGEST = 72, 420
# Largest rotation, degrees.
TURN = 8.0
# An asset must stand out from what it is laid on: mean absolute difference, grey levels of 255.
CONTRAST = 55.0


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture that shows an asset: ``picture_HW3`` (uint8) and the asset's ``place_23`` in it."""

    picture_HW3: np.ndarray
    place_23: np.ndarray


def check_kinds(kinds: Collection[str], known: Collection[str], what: str) -> tuple[str, ...]:
    """The kinds, in the order of ``known``. SpecError for one that is not known, or for none."""
    for kind in kinds:
        if kind not in known:
            raise SpecError(f"{what} {kind!r}", expected=", ".join(known), remedy=closest(kind, known))
    if not kinds:
        raise SpecError(f"no {what}", expected=", ".join(known))
    return tuple(kind for kind in known if kind in kinds)


def show_harmless(
    asset: Asset,
    rng: np.random.Generator,
    *,
    kinds: Collection[str] = HARMLESS,
    layer_HW4: np.ndarray | None = None,
) -> Shown:
    """A picture of the asset, changed in those of ``HARMLESS`` that are named.

    ``layer_HW4`` stands in the asset's place where it is given (a tampered copy, of any size): the scene stays the same.
    """
    check_kinds(kinds, HARMLESS, "harmless change")
    # Everything is drawn whether it is used or not: leaving a kind out leaves the others as they were.
    side = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
    turn = float(rng.uniform(-TURN, TURN))
    share = rng.uniform(0.5, 0.92)
    offset = rng.uniform(-1, 1, 2)
    ground_seed, light_seed, press_seed = (int(n) for n in rng.integers(0, 2**31, 3))
    layer = asset.layer_HW4 if layer_HW4 is None else layer_HW4
    scale = side / max(asset.size) if "scale" in kinds else 1.0
    angle = np.deg2rad(turn) if "rotation" in kinds else 0.0
    picture, place = _laid(asset, layer, scale, angle, float(share), offset, "ground" in kinds, ground_seed)
    if "lighting" in kinds:
        picture = _lit(picture, np.random.default_rng(light_seed))
    if "compression" in kinds:
        return Shown(_pressed(picture, np.random.default_rng(press_seed)), place)
    return Shown(np.clip(picture + 0.5, 0, 255).astype(np.uint8), place)


def _laid(
    asset: Asset,
    layer_HW4: np.ndarray,
    scale: float,
    angle: float,
    share: float,
    offset: np.ndarray,
    free: bool,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 picture, place): the layer scaled, turned and laid on a ground, the asset filling ``share`` of it."""
    height, width = layer_HW4.shape[:2]
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    wide, tall = abs(cos) * width + abs(sin) * height, abs(sin) * width + abs(cos) * height
    side_x, side_y = int(np.ceil(wide / share)) + 2, int(np.ceil(tall / share)) + 2
    centre = np.array([side_x, side_y]) / 2 + offset * (np.array([side_x - wide, side_y - tall]) / 2 - 1) * 0.9
    turned = np.array([[cos, -sin], [sin, cos]])
    place_23 = np.concatenate([turned, (centre - turned @ [width / 2, height / 2])[:, None]], axis=1)
    colour, alpha = warp_layer(layer_HW4, place_23, (side_y, side_x))
    rng = np.random.default_rng(seed)
    ink = layer_HW4[..., :3][layer_HW4[..., 3] > 127]
    own = (not free) or (asset.ground != "transparent" and rng.random() < 0.35)
    ground: np.ndarray = (
        np.broadcast_to(np.array(asset.ground_colour, np.float32), (side_y, side_x, 3))
        if own
        else draw_ground(rng, side_y, side_x, ink)
    )
    return ground * (1 - alpha[..., None]) + colour * alpha[..., None], place_23


def warp_layer(layer_HW4: np.ndarray, place_23: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The layer at its place in a picture of ``size`` (height, width): float32 colours (H, W, 3) and alpha (H, W).

    Shrinking is antialiased: the layer is resized first, then moved and turned.
    """
    scale = float(np.sqrt(abs(np.linalg.det(place_23[:, :2]))))
    height, width = layer_HW4.shape[:2]
    # A margin lets edges fade out inside the layer instead of at its border.
    edge = 2
    layer = Image.fromarray(layer_HW4)
    shrink = min(1.0, scale)
    small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    layer = layer.resize(small, Image.Resampling.BOX if shrink == 1 else Image.Resampling.LANCZOS)
    padded = Image.new("RGBA", (small[0] + 2 * edge, small[1] + 2 * edge))
    padded.paste(layer, (edge, edge))
    # Premultiplied, so that what is transparent lends no colour to its neighbours.
    pixels = np.asarray(padded, np.float32)
    alpha = pixels[..., 3:] / 255
    bands = np.concatenate([pixels[..., :3] * alpha, alpha * 255], axis=-1)
    fit = np.array([[width / small[0], 0, -edge * width / small[0]], [0, height / small[1], -edge * height / small[1]]])
    whole = np.vstack([place_23, [0, 0, 1]]) @ np.vstack([fit, [0, 0, 1]])
    back = np.linalg.inv(whole)[:2].ravel().tolist()
    out = np.stack([
        np.asarray(Image.fromarray(np.ascontiguousarray(bands[..., c])).transform(
            (size[1], size[0]), Image.Transform.AFFINE, back, Image.Resampling.BICUBIC))
        for c in range(4)
    ], axis=-1)  # fmt: skip
    alpha_HW = np.clip(out[..., 3] / 255, 0, 1)
    colour_HW3 = np.where(alpha_HW[..., None] > 1e-3, out[..., :3] / np.maximum(alpha_HW[..., None], 1e-3), 0)
    return np.clip(colour_HW3, 0, 255).astype(np.float32), alpha_HW.astype(np.float32)


def draw_ground(rng: np.random.Generator, height: int, width: int, ink_N3: np.ndarray) -> np.ndarray:
    """Plain (half of them), shaded or cloudy, far enough from the asset's colours to leave it visible; float32 (H, W, 3)."""
    ink = ink_N3.astype(np.float32)
    for _ in range(60):
        first = rng.uniform(0, 255, 3) * rng.uniform(0, 1) + rng.uniform(0, 1) * 255 * rng.uniform(0, 1)
        first = np.clip(first, 0, 255)
        if rng.random() < 0.3:
            first = np.full(3, float(rng.choice([255.0, 250.0, 30.0, 235.0, 128.0])))
        away = np.abs(ink - first).mean(axis=1)
        if not len(ink) or (away > CONTRAST).mean() > 0.97:
            break
    kind = rng.choice(3, p=(0.5, 0.3, 0.2))
    other = np.clip(first + rng.uniform(-1, 1, 3) * (35 if kind == 1 else 22), 0, 255)
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width)
    if kind == 0:
        blend = np.zeros((height, width), np.float32)
    elif kind == 1:
        angle = rng.uniform(0, 2 * np.pi)
        blend = np.clip(0.5 + 0.7 * ((grid_x - 0.5) * np.cos(angle) + (grid_y - 0.5) * np.sin(angle)), 0, 1)
    else:
        cells = int(rng.integers(2, 6))
        coarse = Image.fromarray(rng.uniform(0, 1, (cells, cells)).astype(np.float32))
        blend = np.clip(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)
    return (first * (1 - blend[..., None]) + other * blend[..., None]).astype(np.float32)


def _lit(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brighter or darker, a slight tint, gamma, and a shade that falls off to one side."""
    height, width = picture.shape[:2]
    gain = rng.uniform(0.72, 1.18) * rng.uniform(0.965, 1.035, 3)
    gamma = rng.uniform(0.88, 1.14)
    angle, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.22)
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width) - 0.5
    shade = 1 + fall * (grid_x * np.cos(angle) + grid_y * np.sin(angle))
    return np.clip(255 * (picture / 255) ** gamma * gain * shade[..., None], 0, 255).astype(np.float32)


def _pressed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A little out of focus, a little noise, then JPEG; sometimes none of them."""
    blur, noise, quality = rng.uniform(0, 1.0), rng.uniform(0, 4), int(rng.integers(40, 96))
    soft, grainy, lossy = rng.random(3) < (0.5, 0.5, 0.85)
    image = Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))
    if soft:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    if grainy:
        pixels = np.asarray(image, np.float32) + rng.normal(0, noise, (*image.size[::-1], 3))
        image = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    if lossy:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        image = Image.open(file).convert("RGB")
    return np.array(image, np.uint8)
