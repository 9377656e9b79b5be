"""Tampering with an asset: recolored, stretched, parts missing, added or moved, text changed, mirrored.

Each kind changes a layer and says where (in the layer's own frame). A change that is hardly visible is drawn again: only
changes of at least ``MIN_CHANGED_SHARE`` of the asset's ink count as tampering, measured in the smallest image that is
rendered (``benign.MIN_SIZE``), so a calibrated rate holds for changes of that size and up. A drawing, or a
part of one, that is its own mirror image is not tampered with by mirroring it.

Shapes: H, W of the layer; masks are bool (H, W).
"""

from __future__ import annotations

import functools
import string
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from unalike.errors import DataError
from unalike.verification.asset import Asset, spread_colors
from unalike.verification.benign import MIN_SIZE, check_kinds
from unalike.verification.color_difference import ciede2000, srgb_to_lab

# Least share of the asset's ink, in the smallest image, that must change, and by how many gray levels (largest channel).
MIN_CHANGED_SHARE = 0.02
CHANGED_LEVELS = 40.0
BOX = Image.Resampling.BOX
# The same share for a mirror image, against the drawing rotated by any angle up to 45 degrees: below it, it is nearly the
# same drawing, as a rotated square is.
MIN_MIRRORED_SHARE = 0.15
# The same share for a mirrored part, edges that are displaced by a pixel left out: a part that is its own mirror image may lie
# a pixel aside once it is mirrored, which is no change.
MIN_MIRRORED_PART_SHARE = 0.005
# CIEDE2000 difference of the mean color that a mild recoloring makes, and the largest change of its lightness (CIELAB).
MILD_DIFFERENCE, MILD_LIGHTNESS = (10.0, 20.0), 6.0
# Least and largest change of the aspect ratio.
STRETCH = (1.08, 1.35)
# Attempts to draw a visible change of one kind.
MAX_ATTEMPTS = 24
# Longer side, in pixels, at which parts are found, and the most parts.
PARTS_SIDE, MAX_PARTS = 96, 24


@dataclass(frozen=True, eq=False)
class TamperedAsset:
    """A changed copy of an asset.

    Attributes:
        layer_HW4: uint8, RGB and alpha; its size may differ from the asset's.
        kind: The kind of tampering.
        mask_HW: bool, where the asset changed, in the asset's frame.
        is_global: Whether the asset changed everywhere (stretched, or recolored as a whole), so that no part is at fault.
    """

    layer_HW4: np.ndarray
    kind: str
    mask_HW: np.ndarray
    is_global: bool = False


def tamper(asset: Asset, kind: str, rng: np.random.Generator) -> TamperedAsset:
    """Change an asset in a random way of one kind, of ``TAMPERING``.

    Raises:
        DataError: No visible change of this kind is possible, such as moving a part of a drawing of one part.
        SpecError: The kind is unknown.
    """
    check_kinds([kind], TAMPERING, "kind of tampering")
    for _ in range(MAX_ATTEMPTS):
        tampered = _KINDS[kind](asset, rng)
        if tampered is not None and _is_visible(asset, tampered):
            return tampered
    raise DataError(f"{asset.name}: no visible change of kind {kind!r} is possible on it")


def tamper_randomly(asset: Asset, rng: np.random.Generator, kinds: Collection[str]) -> TamperedAsset:
    """Change an asset in a way of a random kind; kinds that are not possible on it are skipped.

    Raises:
        DataError: None of the kinds is possible.
        SpecError: A kind is unknown.
    """
    for kind in rng.permutation(list(check_kinds(kinds, TAMPERING, "kind of tampering"))):
        try:
            return tamper(asset, str(kind), rng)
        except DataError:
            continue
    raise DataError(f"{asset.name}: none of {', '.join(kinds)} is possible on it")


def _is_visible(asset: Asset, tampered: TamperedAsset) -> bool:
    """Whether enough of the asset changes in an image of the smallest size."""
    if tampered.layer_HW4.shape != asset.layer_HW4.shape:  # stretched or slanted
        return True
    if tampered.kind == "tinted":  # visible by its own definition
        return True
    before, after = asset.layer_HW4, tampered.layer_HW4
    if tampered.kind == "part-mirrored" and compute_changed_share(before, after, reach=1) < MIN_MIRRORED_PART_SHARE:
        return False
    return compute_changed_share(before, after) >= MIN_CHANGED_SHARE


def compute_changed_share(
    before_HW4: np.ndarray, after_HW4: np.ndarray, rotation: float = 0.0, *, reach: int = 0
) -> float:
    """Count pixels that change between two layers, on black or on white, as a share of the first one's ink.

    Args:
        before_HW4: uint8 RGB and alpha.
        after_HW4: uint8 of the same shape; both are compared at ``MIN_SIZE`` (the square root of the area).
        rotation: Degrees by which the first is rotated about its center.
        reach: Pixels by which an edge may be displaced without counting.
    """
    height, width = before_HW4.shape[:2]
    scale = min(1.0, MIN_SIZE / float(np.sqrt(height * width)))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    before, after = (
        Image.merge("RGBA", Image.fromarray(layer).convert("RGBa").resize(small, BOX).split())
        for layer in (before_HW4, after_HW4)
    )
    if rotation:
        edge = max(small) // 4  # what is rotated out of the layer counts too
        before, after = (ImageOps.expand(image, edge, (0, 0, 0, 0)) for image in (before, after))
        before = before.rotate(rotation, Image.Resampling.BILINEAR)
    ink = np.asarray(before)[..., 3] > 127
    return float(_changed_pixels(before, after, CHANGED_LEVELS, reach).sum()) / max(1.0, float(ink.sum()))


def _changed_pixels(before: Image.Image, after: Image.Image, levels: float, reach: int = 0) -> np.ndarray:
    """Where two premultiplied layers differ by more than ``levels``, on black or on white; bool (H, W).

    With a ``reach``, where one lies outside the range of the other's values within so many pixels.
    """
    first, second = (np.asarray(image, np.float32) for image in (before, after))
    mask_HW = np.zeros(first.shape[:2], np.bool_)
    for one, other in ((first, second), (second, first)):
        for on_white in (False, True):
            color, range_color = ((band[..., :3] - band[..., 3:] * on_white) for band in (one, other))
            low, high = _local_range(range_color, reach)
            mask_HW |= np.maximum(color - high, low - color).max(axis=2) > levels
    return mask_HW


def _local_range(values_HWC: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value within ``reach`` pixels of each pixel."""
    if not reach:
        return values_HWC, values_HWC
    padded = np.pad(values_HWC, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1), axis=(0, 1))
    return windows.min(axis=(-2, -1)), windows.max(axis=(-2, -1))


# ---- parts and colors ----


@functools.lru_cache(maxsize=64)
def find_parts(asset: Asset) -> tuple[np.ndarray, ...]:
    """Find the connected parts of one color, the largest first; parts below ``MIN_CHANGED_SHARE`` are left out.

    At most ``PARTS_SIDE`` pixels a side are examined: this is for drawing changes, not for measuring.

    Returns:
        bool masks (H, W).
    """
    height, width = asset.size
    scale = min(1.0, PARTS_SIDE / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    layer = np.asarray(Image.fromarray(asset.layer_HW4).resize(small, Image.Resampling.BOX))
    ink = layer[..., 3] > 127
    labels = _label_components(ink, layer)
    names, counts = np.unique(labels[ink], return_counts=True)
    part_names = [name for name, count in sorted(zip(names, counts, strict=True), key=lambda pair: -pair[1])
            if count >= MIN_CHANGED_SHARE * ink.sum()]  # fmt: skip
    visible = asset.layer_HW4[..., 3] > 12
    masks = []
    for name in part_names[:MAX_PARTS]:
        dilated = Image.fromarray(((labels == name) * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
        masks.append((np.asarray(dilated.resize((width, height), Image.Resampling.BILINEAR)) > 127) & visible)
    return tuple(masks)


def _label_components(ink: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Label 4-connected ink of similar color: int (h, w), 0 without ink."""
    # Colors in about five levels a channel.
    shade = (layer[..., :3] // 52).astype(np.int64) @ np.array([36, 6, 1])
    labels = np.where(ink, np.arange(1, ink.size + 1).reshape(ink.shape), 0)
    while True:  # each pixel takes the largest label of its similar neighbors, until none changes
        before = labels
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            neighbor, similar = np.roll(labels, step, axis), np.roll(shade, step, axis) == shade
            edge = [slice(None)] * 2
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            similar[tuple(edge)] = False
            labels = np.where(ink & similar, np.maximum(labels, neighbor), labels)
        if np.array_equal(before, labels):
            return labels


def _random_part(asset: Asset, rng: np.random.Generator, max_share: float = 0.5) -> np.ndarray:
    """Mask a connected part of at most that share of the ink, or a disk of ink; often a disk, always without parts."""
    ink = asset.alpha_HW > 0.05
    parts = [mask for mask in find_parts(asset) if mask.sum() <= max_share * ink.sum()]
    if parts and rng.random() < 0.7:
        return parts[int(rng.integers(len(parts)))]
    return _random_disk(asset, rng) & ink


def _random_disk(asset: Asset, rng: np.random.Generator) -> np.ndarray:
    """Mask a disk around a random pixel of ink; its radius is 5 to 14 % of the asset's longer side."""
    rows, columns = np.nonzero(asset.alpha_HW > 0.5)
    pick = int(rng.integers(len(rows)))
    radius = rng.uniform(0.05, 0.14) * max(asset.size)
    grid_y, grid_x = np.mgrid[0 : asset.size[0], 0 : asset.size[1]]
    disk: np.ndarray = (grid_y - rows[pick]) ** 2 + (grid_x - columns[pick]) ** 2 <= radius**2
    return disk


def _random_other_color(color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a clearly different color: at least 90 gray levels away, mostly in hue."""
    for _ in range(40):
        new = rng.uniform(0, 255, 3)
        difference, brightness = new - color, abs(float((new - color).mean()))
        if np.abs(difference - difference.mean()).max() + 0.3 * brightness > 90:
            return new
    return np.asarray(255 - color)


# ---- the kinds of tampering ----


def _recolor(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Shift all colors by the same amount."""
    layer = asset.layer_HW4.copy()
    ink = asset.alpha_HW > 0.5
    mean = asset.color_HW3[ink].astype(np.float32).mean(axis=0)
    colors = layer[..., :3].astype(np.float32) - mean + _random_other_color(mean, rng)
    layer[..., :3] = np.clip(colors, 0, 255).astype(np.uint8)
    return TamperedAsset(layer, "recoloured", ink, is_global=True)


def _tint(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Shift hue and saturation mildly: clear at a glance, but still the same color by name."""
    layer = asset.layer_HW4.copy()
    ink = asset.alpha_HW > 0.5
    mean = asset.color_HW3[ink].astype(np.float64).mean(axis=0)
    new_N3 = np.clip(mean + rng.normal(0, 30, (400, 3)), 0, 255)
    before, after_N3 = srgb_to_lab(mean), srgb_to_lab(new_N3)
    difference_N = ciede2000(before, after_N3)
    low, high = MILD_DIFFERENCE
    mild_N = (difference_N >= low) & (difference_N <= high) & (np.abs(after_N3[:, 0] - before[0]) <= MILD_LIGHTNESS)
    if not mild_N.any():
        return None
    layer[..., :3] = np.clip(layer[..., :3] + (new_N3[np.argmax(mild_N)] - mean) + 0.5, 0, 255).astype(np.uint8)
    return TamperedAsset(layer, "tinted", ink, is_global=True)


def _recolor_part(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Fill a part with another color."""
    layer, mask = asset.layer_HW4.copy(), _random_part(asset, rng)
    if not mask.any():
        return None
    layer[mask, :3] = _random_other_color(layer[mask][:, :3].astype(np.float32).mean(axis=0), rng).astype(np.uint8)
    return TamperedAsset(layer, "part-recoloured", mask)


def _stretch(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Change the aspect ratio at constant area."""
    ratio = float(np.exp(rng.uniform(*np.log(STRETCH)) * rng.choice([-0.5, 0.5])))
    height, width = asset.size
    size = (max(1, round(width * ratio)), max(1, round(height / ratio)))
    layer = np.asarray(Image.fromarray(asset.layer_HW4).resize(size, Image.Resampling.BICUBIC))
    return TamperedAsset(layer, "stretched", asset.alpha_HW > 0.5, is_global=True)


def _shear(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Shear the layer horizontally by 0.1 to 0.3 of its height."""
    height, width = asset.size
    slope = float(rng.uniform(0.1, 0.3) * rng.choice([-1, 1]))
    wider = round(abs(slope) * height)
    inverse = (1, slope, -max(0.0, slope * height), 0, 1, 0)
    layer = Image.fromarray(asset.layer_HW4).convert("RGBa")
    bands = [band.transform((width + wider, height), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
             for band in layer.split()]  # fmt: skip
    out = Image.merge("RGBa", bands).convert("RGBA")
    return TamperedAsset(np.array(out), "slanted", asset.alpha_HW > 0.5, is_global=True)


def _remove_part(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Make a part transparent; of an asset without background, fill it with the median color."""
    layer, mask = asset.layer_HW4.copy(), _random_part(asset, rng)
    if not mask.any():
        return None
    if asset.background == "none":
        layer[mask, :3] = np.median(asset.color_HW3[~mask], axis=0).astype(np.uint8)
    else:
        layer[mask, 3] = 0
    return TamperedAsset(layer, "part-missing", mask)


def _add_part(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Add an ellipse or a rectangle beside or over the drawing, in one of its colors or another."""
    layer = Image.fromarray(asset.layer_HW4.copy())
    height, width = asset.size
    radius = rng.uniform(0.05, 0.13) * max(asset.size)
    center = rng.uniform([0.1, 0.1], [0.9, 0.9]) * (width, height)
    rows, columns = np.nonzero(asset.alpha_HW > 0.5)
    pick = int(rng.integers(len(rows)))
    color = asset.color_HW3[rows[pick], columns[pick]].astype(np.float32)
    if rng.random() < 0.5:
        color = _random_other_color(color, rng)
    fill = (*(int(v) for v in color), 255)
    stamp = Image.new("L", (width, height))
    draw = ImageDraw.Draw(stamp)
    reach = radius * rng.uniform(0.6, 1.4, 2)
    box = [*(center - reach), *(center + reach)]
    if rng.random() < 0.5:
        draw.ellipse(box, fill=255)
    else:
        draw.rectangle(box, fill=255)
    layer.paste(fill, mask=stamp)
    return TamperedAsset(np.array(layer), "part-added", np.asarray(stamp) > 127)


def _move_part(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Move a connected part by 4 to 12 % of the longer side."""
    if asset.background == "none":
        return None
    parts = [mask for mask in find_parts(asset) if mask.sum() < 0.5 * (asset.alpha_HW > 0.05).sum()]
    if not parts:
        return None
    mask = parts[int(rng.integers(len(parts)))]
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.04, 0.12) * max(asset.size)
    shift = (round(float(distance * np.cos(angle))), round(float(distance * np.sin(angle))))
    return _paste_part(asset, mask, Image.fromarray(asset.layer_HW4), mask, shift, "part-moved")


def _mirror_part(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Mirror a part in place, left to right or upside down."""
    if asset.background == "none":
        return None
    mask = _random_part(asset, rng, max_share=0.8)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    flip = (slice(None), slice(None, None, -1)) if rng.random() < 0.5 else (slice(None, None, -1), slice(None))
    mirrored, stencil = asset.layer_HW4.copy(), np.zeros_like(mask)
    mirrored[box], stencil[box] = mirrored[box][flip], mask[box][flip]
    return _paste_part(asset, mask, Image.fromarray(mirrored), stencil, (0, 0), "part-mirrored")


def _paste_part(
    asset: Asset, removed_HW: np.ndarray, source: Image.Image, stencil_HW: np.ndarray, shift: tuple[int, int], kind: str
) -> TamperedAsset:
    """Erase ``removed_HW``, then paste the part of ``source`` under ``stencil_HW``, moved by ``shift`` (x, y)."""
    layer = asset.layer_HW4.copy()
    layer[removed_HW, 3] = 0
    canvas = Image.fromarray(layer)
    stencil = Image.fromarray((stencil_HW * 255).astype(np.uint8))
    part_image = Image.new("RGBA", canvas.size)
    part_image.paste(source, shift, mask=stencil)
    out = np.array(Image.alpha_composite(canvas, part_image))
    mask_HW = _changed_pixels(
        Image.fromarray(asset.layer_HW4).convert("RGBa"), Image.fromarray(out).convert("RGBa"), CHANGED_LEVELS / 2
    )
    return TamperedAsset(out, kind, mask_HW)


def _change_text(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Replace a part of about a letter's size by a random letter or digit."""
    if asset.background == "none":
        return None
    mask = _random_part(asset, rng, max_share=0.35)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows) or len(rows) < 6 or len(columns) < 4:
        return None
    letter = str(rng.choice(list(string.ascii_letters + string.digits)))
    tall, wide = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    stamp = Image.new("L", (4 * tall, 4 * tall))
    ImageDraw.Draw(stamp).text((tall, tall), letter, fill=255, font=ImageFont.load_default(2 * tall))
    box = stamp.getbbox()
    if box is None:
        return None
    fitted = np.asarray(stamp.crop(box).resize((wide, tall), Image.Resampling.LANCZOS))
    stencil = np.zeros(asset.size, np.bool_)
    stencil[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = fitted > 127
    source = asset.layer_HW4.copy()
    source[..., :3] = np.median(asset.color_HW3[mask], axis=0).astype(np.uint8)
    source[..., 3] = 255
    return _paste_part(asset, mask, Image.fromarray(source), stencil, (0, 0), "text-changed")


def _change_weight(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Make strokes thicker or thinner by 0.8 to 2.5 % of the longer side, as a redrawn or older version often is."""
    if asset.background == "none":
        return None
    reach = max(1, round(float(rng.uniform(0.008, 0.025)) * max(asset.size)))
    alpha = Image.fromarray(asset.layer_HW4[..., 3])
    size = 2 * reach + 1
    thicker = rng.random() < 0.5
    alpha_HW = np.asarray(alpha.filter(ImageFilter.MaxFilter(size) if thicker else ImageFilter.MinFilter(size)))
    if not 0.6 < (alpha_HW > 127).sum() / max(1, (asset.alpha_HW > 0.5).sum()) < 1.7:
        return None
    layer = asset.layer_HW4.copy()
    if thicker:
        layer[..., :3] = _spread_ink(asset, reach)
    layer[..., 3] = alpha_HW
    mask_HW = np.abs(alpha_HW.astype(int) - asset.layer_HW4[..., 3]) > 127
    return TamperedAsset(layer, "weight-changed", mask_HW, is_global=True)


def _spread_ink(asset: Asset, reach: int) -> np.ndarray:
    """Extend the ink's colors outwards by ``reach`` pixels; uint8 (H, W, 3)."""
    opaque_HW = asset.alpha_HW > 0.5
    return np.clip(spread_colors(asset.color_HW3.astype(np.float32), opaque_HW, reach + 1) + 0.5, 0, 255).astype(
        np.uint8
    )


def _mirror(asset: Asset, rng: np.random.Generator) -> TamperedAsset | None:
    """Mirror the drawing left to right, or upside down."""
    layer = np.ascontiguousarray(asset.layer_HW4[:, ::-1] if rng.random() < 0.7 else asset.layer_HW4[::-1])
    before, after = (Image.fromarray(pixels).convert("RGBa") for pixels in (asset.layer_HW4, layer))
    mask_HW = _changed_pixels(before, after, CHANGED_LEVELS)
    angles = range(-44, 46, 4)
    if min(compute_changed_share(asset.layer_HW4, layer, angle) for angle in angles) < MIN_MIRRORED_SHARE:
        return None
    return TamperedAsset(layer, "mirrored", mask_HW, is_global=True)


# The names appear in --kinds and in set files.
_KINDS: dict[str, Callable[[Asset, np.random.Generator], TamperedAsset | None]] = {
    "recoloured": _recolor,
    "part-recoloured": _recolor_part,
    "stretched": _stretch,
    "slanted": _shear,
    "part-missing": _remove_part,
    "part-added": _add_part,
    "part-moved": _move_part,
    "part-mirrored": _mirror_part,
    "text-changed": _change_text,
    "weight-changed": _change_weight,
    "mirrored": _mirror,
    "tinted": _tint,
}
TAMPERING = tuple(_KINDS)
