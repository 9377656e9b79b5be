"""What must not happen to an asset: recoloured, stretched, parts missing, added or moved, text changed, another drawing.

Each kind changes a layer and says where (in the layer's own frame). A change that could hardly be seen is drawn again:
what counts as tampering is at least ``VISIBLE`` in the smallest picture that is drawn (``SMALLEST`` pixels a side), pixel
against pixel; so a calibrated rate speaks of changes of that size and up. A drawing that is its own mirror image, say, or a
piece that is, cannot be told from it: turning it is no tampering.

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
from unalike.verification.asset import Asset, spread_colours
from unalike.verification.benign import SMALLEST, check_kinds

# The least share of the asset's ink, in the smallest picture, whose place must change, and by how much (grey levels,
# largest channel).
VISIBLE = 0.02
LEVELS = 40.0
BOX = Image.Resampling.BOX
# The same of a mirror image, beside the drawing turned by any angle up to 45 degrees: below it it is nearly its own, as a
# square that stands askew is.
MIRRORED = 0.15
# The least change of the sides' ratio, and the most.
STRETCH = (1.08, 1.35)


@dataclass(frozen=True, eq=False)
class Tampered:
    """A changed layer (its size may differ), the kind of change, and where: ``mask_HW`` in the asset's frame.

    ``whole`` says that the change is everywhere (stretched, recoloured as a whole), so that no part can be pointed at.
    """

    layer_HW4: np.ndarray
    kind: str
    mask_HW: np.ndarray
    whole: bool = False


def tamper(asset: Asset, kind: str, rng: np.random.Generator) -> Tampered:
    """The asset with one change of this kind. DataError where none that can be seen is found (say, nothing to move)."""
    check_kinds([kind], TAMPERING, "kind of tampering")
    for _ in range(24):
        made = _KINDS[kind](asset, rng)
        if made is not None and _visible(asset, made):
            return made
    raise DataError(f"{asset.name}: no visible change of kind {kind!r} is possible on it")


def some_tampering(asset: Asset, rng: np.random.Generator, kinds: Collection[str]) -> Tampered:
    """One change of a kind drawn from ``kinds``; kinds that this asset does not offer are passed over."""
    for kind in rng.permutation(list(check_kinds(kinds, TAMPERING, "kind of tampering"))):
        try:
            return tamper(asset, str(kind), rng)
        except DataError:
            continue
    raise DataError(f"{asset.name}: none of {', '.join(kinds)} is possible on it")


def _visible(asset: Asset, made: Tampered) -> bool:
    """Whether enough of it changes in a picture of the smallest size."""
    if made.layer_HW4.shape != asset.layer_HW4.shape:  # stretched or slanted
        return True
    return changed_share(asset.layer_HW4, made.layer_HW4) >= VISIBLE


def changed_share(before_HW4: np.ndarray, after_HW4: np.ndarray, turn: float = 0.0) -> float:
    """Pixels that differ by LEVELS, as a share of those of the ink, both layers drawn SMALLEST pixels a side.

    On black or on white, whichever shows more. ``turn``: degrees by which the first is turned about its middle.
    """
    height, width = before_HW4.shape[:2]
    scale = min(1.0, SMALLEST / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    before, after = (
        Image.merge("RGBA", Image.fromarray(layer).convert("RGBa").resize(small, BOX).split())
        for layer in (before_HW4, after_HW4)
    )
    if turn:
        edge = max(small) // 4  # what is turned out of the layer counts too
        before, after = (ImageOps.expand(one, edge, (0, 0, 0, 0)) for one in (before, after))
        before = before.rotate(turn, Image.Resampling.BILINEAR)
    ink = np.asarray(before)[..., 3] > 127
    return float(_changed(before, after, LEVELS).sum()) / max(1.0, float(ink.sum()))


def _changed(before: Image.Image, after: Image.Image, levels: float) -> np.ndarray:
    """Where two premultiplied layers differ by more than ``levels``, on black or on white; bool (H, W)."""
    away = np.asarray(after, np.float32) - np.asarray(before, np.float32)
    changed: np.ndarray = np.maximum(np.abs(away[..., :3]), np.abs(away[..., :3] - away[..., 3:])).max(axis=2) > levels
    return changed


# ---- parts of a drawing ----


@functools.lru_cache(maxsize=64)
def parts_of(asset: Asset) -> tuple[np.ndarray, ...]:
    """Masks of the drawing's separate pieces of one colour, the largest first; pieces below ``VISIBLE`` are left out.

    Found at no more than 96 pixels a side: this is for drawing changes, not for measuring.
    """
    height, width = asset.size
    scale = min(1.0, 96 / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    layer = np.asarray(Image.fromarray(asset.layer_HW4).resize(small, Image.Resampling.BOX))
    ink = layer[..., 3] > 127
    shade = (layer[..., :3] // 52).astype(np.int64) @ np.array([36, 6, 1])  # colours of about a fifth of the range each
    numbers = np.where(ink, np.arange(1, ink.size + 1).reshape(ink.shape), 0)
    while True:  # each pixel takes the largest number of its like neighbours, until none changes
        before = numbers
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            other, like = np.roll(numbers, step, axis), np.roll(shade, step, axis) == shade
            edge = [slice(None)] * 2
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            like[tuple(edge)] = False
            numbers = np.where(ink & like, np.maximum(numbers, other), numbers)
        if np.array_equal(before, numbers):
            break
    names, counts = np.unique(numbers[ink], return_counts=True)
    kept = [name for name, count in sorted(zip(names, counts, strict=True), key=lambda pair: -pair[1])
            if count >= VISIBLE * ink.sum()]  # fmt: skip
    whole = asset.layer_HW4[..., 3] > 12
    masks = []
    for name in kept[:24]:
        grown = Image.fromarray(((numbers == name) * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
        masks.append((np.asarray(grown.resize((width, height), Image.Resampling.BILINEAR)) > 127) & whole)
    return tuple(masks)


def _part(asset: Asset, rng: np.random.Generator, most: float = 0.5) -> np.ndarray:
    """A separate piece of at most that share of the ink, or a disc of the ink where the drawing is of one piece."""
    ink = asset.alpha_HW > 0.05
    pieces = [mask for mask in parts_of(asset) if mask.sum() <= most * ink.sum()]
    if pieces and rng.random() < 0.7:
        return pieces[int(rng.integers(len(pieces)))]
    return _disc(asset, rng) & ink


def _disc(asset: Asset, rng: np.random.Generator) -> np.ndarray:
    """A disc about a pixel of ink, of 4 to 12 % of the asset's longer side in radius."""
    rows, columns = np.nonzero(asset.alpha_HW > 0.5)
    pick = int(rng.integers(len(rows)))
    radius = rng.uniform(0.05, 0.14) * max(asset.size)
    grid_y, grid_x = np.mgrid[0 : asset.size[0], 0 : asset.size[1]]
    return (grid_y - rows[pick]) ** 2 + (grid_x - columns[pick]) ** 2 <= radius**2


def _other_colour(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour that nobody takes for the given one: 90 grey levels away in its hue's plane at least."""
    for _ in range(40):
        new = rng.uniform(0, 255, 3)
        away, light = new - colour, abs(float((new - colour).mean()))
        if np.abs(away - away.mean()).max() + 0.3 * light > 90:
            return new
    return 255 - colour


# ---- the kinds ----


def _recoloured(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    layer = asset.layer_HW4.copy()
    ink = asset.alpha_HW > 0.5
    mean = asset.colour_HW3[ink].astype(np.float32).mean(axis=0)
    moved = layer[..., :3].astype(np.float32) - mean + _other_colour(mean, rng)
    layer[..., :3] = np.clip(moved, 0, 255).astype(np.uint8)
    return Tampered(layer, "recoloured", ink, whole=True)


def _part_recoloured(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    layer, mask = asset.layer_HW4.copy(), _part(asset, rng)
    if not mask.any():
        return None
    layer[mask, :3] = _other_colour(layer[mask][:, :3].astype(np.float32).mean(axis=0), rng).astype(np.uint8)
    return Tampered(layer, "part-recoloured", mask)


def _stretched(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    ratio = float(np.exp(rng.uniform(*np.log(STRETCH)) * rng.choice([-0.5, 0.5])))
    height, width = asset.size
    size = (max(1, round(width * ratio)), max(1, round(height / ratio)))
    layer = np.asarray(Image.fromarray(asset.layer_HW4).resize(size, Image.Resampling.BICUBIC))
    return Tampered(layer, "stretched", asset.alpha_HW > 0.5, whole=True)


def _slanted(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    height, width = asset.size
    slope = float(rng.uniform(0.1, 0.3) * rng.choice([-1, 1]))
    wider = round(abs(slope) * height)
    back = (1, slope, -max(0.0, slope * height), 0, 1, 0)
    layer = Image.fromarray(asset.layer_HW4).convert("RGBa")
    bands = [band.transform((width + wider, height), Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
             for band in layer.split()]  # fmt: skip
    out = Image.merge("RGBa", bands).convert("RGBA")
    return Tampered(np.array(out), "slanted", asset.alpha_HW > 0.5, whole=True)


def _part_missing(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    layer, mask = asset.layer_HW4.copy(), _part(asset, rng)
    if not mask.any():
        return None
    if asset.ground == "none":
        layer[mask, :3] = np.median(asset.colour_HW3[~mask], axis=0).astype(np.uint8)
    else:
        layer[mask, 3] = 0
    return Tampered(layer, "part-missing", mask)


def _part_added(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    """A shape beside or over the drawing, in one of its colours or another."""
    layer = Image.fromarray(asset.layer_HW4.copy())
    height, width = asset.size
    radius = rng.uniform(0.05, 0.13) * max(asset.size)
    centre = rng.uniform([0.1, 0.1], [0.9, 0.9]) * (width, height)
    rows, columns = np.nonzero(asset.alpha_HW > 0.5)
    pick = int(rng.integers(len(rows)))
    colour = asset.colour_HW3[rows[pick], columns[pick]].astype(np.float32)
    if rng.random() < 0.5:
        colour = _other_colour(colour, rng)
    fill = (*(int(v) for v in colour), 255)
    stamp = Image.new("L", (width, height))
    draw = ImageDraw.Draw(stamp)
    reach = radius * rng.uniform(0.6, 1.4, 2)
    box = [*(centre - reach), *(centre + reach)]
    if rng.random() < 0.5:
        draw.ellipse(box, fill=255)
    else:
        draw.rectangle(box, fill=255)
    layer.paste(fill, mask=stamp)
    return Tampered(np.array(layer), "part-added", np.asarray(stamp) > 127)


def _part_moved(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    """A separate piece shifted by 4 to 12 % of the longer side."""
    if asset.ground == "none":
        return None
    pieces = [mask for mask in parts_of(asset) if mask.sum() < 0.5 * (asset.alpha_HW > 0.05).sum()]
    if not pieces:
        return None
    mask = pieces[int(rng.integers(len(pieces)))]
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.04, 0.12) * max(asset.size)
    step = (round(float(reach * np.cos(angle))), round(float(reach * np.sin(angle))))
    return _pasted(asset, mask, Image.fromarray(asset.layer_HW4), mask, step, "part-moved")


def _part_mirrored(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    """A piece turned left to right, or upside down, where it stands."""
    if asset.ground == "none":
        return None
    mask = _part(asset, rng, most=0.8)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    flip = (slice(None), slice(None, None, -1)) if rng.random() < 0.5 else (slice(None, None, -1), slice(None))
    turned, stencil = asset.layer_HW4.copy(), np.zeros_like(mask)
    turned[box], stencil[box] = turned[box][flip], mask[box][flip]
    return _pasted(asset, mask, Image.fromarray(turned), stencil, (0, 0), "part-mirrored")


def _pasted(
    asset: Asset, gone_HW: np.ndarray, source: Image.Image, stencil_HW: np.ndarray, step: tuple[int, int], kind: str
) -> Tampered:
    """What stands in ``gone_HW`` is taken away, and ``source`` pasted where ``stencil_HW`` is, moved by ``step``."""
    layer = asset.layer_HW4.copy()
    layer[gone_HW, 3] = 0
    canvas = Image.fromarray(layer)
    stencil = Image.fromarray((stencil_HW * 255).astype(np.uint8))
    moved = Image.new("RGBA", canvas.size)
    moved.paste(source, step, mask=stencil)
    out = np.array(Image.alpha_composite(canvas, moved))
    changed = _changed(
        Image.fromarray(asset.layer_HW4).convert("RGBa"), Image.fromarray(out).convert("RGBa"), LEVELS / 2
    )
    return Tampered(out, kind, changed)


def _text_changed(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    """A letter stands where a piece of about a letter's size was."""
    if asset.ground == "none":
        return None
    mask = _part(asset, rng, most=0.35)
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
    source[..., :3] = np.median(asset.colour_HW3[mask], axis=0).astype(np.uint8)
    source[..., 3] = 255
    return _pasted(asset, mask, Image.fromarray(source), stencil, (0, 0), "text-changed")


def _weight_changed(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    """Strokes thicker or thinner by 1.2 to 2.5 % of the longer side: what a redrawn, older version often differs in."""
    if asset.ground == "none":
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
        layer[..., :3] = _nearest_ink(asset, reach)
    layer[..., 3] = alpha_HW
    changed = np.abs(alpha_HW.astype(int) - asset.layer_HW4[..., 3]) > 127
    return Tampered(layer, "weight-changed", changed, whole=True)


def _nearest_ink(asset: Asset, reach: int) -> np.ndarray:
    """Colours spread outwards from the ink, uint8 (H, W, 3)."""
    known = asset.alpha_HW > 0.5
    return np.clip(spread_colours(asset.colour_HW3.astype(np.float32), known, reach + 1) + 0.5, 0, 255).astype(np.uint8)


def _mirrored(asset: Asset, rng: np.random.Generator) -> Tampered | None:
    layer = np.ascontiguousarray(asset.layer_HW4[:, ::-1] if rng.random() < 0.7 else asset.layer_HW4[::-1])
    changed = _changed(Image.fromarray(asset.layer_HW4).convert("RGBa"), Image.fromarray(layer).convert("RGBa"), LEVELS)
    if min(changed_share(asset.layer_HW4, layer, turn) for turn in range(-44, 46, 4)) < MIRRORED:
        return None
    return Tampered(layer, "mirrored", changed, whole=True)


_KINDS: dict[str, Callable[[Asset, np.random.Generator], Tampered | None]] = {
    "recoloured": _recoloured,
    "part-recoloured": _part_recoloured,
    "stretched": _stretched,
    "slanted": _slanted,
    "part-missing": _part_missing,
    "part-added": _part_added,
    "part-moved": _part_moved,
    "part-mirrored": _part_mirrored,
    "text-changed": _text_changed,
    "weight-changed": _weight_changed,
    "mirrored": _mirrored,
}
TAMPERING = tuple(_KINDS)
