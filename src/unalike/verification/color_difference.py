"""Color differences as people see them: sRGB to CIELAB, and CIEDE2000.

Formulas: IEC 61966-2-1 (sRGB), CIE 15 (CIELAB, white D65), Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula",
Color Research and Application 30 (2005). A difference of 1 is just visible side by side, 10 is clear at a glance.
"""

from __future__ import annotations

import numpy as np

# Linear sRGB to XYZ, each row divided by the white point's X, Y or Z (D65).
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def srgb_to_lab(colors_N3: np.ndarray) -> np.ndarray:
    """Convert sRGB colors, 0 to 255, to CIELAB (L, a, b); float64, any leading shape."""
    values = np.clip(np.asarray(colors_N3, np.float64) / 255, 0, 1)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(first_N3: np.ndarray, second_N3: np.ndarray) -> np.ndarray:
    """Return the CIEDE2000 difference of CIELAB colors; the shapes broadcast, the last axis is L, a, b."""
    (light1, a1, b1), (light2, a2, b2) = (
        np.moveaxis(np.asarray(lab, np.float64), -1, 0) for lab in (first_N3, second_N3)
    )
    mean7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(mean7 / (mean7 + 25.0**7))
    a1, a2 = a1 * stretch, a2 * stretch
    chroma1, chroma2 = np.hypot(a1, b1), np.hypot(a2, b2)
    hue1, hue2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    colorless = chroma1 * chroma2 == 0
    turn = np.where(colorless, 0, (hue2 - hue1 + 180) % 360 - 180)
    d_light, d_chroma = light2 - light1, chroma2 - chroma1
    d_hue = 2 * np.sqrt(chroma1 * chroma2) * np.sin(np.radians(turn) / 2)
    mean_light, mean_chroma = (light1 + light2) / 2, (chroma1 + chroma2) / 2
    hue = np.where(colorless, hue1 + hue2, (hue1 + turn / 2) % 360)
    weight = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    scale_light = 1 + 0.015 * (mean_light - 50) ** 2 / np.sqrt(20 + (mean_light - 50) ** 2)
    scale_chroma, scale_hue = 1 + 0.045 * mean_chroma, 1 + 0.015 * mean_chroma * weight
    chroma7 = mean_chroma**7
    angle = np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2)))
    rotation = -2 * np.sqrt(chroma7 / (chroma7 + 25.0**7)) * np.sin(angle)
    light, chroma, tint = d_light / scale_light, d_chroma / scale_chroma, d_hue / scale_hue
    return np.asarray(np.sqrt(np.maximum(light**2 + chroma**2 + tint**2 + rotation * chroma * tint, 0)))
