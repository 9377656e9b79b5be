"""Draws six of the pictures of docs/compare.md (needs OpenCV; no brand, no photograph).

python docs/pictures/compare/draw.py FOLDER
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont


def label(weight: str = "500 g", leaf: tuple[int, int, int] = (60, 140, 70), seal: bool = True) -> Image.Image:
    """A label as its designer drew it."""
    image = Image.new("RGB", (560, 400), (247, 241, 228))
    draw = ImageDraw.Draw(image)
    draw.rectangle((14, 14, 545, 385), outline=(110, 70, 40), width=6)
    draw.ellipse((60, 60, 260, 260), fill=(196, 84, 52))
    draw.ellipse((130, 30, 200, 90), fill=leaf)
    draw.line((160, 60, 160, 120), fill=(90, 60, 40), width=8)
    draw.text((290, 70), "ORCHARD", fill=(70, 40, 20), font=ImageFont.load_default(48))
    draw.text((290, 140), "pressed apples", fill=(70, 40, 20), font=ImageFont.load_default(28))
    draw.text((290, 300), weight, fill=(70, 40, 20), font=ImageFont.load_default(44))
    for row in range(6):
        draw.line((60, 290 + 12 * row, 240 - 14 * (row % 3), 290 + 12 * row), fill=(120, 100, 80), width=3)
    if seal:
        draw.ellipse((450, 200, 520, 270), fill=(214, 168, 40), outline=(110, 70, 40), width=4)
    return image


def photographed(picture: Image.Image, seed: int) -> Image.Image:
    """Turned, a little tilted, in uneven light, with grain."""
    draws = np.random.default_rng(seed)
    pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    seen = np.float32([[52, 70], [600, 38], [622, 428], [30, 452]])
    motion = cv2.getPerspectiveTransform(corners, seen)
    table = np.full((500, 660, 3), (96, 92, 90), np.uint8)
    out = cv2.warpPerspective(pixels, motion, (660, 500), dst=table, borderMode=cv2.BORDER_TRANSPARENT)
    light = 0.62 + 0.45 * np.mgrid[0:500, 0:660][1] / 660
    out = cv2.GaussianBlur(out, (0, 0), 0.8) * light[..., None] + draws.normal(0, 4, out.shape)
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))


def board() -> Image.Image:
    """Copper tracks, black on white."""
    image = Image.new("L", (480, 360), 255)
    draw = ImageDraw.Draw(image)
    for number in range(6):
        x = 40 + 34 * number
        draw.line([(x, 20), (x, 280 - 30 * number), (x + 60, 340 - 30 * number)], fill=0, width=12, joint="curve")
    for x, y in ((330, 60), (400, 60), (330, 130), (400, 130), (420, 300)):
        draw.ellipse((x - 24, y - 24, x + 24, y + 24), fill=0)
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=255)
    draw.line([(330, 60), (400, 60)], fill=0, width=14)
    draw.line([(400, 130), (420, 300)], fill=0, width=14)
    return image


def tested(template: Image.Image, seed: int) -> Image.Image:
    """The board as scanned: shifted, rough edges; a broken track, a bridge, a hole, a spot."""
    image = template.copy()
    draw = ImageDraw.Draw(image)
    draw.line([(66, 92), (84, 100)], fill=255, width=4)
    draw.line([(142, 60), (176, 64)], fill=0, width=5)
    draw.ellipse((346, 122, 354, 129), fill=255)
    draw.ellipse((280, 200, 290, 211), fill=0)
    draws = np.random.default_rng(seed)
    pixels = np.asarray(image)
    y, x = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]].astype(np.float32)
    rough = [cv2.GaussianBlur(draws.normal(0, 1, pixels.shape).astype(np.float32), (0, 0), 2) * 3 for _ in range(2)]
    seen = cv2.remap(pixels, x + 2.2 + rough[0], y - 1.4 + rough[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Image.fromarray(((cv2.GaussianBlur(seen, (0, 0), 1) > 110) * 255).astype(np.uint8))


def tray(moved: float = 0.0, nut: bool = False) -> np.ndarray:
    """Pebbles with shade and grain; ``moved``: each lies so many pixels off, as seen from another side; one is a steel nut."""
    draws, shifts = np.random.default_rng(5), np.random.default_rng(6)
    out = np.full((420, 560, 3), (58, 52, 48), np.float32)
    for number in range(420):
        middle = draws.uniform((0, 0), (560, 420)) + moved * shifts.normal(0, 1, 2)
        radii, angle = draws.uniform(13, 30, 2), draws.uniform(0, 180)
        colour = np.array([150, 138, 124]) * draws.uniform(0.55, 1.35) + draws.normal(0, 14, 3)
        grain = cv2.GaussianBlur(draws.normal(0, 1, (80, 80)).astype(np.float32), (0, 0), draws.uniform(0.8, 2.5))
        if nut and number == 400:
            _nut(out, middle)
            continue
        side = np.mgrid[-40:40, -40:40][::-1].astype(np.float32)
        turn = np.radians(angle)
        u = (side[0] * np.cos(turn) + side[1] * np.sin(turn)) / radii[0]
        v = (side[1] * np.cos(turn) - side[0] * np.sin(turn)) / radii[1]
        height = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
        shade = 0.45 + 0.75 * height - 0.15 * (side[0] + side[1]) / 40 + 0.5 * grain / (np.abs(grain).max() + 1e-6)
        _laid(out, colour * shade[..., None], np.clip(height * 6, 0, 1), middle)
    return out


def _nut(out: np.ndarray, middle: np.ndarray) -> None:
    piece = np.zeros((80, 80, 3), np.float32)
    corners = np.array([[40 + 27 * np.cos(a), 40 + 27 * np.sin(a)] for a in np.arange(6) * np.pi / 3 + 0.3])
    mask = cv2.fillPoly(np.zeros((80, 80), np.float32), [corners.astype(np.int32)], 1.0)
    cv2.circle(mask, (40, 40), 12, 0.0, -1)
    piece[:] = np.array([172, 176, 184]) * (0.75 + 0.4 * np.mgrid[0:80, 0:80][1] / 80)[..., None]
    for radius in (14, 17):
        cv2.circle(piece, (40, 40), radius, (110, 112, 120), 1, cv2.LINE_AA)
    _laid(out, piece, cv2.GaussianBlur(mask, (0, 0), 0.7), middle)


def _laid(out: np.ndarray, piece: np.ndarray, share: np.ndarray, middle: np.ndarray) -> None:
    """A piece of 80 x 80 laid into a picture, cut at its edges."""
    left, top = (round(float(value)) - 40 for value in middle)
    a, b = max(0, left), max(0, top)
    c, d = min(out.shape[1], left + 80), min(out.shape[0], top + 80)
    if c > a and d > b:
        part = np.s_[b - top : d - top, a - left : c - left]
        out[b:d, a:c] += (piece[part] - out[b:d, a:c]) * share[part][..., None]


def taken(scene: np.ndarray, seed: int) -> Image.Image:
    """A photograph of a scene: its own light, a little blur, grain."""
    draws = np.random.default_rng(seed)
    light = (
        draws.uniform(0.85, 1.1) + draws.uniform(-0.2, 0.2) * np.mgrid[0 : scene.shape[0], 0 : scene.shape[1]][1] / 560
    )
    seen = cv2.GaussianBlur(scene, (0, 0), 0.8) * light[..., None] + draws.normal(0, 4, scene.shape)
    return Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    label().save(folder / "approved.png")
    altered = label(weight="600 g", leaf=(60, 80, 160), seal=False)
    photographed(altered, 1).save(folder / "seen.jpg", quality=80)
    board().save(folder / "template.png")
    tested(board(), 2).save(folder / "tested.png")
    taken(tray(), 3).save(folder / "tray.jpg", quality=85)
    taken(tray(moved=3.5, nut=True), 4).save(folder / "tray_again.jpg", quality=85)
