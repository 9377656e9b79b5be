"""Benign transformations of an asset: scale, rotation, background, lighting and compression.

An image of the asset is rendered as a publisher's tools or a camera in front of it would show it. Everything is drawn from
one random generator, so that an asset and a seed determine the image.

Shapes: H, W of the image; a pose is a 2 x 3 matrix from (x, y, 1) of the layer to (x, y) of the image.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from unalike.errors import SpecError, closest
from unalike.verification.asset import Asset

BENIGN = ("scale", "rotation", "background", "busy-background", "lighting", "compression")
# Bounds of the asset's size in the image (the square root of its area), and of its longer side, in pixels: from a thumbnail
# to more than is compared.
MIN_SIZE, MAX_SIZE, MAX_SIDE = 72, 420, 800
# Least ratio of an image's shorter to its longer side: a wide mark stands in a picture, not in a ribbon.
MIN_CANVAS_ASPECT = 0.5
# Largest rotation, in degrees.
MAX_ROTATION = 8.0
# The asset must stand out from its background: mean absolute difference of the channels, in gray levels.
MIN_CONTRAST = 55.0
# Share of backgrounds that are busy, of dark images (as dark as the second number), and the least JPEG quality.
BUSY_SHARE, DARK_SHARE, DARKEST, MIN_QUALITY = 0.15, 0.2, 0.5, 30


@dataclass(frozen=True, eq=False)
class RenderedAsset:
    """An image that shows an asset: ``image_HW3`` (uint8) and the ``pose_23`` of the asset in it."""

    image_HW3: np.ndarray
    pose_23: np.ndarray


def check_kinds(kinds: Collection[str], valid_kinds: Collection[str], what: str) -> tuple[str, ...]:
    """Return the kinds in the order of ``valid_kinds``; raise SpecError for an unknown kind, or for none."""
    for kind in kinds if isinstance(kinds, Collection) and not isinstance(kinds, str) else [kinds]:
        if kind not in valid_kinds:
            raise SpecError(f"{what} {kind!r}", expected=", ".join(valid_kinds), remedy=closest(kind, valid_kinds))
    if not kinds:
        raise SpecError(f"no {what}", expected=", ".join(valid_kinds))
    return tuple(kind for kind in valid_kinds if kind in kinds)


def render_benign(
    asset: Asset,
    rng: np.random.Generator,
    *,
    kinds: Collection[str] = BENIGN,
    layer_HW4: np.ndarray | None = None,
) -> RenderedAsset:
    """Render an image of the asset under random benign transformations.

    Args:
        asset: The asset.
        rng: Determines the image.
        kinds: The transformations to apply, of ``BENIGN``.
        layer_HW4: A layer to render in place of the asset's own, such as a tampered copy, of any size; the scene stays
            the same.

    Raises:
        SpecError: A kind is unknown.
    """
    check_kinds(kinds, BENIGN, "benign transformation")
    # All parameters are drawn whether they are used or not, so that leaving out a kind leaves the others as they were.
    size = float(np.exp(rng.uniform(np.log(MIN_SIZE), np.log(MAX_SIZE))))
    rotation = float(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    share = rng.uniform(0.5, 0.92)
    offset = rng.uniform(-1, 1, 2)
    background_seed, lighting_seed, compression_seed = (int(n) for n in rng.integers(0, 2**31, 3))
    layer = asset.layer_HW4 if layer_HW4 is None else layer_HW4
    natural = float(np.sqrt(asset.size[0] * asset.size[1]))
    scale = min(size / natural, MAX_SIDE / max(asset.size)) if "scale" in kinds else 1.0
    angle = np.deg2rad(rotation) if "rotation" in kinds else 0.0
    pose, canvas = _random_pose(layer, scale, angle, float(share), offset)
    background_rng = np.random.default_rng(background_seed)
    image = _composite(asset, layer, pose, canvas, background_rng, kinds)
    if "lighting" in kinds:
        image = _relight(image, np.random.default_rng(lighting_seed))
    if "compression" in kinds:
        return RenderedAsset(_compress(image, np.random.default_rng(compression_seed)), pose)
    return RenderedAsset(np.clip(image + 0.5, 0, 255).astype(np.uint8), pose)


def _random_pose(
    layer_HW4: np.ndarray, scale: float, angle: float, share: float, offset: np.ndarray
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pose of the scaled and rotated layer, and (H, W) of an image of which it fills ``share``."""
    height, width = layer_HW4.shape[:2]
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    wide, tall = abs(cos) * width + abs(sin) * height, abs(sin) * width + abs(cos) * height
    side_x, side_y = int(np.ceil(wide / share)) + 2, int(np.ceil(tall / share)) + 2
    side_x, side_y = max(side_x, round(MIN_CANVAS_ASPECT * side_y)), max(side_y, round(MIN_CANVAS_ASPECT * side_x))
    center = np.array([side_x, side_y]) / 2 + offset * (np.array([side_x - wide, side_y - tall]) / 2 - 1) * 0.9
    linear = np.array([[cos, -sin], [sin, cos]])
    pose_23 = np.concatenate([linear, (center - linear @ [width / 2, height / 2])[:, None]], axis=1)
    return pose_23, (side_y, side_x)


def _composite(
    asset: Asset, layer_HW4: np.ndarray, pose_23: np.ndarray, size: tuple[int, int], rng: np.random.Generator,
    kinds: Collection[str],
) -> np.ndarray:  # fmt: skip
    """Draw the layer at its pose on a random background, or on the asset's own; float32 (H, W, 3)."""
    color, alpha = warp_layer(layer_HW4, pose_23, size)
    ink = layer_HW4[..., :3][layer_HW4[..., 3] > 127]
    own = ("background" not in kinds) or (asset.background != "transparent" and rng.random() < 0.35)
    background: np.ndarray = (
        np.broadcast_to(np.array(asset.background_color, np.float32), (*size, 3))
        if own
        else draw_background(rng, *size, ink, busy="busy-background" in kinds)
    )
    image: np.ndarray = background * (1 - alpha[..., None]) + color * alpha[..., None]
    return image


def warp_layer(layer_HW4: np.ndarray, pose_23: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Warp a layer into an image of ``size`` (H, W).

    Shrinking is antialiased: the layer is resized first, then moved and rotated.

    Returns:
        float32 colors (H, W, 3), 0 to 255, and opacity (H, W), 0 to 1.
    """
    scale = float(np.sqrt(abs(np.linalg.det(pose_23[:, :2]))))
    height, width = layer_HW4.shape[:2]
    # With a margin, edges fade out inside the layer instead of at its border.
    edge = 2
    layer = Image.fromarray(layer_HW4)
    shrink = min(1.0, scale)
    small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    layer = layer.resize(small, Image.Resampling.BOX if shrink == 1 else Image.Resampling.LANCZOS)
    padded = Image.new("RGBA", (small[0] + 2 * edge, small[1] + 2 * edge))
    padded.paste(layer, (edge, edge))
    # Premultiplied, so that transparent pixels do not bleed into their neighbors.
    pixels = np.asarray(padded, np.float32)
    alpha = pixels[..., 3:] / 255
    bands = np.concatenate([pixels[..., :3] * alpha, alpha * 255], axis=-1)
    fit = np.array([[width / small[0], 0, -edge * width / small[0]], [0, height / small[1], -edge * height / small[1]]])
    to_image = np.vstack([pose_23, [0, 0, 1]]) @ np.vstack([fit, [0, 0, 1]])
    to_layer = np.linalg.inv(to_image)[:2].ravel().tolist()
    out = np.stack([
        np.asarray(Image.fromarray(np.ascontiguousarray(bands[..., c])).transform(
            (size[1], size[0]), Image.Transform.AFFINE, to_layer, Image.Resampling.BICUBIC))
        for c in range(4)
    ], axis=-1)  # fmt: skip
    alpha_HW = np.clip(out[..., 3] / 255, 0, 1)
    color_HW3 = np.where(alpha_HW[..., None] > 1e-3, out[..., :3] / np.maximum(alpha_HW[..., None], 1e-3), 0)
    return np.clip(color_HW3, 0, 255).astype(np.float32), alpha_HW.astype(np.float32)


def draw_background(
    rng: np.random.Generator, height: int, width: int, ink_N3: np.ndarray, busy: bool = False
) -> np.ndarray:
    """Draw a plain (half of the time), shaded, cloudy or busy background on which ink of these colors is visible.

    Args:
        rng: Determines the background.
        height: Of the image.
        width: Of the image.
        ink_N3: Colors of the ink.
        busy: Whether one in seven may be as busy as a photograph.

    Returns:
        float32 (H, W, 3), 0 to 255.
    """
    ink = ink_N3.astype(np.float32)
    for _ in range(60):
        first = rng.uniform(0, 255, 3) * rng.uniform(0, 1) + rng.uniform(0, 1) * 255 * rng.uniform(0, 1)
        first = np.clip(first, 0, 255)
        if rng.random() < 0.3:
            first = np.full(3, float(rng.choice([255.0, 250.0, 30.0, 235.0, 128.0])))
        contrast = np.abs(ink - first).mean(axis=1)
        if not len(ink) or (contrast > MIN_CONTRAST).mean() > 0.97:
            break
    kind = rng.choice(3, p=(0.5, 0.3, 0.2))
    second = np.clip(first + rng.uniform(-1, 1, 3) * (35 if kind == 1 else 22), 0, 255)
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
    background: np.ndarray = (first * (1 - blend[..., None]) + second * blend[..., None]).astype(np.float32)
    is_busy, texture_seed = bool(rng.random() < BUSY_SHARE), int(rng.integers(0, 2**31))
    return _add_texture(background, np.random.default_rng(texture_seed), ink) if busy and is_busy else background


def _add_texture(background_HW3: np.ndarray, rng: np.random.Generator, ink_N3: np.ndarray) -> np.ndarray:
    """Add noise of several scales, and shapes, as busy as a photograph, away from the ink's mean color."""
    height, width = background_HW3.shape[:2]
    texture = np.zeros((height, width, 3), np.float32)
    for cells in (3, 8, 20, 50):
        coarse = Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8))
        texture += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 4 - 32
    canvas = Image.fromarray(np.clip(127 + 2 * texture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(4, 16))):
        (x, y), reach = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.02, 0.2, 2) * max(height, width)
        fill = tuple(int(v) for v in rng.integers(0, 255, 3))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)([x, y, x + reach[0], y + reach[1]], fill=fill)
    strength = rng.uniform(0.3, 0.7)
    busy = background_HW3 + strength * (np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.8)), np.float32) - 127)
    # Where the ink would hardly be visible, the texture is weaker.
    near = (np.abs(busy - ink_N3.mean(axis=0)).mean(axis=2) < MIN_CONTRAST)[..., None] if len(ink_N3) else False
    result: np.ndarray = np.clip(np.where(near, 0.8 * background_HW3 + 0.2 * busy, busy), 0, 255).astype(np.float32)
    return result


def _relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, tint and gamma, and add shading that falls off to one side."""
    height, width = image.shape[:2]
    dark = rng.random() < DARK_SHARE
    gain = rng.uniform(*((DARKEST, 0.72) if dark else (0.72, 1.18))) * rng.uniform(0.965, 1.035, 3)
    gamma = rng.uniform(0.88, 1.14)
    angle, falloff = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.22)
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32) / max(height, width) - 0.5
    shading = 1 + falloff * (grid_x * np.cos(angle) + grid_y * np.sin(angle))
    result: np.ndarray = np.clip(255 * (image / 255) ** gamma * gain * shading[..., None], 0, 255).astype(np.float32)
    return result


def _compress(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a slight blur, slight noise and JPEG compression, each with some probability; uint8 (H, W, 3)."""
    blur, noise, quality = rng.uniform(0, 1.0), rng.uniform(0, 4), int(rng.integers(MIN_QUALITY, 96))
    blurred, noisy, compressed = rng.random(3) < (0.5, 0.5, 0.85)
    result = Image.fromarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))
    if blurred:
        result = result.filter(ImageFilter.GaussianBlur(blur))
    if noisy:
        pixels = np.asarray(result, np.float32) + rng.normal(0, noise, (*result.size[::-1], 3))
        result = Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
    if compressed:
        file = io.BytesIO()
        result.save(file, "JPEG", quality=quality)
        result = Image.open(file).convert("RGB")
    return np.array(result, np.uint8)
