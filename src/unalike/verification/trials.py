"""Trials with assets alone: harmless pictures as genuine, tampered copies and other drawings as impostors.

A trial is a function of (seed, asset, its number): neither the order nor the number of others changes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unalike.errors import DataError
from unalike.verification.asset import Asset
from unalike.verification.benign import show_harmless
from unalike.verification.distractors import draw_stranger
from unalike.verification.localization import Template, lay
from unalike.verification.measures import MEASURES, Difference, compare_laid
from unalike.verification.tampering import TAMPERING, some_tampering
from unalike.verification.thresholds import Trials

# What is measured of a picture in which nothing like the asset was found.
NOTHING = {"edges": 1.0, "distortion": 0.7, "colour": 1.5, "parts": 1.5, "balance": 1.5, "area": 1.0, "hidden": 0.0}
# Other drawings a set must have, made-up ones filling up.
OTHERS = 24


@dataclass(frozen=True, eq=False)
class Trial:
    """A picture, what was drawn in it, and which asset it is held against."""

    picture_HW3: np.ndarray
    asset: int
    kind: str
    place_23: np.ndarray
    mask_HW: np.ndarray | None = None
    whole: bool = False


def measure(template: Template, picture_HW3: np.ndarray) -> Difference | None:
    """The asset laid over the picture and compared; None where nothing like it is found."""
    place = lay(template, picture_HW3)
    return compare_laid(template, picture_HW3, place) if place is not None else None


def draw_trials(
    assets: Sequence[Asset],
    *,
    genuine: int,
    tampered: int,
    others: int,
    kinds: Collection[str] = TAMPERING,
    rivals: Callable[[int], Sequence[int]] | None = None,
    seed: int = 0,
) -> Iterator[Trial]:
    """So many trials an asset of each sort. ``rivals``: the other assets an asset is most like, the nearest first; those
    are shown first, then made-up strangers. Kinds of tampering that an asset does not offer are passed over."""
    for number, asset in enumerate(assets):
        key = zlib.crc32(asset.name.encode("utf-8", "surrogatepass"))
        for turn in range(genuine):
            shown = show_harmless(asset, np.random.default_rng([seed, key, 1, turn]))
            yield Trial(shown.picture_HW3, number, "genuine", shown.place_23)
        for turn in range(tampered):
            rng = np.random.default_rng([seed, key, 2, turn])
            try:
                made = some_tampering(asset, rng, kinds)
            except DataError:
                break
            shown = show_harmless(asset, rng, layer_HW4=made.layer_HW4)
            yield Trial(shown.picture_HW3, number, made.kind, shown.place_23, made.mask_HW, made.whole)
        near = list(rivals(number))[: others // 2] if rivals is not None else []
        for turn in range(others):
            rng = np.random.default_rng([seed, key, 3, turn])
            other = assets[near[turn]] if turn < len(near) else draw_stranger(seed, int(rng.integers(4 * OTHERS)))
            shown = show_harmless(other, rng)
            yield Trial(shown.picture_HW3, number, "other", shown.place_23)


def measured(found: Difference | None) -> list[float]:
    """Measures in the order of MEASURES."""
    told = found.measures if found is not None else NOTHING
    return [float(told[name]) for name in MEASURES]


def gather(rows: Sequence[tuple[list[float], int, str, float]]) -> Trials:
    """(measures, asset, kind, cosine) of each trial as arrays."""
    measures, assets, kinds, cosines = zip(*rows, strict=True)
    return Trials(np.array(measures, np.float64), np.array(assets), np.array(kinds, dtype=object), np.array(cosines))
