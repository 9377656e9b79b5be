"""Two pictures of one thing: how they lie on each other, whether they differ, where. Needs OpenCV (extra ``vision``).

Pixels are compared, or the features of a network (``feature_level.py``), or both; each level has a heat map of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unalike.comparison.deformation import bend
from unalike.comparison.feature_difference import FLOOR, FeatureDifference, find_places
from unalike.comparison.feature_level import FeatureLevel
from unalike.comparison.pixel_difference import (
    CONTRAST,
    LIGHTING,
    TOLERANCE,
    Difference,
    Light,
    aligned,
    differences,
    light_between,
    tile_count,
)
from unalike.comparison.regions import MIN_AREA, Region, find_regions
from unalike.comparison.registration import ALIGN, GOOD, Registration, check_size, opencv, register, scaling
from unalike.data.decode import ImageInput, open_image, to_rgb
from unalike.errors import DataError, SpecError, closest
from unalike.inference.open_maps import PRETRAINED
from unalike.progress import progress
from unalike.report.drawing import blended, boxed, heat_picture

LEVELS = ("pixels", "features", "both")
# The map of pixels, image pixels a map pixel, and the threshold; the first and last None where pixels were not compared.
Heat = tuple[np.ndarray | None, float, float | None]
# Longer side of the pictures that are kept for people.
SHOWN = 1600
# Rows that are looked at at once where a whole picture is read through.
STRIP = 256
# More tiles than this deserve a bar.
BAR_FROM = 16


@dataclass(frozen=True)
class Comparison:
    """What a comparison found; coordinates are pixels of the image as it was given.

    ``same`` is True when no region was found. ``regions`` stand with the highest score first, those of pixels before those of
    features. ``heat_hw`` (uint8) is the difference of pixels beyond the tolerance in grey levels, in maps of ``heat_scale``
    image pixels a map pixel, ``threshold`` what counts; of features see ``features``; None for a level that was not asked for.
    ``compared`` is the share of the image that lies on the reference and was compared. ``seconds`` without reading files.
    """

    same: bool
    regions: tuple[Region, ...]
    registration: Registration
    size: tuple[int, int]
    heat_hw: np.ndarray | None = field(repr=False)
    heat_scale: float
    threshold: float | None
    compared: float
    seconds: float
    notes: tuple[str, ...] = ()
    shown_HWC: np.ndarray = field(repr=False, default_factory=lambda: np.zeros((1, 1, 3), np.uint8))
    shown_reference_HWC: np.ndarray = field(repr=False, default_factory=lambda: np.zeros((1, 1, 3), np.uint8))
    features: FeatureDifference | None = field(repr=False, default=None)
    network: str = ""

    @property
    def level(self) -> str:
        """pixels, features or both: what was compared."""
        return "pixels" if self.features is None else "features" if self.heat_hw is None else "both"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "same": self.same, "regions": [region.to_dict() for region in self.regions],
            "registration": self.registration.to_dict(), "height": self.size[0], "width": self.size[1],
            "level": self.level, "threshold": None if self.threshold is None else round(self.threshold, 2),
            "features": None if self.features is None else self._told_features(self.features),
            "compared": round(self.compared, 4), "seconds": round(self.seconds, 4), "notes": list(self.notes),
        }  # fmt: skip

    def _told_features(self, found: FeatureDifference) -> dict[str, Any]:
        known = found.heat_hw[found.known_hw]
        return {
            "network": self.network, "threshold": round(found.threshold, 4), "cell": list(found.cell),
            "median": round(float(np.median(known)), 4) if known.size else None,
            "highest": round(float(found.heat_hw.max(initial=0)), 4),
        }  # fmt: skip

    def picture(self) -> Image.Image:
        """The image with the boxes and scores of its regions; at most 1600 pixels on the longer side."""
        return boxed(self.shown_HWC, self.regions, self.size)

    def overlay(self) -> Image.Image:
        """Image and aligned reference in one picture: what only the image has is blue, what it lacks orange."""
        return boxed(blended(self.shown_reference_HWC, self.shown_HWC), self.regions, self.size)

    def reference(self) -> Image.Image:
        """The reference as it lies on the image, in the image's light; around it the image itself."""
        return Image.fromarray(self.shown_reference_HWC)

    def heat_map(self, level: str | None = None) -> Image.Image:
        """How far one level goes beyond what may be, in colours over the greyed image; of both the pixels' if unset.

        Raises SpecError for a level that was not compared.
        """
        level = level or ("features" if self.heat_hw is None else "pixels")
        if level == "pixels" and self.heat_hw is not None and self.threshold is not None:
            return heat_picture(self.heat_hw, self.shown_HWC, self.threshold)
        if level == "features" and self.features is not None:
            grey = np.clip(self.features.heat_hw * (64 / self.features.threshold), 0, 255)
            return heat_picture(grey.astype(np.uint8), self.shown_HWC, 64)
        raise SpecError(f"heat of level {level!r}", expected=self.level, remedy="compare with level='both'")


class Comparer:
    """Compares pairs of pictures with one setting; any number of threads may call it.

    ``align``: auto, none, shift, rigid, affine, homography. ``lighting``: what light may change: local, global, none.
    ``tolerance``: pixels that an edge may lie off. ``contrast``: the least difference in grey levels (1..255). ``min_area``:
    the fewest pixels of a region. ``margin``: around a box, in pixels; None for a share of the image. ``flexible``: whether
    small smooth bends are taken out. ``mirror``: whether a mirrored copy may be compared. ``level``: pixels (no network),
    features or both; for the latter two ``model`` (``pretrained[:NAME]``, the default, a checkpoint, or what export-maps wrote),
    ``runtime``, ``precision`` and ``threads`` say what gives the features. Settings of the level that is not asked for are
    not looked at. Raises SpecError, and the errors of opening a model.

    >>> result = Comparer().compare("approved.png", "seen.jpg")        # doctest: +SKIP
    >>> result.same, result.regions[0].box, result.regions[0].score
    """

    def __init__(
        self, *, align: str = "auto", lighting: str = "local", tolerance: int = TOLERANCE, contrast: float = CONTRAST,
        min_area: int = MIN_AREA, margin: int | None = None, flexible: bool = True, mirror: bool = False,
        level: str = "pixels", model: str | Path | None = None, runtime: str = "auto", precision: str = "auto",
        threads: int | None = None,
    ) -> None:  # fmt: skip
        opencv()
        for name, value, low, high in (("tolerance", tolerance, 0, 32), ("contrast", contrast, 1, 255),
                                       ("min_area", min_area, 1, 10**9), ("margin", margin or 0, 0, 10**5)):  # fmt: skip
            if not low <= value <= high:
                raise SpecError(f"{name} {value}", expected=f"{low} to {high}")
        for name, word, words in (("align", align, ALIGN), ("lighting", lighting, LIGHTING), ("level", level, LEVELS)):
            if word not in words:
                raise SpecError(f"{name} {word!r}", expected=", ".join(words), remedy=closest(word, words))
        self.align, self.lighting, self.tolerance, self.contrast = align, lighting, tolerance, contrast
        self.min_area, self.margin, self.flexible, self.mirror = min_area, margin, flexible, mirror
        if level == "pixels" and model is not None:
            raise SpecError(f"a model ({model}) to compare pixels", expected="level features or both",
                            remedy="add --level features, or leave the model out")  # fmt: skip
        self.pixels = level != "features"
        self.features = None if level == "pixels" else FeatureLevel.load(
            model or PRETRAINED, runtime=runtime, precision=precision, threads=threads)  # fmt: skip

    def compare(self, reference: ImageInput, image: ImageInput, *, watch: bool = False) -> Comparison:
        """Lay ``image`` on ``reference`` and find what differs; ``watch`` shows a bar where it takes long.

        Paths, PIL pictures, or uint8 arrays (H, W), (H, W, 1) or (H, W, 3). Raises NotComparable when they cannot be laid
        on each other, UnreadableImage for a file that cannot be read.
        """
        a_HWC, b_HWC = _pixels(reference), _pixels(image)
        started = time.perf_counter()
        notes: list[str] = []
        if a_HWC.shape[2] != b_HWC.shape[2]:
            notes.append("one picture has colour and the other none: compared in grey")
            a_HWC, b_HWC = _grey(a_HWC)[..., None], _grey(b_HWC)[..., None]
        if _equal(a_HWC, b_HWC):
            return self._identical(b_HWC, [*notes, "the pictures are equal, pixel by pixel"], started)
        found = self._registered(a_HWC, b_HWC, notes)
        if found.quality < GOOD:
            notes.append(
                f"the alignment is poor (quality {found.quality:.2f}): depth or movement may show as differences"
            )
        a_HWC, b_small_HWC, inner, scale = _same_scale(a_HWC, b_HWC, found)
        if scale > 1:
            notes.append(f"the image is {scale:.2f} times finer than the reference: compared at the reference's size")
        pixels, features, light = self._levels(a_HWC, b_small_HWC, inner, watch)
        size = b_HWC.shape[:2]
        regions: list[Region] = []
        if pixels is not None:
            compared = pixels.compared
            regions += find_regions(pixels, size, min_area=self.min_area, margin=self.margin, scale=scale)
        if features is not None:
            compared = pixels.compared if pixels is not None else float(features.known_hw.mean())
            features = replace(features, cell=(features.cell[0] * scale, features.cell[1] * scale))
            regions += find_places(features, size, margin=self.margin)
        if compared < 0.98 * found.overlap or found.overlap < 0.98:
            notes.append(f"{compared:.0%} of the image lie on the reference and were compared")
        heat: Heat = (None, 1.0, None) if pixels is None else (pixels.heat_hw, pixels.pool * scale, pixels.threshold)
        return Comparison(
            not regions, tuple(regions), found, size, *heat, compared, time.perf_counter() - started, tuple(notes),
            *_shown(a_HWC, b_small_HWC, inner, light), features, self.features.name if self.features else "",
        )  # fmt: skip

    def _levels(
        self, a_HWC: np.ndarray, b_HWC: np.ndarray, lies: Registration, watch: bool
    ) -> tuple[Difference | None, FeatureDifference | None, Light]:
        """What each level that was asked for says of two pictures at one scale, and the light between them."""
        shape = b_HWC.shape[:2]
        steps = (tile_count(shape) if self.pixels else 0) + (len(self.features.windows(shape)) if self.features else 0)
        pixels, features = None, None
        with progress("comparing", steps if watch and steps >= BAR_FROM else 0, "tiles") as advance:
            if self.pixels:
                pixels = differences(a_HWC, b_HWC, lies, tolerance=self.tolerance, contrast=self.contrast,
                                     lighting=self.lighting, advance=advance)  # fmt: skip
            light = pixels.light if pixels is not None else light_between(a_HWC, b_HWC, lies, self.lighting)
            if self.features is not None:
                features = self.features(a_HWC, b_HWC, lies, light, advance=advance)
        return pixels, features, light

    def compare_many(self, pairs: Iterable[tuple[ImageInput, ImageInput]]) -> Iterator[Comparison | DataError]:
        """A Comparison for each pair, or the DataError that says why there is none."""
        for reference, image in pairs:
            try:
                yield self.compare(reference, image)
            except DataError as error:
                yield error

    def _registered(self, a_HWC: np.ndarray, b_HWC: np.ndarray, notes: list[str]) -> Registration:
        a, b = _grey(a_HWC), _grey(b_HWC)
        if self.align == "none":
            check_size(a, b)
            lies = scaling(a.shape[1] / b.shape[1], a.shape[0] / b.shape[0])
            return Registration(lies, float("nan"), 1.0, "none")
        if a.shape == b.shape and float(a.std()) < 1.0 and float(b.std()) < 1.0:
            notes.append("both pictures are blank: compared as they lie")
            apart = abs(float(a.mean()) - float(b.mean()))
            if apart >= self.contrast and self.lighting != "none":
                notes.append(f"their brightness lies {apart:.0f} grey levels apart, which light may explain: "
                             "--lighting none takes it for a difference")  # fmt: skip
            return Registration(np.eye(3), float("nan"), 1.0, "none")
        found = register(a, b, align=self.align, mirror=self.mirror)
        return bend(a, b, found) if self.flexible and self.align in ("auto", "homography") else found

    def _identical(self, b_HWC: np.ndarray, notes: list[str], started: float) -> Comparison:
        height, width = b_HWC.shape[:2]
        size = (height, width)
        found = Registration(np.eye(3), 1.0, 1.0, "none")
        shown = _shown(b_HWC, b_HWC, found)
        rows, columns = shown[0].shape[:2]
        heat: Heat = (
            (np.zeros((rows, columns), np.uint8), width / columns, self.contrast) if self.pixels else (None, 1.0, None)
        )
        none = np.zeros((rows, columns), np.float32)
        features = (
            FeatureDifference(none, none == 0, (height / rows, width / columns), FLOOR) if self.features else None
        )
        return Comparison(True, (), found, size, *heat, 1.0, time.perf_counter() - started, tuple(notes), *shown,
                          features, self.features.name if self.features else "")  # fmt: skip


def _pixels(picture: ImageInput) -> np.ndarray:
    """(H, W, 3), or (H, W, 1) where all three channels are equal."""
    if isinstance(picture, np.ndarray):
        pixels = picture[..., None] if picture.ndim == 2 else picture
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise DataError(f"an array of shape {picture.shape} and type {picture.dtype}",
                            expected="uint8 of shape (H, W), (H, W, 1) or (H, W, 3)")  # fmt: skip
    elif isinstance(picture, Image.Image):
        pixels = np.asarray(to_rgb(picture), np.uint8)
    else:
        pixels = _read(picture)
    if pixels.shape[2] == 3 and _is_grey(pixels):
        pixels = np.ascontiguousarray(pixels[..., :1])
    return pixels


def _read(path: str | Path) -> np.ndarray:
    """As ``decode``, strip by strip: no third copy of a large picture is ever held."""
    image = open_image(path)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(image.height, top + STRIP)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _equal(a_HWC: np.ndarray, b_HWC: np.ndarray) -> bool:
    """Whether two pictures are the same, pixel by pixel; the first strip that differs decides."""
    return a_HWC.shape == b_HWC.shape and all(
        np.array_equal(a_HWC[top : top + STRIP], b_HWC[top : top + STRIP]) for top in range(0, len(a_HWC), STRIP)
    )


def _is_grey(pixels_HW3: np.ndarray) -> bool:
    """Whether the three channels are equal; colour is found in the first strip that has some."""
    return all(
        np.array_equal(rows[..., 0], rows[..., 1]) and np.array_equal(rows[..., 0], rows[..., 2])
        for rows in (pixels_HW3[top : top + STRIP] for top in range(0, len(pixels_HW3), STRIP))
    )


def _grey(pixels_HWC: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    return pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2GRAY)


def _same_scale(
    a_HWC: np.ndarray, b_HWC: np.ndarray, found: Registration
) -> tuple[np.ndarray, np.ndarray, Registration, float]:
    """Both pictures at the coarser one's sampling: (reference, image, how they lie now, image pixels a pixel now)."""
    cv2 = opencv()
    matrix, flow, scale = found.matrix_33, found.flow_GhGw2, 1.0
    if found.scale > 1.2:  # the reference is finer
        height, width = (max(8, round(side / found.scale)) for side in a_HWC.shape[:2])
        matrix = np.linalg.inv(scaling(a_HWC.shape[1] / width, a_HWC.shape[0] / height)) @ matrix
        a_HWC = cv2.resize(a_HWC, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)
    elif found.scale < 1 / 1.2:  # the image is finer
        height, width = (max(8, round(side * found.scale)) for side in b_HWC.shape[:2])
        scale = b_HWC.shape[1] / width
        matrix = matrix @ scaling(b_HWC.shape[1] / width, b_HWC.shape[0] / height)
        b_HWC = cv2.resize(b_HWC, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)
        flow = None if flow is None else flow / np.float32(scale)
    return a_HWC, b_HWC, Registration(matrix, found.quality, found.overlap, found.method, flow), scale


def _shown(
    a_HWC: np.ndarray, b_HWC: np.ndarray, found: Registration, light: Light | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(the image, the reference as it lies on it and in its light), RGB, small enough to be shown."""
    cv2 = opencv()
    height, width = b_HWC.shape[:2]
    factor = max(1.0, max(height, width) / SHOWN)
    small_h, small_w = max(1, round(height / factor)), max(1, round(width / factor))
    small = cv2.resize(b_HWC, (small_w, small_h), interpolation=cv2.INTER_AREA).reshape(small_h, small_w, -1)
    a_h, a_w = (max(1, round(side / factor)) for side in a_HWC.shape[:2])
    a_small = cv2.resize(a_HWC, (a_w, a_h), interpolation=cv2.INTER_AREA).reshape(a_h, a_w, -1)
    up_a, up_b = scaling(a_HWC.shape[1] / a_w, a_HWC.shape[0] / a_h), scaling(width / small_w, height / small_h)
    flow = None if found.flow_GhGw2 is None else found.flow_GhGw2 / np.float32(factor)
    here = Registration(np.linalg.inv(up_a) @ found.matrix_33 @ up_b, 0.0, 1.0, "", flow)
    seen, inside = aligned(a_small, here, (small_h, small_w), (0, 0, small_w, small_h))
    if light is not None:
        seen = light.applied(seen, (0, 0, small_w, small_h), (small_h, small_w))
    seen = np.where(inside[..., None], seen, small).astype(np.uint8)
    return (np.broadcast_to(small, (small_h, small_w, 3)).copy(), np.broadcast_to(seen, (small_h, small_w, 3)).copy())
