"""Detection of patches pasted into photographs, and false boxes, by pixels and by features.

    python benchmarks/patched_photographs.py --data DIR [--half even|odd|all] [--pairs 40] [--warp none,mild,strong]
        [SETTING=VALUE...]

DIR contains photographs at any depth. Each is copied: turned by up to 4 degrees, scaled by 0.95 to 1.05, with other light and
noise, moved by smooth random shifts (mild: 2 px rms, 25 px wide; strong: 5 px, 10 px wide, as depth or soft things do), and
saved as JPEG 75. Half of the copies contain a patch of 28 to 56 px from another photograph. It counts as found when a box overlaps it
by IoU 0.2 or more; every other box is false. The defaults of ``--level features`` were chosen on the even half of the pairs.
Settings are those of ``unalike.Comparer``, such as level=features.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image

import unalike
from unalike.data.decode import decode
from unalike.errors import NotComparable
from unalike.metrics.intervals import wilson_interval
from unalike.progress import progress

IOU = 0.2
WARPS = {"none": (0.0, 25.0), "mild": (2.0, 25.0), "strong": (5.0, 10.0)}


@dataclass(frozen=True)
class Pair:
    """A photograph, its altered copy, and the box of the patch in the copy (left, top, right, bottom), or None."""

    reference_HWC: np.ndarray
    image_HWC: np.ndarray
    patch: tuple[float, float, float, float] | None


def draw_pairs(data: Path, count: int, half: str, warp: str) -> Iterator[Pair]:
    """Yield ``count`` pairs of each half; every second one of a half contains a patch."""
    paths = sorted(path for path in data.rglob("*.jpg"))
    order = np.random.default_rng(0).permutation(len(paths))
    for number in range(2 * count):
        if half == "all" or number % 2 == (half == "odd"):
            own, other = paths[order[2 * number]], paths[order[2 * number + 1]]
            yield alter(decode(own), decode(other), number, *WARPS[warp], patched=number % 4 < 2)


def alter(
    reference_HWC: np.ndarray, other_HWC: np.ndarray, seed: int, rms: float, wide: float, *, patched: bool
) -> Pair:
    """Create the altered copy of one photograph, with or without a patch of the other."""
    rng = np.random.default_rng([seed, 7])
    height, width = reference_HWC.shape[:2]
    altered_HWC = reference_HWC.copy()
    side = [int(v) for v in rng.integers(28, 57, 2)]
    top, left = (
        int(rng.integers(20, length - patch_length - 20))
        for length, patch_length in zip((height, width), side, strict=True)
    )
    if patched:
        y, x = (
            int(rng.integers(0, max(1, length - patch_length)))
            for length, patch_length in zip(other_HWC.shape, side, strict=False)
        )
        altered_HWC[top : top + side[0], left : left + side[1]] = other_HWC[y : y + side[0], x : x + side[1]]
    motion = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-4, 4), rng.uniform(0.95, 1.05))
    altered_HWC = cv2.warpAffine(
        altered_HWC, motion, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    shift = [cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), wide) for _ in range(2)]
    shift = [s * (rms / max(1e-6, float(s.std())) / 2**0.5) for s in shift]
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32)
    altered_HWC = cv2.remap(
        altered_HWC, grid_x + shift[0], grid_y + shift[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    slope = rng.uniform(-0.15, 0.15, 2)
    light = rng.uniform(0.85, 1.15) + slope[0] * (grid_x / width - 0.5) + slope[1] * (grid_y / height - 0.5)
    relit_HWC = altered_HWC * light[..., None] + rng.normal(0, 4, altered_HWC.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(relit_HWC, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    image = np.asarray(Image.open(file).convert("RGB"))
    if not patched:
        return Pair(reference_HWC, image, None)
    corners = np.array([[x, y, 1] for x in (left, left + side[1]) for y in (top, top + side[0])]) @ motion.T
    return Pair(reference_HWC, image, (*corners.min(axis=0), *corners.max(axis=0)))


def overlap(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """IoU of two boxes."""
    shared = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return float(shared / (sum(areas) - shared))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=("even", "odd", "all"), default="odd")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--warp", default="none,mild,strong")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    options = parser.parse_args()
    settings = {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in options.settings)}
    # By construction up to 12 % of a copy has no counterpart.
    comparer = unalike.Comparer(**({"min_compared": 0.75} | settings))
    print(f"{date.today()}  {options.pairs} pairs, half {options.half}, settings {settings or 'default'}")
    for warp in options.warp.split(","):
        pairs = list(draw_pairs(options.data, options.pairs, options.half, warp))
        found_patches, patches, refused, same, seconds = 0, 0, 0, 0, []
        false: list[int] = []
        with progress("comparing", len(pairs), "pairs") as advance:
            for pair in pairs:
                advance()
                try:
                    result = comparer.compare(pair.reference_HWC, pair.image_HWC)
                except NotComparable:
                    refused += 1
                    continue
                seconds.append(result.seconds)
                correct = [pair.patch is not None and overlap(r.box, pair.patch) >= IOU for r in result.regions]
                patches += pair.patch is not None
                found_patches += any(correct)
                false.append(len(correct) - sum(correct))
                same += pair.patch is None and result.same
        interval = wilson_interval(found_patches, patches)
        print(f"{warp:7} patch found {found_patches} of {patches} ({interval.low:.2f} to {interval.high:.2f}); false boxes a picture "
              f"{np.mean(false):.2f}, median {np.median(false):.0f}; called the same {same} of {len(false) - patches} without; "
              f"refused {refused}; {1000 * np.median(seconds):.0f} ms a pair")  # fmt: skip


if __name__ == "__main__":
    main()
