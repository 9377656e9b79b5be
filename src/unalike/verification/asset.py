"""An approved asset: an image layer of colors and opacity, read from a file and cut out of its background.

Logos come with transparency, or drawn on a plain background, or fill their rectangle. The first two are separated from
their background, since an image may show them on another one.

Shapes: H, W height and width of the layer; layers are (H, W, 4) uint8, RGB and alpha.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from unalike.data.class_names import check_class_name
from unalike.data.decode import DEFAULT, MAX_PIXELS, ImageInput, open_layer
from unalike.data.decoding import Decoding
from unalike.data.imageset import load_images
from unalike.errors import DataError
from unalike.numerics.arguments import check_list

# Longest side of a stored layer, in pixels: more detail than an image of a logo shows, and it bounds memory.
MAX_SIDE = 512
# A border of the image is a plain background if 9 of 10 of its pixels lie within so many gray levels (any channel).
PLAIN_TOLERANCE = 12.0
# Distance from the background, in gray levels, from which a color is fully opaque.
OPAQUE_DISTANCE = 40.0
# Bounds of the ink's share of the layer: less shows nothing; more means that no background was found.
MIN_INK, MAX_INK = 0.003, 0.97
BACKGROUNDS = ("transparent", "plain", "none")
Color = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Asset:
    """An approved drawing, cropped to what it shows.

    Attributes:
        name: Name of the asset, unique in its set.
        layer_HW4: uint8, RGB and alpha.
        background: How it was separated: ``transparent``, ``plain`` (of ``background_color``), or ``none`` for an asset
            that fills its rectangle.
        background_color: RGB, 0 to 255.
    """

    name: str
    layer_HW4: np.ndarray
    background: str = "transparent"
    background_color: Color = (255, 255, 255)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the layer."""
        return self.layer_HW4.shape[0], self.layer_HW4.shape[1]

    @property
    def color_HW3(self) -> np.ndarray:
        """The RGB channels of the layer, uint8."""
        return self.layer_HW4[..., :3]

    @property
    def alpha_HW(self) -> np.ndarray:
        """Opacity, float32, 0 to 1."""
        return self.layer_HW4[..., 3].astype(np.float32) / 255

    def composite(self, color: Color | None = None, margin: float = 0.12) -> np.ndarray:
        """Draw the asset on a plain background.

        Args:
            color: RGB of the background; its own if unset.
            margin: Width of the margin as a share of the longer side; an asset without background has none.

        Returns:
            uint8 (H, W, 3).
        """
        background = np.array(self.background_color if color is None else color, np.float32)
        edge = round(max(self.size) * margin) if self.background != "none" else 0
        height, width = self.size
        canvas: np.ndarray = np.broadcast_to(background, (height + 2 * edge, width + 2 * edge, 3)).copy()
        alpha = self.alpha_HW[..., None]
        inner = canvas[edge : edge + height, edge : edge + width]
        inner[:] = inner * (1 - alpha) + self.color_HW3 * alpha
        return (canvas + 0.5).astype(np.uint8)


def open_asset(source: ImageInput, name: str = "", decoding: Decoding = DEFAULT) -> Asset:
    """Read an asset.

    Args:
        source: As in ``data.decode.decode``.
        name: Name of the asset; the file's stem if unset.
        decoding: How it becomes 8-bit RGB; its transparency is kept.

    Raises:
        UnreadableImage: The file cannot be decoded.
        DataError: The asset shows nothing, or the array has another shape or type.
    """
    layer = open_layer(source, decoding=decoding, max_pixels=MAX_PIXELS)
    layer = layer.copy() if layer is source else layer
    name = name or (Path(source).stem if isinstance(source, (str, Path)) else "asset")
    layer.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    layer_HW4 = np.array(layer, np.uint8)
    background, color = "transparent", (255, 255, 255)
    if (layer_HW4[..., 3] > 127).mean() > MAX_INK:
        layer_HW4, background, color = _separate_background(layer_HW4)
    visible = layer_HW4[..., 3] > 25
    # Corners that differ by rounding are no drawing: an asset must have ink, or structure in its rectangle.
    flat = background == "none" and float(np.ptp(layer_HW4[..., :3], axis=(0, 1)).max()) < PLAIN_TOLERANCE
    if visible.mean() < MIN_INK or flat:
        raise DataError(f"{name}: the asset shows nothing", expected="a drawing on a transparent or plain background")
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    cropped = layer_HW4[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Asset(name, np.ascontiguousarray(cropped), background, color)


def open_assets(
    assets: str | Path | Iterable[ImageInput | Asset], names: Sequence[str] | None = None, decoding: Decoding = DEFAULT
) -> list[Asset]:
    """Read assets, one per image.

    Args:
        assets: A folder (or another source of images), or images.
        names: Names of images; file stems, or numbers, if unset. Ignored for a folder.
        decoding: How images become 8-bit RGB.

    Raises:
        DataError: There are no assets, two share a name, one shows nothing, or the numbers of names and assets differ.
        UnreadableImage: A file cannot be decoded.
    """
    if isinstance(assets, (str, Path)):
        assets_in_order = _open_folder(assets, decoding)
    else:
        images = check_list("assets", assets, "an image", ordered=False)
        labels = (
            check_list("names", names, "a name")
            if names is not None
            else [_default_name(image, i) for i, image in enumerate(images)]
        )
        if len(labels) != len(images):
            raise DataError(f"{len(images)} assets and {len(labels)} names", expected="as many of each")
        assets_in_order = [
            replace(image, name=name) if isinstance(image, Asset) else open_asset(image, name, decoding)
            for image, name in zip(images, labels, strict=True)
        ]
    if not assets_in_order:
        raise DataError("no assets", expected="a folder that holds some images")
    assets_in_order = [replace(asset, name=check_class_name(asset.name)) for asset in assets_in_order]
    asset_names = [asset.name for asset in assets_in_order]
    duplicates = sorted({name for name in asset_names if asset_names.count(name) > 1})
    if duplicates:
        raise DataError(f"two assets are named {duplicates[0]!r}", expected="a name for each")
    return assets_in_order


def asset_sources(assets: str | Path | Sequence[ImageInput | Asset]) -> list[ImageInput]:
    """The images among assets, to choose a decoding from."""
    if isinstance(assets, (str, Path)):
        return list(load_images(assets, labeled=False).paths)
    return [image for image in assets if not isinstance(image, Asset)]


def _open_folder(folder: str | Path, decoding: Decoding) -> list[Asset]:
    paths = list(load_images(folder, labeled=False).paths)
    stems = [path.stem for path in paths]
    names = [path.name if stems.count(path.stem) > 1 else path.stem for path in paths]
    if len(set(names)) != len(names):
        names = [str(path) for path in paths]
    return [open_asset(path, name, decoding) for path, name in zip(paths, names, strict=True)]


def _default_name(image: ImageInput | Asset, number: int) -> str:
    if isinstance(image, Asset):
        return image.name
    return Path(image).stem if isinstance(image, (str, Path)) else f"asset {number}"


# ---- background ----


def find_plain_background(color_HW3: np.ndarray) -> np.ndarray | None:
    """Return the color (3,) of the image's border if that is plain, else None."""
    height, width = color_HW3.shape[:2]
    edge = max(1, min(height, width) // 40)
    border = np.concatenate([
        color_HW3[:edge].reshape(-1, 3), color_HW3[-edge:].reshape(-1, 3),
        color_HW3[:, :edge].reshape(-1, 3), color_HW3[:, -edge:].reshape(-1, 3),
    ]).astype(np.float32)  # fmt: skip
    median = np.median(border, axis=0)
    distance = np.abs(border - median).max(axis=1)
    return median if float(np.quantile(distance, 0.9)) <= PLAIN_TOLERANCE else None


def _separate_background(layer_HW4: np.ndarray) -> tuple[np.ndarray, str, Color]:
    """Make a plain background transparent; return (layer, ``plain``, its color), or (the layer, ``none``, white)."""
    colors = layer_HW4[..., :3].astype(np.float32)
    background = find_plain_background(colors)
    if background is None:
        return layer_HW4, "none", (255, 255, 255)
    distance_HW = np.abs(colors - background).max(axis=2)
    alpha_HW = np.clip((distance_HW - PLAIN_TOLERANCE / 2) / OPAQUE_DISTANCE, 0, 1)
    if not MIN_INK < float((alpha_HW > 0.5).mean()) < MAX_INK:
        return layer_HW4, "none", (255, 255, 255)
    # Pixels of a soft edge are mixed with the background: they get the color of the nearest opaque ink.
    colors = spread_colors(colors, alpha_HW >= 0.999)
    layer = np.dstack([np.clip(colors + 0.5, 0, 255), alpha_HW * 255 + 0.5]).astype(np.uint8)
    red, green, blue = (int(v + 0.5) for v in background)
    return layer, "plain", (red, green, blue)


def spread_colors(colors_HW3: np.ndarray, known_HW: np.ndarray, reach: int = 3) -> np.ndarray:
    """Fill unknown pixels with the mean of the known colors nearby.

    Args:
        colors_HW3: Colors, any range.
        known_HW: bool, which pixels are known.
        reach: Distance in pixels; a pixel without known ones that near keeps its color.

    Returns:
        float32 (H, W, 3).
    """
    opaque_HW = known_HW.astype(np.float64)
    near_HW3 = np.stack([box_mean(colors_HW3[..., c] * opaque_HW, reach) for c in range(3)], axis=-1)
    total_HW1 = box_mean(opaque_HW, reach)[..., None]
    result = np.where(total_HW1 > 1e-6, near_HW3 / np.maximum(total_HW1, 1e-6), colors_HW3)
    return np.where(known_HW[..., None], colors_HW3, result).astype(np.float32)


def box_mean(values_HW: np.ndarray, reach: int) -> np.ndarray:
    """Return the mean of each pixel's neighborhood of 2 ``reach`` + 1 pixels a side, edges repeated; float64 (H, W)."""
    side = 2 * reach + 1
    sums = np.pad(np.pad(values_HW.astype(np.float64), reach, mode="edge").cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    mean: np.ndarray = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
    return mean
