"""Where an asset lies in a picture: an affine place, found by its edges.

Edges are compared rather than colours, since ground and light are free. First the asset's edge map is looked for in a
small copy of the picture over sizes, rotations and proportions (normalised correlation); then the best places are refined
(OpenCV's ECC: Evangelidis and Psarakis, "Parametric image alignment using enhanced correlation coefficient
maximization", PAMI 2008). The refined place may be stretched or slanted, so that a distorted copy is found too, and
``Place.distortion`` tells it.

Shapes: H, W of a map; a place is 2 x 3: (x, y, 1) of the asset's layer -> x, y of the picture.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from unalike.comparison.registration import import_opencv
from unalike.verification.asset import Asset

# Sides, pixels: of the picture in the first search, and of the asset while refining.
COARSE, FINE = 56, 128
# The asset's longer side in the picture, as a share of the picture's longer side.
SIZES = tuple(float(s) for s in np.geomspace(0.28, 1.02, 13))
TURNS = (-9.0, 0.0, 9.0)
PROPORTIONS = (0.85, 1.0, 1.18)
# How many places of the first search are refined: until one fits well, then more of them until one fits at all.
REFINED, GOOD_FIT, FAIR_FIT = (4, 12), 0.93, 0.75
# Around the asset that much of its longer side is looked at too: what was added beside it shows there.
MARGIN = 0.12
# A place whose proportions came out more than twice off is none.
MOST_DISTORTED = 0.7
# Edge strength, grey levels a pixel, at which an edge counts as nearly whole.
EDGE = 22.0


@dataclass(frozen=True, eq=False)
class Place:
    """``matrix_23`` and how well edges agree there (``fit``, correlation, -1..1)."""

    matrix_23: np.ndarray
    fit: float

    @property
    def scale(self) -> float:
        """Pixels of the picture for one of the layer."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix_23[:, :2]))))

    @property
    def distortion(self) -> float:
        """The logarithm of how much longer one direction came out than the one across: 0 for a mere scale and turn."""
        sizes = np.linalg.svd(self.matrix_23[:, :2], compute_uv=False)
        return float(np.log(sizes[0] / max(sizes[1], 1e-9)))

    @property
    def turn(self) -> float:
        """Degrees, counter-clockwise positive as one sees it."""
        u, _, v = np.linalg.svd(self.matrix_23[:, :2])
        turned = u @ v
        return float(-np.degrees(np.arctan2(turned[1, 0], turned[0, 0])))


def edges(pixels_HWC: np.ndarray, blur: float = 0.8) -> np.ndarray:
    """How much of an edge each pixel is (0..1), whatever its contrast: float32 (H, W)."""
    cv2 = import_opencv()
    soft = cv2.GaussianBlur(pixels_HWC.astype(np.float32), (0, 0), blur)
    steep_x = cv2.Sobel(soft, cv2.CV_32F, 1, 0, scale=1 / 8)
    steep_y = cv2.Sobel(soft, cv2.CV_32F, 0, 1, scale=1 / 8)
    steep = np.sqrt(steep_x**2 + steep_y**2)
    return np.tanh((steep if steep.ndim == 2 else steep.max(axis=2)) / EDGE)


def shrink(pixels: np.ndarray, longest: float) -> tuple[np.ndarray, float]:
    """(a copy whose longer side is at most ``longest``, pixels of the copy for one of the original)."""
    scale = min(1.0, longest / max(pixels.shape[:2]))
    if scale == 1.0:
        return pixels, 1.0
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return import_opencv().resize(pixels, size, interpolation=import_opencv().INTER_AREA), scale


class Template:
    """An asset made ready for being looked for: its edge maps. Keep one for an asset; it is the costly part."""

    def __init__(self, asset: Asset) -> None:
        self.asset = asset
        cv2 = import_opencv()
        layer, scale = shrink(asset.layer_HW4, FINE)
        edge = round(MARGIN * max(layer.shape[:2]))
        # As premultiplied colours on grey and alpha: its inner edges and its rim, whatever it will lie on.
        padded = cv2.copyMakeBorder(layer, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
        alpha = padded[..., 3:].astype(np.float32) / 255
        bands = np.concatenate([padded[..., :3] * alpha + 127 * (1 - alpha), alpha * 160], axis=2)
        self.bands_HWC = bands.astype(np.float32)
        self.edges_HW = edges(self.bands_HWC)
        # (x, y) of the padded map -> of the layer
        self.to_layer = np.array([[1 / scale, 0, -edge / scale], [0, 1 / scale, -edge / scale], [0, 0, 1]])

    @functools.cached_property
    def coarse(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(edge map, map from its x, y to the padded fine map) for every size, turn and proportion of the first search."""
        cv2, found = import_opencv(), []
        height, width = self.bands_HWC.shape[:2]
        longest = max(height, width) / (1 + 2 * MARGIN)
        for size in SIZES:
            scale = size * COARSE / longest
            soft = cv2.GaussianBlur(self.bands_HWC, (0, 0), max(0.1, 0.5 / scale - 0.5))
            for proportion in PROPORTIONS:
                for turn in TURNS:
                    stretch = np.diag([proportion**0.5, proportion**-0.5]) * scale
                    angle = np.deg2rad(turn)
                    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ stretch
                    corners = turned @ np.array([[0, width, 0, width], [0, 0, height, height]])
                    low, high = corners.min(axis=1), corners.max(axis=1)
                    box = np.ceil(high - low).astype(int)
                    if (box < 6).any() or (box > COARSE * 1.4).any():
                        continue
                    there = np.concatenate([turned, -low[:, None]], axis=1)
                    drawn = cv2.warpAffine(soft, there, (int(box[0]), int(box[1])), flags=cv2.INTER_LINEAR,
                                           borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
                    map_HW = edges(drawn)
                    if float(map_HW.std()) > 1e-3:
                        found.append((map_HW, np.vstack([there, [0, 0, 1]])))
        return found


def lay(template: Template, picture_HW3: np.ndarray) -> Place | None:
    """The asset's best place in the picture, or None where nothing like it is found (a blank picture)."""
    small, scale = shrink(picture_HW3, COARSE)
    map_HW = edges(small)
    if float(map_HW.std()) < 1e-3:
        return None
    best: Place | None = None
    for number, rough in enumerate(_search(template, map_HW)):
        enough = GOOD_FIT if number < REFINED[0] else FAIR_FIT
        if best is not None and best.fit >= enough:
            break
        start = np.diag([1 / scale, 1 / scale, 1]) @ rough @ np.linalg.inv(template.to_layer)
        found = _refined(template, picture_HW3, start)
        if found is not None and (best is None or found.fit > best.fit):
            best = found
    return best


def _search(template: Template, map_HW: np.ndarray) -> list[np.ndarray]:
    """3 x 3 maps from the padded fine map to the small picture, the best places that are not neighbours."""
    cv2 = import_opencv()
    pad = COARSE // 5
    wide = cv2.copyMakeBorder(map_HW, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    scores: list[tuple[float, np.ndarray]] = []
    for drawn, there in template.coarse:
        if drawn.shape[0] > wide.shape[0] or drawn.shape[1] > wide.shape[1]:
            continue
        answer = cv2.matchTemplate(wide, drawn, cv2.TM_CCOEFF_NORMED)
        _, value, _, (x, y) = cv2.minMaxLoc(answer)
        shift = np.array([[1, 0, x - pad], [0, 1, y - pad], [0, 0, 1]], float)
        scores.append((float(value) if np.isfinite(value) else -1.0, shift @ there))
    scores.sort(key=lambda pair: -pair[0])
    kept: list[np.ndarray] = []
    corners = np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * np.array(template.bands_HWC.shape[1::-1])[:, None]
    ends: list[np.ndarray] = []
    for _, place in scores:
        end = place[:2, :2] @ corners + place[:2, 2:]
        if all(np.abs(end - other).max() > 5 for other in ends):
            kept.append(place)
            ends.append(end)
        if len(kept) == REFINED[1]:
            break
    return kept


def _refined(template: Template, picture_HW3: np.ndarray, start_33: np.ndarray) -> Place | None:
    """ECC from a rough place: at half, then at the whole of the size at which both show the same detail."""
    cv2 = import_opencv()
    place = start_33
    shown_at = float(np.sqrt(abs(np.linalg.det((place @ template.to_layer)[:2, :2]))))
    for first in (True, False):
        level = float(np.clip(shown_at, 0.55, 1.0)) * (0.5 if first else 1.0)
        fine, part = shrink(template.bands_HWC, max(template.bands_HWC.shape[:2]) * level)
        wanted = edges(fine, 1.2 if first else 0.8)
        to_layer = template.to_layer @ np.diag([1 / part, 1 / part, 1])
        scale = float(np.sqrt(abs(np.linalg.det((place @ to_layer)[:2, :2]))))  # picture pixels a pixel of the map
        shown, less = shrink(picture_HW3, max(picture_HW3.shape[:2]) / max(scale, 1.0))
        edge = 8
        seen = edges(cv2.copyMakeBorder(shown, edge, edge, edge, edge, cv2.BORDER_REPLICATE), 1.2 if first else 0.8)
        into = np.array([[less, 0, edge], [0, less, edge], [0, 0, 1]])
        warp = (into @ place @ to_layer)[:2].astype(np.float32)
        try:
            fit, warp = cv2.findTransformECC(wanted, seen, warp, cv2.MOTION_AFFINE,
                                             (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4), None, 3)  # fmt: skip
        except cv2.error:  # it did not converge from here
            return None
        place = np.linalg.inv(into) @ np.vstack([warp, [0, 0, 1]]) @ np.linalg.inv(to_layer)
        found = Place(place[:2], float(fit))
        if not np.isfinite(place).all() or found.distortion >= MOST_DISTORTED:
            return None
    return found
