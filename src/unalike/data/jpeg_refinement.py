"""JPEG files whose last progressive scan is cut: found in the pixels, since the decoder tells nothing.

The last scan of most progressive files brings the last bit of the brightness coefficients. Where it ends too early, all
coefficients of the blocks behind that place are even multiples of the quantization step. In complete files the odd ones,
above all 1 and -1, are the majority.

Shape letters: B blocks of 8 x 8 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile

if TYPE_CHECKING:
    from unalike.data.jpeg import JpegLayout

# Different (frequency, value) of even coefficients behind the last odd one that no complete file has. Different ones, because
# a drawn pattern may repeat one block of even coefficients.
EVEN_EVIDENCE = 24
# Share of odd values among coefficients that are not zero, above which a part of an image is refined. An image that was
# compressed twice, the first time with steps twice as large, has hardly any anywhere.
ODD_SHARE = 0.3
# Most distance to a whole number at which a value counts, in steps, and how far rounding of the pixels moves a value, in gray
# levels (five standard deviations): an even value must not be taken for an odd one.
SURE, ROUNDING = 0.3, 1.75
_STRIP, _SAMPLED_STRIPS = 8, 8  # rows of blocks that are transformed at once; strips that the share is measured in
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_DCT = np.array(
    [[np.cos((2 * x + 1) * u * np.pi / 16) * np.sqrt((1 if u else 0.5) / 4) for x in range(8)] for u in range(8)],
    np.float32,
)


def last_scan_is_cut(image: ImageFile.ImageFile, layout: JpegLayout) -> bool:
    """Whether the last scan of a decoded progressive file ends before the image does.

    False where this cannot be seen: the last scan is none of refinement or one of a color difference, the image was decoded
    at a lower resolution, fewer than ``EVEN_EVIDENCE`` different values are missing in the lower quarter, the steps are 1 (quality 100), or
    the pixels are black and white.
    """
    components, first, _, high, low = layout.coefficients[-1]
    component = next(iter(layout.sampling))
    is_brightness = components == (component,) and (image.mode == "L" or image.info.get("adobe_transform", 1) == 1)
    if not (is_brightness and first > 0 and high > 0 and low == 0 and image.mode in ("L", "RGB")):
        return False
    if image.size != (layout.width, layout.height) or min(image.size) < 8:
        return False
    steps = np.array(image.quantization[image.layer[0][3]], np.float32).reshape(8, 8)  # type: ignore[attr-defined]
    rows = layout.height // 8
    strips = [(max(0, end - _STRIP), end) for end in range(rows, 0, -_STRIP)]
    if _even_values_at_the_end(image, steps, strips[: max(4, len(strips) // 4)]) < EVEN_EVIDENCE:
        return False
    sampled = strips[:: max(1, len(strips) // _SAMPLED_STRIPS)]
    if max(_odd_share(_coefficients(image, steps, strip)) for strip in sampled) >= ODD_SHARE:
        return True
    # Nothing is refined, or nothing had to be: each coefficient of 2 and more takes a bit of the scan.
    start, end = layout.scans[-1]
    bits = sum(int((np.abs(_coefficients(image, steps, strip)) >= 2).sum()) for strip in strips)
    return 8 * (end - start) < bits


def _even_values_at_the_end(image: Image.Image, steps: np.ndarray, strips: list[tuple[int, int]]) -> int:
    """The number of different even values in the blocks behind the last one with an odd value."""
    values: set[int] = set()
    for strip in strips:
        values_BK = _coefficients(image, steps, strip)
        odd = np.flatnonzero((values_BK % 2 != 0).any(axis=1))
        last = values_BK[odd[-1] + 1 if len(odd) else 0 :]
        block, frequency = np.nonzero(last)
        values.update((frequency * 4096 + last[block, frequency]).tolist())
        if len(odd) or len(values) >= EVEN_EVIDENCE:
            break
    return len(values)


def _odd_share(values_BK: np.ndarray) -> float:
    nonzero = int((values_BK != 0).sum())
    return int((values_BK % 2 != 0).sum()) / nonzero if nonzero else 0.0


def _coefficients(image: Image.Image, steps: np.ndarray, strip: tuple[int, int]) -> np.ndarray:
    """The coefficients of the whole blocks of some rows, without the mean, in quantization steps: int, (B, 63).

    Zero stands where rounding of the pixels leaves it open, and in blocks whose pixels were cut to 0 or 255.
    """
    columns, (top, bottom) = image.width // 8, strip
    pixels = np.asarray(image.crop((0, 8 * top, 8 * columns, 8 * bottom)))
    gray = pixels if pixels.ndim == 2 else pixels @ _LUMA
    steps = np.maximum(steps, 1)  # a damaged file may say 0
    values_BK = _DCT @ _blocks(gray.astype(np.float32)) @ _DCT.T / steps
    values_BK = values_BK.reshape(-1, 64)[:, 1:]
    rounded_BK = np.rint(values_BK)
    unsure_BK = np.abs(values_BK - rounded_BK) >= np.clip(1 - ROUNDING / steps.reshape(-1)[1:], 0, SURE)
    clipped: np.ndarray = np.where((pixels == 0) | (pixels == 255), 1, 0)
    clipped_B: np.ndarray = _blocks(clipped.reshape(*pixels.shape[:2], -1).max(axis=2)).max(axis=(1, 2))
    return np.where(unsure_BK | (clipped_B[:, None] > 0), 0, rounded_BK).astype(np.int32)


def _blocks(pixels: np.ndarray) -> np.ndarray:
    """(B, 8, 8), row by row."""
    rows, columns = pixels.shape[0] // 8, pixels.shape[1] // 8
    return pixels.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
