"""Conversion of embedded color profiles (ICC) to sRGB, the color space of images without a profile."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

# A profile that moves no color by more than so many levels of 255 is sRGB, whatever its name: several are in use.
SRGB_TOLERANCE = 2
# Colors by which a profile is compared with sRGB: so many levels of each channel.
_STEPS = 9
_PROFILED_MODES = ("RGB", "L", "CMYK")


def convert_to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image of mode RGB, L or CMYK by its profile.

    Returns:
        The image itself where it has no profile, an sRGB one, or one that cannot be used (damaged, or of another color
        model); else a new one of mode RGB.
    """
    transform = _transform_of(image)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


def needs_conversion(image: Image.Image) -> bool:
    """Whether ``convert_to_srgb`` would change an image."""
    return _transform_of(image) is not None


def profile_name(image: Image.Image) -> str:
    """The description that an image's profile gives of itself, or ``a color profile``."""
    try:
        return ImageCms.getProfileDescription(_open(image.info["icc_profile"])).strip() or "a color profile"
    except (KeyError, OSError, ImageCms.PyCMSError):
        return "a color profile"


def _transform_of(image: Image.Image) -> Any:
    profile = image.info.get("icc_profile")
    if not profile or not isinstance(profile, bytes):
        return None
    mode = image.mode if image.mode in _PROFILED_MODES else "RGB"
    return _find_transform(profile, mode)


@lru_cache(maxsize=32)
def _find_transform(profile: bytes, mode: str) -> Any:
    """The transform of a profile to sRGB; None where it changes nothing or cannot be made."""
    try:
        transform = ImageCms.buildTransform(
            _open(profile), ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        if mode != "CMYK":  # CMYK has no values that could stay
            colors = _test_colors(mode)
            converted = ImageCms.applyTransform(colors, transform)
            assert converted is not None
            gap = np.abs(np.asarray(converted, np.int16) - np.asarray(colors.convert("RGB"), np.int16))
            if gap.max() <= SRGB_TOLERANCE:
                return None
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    return transform


def _open(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def _test_colors(mode: str) -> Image.Image:
    levels = np.linspace(0, 255, _STEPS).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    return Image.fromarray(np.ascontiguousarray(colors))
