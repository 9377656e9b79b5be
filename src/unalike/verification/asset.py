"""An approved asset as a layer: its colours, and how much of each pixel belongs to it.

Logos come with transparency, or cut out on a plain ground, or fill their rectangle. The first two are lifted off their
ground, since a picture may show them on another one.

Shapes: H, W height and width of the layer; layers are (H, W, 4) uint8, RGB and alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unalike.data.decode import MAX_PIXELS, open_layer
from unalike.errors import DataError

# Assets are kept at most this long a side: more detail than a picture of a logo shows, and it bounds memory.
LONGEST = 512
# A rim whose colours differ by less than this many grey levels (9 of 10 pixels, any channel) is a plain ground.
PLAIN = 12.0
# How far from the ground a colour must be to belong wholly to the asset, in grey levels.
SOFT = 40.0
# Below this share of the layer there is nothing to look at; above it a ground was not found.
LEAST_INK, MOST_INK = 0.003, 0.97
GROUNDS = ("transparent", "plain", "none")


@dataclass(frozen=True, eq=False)
class Asset:
    """``layer_HW4`` is cut to what it shows; ``ground`` says how that was found: ``transparent``, ``plain`` (of the
    colour ``ground_colour``), or ``none`` for one that fills its rectangle."""

    name: str
    layer_HW4: np.ndarray
    ground: str = "transparent"
    ground_colour: tuple[int, int, int] = (255, 255, 255)

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        return self.layer_HW4.shape[0], self.layer_HW4.shape[1]

    @property
    def colour_HW3(self) -> np.ndarray:
        return self.layer_HW4[..., :3]

    @property
    def alpha_HW(self) -> np.ndarray:
        """float32, 0..1."""
        return self.layer_HW4[..., 3].astype(np.float32) / 255

    def on(self, colour: tuple[int, int, int] | None = None, margin: float = 0.12) -> np.ndarray:
        """The asset on a plain ground (its own where None) with a margin (of the longer side), uint8 (H, W, 3)."""
        ground = np.array(self.ground_colour if colour is None else colour, np.float32)
        edge = round(max(self.size) * margin) if self.ground != "none" else 0
        height, width = self.size
        shown: np.ndarray = np.broadcast_to(ground, (height + 2 * edge, width + 2 * edge, 3)).copy()
        alpha = self.alpha_HW[..., None]
        inner = shown[edge : edge + height, edge : edge + width]
        inner[:] = inner * (1 - alpha) + self.colour_HW3 * alpha
        return (shown + 0.5).astype(np.uint8)


def open_asset(source: str | Path | bytes | Image.Image | np.ndarray, name: str = "") -> Asset:
    """An asset from a file, picture or uint8 array ((H, W), (H, W, 3) or (H, W, 4)).

    Raises UnreadableImage for a file that cannot be decoded, DataError for an asset on which nothing is to be seen.
    """
    if isinstance(source, np.ndarray):
        if (
            source.dtype != np.uint8
            or source.ndim not in (2, 3)
            or (source.ndim == 3 and source.shape[2] not in (3, 4))
        ):
            raise DataError(f"an array {source.dtype} of shape {source.shape}",
                            expected="uint8 of shape (H, W), (H, W, 3) or (H, W, 4)")  # fmt: skip
        source = Image.fromarray(np.ascontiguousarray(source))
    layer = open_layer(source, max_pixels=MAX_PIXELS)
    name = name or (Path(source).stem if isinstance(source, (str, Path)) else "asset")
    layer.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS, reducing_gap=3.0)
    layer_HW4 = np.array(layer, np.uint8)
    ground, colour = "transparent", (255, 255, 255)
    if (layer_HW4[..., 3] > 127).mean() > MOST_INK:
        layer_HW4, ground, colour = _lifted(layer_HW4)
    seen = layer_HW4[..., 3] > 25
    # Corners that differ by what rounding leaves are no drawing: an asset must have ink, or structure in its rectangle.
    if seen.mean() < LEAST_INK or (ground == "none" and float(np.ptp(layer_HW4[..., :3], axis=(0, 1)).max()) < PLAIN):
        raise DataError(f"{name}: nothing is to be seen on it", expected="a drawing on a transparent or plain ground")
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    cut = layer_HW4[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Asset(name, np.ascontiguousarray(cut), ground, colour)


def plain_ground(colour_HW3: np.ndarray) -> np.ndarray | None:
    """The colour (3,) of a rim that is plain, or None."""
    height, width = colour_HW3.shape[:2]
    edge = max(1, min(height, width) // 40)
    rim = np.concatenate([
        colour_HW3[:edge].reshape(-1, 3), colour_HW3[-edge:].reshape(-1, 3),
        colour_HW3[:, :edge].reshape(-1, 3), colour_HW3[:, -edge:].reshape(-1, 3),
    ]).astype(np.float32)  # fmt: skip
    middle = np.median(rim, axis=0)
    away = np.abs(rim - middle).max(axis=1)
    return middle if float(np.quantile(away, 0.9)) <= PLAIN else None


def _lifted(layer_HW4: np.ndarray) -> tuple[np.ndarray, str, tuple[int, int, int]]:
    """A drawing lifted off a plain ground: (layer, ``plain``, its colour), or as it is with ``none``."""
    colours = layer_HW4[..., :3].astype(np.float32)
    ground = plain_ground(colours)
    if ground is None:
        return layer_HW4, "none", (255, 255, 255)
    away_HW = np.abs(colours - ground).max(axis=2)
    alpha_HW = np.clip((away_HW - PLAIN / 2) / SOFT, 0, 1)
    if not LEAST_INK < float((alpha_HW > 0.5).mean()) < MOST_INK:
        return layer_HW4, "none", (255, 255, 255)
    # A soft edge is mixed with the ground: beneath it lies the colour of the nearest whole ink.
    ink = alpha_HW >= 0.999
    colours = spread_colours(colours, ink)
    lifted = np.dstack([np.clip(colours + 0.5, 0, 255), alpha_HW * 255 + 0.5]).astype(np.uint8)
    told = tuple(int(v + 0.5) for v in ground)
    return lifted, "plain", (told[0], told[1], told[2])


def spread_colours(colours_HW3: np.ndarray, known_HW: np.ndarray, reach: int = 3) -> np.ndarray:
    """The colours, those outside ``known_HW`` being means of the known ones within ``reach`` pixels, where there are any."""
    known = known_HW.astype(np.float64)
    near_HW3 = np.stack([box_mean(colours_HW3[..., c] * known, reach) for c in range(3)], axis=-1)
    total_HW1 = box_mean(known, reach)[..., None]
    found = np.where(total_HW1 > 1e-6, near_HW3 / np.maximum(total_HW1, 1e-6), colours_HW3)
    return np.where(known_HW[..., None], colours_HW3, found).astype(np.float32)


def box_mean(values_HW: np.ndarray, reach: int) -> np.ndarray:
    """The mean of each pixel's square neighbourhood of 2 ``reach`` + 1 pixels a side, edges repeated; float64."""
    side = 2 * reach + 1
    sums = np.pad(np.pad(values_HW.astype(np.float64), reach, mode="edge").cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
