"""What differs between an image and a reference that lies on it, beyond what may: light, an edge's jitter, noise.

Each pixel is compared with the range of values that the other picture has within ``tolerance`` pixels of it (its erosion and
dilation, Serra 1982): an edge that moved, thickened or was sampled anew stays inside that range, a scratch, a hole, a missing
or an added part does not. It is asked both ways, since a thin line that vanished is seen from the picture that still has it.
A difference counts where it goes beyond ``tolerance``; how far it reaches is taken one pixel closer.

Of colour pictures brightness and colour are compared apart: cameras and JPEG keep colour at half the resolution, so it is
smoothed and may lie a little farther off.

Everything is done in tiles, so memory stays bounded whatever the images' size; the maps that come back are pooled to at
most ``MAP_SIDE`` on the longer side. Shapes: H, W of the compared image, C channels, h, w of the pooled maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from unalike.comparison.deformation import coordinates
from unalike.comparison.registration import Registration, opencv, shrunk
from unalike.errors import SpecError, closest

# Edges may lie this many pixels off; seen on scans of printed boards after alignment: 95 % within 2 to 3 px
# (docs/experiments/comparison.md, 2026-11-26).
TOLERANCE = 3
# Grey levels beyond the range that count at least, and how many times the pictures' own noise.
CONTRAST, NOISE_FACTOR = 40.0, 5.0
# Noise is measured in windows of this side.
NOISE_SIDE = 192
# Colour is smoothed by so many pixels (standard deviation), and its edges may lie so many pixels farther off.
COLOUR_BLUR, COLOUR_SLACK = 2.0, 2
TILE, MAP_SIDE = 1024, 4096
LIGHTING = ("local", "global", "none")
# What light may do: gain of the whole, and of one channel against the others. A recoloured part goes beyond it.
GAIN_RANGE, TINT_RANGE = (0.4, 2.5), (0.87, 1.15)
# Windows in which light is taken to be constant, as a share of the shorter side.
LIGHT_SHARE, LIGHT_SIDE = 0.2, 256


@dataclass(frozen=True)
class Difference:
    """Pooled maps of one comparison; ``pool`` image pixels make one map pixel.

    ``heat_hw``: uint8, the largest difference beyond the tolerance, in grey levels; ``reach_hw``: bool, what belongs to a
    difference; ``count_hw``: uint16, how many pixels beyond the tolerance; ``sign_hw``: int32, their summed change in grey
    levels (above 0: the image is brighter). ``threshold`` in grey levels; ``compared`` is the share of the image that was.
    """

    heat_hw: np.ndarray
    reach_hw: np.ndarray
    count_hw: np.ndarray
    sign_hw: np.ndarray
    pool: int
    threshold: float
    compared: float
    light: Light


@dataclass(frozen=True)
class Light:
    """How the reference's grey levels become the image's: ``gain * value + offset`` a channel, smooth over the image."""

    gain_hwC: np.ndarray
    offset_hwC: np.ndarray

    def applied(self, pixels_HWC: np.ndarray, window: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
        """A tile of the aligned reference in the image's light, uint8; ``window`` is its place in the image of ``shape``."""
        if self.gain_hwC.shape[:2] == (1, 1):
            gain, offset = self.gain_hwC, self.offset_hwC
        else:
            gain, offset = (_sampled(field, window, shape) for field in (self.gain_hwC, self.offset_hwC))
        return np.clip(pixels_HWC * gain + offset + 0.5, 0, 255).astype(np.uint8)


def differences(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, found: Registration, *, tolerance: int = TOLERANCE,
    contrast: float = CONTRAST, lighting: str = "local", advance: Callable[[int], object] | None = None,
) -> Difference:  # fmt: skip
    """Compare two uint8 pictures of as many channels (1 or 3), of which ``found`` says how they lie.

    ``tolerance`` in image pixels, 0 to 32; ``contrast`` in grey levels, raised to the noise of the pictures. ``advance`` is
    called with 1 after each of ``tile_count`` tiles.
    """
    if lighting not in LIGHTING:
        raise SpecError(f"lighting {lighting!r}", expected=", ".join(LIGHTING), remedy=closest(lighting, LIGHTING))
    if not 0 <= tolerance <= 32:
        raise SpecError(f"tolerance {tolerance}", expected="0 to 32 pixels")
    shape = image_HWC.shape[:2]
    light = light_between(reference_HWC, image_HWC, found, lighting)
    noise = _noise(reference_HWC, image_HWC, found, light)
    threshold = min(250.0, max(contrast, NOISE_FACTOR * noise))
    pool = -(-max(shape) // MAP_SIDE)
    rows, columns = (-(-side // pool) for side in shape)
    heat = np.zeros((rows, columns), np.uint8)
    reach = np.zeros((rows, columns), bool)
    count = np.zeros((rows, columns), np.uint16)
    sign = np.zeros((rows, columns), np.int32)
    compared = 0
    for window in tiles(shape, pool):
        part, inside = _tile(reference_HWC, image_HWC, found, light, window, tolerance, threshold)
        compared += inside
        left, top, right, bottom = window
        place = np.s_[top // pool : -(-bottom // pool), left // pool : -(-right // pool)]
        beyond, near, change = part
        heat[place] = _pooled(beyond, pool, np.max)
        reach[place] = _pooled(near, pool, np.max)
        counts = beyond > threshold
        count[place] = _pooled(counts, pool, np.sum)
        sign[place] = _pooled(np.where(counts, change, 0), pool, np.sum)
        if advance is not None:
            advance(1)
    return Difference(heat, reach, count, sign, pool, threshold, compared / (shape[0] * shape[1]), light)


def tiles(shape: tuple[int, int], pool: int = 1) -> Iterator[tuple[int, int, int, int]]:
    """Windows (left, top, right, bottom) that cover an image, their edges at multiples of ``pool``."""
    step = TILE // pool * pool
    for top in range(0, shape[0], step):
        for left in range(0, shape[1], step):
            yield left, top, min(left + step, shape[1]), min(top + step, shape[0])


def tile_count(shape: tuple[int, int]) -> int:
    """How many tiles ``differences`` will compare."""
    return sum(1 for _ in tiles(shape, -(-max(shape) // MAP_SIDE)))


def aligned(
    reference_HWC: np.ndarray, found: Registration, shape: tuple[int, int], window: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(the reference seen in a window of the image, bool mask of where it has pixels); only what is needed is read."""
    cv2 = opencv()
    place = coordinates(found.matrix_33, found.flow_GhGw2, shape, window)
    height, width = reference_HWC.shape[:2]
    x, y = place[..., 0], place[..., 1]
    # Half a pixel of grace: the outermost row of an image that lies as it should is still compared.
    inside = (x > -0.6) & (y > -0.6) & (x < width - 0.4) & (y < height - 0.4)
    if not inside.any():
        return np.zeros((*place.shape[:2], *reference_HWC.shape[2:]), np.uint8), inside
    left, top = max(0, int(x[inside].min()) - 2), max(0, int(y[inside].min()) - 2)
    right, bottom = min(width, int(x[inside].max()) + 3), min(height, int(y[inside].max()) + 3)
    place -= np.array([left, top], np.float32)
    source = np.ascontiguousarray(reference_HWC[top:bottom, left:right])
    if max(source.shape[:2]) > 32000:  # remap counts in 16 bits
        raise SpecError("a tile of the image covers more than 32,000 pixels of the reference", remedy="compare smaller images")  # fmt: skip
    seen = cv2.remap(source, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return seen.reshape(*place.shape[:2], *reference_HWC.shape[2:]), inside


def excess(a_HWC: np.ndarray, b_HWC: np.ndarray, tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    """(how far two pictures leave each other's range within ``tolerance`` pixels, (H, W) uint8; b - a there, int16).

    The largest over brightness and colour and over both directions. It is symmetric but for the sign of the change.
    """
    most = np.zeros(a_HWC.shape[:2], np.uint8)
    change = np.zeros(a_HWC.shape[:2], np.int16)
    for channel, (a, b) in enumerate(_planes(a_HWC, b_HWC)):
        here, signed = _excess(a, b, tolerance + (COLOUR_SLACK if channel else 0))
        change = np.where(here > most, signed if channel == 0 else np.sign(signed), change)
        most = np.maximum(most, here)
    return most, change


def _planes(a_HWC: np.ndarray, b_HWC: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Brightness of both; of colour pictures then the two smoothed planes of colour."""
    cv2 = opencv()
    if a_HWC.shape[2] == 1:
        return [(np.ascontiguousarray(a_HWC[..., 0]), np.ascontiguousarray(b_HWC[..., 0]))]
    split = [cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)) for picture in (a_HWC, b_HWC)]
    smooth = [
        [cv2.GaussianBlur(plane, (0, 0), COLOUR_BLUR) if i else plane for i, plane in enumerate(s)] for s in split
    ]
    return list(zip(*smooth, strict=True))


def _excess(a_HW: np.ndarray, b_HW: np.ndarray, tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    cv2 = opencv()
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * tolerance + 1,) * 2)
    up = np.maximum(cv2.subtract(b_HW, cv2.dilate(a_HW, disk)), cv2.subtract(cv2.erode(b_HW, disk), a_HW))
    down = np.maximum(cv2.subtract(cv2.erode(a_HW, disk), b_HW), cv2.subtract(a_HW, cv2.dilate(b_HW, disk)))
    return np.maximum(up, down), np.where(up >= down, up.astype(np.int16), -down.astype(np.int16))


def _tile(
    reference_HWC: np.ndarray, image_HWC: np.ndarray, found: Registration, light: Light,
    window: tuple[int, int, int, int], tolerance: int, threshold: float,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int]:  # fmt: skip
    """((excess beyond the tolerance, what belongs to a difference, the change's sign) of a window, pixels compared)."""
    cv2 = opencv()
    shape = image_HWC.shape[:2]
    margin = tolerance + COLOUR_SLACK + round(3 * COLOUR_BLUR)
    left, top, right, bottom = window
    wide = (max(0, left - margin), max(0, top - margin), min(shape[1], right + margin), min(shape[0], bottom + margin))
    seen, inside = aligned(reference_HWC, found, shape, wide)
    a = light.applied(seen, wide, shape)
    b = image_HWC[wide[1] : wide[3], wide[0] : wide[2]]
    # Where the reference ends, its last pixels are no range to be compared with.
    cut = (2 * tolerance + 5,) * 2
    known = inside if inside.all() else cv2.erode(inside.astype(np.uint8), np.ones(cut, np.uint8)).astype(bool)
    beyond, change = excess(a, b, tolerance)
    near = beyond if tolerance == 0 else excess(a, b, tolerance - 1)[0]
    inner = np.s_[top - wide[1] : bottom - wide[1], left - wide[0] : right - wide[0]]
    known = known[inner]
    return (beyond[inner] * known, (near[inner] > threshold) & known, change[inner]), int(known.sum())


def _pooled(map_HW: np.ndarray, pool: int, act: Callable[..., np.ndarray]) -> np.ndarray:
    if pool == 1:
        return map_HW
    rows, columns = (-(-side // pool) for side in map_HW.shape)
    padded = np.zeros((rows * pool, columns * pool), map_HW.dtype)
    padded[: map_HW.shape[0], : map_HW.shape[1]] = map_HW
    pooled: np.ndarray = act(padded.reshape(rows, pool, columns, pool), axis=(1, 3))
    return pooled


# ---- light and noise ----


def light_between(reference_HWC: np.ndarray, image_HWC: np.ndarray, found: Registration, lighting: str) -> Light:
    """The light that takes the reference to the image; ``lighting`` is one of LIGHTING."""
    channels = image_HWC.shape[2]
    none = Light(np.ones((1, 1, channels), np.float32), np.zeros((1, 1, channels), np.float32))
    small_b, up_b = shrunk(image_HWC, 1024)
    small_b = small_b.reshape(*small_b.shape[:2], channels)
    flow = None if found.flow_GhGw2 is None else found.flow_GhGw2 / np.float32(up_b[0, 0])
    small_a, up_a = shrunk(
        reference_HWC, max(8, round(max(reference_HWC.shape[:2]) / max(1.0, found.scale * up_b[0, 0])))
    )
    small_a = small_a.reshape(*small_a.shape[:2], channels)
    here = Registration(np.linalg.inv(up_a) @ found.matrix_33 @ up_b, found.quality, found.overlap, found.method, flow)
    height, width = small_b.shape[:2]
    seen, inside = aligned(small_a, here, (height, width), (0, 0, width, height))
    light = none
    if lighting != "none" and inside.any():
        light = _fitted(seen, small_b, inside, lighting == "local")
    return light


def _noise(reference_HWC: np.ndarray, image_HWC: np.ndarray, found: Registration, light: Light) -> float:
    """Standard deviation of what changes from pixel to pixel where neither picture has an edge, in grey levels."""
    cv2 = opencv()
    shape = image_HWC.shape[:2]
    values: list[np.ndarray] = []
    for window in _samples(shape):
        seen, inside = aligned(reference_HWC, found, shape, window)
        a = light.applied(seen, window, shape).mean(axis=2).astype(np.float32)
        b = image_HWC[window[1] : window[3], window[0] : window[2]].mean(axis=2).astype(np.float32)
        smooth = cv2.GaussianBlur(a, (0, 0), 2)
        flat = inside & (cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) < 30)
        gap = b - a
        values.append(np.abs(gap - cv2.GaussianBlur(gap, (0, 0), 4))[flat])
    every = np.concatenate(values)
    return 1.4826 * float(np.median(every)) if every.size else 0.0


def _samples(shape: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Up to nine windows (left, top, right, bottom) spread over an image; noise is of full size, so nothing is shrunk."""
    height, width = shape
    for top in np.linspace(0, max(0, height - NOISE_SIDE), 3).astype(int).tolist() if height > NOISE_SIDE else [0]:
        for left in np.linspace(0, max(0, width - NOISE_SIDE), 3).astype(int).tolist() if width > NOISE_SIDE else [0]:
            yield left, top, min(left + NOISE_SIDE, width), min(top + NOISE_SIDE, height)


def _fitted(a_HWC: np.ndarray, b_HWC: np.ndarray, inside_HW: np.ndarray, local: bool) -> Light:
    """Gain and offset by weighted regression, of all channels together with a bounded tint of each."""
    cv2 = opencv()
    a, b = a_HWC.astype(np.float32), b_HWC.astype(np.float32)
    grey_a, grey_b = a.mean(axis=2), b.mean(axis=2)
    weight = inside_HW.astype(np.float32)
    gain, offset = np.float32(1), np.float32(0)
    for _ in range(5):  # differences are no light: what the fit does not explain counts less each time
        total = float(weight.sum()) + 1e-6
        mean_a, mean_b = float((weight * grey_a).sum()) / total, float((weight * grey_b).sum()) / total
        spread = float((weight * (grey_a - mean_a) ** 2).sum()) / total
        common = float((weight * (grey_a - mean_a) * (grey_b - mean_b)).sum()) / total
        gain = np.float32(np.clip((common + 25) / (spread + 25), *GAIN_RANGE))
        offset = np.float32(mean_b - gain * mean_a)
        gap = np.abs(gain * grey_a + offset - grey_b)
        scale = max(4.0, 2 * 1.4826 * float(np.median(gap[inside_HW])))
        weight = inside_HW / (1 + (gap / scale) ** 2)
    gains, offsets = np.full((1, 1), gain, np.float32), np.full((1, 1), offset, np.float32)
    if local:
        gains, offsets = _local(gain * grey_a + offset, grey_b, weight.astype(np.float32))
        gains, offsets = gains * gain, gains * offset + offsets
    tint = np.ones(a.shape[2], np.float32)
    if a.shape[2] > 1:
        total = (weight[..., None] * b).sum(axis=(0, 1)) + 1e-6
        mine = (weight[..., None] * (gain * a + offset)).sum(axis=(0, 1)) + 1e-6
        tint = np.clip(total / mine, *TINT_RANGE).astype(np.float32)
    return Light(gains[..., None] * tint, cv2.resize(offsets, gains.shape[::-1])[..., None] * tint)


def _local(lit_HW: np.ndarray, b_HW: np.ndarray, weight_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth gain and offset around 1 and 0, from regressions in overlapping wide windows; small fields (h, w)."""
    cv2 = opencv()
    small = [shrunk(np.ascontiguousarray(m, dtype=np.float32), LIGHT_SIDE)[0] for m in (
        weight_HW, weight_HW * lit_HW, weight_HW * b_HW, weight_HW * lit_HW**2, weight_HW * lit_HW * b_HW)]  # fmt: skip
    width = max(2.0, min(small[0].shape) * LIGHT_SHARE / 2)
    w, wa, wb, waa, wab = (cv2.GaussianBlur(m, (0, 0), width, borderType=cv2.BORDER_REFLECT) for m in small)
    # A prior of "no change", as strong as a twentieth of the window: it holds where nothing is known.
    w = w + 1e-3
    mean_a, mean_b = wa / w, wb / w
    spread, common = waa / w - mean_a**2, wab / w - mean_a * mean_b
    prior = 100.0 + 0.1 * float(spread.mean())
    gain = np.clip((common + prior) / (spread + prior), 0.5, 2.0)
    known = np.clip(w / (0.05 + w), 0, 1)
    gain = 1 + known * (gain - 1)
    offset = known * (mean_b - gain * mean_a)
    return gain.astype(np.float32), offset.astype(np.float32)


def _sampled(field_hwC: np.ndarray, window: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """A smooth small field over a window of the whole image, (H, W, C) float32."""
    cv2 = opencv()
    left, top, right, bottom = window
    rows, columns = field_hwC.shape[:2]
    x = (np.arange(left, right, dtype=np.float32) + 0.5) * (columns / shape[1]) - 0.5
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5) * (rows / shape[0]) - 0.5
    place_x, place_y = (np.ascontiguousarray(p) for p in np.meshgrid(x, y))
    drawn = cv2.remap(field_hwC, place_x, place_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return drawn.reshape(*place_x.shape, field_hwC.shape[2])
