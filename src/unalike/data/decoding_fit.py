"""Choice of ground and range for a set of images: one color behind transparency, one range for more than 8 bits.

The headers of all files are read; the pixels of those that have transparency or more than 8 bits, at most ``MAX_SAMPLED``.

Shape letters: H, W of an image, C channels, P pixels, I images, G candidate grounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from unalike.data import pillow
from unalike.data.decode import MAX_PIXELS, ErrorsNamed, ImageInput
from unalike.data.decoding import GRAY, GROUNDS, Color, Decoding, format_ground, format_range
from unalike.data.deep_pixels import FULL_16, is_deep, read_values, stated_maximum
from unalike.data.jpeg import START as JPEG_START
from unalike.data.jpeg import read_layout
from unalike.data.member_files import open_image_file
from unalike.data.pixel_conversion import has_alpha, to_rgba
from unalike.data.regions import image_file
from unalike.errors import DataError
from unalike.progress import progress, say

# Images whose pixels are read, evenly spaced over the set where there are more.
MAX_SAMPLED = 4096
# Grounds in the order in which they are tried: white is the usual one of cut-outs.
CANDIDATES: tuple[Color, ...] = (GROUNDS["white"], GROUNDS["black"], GRAY, (64, 64, 64), (192, 192, 192))
# A pixel is visible on a ground from which it differs by so many levels (in some channel) after blending; a drawing does not
# vanish if this share of its opacity is visible.
VISIBLE_LEVELS, VISIBLE_SHARE = 32, 0.5
# Longest side of the pixels by which the ground is chosen.
SAMPLE_SIDE = 512
# Share of an image's pixels that may lie outside the range: hot and dead pixels of a camera.
OUTLIERS = 2e-5
# Values that fill less than this share of the range up to a power of two are stretched.
NARROW = 1 / 8
_JPEG_HEADER = 1 << 16
T = TypeVar("T")
Stop = Callable[[int, int], bool]
LOOKS_AT_ONCE = 256  # headers that are read between two looks at the clock


@dataclass
class DecodingReport:
    """What is in a set of images besides 8-bit RGB.

    Attributes:
        images: Number of images.
        transparent: Number of images with transparent pixels; with an alpha channel, where the ground was known before.
        deep: Number of images of more than 8 bits a channel.
        profiles: Number of images by the name of their color profile, sRGB ones not counted.
        sampled: Whether not all transparent and deep images were read to choose ground and range.
        not_looked_at: Number of images whose headers were not read, as a time limit said; not among ``images``.
    """

    images: int = 0
    transparent: int = 0
    deep: int = 0
    profiles: Counter[str] = field(default_factory=Counter)
    sampled: bool = False
    not_looked_at: int = 0


@dataclass(frozen=True)
class _Traits:
    """What one image's header tells."""

    may_be_transparent: bool = False
    deep: bool = False
    profile: str = ""


@dataclass(frozen=True)
class _Values:
    """Lowest and highest value of a deep image, without outliers; whether they are integers; the maximum by its tags."""

    low: float
    high: float
    integers: bool
    stated: float | None


def fit_decoding(
    images: Iterable[ImageInput], decoding: Decoding | None = None, *, max_pixels: int = MAX_PIXELS, quiet: bool = False,
    stop: Stop | None = None,
) -> Decoding:  # fmt: skip
    """Choose what a decoding rule leaves open from a set of images, and say in one line what is converted.

    Args:
        images: The images; unreadable ones are skipped.
        decoding: The rule; what it says stays. By default nothing is chosen yet.
        max_pixels: Larger images are skipped.
        quiet: Print nothing.
        stop: Called with the numbers of images looked at so far and of all images; true leaves the others, drawn at random,
            out of the choice.

    Returns:
        The rule; ground or range stay None where no image needs them.
    """
    fitted, report = survey(images, decoding, max_pixels=max_pixels, stop=stop)
    message = format_report(report, fitted)
    if message and not quiet:
        say(message)
    return fitted


def log_conversions(images: Iterable[ImageInput], decoding: Decoding) -> None:
    """Say in one line what a rule converts of a set of images; nothing is chosen."""
    own_decoding = decoding if decoding.version == 1 else replace(
        decoding, ground=decoding.ground or GRAY, range=decoding.range or (0.0, FULL_16)
    )  # fmt: skip
    message = format_report(survey(images, own_decoding)[1], decoding)
    if message:
        say(message)


def survey(
    images: Iterable[ImageInput], decoding: Decoding | None = None, *, max_pixels: int = MAX_PIXELS,
    stop: Stop | None = None,
) -> tuple[Decoding, DecodingReport]:  # fmt: skip
    """As ``fit_decoding``, without printing; returns the report too, which is empty for a rule of version 1."""
    decoding = Decoding() if decoding is None else decoding
    if decoding.version == 1:
        return decoding, DecodingReport()
    sources, traits, not_looked_at = _look_at_headers(_files(images), stop)
    report = DecodingReport(len(sources), not_looked_at=not_looked_at)
    report.profiles.update(trait.profile for trait in traits if trait.profile)
    report.deep = sum(trait.deep for trait in traits)
    deep = [source for source, trait in zip(sources, traits, strict=True) if trait.deep]
    if deep and decoding.range is None:
        values = _map(_value_limits, _evenly(deep, report), max_pixels, "reading images of more than 8 bits")
        decoding = replace(decoding, range=choose_range(values))
    transparent = [source for source, trait in zip(sources, traits, strict=True) if trait.may_be_transparent]
    report.transparent = len(transparent)
    if transparent and decoding.ground is None:
        sample = _evenly(transparent, report)
        shares = list(_map(partial(_visible_shares, decoding), sample, max_pixels, "reading transparent images"))
        report.transparent = round(len(shares) * len(transparent) / len(sample))
        if shares:
            decoding = replace(decoding, ground=choose_ground(np.stack(shares)))
    return decoding, report


def format_report(report: DecodingReport, decoding: Decoding) -> str:
    """One line about what was converted, to how many; empty where all images are 8-bit RGB or gray."""
    parts = []
    if report.transparent:
        parts.append(f"{report.transparent} transparent, laid over {format_ground(decoding.ground or GRAY)}")
    if report.deep:
        range_text = "of their number format" if decoding.range is None else format_range(decoding.range)
        parts.append(f"{report.deep} of more than 8 bits, read by the range {range_text}")
    if report.profiles:
        names = ", ".join(f"{name} ({count})" for name, count in report.profiles.most_common(3))
        more = ", ..." if len(report.profiles) > 3 else ""
        parts.append(f"{sum(report.profiles.values())} converted from a color profile to sRGB: {names}{more}")
    if report.not_looked_at:
        total = report.images + report.not_looked_at
        parts.append(
            f"ground and range of the decoding were chosen by the headers of {report.images} of {total} images"
        )
    if not parts:
        return ""
    sampled = f" (chosen by {MAX_SAMPLED} of them)" if report.sampled else ""
    return f"of {report.images} image{'' if report.images == 1 else 's'}: {'; '.join(parts)}{sampled}"


def _files(images: Iterable[ImageInput]) -> list[ImageInput]:
    """The images; a file of several regions counts once, as a whole."""
    sources: list[ImageInput] = []
    paths: dict[str, None] = {}
    for image in images:
        if isinstance(image, str | Path):
            paths.setdefault(image_file(image))
        else:
            sources.append(image)
    return [*paths, *sources]


def _evenly(sources: list[ImageInput], report: DecodingReport) -> list[ImageInput]:
    if len(sources) <= MAX_SAMPLED:
        return sources
    report.sampled = True
    return [sources[index] for index in np.linspace(0, len(sources) - 1, MAX_SAMPLED).astype(int)]


def _map(
    measure: Callable[[Image.Image, ImageInput], T | None], sources: list[ImageInput], max_pixels: int, description: str
) -> Iterator[T]:
    """Measure opened images in threads; unreadable ones are skipped."""

    def run(source: ImageInput) -> T | None:
        try:
            with ErrorsNamed(source), pillow.local_settings(), pillow.opened(source) as image:
                return measure(image, source) if image.width * image.height <= max_pixels else None
        except DataError:  # reported when the image is read
            return None

    with ThreadPoolExecutor() as pool, progress(description, len(sources)) as advance:
        for result in pool.map(run, sources):
            advance(1)
            if result is not None:
                yield result


# ---- headers ----


def _look_at_headers(sources: list[ImageInput], stop: Stop | None) -> tuple[list[ImageInput], list[_Traits], int]:
    """Return images with their traits, and the number of those that were left out."""
    if stop is None:
        return sources, [_read_traits(source) for source in sources], 0
    by_index: dict[int, _Traits] = {}
    for index in np.random.default_rng(0).permutation(len(sources)).tolist():
        by_index[index] = _read_traits(sources[index])
        if len(by_index) % LOOKS_AT_ONCE == 0 and stop(len(by_index), len(sources)):
            break
    positions = sorted(by_index)
    return (
        [sources[index] for index in positions],
        [by_index[index] for index in positions],
        len(sources) - len(positions),
    )


def _read_traits(source: ImageInput) -> _Traits:
    try:
        with ErrorsNamed(source), pillow.local_settings():
            if isinstance(source, str | Path):
                with open_image_file(source) as file:
                    if file.read(2) == JPEG_START:
                        file.seek(0)
                        layout = read_layout(file.read(_JPEG_HEADER), header_only=True)
                        if layout is not None and not layout.has_profile:
                            return _Traits()  # no transparency, and never more than 8 bits
            with pillow.opened(source) as image:
                return _traits_of(image)
    except DataError:  # as in _map
        return _Traits()


def _traits_of(image: Image.Image) -> _Traits:
    profile = ""
    if "icc_profile" in image.info:
        from unalike.data.color_profile import needs_conversion, profile_name

        profile = profile_name(image) if needs_conversion(image) else ""
    return _Traits(has_alpha(image), is_deep(image), profile)


# ---- range ----


def _value_limits(image: Image.Image, source: ImageInput) -> _Values | None:
    values_HWC = read_values(image, lambda: pillow.reopen(source))
    channels = values_HWC.shape[2] - (values_HWC.shape[2] in (2, 4))
    values_P = values_HWC[..., :channels].reshape(-1)
    values_P = values_P[np.isfinite(values_P)]
    if not len(values_P):
        return None
    outside = max(1, int(OUTLIERS * len(values_P)))
    if len(values_P) <= 2 * outside:
        outside = 0
    parts_P = np.partition(values_P, (outside, len(values_P) - 1 - outside))
    integers = bool(np.issubdtype(values_P.dtype, np.integer))
    return _Values(float(parts_P[outside]), float(parts_P[-1 - outside]), integers, stated_maximum(image))


def choose_range(images: Iterable[_Values]) -> tuple[float, float] | None:
    """The range of a set of deep images.

    From 0 to the highest value that the files state; else to the next power of two less one (255, 511, ... 65535) above the
    highest value, as cameras of 10, 12 or 14 bits give them, or to 1 for floating point up to 1. Values that fill less than
    an eighth of that, or negative ones, are stretched with half their span to spare on both sides.
    """
    measurements = list(images)
    if not measurements:
        return None
    low, high = min(values.low for values in measurements), max(values.high for values in measurements)
    largest = max((values.stated or 0.0 for values in measurements), default=0.0)
    if largest >= high > 0 and low >= 0:
        return 0.0, largest
    if high <= 1 and not any(values.integers for values in measurements):
        top = 1.0
    else:
        top = float(2 ** max(8, int(np.ceil(np.log2(max(high, 1) + 1)))) - 1)
    span = high - low
    if low >= 0 and (span >= NARROW * top or span == 0):
        return 0.0, top
    if span == 0:
        return low - 0.5, high + 0.5
    spare = span / 2
    start, end = low - spare, high + spare
    if low >= 0:
        start, end = max(0.0, start), min(top, end)
    if all(values.integers for values in measurements):
        start, end = float(np.floor(start)), float(np.ceil(end))
    return start, end


# ---- ground ----


def _visible_shares(decoding: Decoding, image: Image.Image, source: ImageInput) -> np.ndarray | None:
    """The share of a drawing that is visible on each candidate; None for an opaque image or one without any drawing."""
    layer_HW4 = np.asarray(to_rgba(image, decoding, lambda: pillow.reopen(source)))
    step = max(1, -(-max(layer_HW4.shape[:2]) // SAMPLE_SIDE))
    layer_HW4 = layer_HW4[::step, ::step]
    opacity_HW = layer_HW4[..., 3].astype(np.float32) / 255
    total = float(opacity_HW.sum())
    if total == 0 or float(opacity_HW.min()) == 1:
        return None
    colors_HW3 = layer_HW4[..., :3].astype(np.float32)
    gaps_GHW = np.stack(
        [np.abs(colors_HW3 - np.asarray(ground, np.float32)).max(axis=2) * opacity_HW for ground in CANDIDATES]
    )
    least_HW = np.minimum(VISIBLE_LEVELS, gaps_GHW.max(axis=0) / 2)  # of faint pixels, half of what can be had
    visible_G: np.ndarray = ((gaps_GHW >= least_HW) * opacity_HW).sum(axis=(1, 2)) / total
    return visible_G


def choose_ground(shares_IG: np.ndarray) -> Color:
    """The first candidate on which no drawing vanishes; mid-gray where there is none.

    Args:
        shares_IG: The share of each image's drawing that is visible on each candidate.
    """
    enough = np.flatnonzero(shares_IG.min(axis=0) >= VISIBLE_SHARE)
    return CANDIDATES[int(enough[0])] if len(enough) else GRAY
