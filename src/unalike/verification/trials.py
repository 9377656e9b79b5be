"""Calibration trials rendered from the assets alone: benign images, tampered copies and other drawings.

A trial is determined by the seed, the asset and its number; neither the order nor the number of other trials changes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unalike.errors import DataError
from unalike.verification.asset import Asset
from unalike.verification.asset_template import AssetTemplate
from unalike.verification.benign import BENIGN, render_benign
from unalike.verification.distractors import draw_distractor
from unalike.verification.localization import locate_asset
from unalike.verification.measures import MEASURES, AssetDifference, measure_difference
from unalike.verification.searched_image import SearchedImage
from unalike.verification.tampering import TAMPERING, tamper_randomly
from unalike.verification.thresholds import GENUINE, OTHER, TrialMeasurements

# Measures of an image in which nothing like the asset was found.
NOT_FOUND = {"edges": 1.0, "distortion": 0.7, "colour": 100.0, "parts": 1.5, "balance": 1.5, "area": 1.0, "hidden": 0.0}
# Benign transformations of tampered copies: on a busy background an added part may pass as background, whatever its threshold.
TAMPERED_SCENES = tuple(kind for kind in BENIGN if kind != "busy-background")
# Number of distractors that trials draw from.
DISTRACTORS = 96


@dataclass(frozen=True, eq=False)
class VerificationTrial:
    """One rendered image of known content.

    Attributes:
        image_HW3: uint8 RGB.
        asset: Number of the asset that the image is compared with.
        kind: ``genuine``, a kind of tampering, or ``other``.
        pose_23: Pose of what was rendered.
        mask_HW: bool, where the asset was changed, in its own frame; None unless it was tampered with.
        is_global: Whether it was changed everywhere.
    """

    image_HW3: np.ndarray
    asset: int
    kind: str
    pose_23: np.ndarray
    mask_HW: np.ndarray | None = None
    is_global: bool = False


def measure_asset(template: AssetTemplate, image: np.ndarray | SearchedImage) -> AssetDifference | None:
    """Locate an asset in an image (uint8 RGB) and measure how they differ; None where nothing like it is found."""
    search_image = image if isinstance(image, SearchedImage) else SearchedImage(image)
    pose = locate_asset(template, search_image)
    return measure_difference(template, search_image.image_HW3, pose) if pose is not None else None


def render_trials(
    assets: Sequence[Asset],
    *,
    genuine: int,
    tampered: int,
    others: int,
    kinds: Collection[str] = TAMPERING,
    similar: Callable[[int], Sequence[int]] | None = None,
    seed: int = 0,
) -> Iterator[VerificationTrial]:
    """Render the trials of each asset.

    Args:
        assets: The assets.
        genuine: Benign images of each asset.
        tampered: Tampered copies of each asset; none of an asset on which no kind is possible.
        others: Images of other drawings for each asset: up to half of them similar assets, then distractors.
        kinds: Kinds of tampering.
        similar: Numbers of the other assets by falling similarity to the numbered one; distractors alone if unset.
        seed: Determines all images.
    """
    for number, asset in enumerate(assets):
        key = zlib.crc32(asset.name.encode("utf-8", "surrogatepass"))
        for trial in range(genuine):
            rendered = render_benign(asset, np.random.default_rng([seed, key, 1, trial]))
            yield VerificationTrial(rendered.image_HW3, number, GENUINE, rendered.pose_23)
        for trial in range(tampered):
            rng = np.random.default_rng([seed, key, 2, trial])
            try:
                copy = tamper_randomly(asset, rng, kinds)
            except DataError:
                break
            rendered = render_benign(asset, rng, kinds=TAMPERED_SCENES, layer_HW4=copy.layer_HW4)
            yield VerificationTrial(
                rendered.image_HW3, number, copy.kind, rendered.pose_23, copy.mask_HW, copy.is_global
            )
        near = list(similar(number))[: others // 2] if similar is not None else []
        for trial in range(others):
            rng = np.random.default_rng([seed, key, 3, trial])
            is_near = trial < len(near)
            other = assets[near[trial]] if is_near else draw_distractor(seed, int(rng.integers(DISTRACTORS)))
            rendered = render_benign(other, rng)
            yield VerificationTrial(rendered.image_HW3, number, OTHER, rendered.pose_23)


def measure_row(difference: AssetDifference | None) -> list[float]:
    """Return the measures in the order of MEASURES."""
    measures = difference.measures if difference is not None else NOT_FOUND
    return [float(measures[name]) for name in MEASURES]


def stack_measurements(
    differences: Sequence[AssetDifference | None],
    assets: Sequence[int],
    kinds: Sequence[str],
    similarities: Sequence[float],
) -> TrialMeasurements:
    """Stack the measurements of trials, one of each sequence a trial, into arrays."""
    return TrialMeasurements(
        np.array([measure_row(difference) for difference in differences], np.float64).reshape(-1, len(MEASURES)),
        np.array(assets),
        np.array(kinds, dtype=object),
        np.array(similarities),
        np.array([difference.pose.correlation if difference else 0.0 for difference in differences]),
    )
