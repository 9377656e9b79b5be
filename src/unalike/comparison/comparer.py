"""Comparer: aligns two images of the same thing and finds where they differ. Needs OpenCV (extra ``vision``).

Pixels are compared (``pixel_difference.py``), or the features of a network (``feature_level.py``), or both.

Shapes: H, W of an image, C channels (1 or 3).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from unalike.comparison.answer import PoseLimits, decide, find_coverage_reasons, find_pose_reasons
from unalike.comparison.coverage import measure_coverage
from unalike.comparison.deformation import fit_deformation
from unalike.comparison.feature_difference import FLOOR, FeatureDifference, find_feature_regions
from unalike.comparison.feature_level import FeatureLevel
from unalike.comparison.lighting import LightingCorrection, fit_lighting
from unalike.comparison.pair_statistics import are_screenshots
from unalike.comparison.pixel_difference import (
    CONTRAST,
    PixelDifference,
    compute_pixel_difference,
    count_tiles,
)
from unalike.comparison.regions import DifferenceRegion, find_pixel_regions
from unalike.comparison.registration import (
    GOOD_QUALITY,
    IN_PLACE,
    LARGE_BEND,
    RIGID_METHODS,
    RIGID_QUALITY,
    Registration,
    check_size,
    import_opencv,
    refine_perspective,
    register,
    start_matrix,
)
from unalike.comparison.resampling import RESAMPLE_RATIO, fit_mask, make_previews, resample_to_coarser, shrink
from unalike.comparison.result import ComparisonResult
from unalike.comparison.visibility import NOTHING_HIDDEN, HiddenShare, hidden_contrast
from unalike.data.decode import ImageInput, open_image
from unalike.data.decoding import Decoding
from unalike.data.decoding_fit import fit_decoding, format_report, survey
from unalike.data.ignored import find_ignored
from unalike.errors import DataError, NotComparable, SpecError
from unalike.inference.feature_map_model import FeatureMapModel
from unalike.inference.model_files import PRETRAINED
from unalike.numerics.arguments import check_list, check_pair, describe
from unalike.progress import progress, say
from unalike.spec.load import check_fields

# Rows that are processed at once where a whole image is read through.
STRIP = 256
# Fewest tiles for which a progress bar is shown.
MIN_PROGRESS_TILES = 16
# A note says how much was compared where it is less than this share.
FULL_SHARE = 0.98
# A note says what the tolerance hides where that is more than this share of the shorter side.
MAX_REACH_SHARE = 0.1


class Comparer:
    """Compares pairs of images with fixed settings; any number of threads may call it.

    Settings of a level that is not compared are ignored.

    Args:
        align: Motion model: auto, none, shift, rigid, affine or homography.
        lighting: What lighting may change: local, global or none.
        preset: Kind of images (``preset.py``): photo, print, screen (no alignment, no lighting, antialiasing left out), scan, or
            auto, which chooses for each pair. It sets the next three where they are unset.
        tolerance: Largest edge displacement, in pixels, that counts as no difference; 0 to 32; unset, measured in each pair.
        contrast: Least difference that counts, in gray levels; 1 to 255.
        min_area: Fewest pixels of a region.
        margin: Pixels around a region's box; 1/64 of the image's shorter side if unset.
        flexible: Whether a smooth deformation is removed.
        mirror: Whether a mirrored copy is compared too.
        min_compared: Least share of both images that must have a counterpart in the other to call them the same.
        max_rotation: Largest rotation that counts as no difference, in degrees.
        max_scale: Largest enlargement or reduction that does not; another resolution of the same view is none.
        max_shift: Largest shift that does not, as a share of the reference's diagonal.
        any_pose: Whether the limits of rotation, scale and shift are lifted.
        ignore_mask: Image of the reference's size that marks where differences are ignored.
        ignore_boxes: Boxes (left, top, right, bottom) of the reference in which differences are ignored.
        level: What is compared: pixels (no network), features, or both.
        model: Of features: ``pretrained[:NAME]`` (default), a checkpoint, a file of export-maps, or a network that is loaded
            already.
        runtime: Of features: auto, openvino, onnxruntime or torch.
        precision: Of features: auto, fp32 or bf16.
        threads: Of features: CPU threads; all if unset.
        ground: Color behind transparent pixels (``data.decoding``); chosen from the images if unset.
        range: Lowest and highest value of images of more than 8 bits; chosen from the images if unset.

    Raises:
        SpecError: A setting is out of range.
        MissingExtra: OpenCV is not installed; and the errors of opening a model.

    Examples:
        >>> result = Comparer().compare("approved.png", "photo.jpg")        # doctest: +SKIP
        >>> result.same, result.regions[0].box, result.regions[0].score
    """

    def __init__(
        self, *, align: str = "auto", lighting: str = "local", preset: str = "auto", tolerance: int | None = None,
        contrast: float | None = None, min_area: int | None = None, margin: int | None = None, flexible: bool = True, mirror: bool = False,
        min_compared: float = 0.95, max_rotation: float = 15.0, max_scale: float = 1.5, max_shift: float = 0.15,
        any_pose: bool = False, ignore_mask: str | Path | None = None, ignore_boxes: Sequence[Sequence[int]] | None = None,
        level: str = "pixels", model: str | Path | FeatureMapModel | None = None, runtime: str = "auto", precision: str = "auto",
        threads: int | None = None, ground: str | Sequence[int] | None = None, range: str | Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        import_opencv()
        section = check_fields(
            "compare", min_compared=min_compared, max_rotation=max_rotation, max_scale=max_scale, max_shift=max_shift,
            any_pose=any_pose, ignore_mask=ignore_mask,
            ignore_boxes=None if ignore_boxes is None else
            [check_list("a box", box, "a pixel") for box in check_list("ignore_boxes", ignore_boxes, "a box")], align=align, lighting=lighting, preset=preset, tolerance=tolerance, contrast=contrast, min_area=min_area,
            margin=margin, flexible=flexible, mirror=mirror, level=level, model=None if isinstance(model, FeatureMapModel) else model, runtime=runtime,
            precision=precision, threads=threads,
        )  # fmt: skip
        self.decoding = Decoding.from_options(ground, range)
        self.align, self.lighting, self.preset = align, lighting, preset
        self.tolerance, self.contrast, self.min_area = tolerance, contrast, min_area
        self.margin, self.flexible, self.mirror = margin, flexible, mirror
        self.min_compared, self.any_pose = min_compared, any_pose
        self.pose_limits = PoseLimits(max_rotation, max_scale, max_shift)
        self.ignore_mask, self.ignore_boxes = section.ignore_mask, section.ignore_boxes
        if level == "pixels" and model is not None:
            raise SpecError(f"a model ({model.source if isinstance(model, FeatureMapModel) else model}) to compare pixels", expected="level features or both",
                            remedy="add --level features, or leave the model out")  # fmt: skip
        options = {"runtime": runtime != "auto", "precision": precision != "auto", "threads": threads is not None}
        if level == "pixels" and any(options.values()):
            names = ", ".join(name for name, is_given in options.items() if is_given)
            say(
                f"not used: {names}; pixels are compared without a network (--level features or both uses one)",
                once=True,
            )
        self.pixels = level != "features"
        self.features = None if level == "pixels" else FeatureLevel.load(
            model or PRETRAINED, runtime=runtime, precision=precision, threads=threads)  # fmt: skip

    def compare(self, reference: ImageInput, image: ImageInput, *, show_progress: bool = False) -> ComparisonResult:
        """Align an image to a reference and find where it differs.

        Args:
            reference: As in ``data.decode.decode``.
            image: The same.
            show_progress: Whether a progress bar is shown for large images.

        Raises:
            NotComparable: The images cannot be aligned.
            UnreadableImage: A file cannot be read.
            DataError: An array has another shape or type.
        """
        reference_HWC, image_HWC, notes = self._read_pair(reference, image)
        start = time.perf_counter()
        sizes = (reference_HWC.shape[:2], image_HWC.shape[:2])
        ignored_HW = find_ignored(sizes[0], self.ignore_mask, self.ignore_boxes)
        if _are_equal(reference_HWC, image_HWC):
            notes.append("the images are equal, pixel by pixel")
            return self._identical_result(image_HWC, ignored_HW, notes, start)
        preset = self._find_preset(reference_HWC, image_HWC)
        registration = self._register(reference_HWC, image_HWC, preset, notes)
        coverage = measure_coverage(registration, *sizes, ignored_HW)
        differences = find_coverage_reasons(coverage, self.min_compared)
        if not self.any_pose and registration.method not in (IN_PLACE, "none"):
            differences += find_pose_reasons(registration, *sizes, self.pose_limits)
        size = sizes[1]
        reference_frame_HWC = shrink(reference_HWC)
        reference_HWC, image_HWC, resampled, scale = resample_to_coarser(reference_HWC, image_HWC, registration)
        pixels, features, lighting = self._compare_levels(
            reference_HWC, image_HWC, resampled, preset, fit_mask(ignored_HW, reference_HWC.shape), show_progress
        )
        _note_sizes(registration, scale, min(image_HWC.shape[:2]), pixels, notes)
        compared_share = float(features.known_hw.mean()) if features is not None else 0.0
        if pixels is not None:
            compared_share = pixels.compared
        if features is not None:
            features = replace(features, cell=(features.cell[0] * scale, features.cell[1] * scale))
        regions = self._find_regions(pixels, features, size, scale)
        if compared_share < FULL_SHARE * registration.overlap or registration.overlap < FULL_SHARE:
            notes.append(f"{compared_share:.0%} of the image lie on the reference and were compared")
        preview_HWC, reference_preview_HWC = make_previews(reference_HWC, image_HWC, resampled, lighting)
        answer, reasons = decide(len(regions), differences, coverage, self.min_compared, _find_hidden(pixels))
        return ComparisonResult(
            answer=answer,
            reasons=reasons,
            regions=tuple(regions),
            registration=registration,
            size=size,
            heat_hw=None if pixels is None else pixels.heat_hw,
            heat_scale=1.0 if pixels is None else pixels.pool * scale,
            threshold=None if pixels is None else pixels.threshold,
            compared=compared_share,
            coverage=coverage,
            seconds=time.perf_counter() - start,
            notes=tuple(notes),
            preview_HWC=preview_HWC,
            reference_preview_HWC=reference_preview_HWC,
            reference_frame_HWC=reference_frame_HWC,
            features=features,
            network=self.features.name if self.features else "",
            sensitivity=None if pixels is None else pixels.sensitivity,
            tolerated=None if pixels is None else _tolerated_change(pixels, scale),
        )

    def fit_decoding(self, images: Iterable[ImageInput]) -> None:
        """Choose ground and range, where they are not set, once for all images that will be compared."""
        self.decoding = fit_decoding(images, self.decoding)

    def compare_many(self, pairs: Iterable[tuple[ImageInput, ImageInput]]) -> Iterator[ComparisonResult | DataError]:
        """Yield the result of each pair (reference, image), or the DataError that says why there is none."""
        comparer = self
        if not isinstance(pairs, Iterable) or isinstance(pairs, str | bytes | Path | np.ndarray):
            raise DataError(f"pairs: {describe(pairs)}", expected="pairs (reference, image)")
        if isinstance(pairs, Sequence):  # a set that is known beforehand is decoded by one rule
            comparer = copy(self)
            comparer.fit_decoding([image for pair in pairs for image in check_pair(pair)])
        for reference, image in map(check_pair, pairs):
            try:
                yield comparer.compare(reference, image)
            except DataError as error:
                yield error

    def _read_pair(self, reference: ImageInput, image: ImageInput) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Decode both images by one rule, to the same channels; return them with notes on what was converted."""
        decoding, report = survey([reference, image], self.decoding)
        reference_HWC, image_HWC = _to_pixels(reference, decoding), _to_pixels(image, decoding)
        converted = format_report(report, decoding)
        notes = [converted] if converted else []
        if reference_HWC.shape[2] != image_HWC.shape[2]:
            color_name = "reference" if reference_HWC.shape[2] == 3 else "image"
            notes.append(
                f"only the {color_name} has color, which counts as a difference: compare gray copies to leave color out"
            )
            reference_HWC, image_HWC = (_to_channels(pixels, 3) for pixels in (reference_HWC, image_HWC))
        return reference_HWC, image_HWC, notes

    def _find_regions(
        self, pixels: PixelDifference | None, features: FeatureDifference | None, size: tuple[int, int], scale: float
    ) -> list[DifferenceRegion]:
        """Find the regions of both levels in an image of ``size`` (H, W), those of pixels first."""
        regions: list[DifferenceRegion] = []
        if pixels is not None:
            regions += find_pixel_regions(
                pixels, size, min_area=pixels.sensitivity.min_area, margin=self.margin, scale=scale
            )
        if features is not None:
            regions += find_feature_regions(features, size, margin=self.margin)
        return regions

    def _compare_levels(
        self,
        reference_HWC: np.ndarray,
        image_HWC: np.ndarray,
        registration: Registration,
        preset: str,
        ignored_HW1: np.ndarray | None,
        show_progress: bool,
    ) -> tuple[PixelDifference | None, FeatureDifference | None, LightingCorrection]:
        """Compare two images of one scale on each level; return the differences and the lighting correction."""
        shape = image_HWC.shape[:2]
        lighting_model = "none" if preset == "screen" else self.lighting
        steps = (count_tiles(shape) if self.pixels else 0) + (len(self.features.windows(shape)) if self.features else 0)
        pixels, features = None, None
        with progress("comparing", steps if show_progress and steps >= MIN_PROGRESS_TILES else 0, "tiles") as advance:
            if self.pixels:
                pixels = compute_pixel_difference(
                    reference_HWC, image_HWC, registration, preset=preset, tolerance=self.tolerance, contrast=self.contrast,
                    min_area=self.min_area, lighting=lighting_model, ignored_HW1=ignored_HW1, advance=advance,
                )  # fmt: skip
                lighting = pixels.lighting
            else:
                lighting = fit_lighting(reference_HWC, image_HWC, registration, lighting_model)
            if self.features is not None:
                features = self.features.compare(
                    reference_HWC, image_HWC, registration, lighting, ignored_HW1=ignored_HW1, advance=advance
                )
        return pixels, features, lighting

    def _find_preset(self, reference_HWC: np.ndarray, image_HWC: np.ndarray) -> str:
        """The preset as set, or ``screen`` where it is to be chosen, pixels are compared and the pair shows screenshots.

        Raises NotComparable for screenshots of two sizes.
        """
        if self.preset == "screen" and reference_HWC.shape != image_HWC.shape:
            sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in (reference_HWC, image_HWC))
            raise NotComparable(f"screenshots of {sizes} pixels", expected="one size", remedy="use another preset")
        if self.preset != "auto" or not self.pixels or self.tolerance or not are_screenshots(reference_HWC, image_HWC):
            return self.preset
        return "screen"

    def _register(
        self, reference_HWC: np.ndarray, image_HWC: np.ndarray, preset: str, notes: list[str]
    ) -> Registration:
        """Align the image as ``align`` and ``flexible`` say; what a person should know is appended to ``notes``."""
        a, b = _to_gray(reference_HWC), _to_gray(image_HWC)
        if self.align == "none" or preset == "screen":
            check_size(a, b)
            return Registration(start_matrix(a.shape, b.shape), float("nan"), 1.0, "none")
        registration = register(a, b, align=self.align, mirror=self.mirror)
        if registration.method == IN_PLACE:
            notes.append("blank, or few things on a plain ground: compared as they lie, without alignment")
            gap = abs(float(np.median(a)) - float(np.median(b)))
            if gap >= (self.contrast or CONTRAST) and self.lighting != "none":
                notes.append(f"the grounds are {gap:.0f} gray levels apart, of which lighting may explain a part: "
                             "--lighting none counts it as a difference")  # fmt: skip
            return registration
        if self.flexible and self.align in ("auto", "homography"):
            registration = _fit_smooth_deformation(a, b, registration)
        if registration.quality < GOOD_QUALITY:
            notes.append(
                f"the alignment is poor (quality {registration.quality:.2f}): depth or movement may show as differences"
            )
        return registration

    def _identical_result(
        self, image_HWC: np.ndarray, ignored_HW: np.ndarray | None, notes: list[str], start: float
    ) -> ComparisonResult:
        height, width = image_HWC.shape[:2]
        registration = Registration(np.eye(3), 1.0, 1.0, "none")
        preview_HWC, reference_preview_HWC = make_previews(image_HWC, image_HWC, registration)
        rows, columns = preview_HWC.shape[:2]
        coverage = measure_coverage(registration, (height, width), (height, width), ignored_HW)
        answer, reasons = decide(0, (), coverage, self.min_compared)
        features = None
        if self.features:
            zeros = np.zeros((rows, columns), np.float32)
            features = FeatureDifference(zeros, zeros == 0, (height / rows, width / columns), FLOOR)
        return ComparisonResult(
            answer=answer,
            reasons=reasons,
            regions=(),
            registration=registration,
            size=(height, width),
            heat_hw=np.zeros((rows, columns), np.uint8) if self.pixels else None,
            heat_scale=width / columns if self.pixels else 1.0,
            threshold=(self.contrast or CONTRAST) if self.pixels else None,
            compared=1.0,
            coverage=coverage,
            seconds=time.perf_counter() - start,
            notes=tuple(notes),
            preview_HWC=preview_HWC,
            reference_preview_HWC=reference_preview_HWC,
            reference_frame_HWC=preview_HWC,
            features=features,
            network=self.features.name if self.features else "",
        )


# ---- alignment and visibility ----


def _fit_smooth_deformation(reference_HW: np.ndarray, image_HW: np.ndarray, registration: Registration) -> Registration:
    """Add a displacement field; where much is left to it, look for a perspective first."""
    deformation = fit_deformation(reference_HW, image_HW, registration)
    if registration.method in RIGID_METHODS and (
        deformation.quality < RIGID_QUALITY or deformation.largest_bend > LARGE_BEND
    ):
        projective = refine_perspective(reference_HW, image_HW, registration)
        if projective is not registration:
            refitted = fit_deformation(reference_HW, image_HW, projective)
            return max(deformation, refitted, key=lambda result: result.quality)
    return deformation


def _note_sizes(
    registration: Registration, scale: float, shorter_side: int, pixels: PixelDifference | None, notes: list[str]
) -> None:
    """Note at which size images of two resolutions are compared, and what the tolerance hides in small ones."""
    if scale > 1:
        notes.append(f"the image is {scale:.2f} times finer than the reference: compared at the reference's size")
    elif registration.scale > RESAMPLE_RATIO:
        notes.append(
            f"the reference is {registration.scale:.2f} times finer than the image: compared at the image's size"
        )
    if pixels is None:
        return
    reach = 2 * pixels.sensitivity.tolerance + 1
    if reach > MAX_REACH_SHARE * shorter_side:
        notes.append(f"things narrower than {reach} pixels, {reach / shorter_side:.0%} of the image, are tolerated: "
                     "lower the tolerance to see them")  # fmt: skip


def _tolerated_change(pixels: PixelDifference, scale: float) -> tuple[int, int]:
    """(displacement, area) in pixels of the image up to which, and below which, changes are not looked for."""
    return math.ceil(pixels.sensitivity.tolerance * scale), math.ceil(pixels.sensitivity.min_area * scale**2)


def _find_hidden(pixels: PixelDifference | None) -> HiddenShare:
    """Which part of the image hides differences of pixels, and why."""
    if pixels is None:
        return NOTHING_HIDDEN
    if pixels.threshold > hidden_contrast(pixels.sensitivity.contrast, CONTRAST):
        return HiddenShare(
            pixels.hidden, f"are so noisy that only differences from {pixels.threshold:.0f} gray levels on can be seen"
        )
    return HiddenShare(pixels.hidden, "are too dark or faint beside the reference to show differences")


# ---- reading ----


def _to_pixels(image: ImageInput, decoding: Decoding) -> np.ndarray:
    """Return uint8 pixels (H, W, 3), or (H, W, 1) where all three channels are equal."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3):
        pixels = image
    else:
        pixels = _read_in_strips(image, decoding)
    if pixels.shape[2] == 3 and _is_gray(pixels):
        pixels = np.ascontiguousarray(pixels[..., :1])
    return pixels


def _read_in_strips(source: ImageInput, decoding: Decoding) -> np.ndarray:
    """As ``decode``, strip by strip, so that there is never a third copy of a large image in memory."""
    image = open_image(source, decoding=decoding)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(image.height, top + STRIP)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _are_equal(a_HWC: np.ndarray, b_HWC: np.ndarray) -> bool:
    """Whether two images are equal; stops at the first strip that differs."""
    return a_HWC.shape == b_HWC.shape and all(
        np.array_equal(a_HWC[top : top + STRIP], b_HWC[top : top + STRIP]) for top in range(0, len(a_HWC), STRIP)
    )


def _is_gray(pixels_HW3: np.ndarray) -> bool:
    """Whether the three channels are equal; stops at the first strip with color."""
    return all(
        np.array_equal(rows[..., 0], rows[..., 1]) and np.array_equal(rows[..., 0], rows[..., 2])
        for rows in (pixels_HW3[top : top + STRIP] for top in range(0, len(pixels_HW3), STRIP))
    )


def _to_channels(pixels_HWC: np.ndarray, channels: int) -> np.ndarray:
    return pixels_HWC if pixels_HWC.shape[2] == channels else np.repeat(pixels_HWC, channels, axis=2)


def _to_gray(pixels_HWC: np.ndarray) -> np.ndarray:
    if pixels_HWC.shape[2] == 1:
        return pixels_HWC[..., 0]
    cv2 = import_opencv()
    gray_HW: np.ndarray = cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2GRAY)
    return gray_HW
