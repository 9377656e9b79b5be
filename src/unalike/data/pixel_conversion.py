"""Conversion of opened images to 8-bit RGB or RGBA by a decoding rule (``data.decoding``).

The image's EXIF orientation is not applied here.

Shape letters: H, W of an image, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from unalike.data.decoding import GRAY, Decoding
from unalike.data.deep_pixels import STRIP_VALUES, format_range_of, gray_values, is_deep, read_values, scale_to_8_bits
from unalike.progress import say

_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
Reopen = Callable[[], Image.Image]


def to_rgb(image: Image.Image, decoding: Decoding, reopen: Reopen) -> Image.Image:
    """Convert an image of any mode to RGB.

    Args:
        image: An opened image; loaded, unless it has 16-bit colors.
        decoding: The rule.
        reopen: Opens its file again.

    Returns:
        Mode RGB; the image itself where nothing was to do.
    """
    if decoding.version == 1:
        return _to_rgb_version_1(image)
    image = _to_8_bits(image, decoding, reopen)
    if has_alpha(image):
        layer = convert_profile(image.convert("RGBA"))
        ground = decoding.ground or GRAY
        return Image.alpha_composite(Image.new("RGBA", layer.size, (*ground, 255)), layer).convert("RGB")
    image = convert_profile(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_rgba(image: Image.Image, decoding: Decoding, reopen: Reopen) -> Image.Image:
    """Convert an image of any mode to RGBA, its transparency kept; an image without is opaque. See ``to_rgb``."""
    if decoding.version == 1:
        return image.convert("RGBA") if has_alpha(image) else _to_rgb_version_1(image).convert("RGBA")
    image = _to_8_bits(image, decoding, reopen)
    return convert_profile(image.convert("RGBA")) if has_alpha(image) else convert_profile(image).convert("RGBA")


def has_alpha(image: Image.Image) -> bool:
    """Whether an image can hold transparent pixels."""
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def convert_profile(image: Image.Image) -> Image.Image:
    """Convert an image from its color profile to sRGB; mode RGBA stays RGBA, others may become RGB."""
    if "icc_profile" not in image.info:
        return image
    from unalike.data.color_profile import convert_to_srgb  # few images need it

    if image.mode == "RGBA":
        opaque = image.convert("RGB")
        converted = convert_to_srgb(opaque)
        if converted is opaque:
            return image
        converted = converted.convert("RGBA")
        converted.putalpha(image.getchannel("A"))
        return converted
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    return convert_to_srgb(image)


def _to_8_bits(image: Image.Image, decoding: Decoding, reopen: Reopen) -> Image.Image:
    """Scale an image of more than 8 bits to 8; others stay."""
    if not is_deep(image):
        return image
    values_HWC = read_values(image, reopen)
    limits = decoding.range
    if limits is None:
        limits = format_range_of(values_HWC)
        say(f"an image of more than 8 bits was read by {limits[0]:g} to {limits[1]:g}, as the range of its set is not known: "
            "a training takes it as dataset.decoding.range", once=True)  # fmt: skip
    colors = values_HWC.shape[2] - (values_HWC.shape[2] in (2, 4))
    pixels_HWC = scale_to_8_bits(values_HWC[..., :colors], limits)
    if colors < values_HWC.shape[2]:
        pixels_HWC = np.concatenate([pixels_HWC, (values_HWC[..., colors:] >> 8).astype(np.uint8)], axis=2)
    else:
        pixels_HWC = _apply_transparent_value(image, values_HWC, pixels_HWC)
    scaled = Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)
    if "icc_profile" in image.info:
        scaled.info["icc_profile"] = image.info["icc_profile"]
    return scaled


def _apply_transparent_value(image: Image.Image, values_HWC: np.ndarray, pixels_HWC: np.ndarray) -> np.ndarray:
    """Add an alpha channel where the file names one value as transparent (PNG, tRNS)."""
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int | tuple) or values_HWC.dtype != np.uint16:
        return pixels_HWC
    is_transparent_HW = (values_HWC == np.asarray(transparent)).all(axis=2)
    alpha_HW1 = np.where(is_transparent_HW, 0, 255).astype(np.uint8)[..., None]
    return np.concatenate([pixels_HWC, alpha_HW1], axis=2)


# ---- version 1 ----


def _to_rgb_version_1(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;"):
        return Image.fromarray(_to_8_bits_version_1(gray_values(image))).convert("RGB")
    if has_alpha(image):
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, layer).convert("RGB")
    return image.convert("RGB")


def _to_8_bits_version_1(values_HW: np.ndarray) -> np.ndarray:
    """Scale gray values of 16 or 32 bits or floating point by a range chosen for this image."""
    rows = max(1, STRIP_VALUES // max(1, values_HW.shape[1]))
    strips = [values_HW[top : top + rows] for top in range(0, len(values_HW), rows)]
    low = min((float(_finite(strip).min(initial=0)) for strip in strips), default=0.0)
    high = max((float(_finite(strip).max(initial=0)) for strip in strips), default=0.0)
    scaled: np.ndarray = np.empty(values_HW.shape, np.uint8)
    for number, strip in enumerate(strips):
        values = _finite(strip)
        if np.issubdtype(values_HW.dtype, np.integer):
            values *= 255.0 / (65535.0 if high <= 65535 else 2147483647.0)
        elif low < 0 or high > 65535:
            values = (values - low) * (255.0 / (high - low))
        else:
            values *= 255.0 / next(top for top in (1.0, 255.0, 65535.0) if high <= top)
        scaled[number * rows : number * rows + len(strip)] = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return scaled


def _finite(values: np.ndarray) -> np.ndarray:
    """The values in double precision, those that are not finite as 0."""
    result = values.astype(np.float64)
    result[~np.isfinite(result)] = 0
    return result
