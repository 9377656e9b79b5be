"""The demo's images: brand marks of simpleicons (CC0) rendered as if photographed, reproducible by seed.

A mark is rendered once as an alpha mask; for each image it is warped in perspective, colored and pasted on a background; a part
is covered, then lighting, blur, sensor noise and JPEG are applied. An image depends on (seed, brand, role, number)
alone: not on threads, not on how many others are brand_set.

Shapes: masks are (M, M) uint8, images (S, S, 3).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from unalike.errors import DataError, SpecError, missing_extra
from unalike.progress import progress
from unalike.runs.record import read_json
from unalike.storage.atomic import write_text
from unalike.storage.overwrite import refuse_existing

MASK_SIZE = 192
IMAGE_SIZE = 160
# Scales tilt, blur, noise and cover together. Chosen so that a frozen ImageNet trunk recognizes between a third and
# three quarters of unseen marks; the measured figure is in docs/experiments/tests-and-ci.md.
DIFFICULTY = 0.6
# Two marks whose 16 x 16 thumbnails correlate above this look alike (product families of one maker); one is used.
SAME_MARK = 0.90
# Share of images in the brand's own color, where its contrast allows that.
OWN_COLOR_SHARE = 0.6
# Backgrounds that are flat, shaded, cloudy, striped, cluttered.
BACKGROUND_SHARES = (0.4, 0.35, 0.15, 0.05, 0.05)
TRAIN_IMAGES, REFERENCE_IMAGES, QUERY_IMAGES = 12, 4, 4
# Settings of the images in a folder, which is ours by this file; without ``complete`` the rendering was interrupted.
SETTINGS_FILE = "demo.json"
IMAGE_FOLDERS = ("train", "unseen")


@dataclass(frozen=True)
class Mark:
    """One brand's mark: its alpha mask (M, M) uint8 and the brand's own color (3,)."""

    mask_MM: np.ndarray
    color: np.ndarray


@dataclass(frozen=True)
class BrandSet:
    """Folders of the rendered images: ``train/<brand>``, ``unseen/reference/<brand>``, ``unseen/query/<brand>``."""

    root: Path
    train_brands: tuple[str, ...]
    unseen_brands: tuple[str, ...]

    @property
    def train(self) -> Path:
        return self.root / "train"

    @property
    def reference(self) -> Path:
        return self.root / "unseen" / "reference"

    @property
    def query(self) -> Path:
        return self.root / "unseen" / "query"


def keep_brands(root: Path, *, brands: int, unseen: int, seed: int, overwrite: bool) -> BrandSet:
    """Render the data set into a folder that is kept, or open what an earlier demo of the same settings rendered there.

    Args:
        root: Folder of the images.
        brands, unseen, seed: See ``render_brands``.
        overwrite: Delete the images of a demo of other settings.

    Raises:
        RunError: The folder holds something else, or images of other settings and ``overwrite`` is not set.
    """
    settings = {"brands": brands, "unseen": unseen, "seed": seed, "difficulty": DIFFICULTY, "format_version": 1}
    record = read_json(root / SETTINGS_FILE)
    if record == settings | {"complete": True}:
        return BrandSet(root, _folders(root / "train"), _folders(root / "unseen" / "query"))
    if record and (overwrite or not record.get("complete")):
        for name in IMAGE_FOLDERS:
            shutil.rmtree(root / name, ignore_errors=True)
        (root / SETTINGS_FILE).unlink()
    refuse_existing(root, folder=True)
    marks = pick_marks(brands + unseen, seed)  # nothing is left behind where these are too many
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / SETTINGS_FILE, json.dumps(settings) + "\n")
    images = _render(root, marks, brands, seed, DIFFICULTY)
    write_text(root / SETTINGS_FILE, json.dumps(settings | {"complete": True}) + "\n")
    return images


def _folders(path: Path) -> tuple[str, ...]:
    return tuple(sorted(folder.name for folder in path.iterdir()))


def render_brands(
    root: str | Path, *, brands: int = 200, unseen: int = 120, seed: int = 0, difficulty: float = DIFFICULTY
) -> BrandSet:
    """Render the data set.

    Args:
        root: Folder of the images; it must be empty or absent.
        brands: Number of training brands.
        unseen: Number of other brands.
        seed: Seed of the choice of brands and of every image.
        difficulty: Strength of tilt, blur, noise and occlusion, from 0.
    """
    root = Path(root)
    refuse_existing(root, folder=True)
    return _render(root, pick_marks(brands + unseen, seed), brands, seed, difficulty)


def _render(root: Path, marks: dict[str, Mark], brands: int, seed: int, difficulty: float) -> BrandSet:
    """Render the images of these marks, the first ``brands`` of which are trained on."""
    names = list(marks)
    brand_set = BrandSet(root, tuple(sorted(names[:brands])), tuple(sorted(names[brands:])))
    jobs: list[tuple[str, str, int, Path]] = []
    for folder, role, members, count in (
        (brand_set.train, "train", brand_set.train_brands, TRAIN_IMAGES),
        (brand_set.reference, "reference", brand_set.unseen_brands, REFERENCE_IMAGES),
        (brand_set.query, "query", brand_set.unseen_brands, QUERY_IMAGES),
    ):
        for name in members:
            (folder / name).mkdir(parents=True, exist_ok=True)
            jobs += [(name, role, number, folder / name / f"{number:02d}.jpg") for number in range(count)]

    def draw(job: tuple[str, str, int, Path]) -> None:
        name, role, number, path = job
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), zlib.crc32(role.encode()), number])
        path.write_bytes(photograph(marks[name], rng, difficulty))

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, progress("rendering brand marks", len(jobs)) as advance:
        for _ in pool.map(draw, jobs):
            advance()
    return brand_set


def pick_marks(count: int, seed: int) -> dict[str, Mark]:
    """Draw ``count`` brands whose marks look different by ``seed``; their marks by slug."""
    try:
        from simpleicons.all import icons
    except ImportError as error:
        raise missing_extra("simpleicons", "demo", "drawing brand marks") from error
    drawings = {icon.slug: icon for icon in icons.values()}
    slugs = sorted(drawings)
    if count > len(slugs):
        raise SpecError(f"{count} brands", expected=f"at most {len(slugs)}, the number of marks")
    marks_by_name: dict[str, Mark] = {}
    thumbnails = np.zeros((count, 256), np.float32)
    for position in np.random.default_rng(seed).permutation(len(slugs)):
        if len(marks_by_name) == count:
            break
        slug = slugs[int(position)]
        mask = render_mask(drawings[slug].svg)
        ink = mask.mean() / 255
        if not 0.05 < ink < 0.75:
            continue  # hairlines vanish at this size, and a filled square is no mark
        small = np.asarray(Image.fromarray(mask).resize((16, 16), Image.Resampling.BOX), np.float32).ravel()
        small -= small.mean()
        small /= np.linalg.norm(small) + 1e-9
        if marks_by_name and float((thumbnails[: len(marks_by_name)] @ small).max()) > SAME_MARK:
            continue
        thumbnails[len(marks_by_name)] = small
        marks_by_name[slug] = Mark(mask, np.array([int(drawings[slug].hex[i : i + 2], 16) for i in (0, 2, 4)], float))
    if len(marks_by_name) < count:
        raise SpecError(
            f"{count} brands", expected=f"at most {len(marks_by_name)}, the number of marks that look different"
        )
    return marks_by_name


def render_mask(svg: str) -> np.ndarray:
    """An SVG mark as its alpha mask, (M, M) uint8."""
    try:
        import resvg_py
    except ImportError as error:
        raise missing_extra("resvg-py", "demo", "drawing brand marks") from error
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=MASK_SIZE, height=MASK_SIZE, skip_system_fonts=True)
    except ValueError as error:
        raise DataError(f"a brand mark cannot be drawn ({error})") from error
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA").getchannel("A"))


# ---- one photograph ----


def photograph(mark: Mark, rng: np.random.Generator, difficulty: float = DIFFICULTY) -> bytes:
    """Render one JPEG of a mark, (S, S); all parameters are drawn from ``rng``."""
    size = IMAGE_SIZE
    background = _background(rng, size)
    corners = _corners(rng, size, difficulty)
    coefficients = _perspective(corners, MASK_SIZE)
    ground = background.mean(axis=(0, 1))
    image = Image.fromarray(background)
    if rng.random() < 0.4:  # the mark is printed on a label of its own
        ground = _color(rng)
        plate = Image.new("L", (MASK_SIZE, MASK_SIZE), 255)
        image.paste(
            tuple(int(v) for v in ground), mask=_warp(plate, _perspective(corners, MASK_SIZE, margin=-0.12), size)
        )
    ink = _warp(Image.fromarray(mark.mask_MM), coefficients, size)
    image.paste(_paint(rng, mark.color, ground, size), mask=ink)
    _cover(rng, image, corners, difficulty)
    pixels = np.asarray(image, np.float32) * _light(rng, size)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image = _blur(rng, image, difficulty)
    noise = rng.uniform(1, 12) * difficulty
    grain = rng.standard_normal((size, size, 3), dtype=np.float32) * noise
    pixels = np.clip(np.asarray(image, np.float32) + grain, 0, 255)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(30, 85)))
    return file.getvalue()


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Flat, gradient, cloudy, striped or cluttered, (S, S, 3) uint8."""
    first, second = (_color(rng).astype(np.float32) for _ in range(2))
    kind = rng.choice(5, p=BACKGROUND_SHARES)
    grid_y, grid_x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if kind == 0:
        blend: np.ndarray = np.zeros((size, size), np.float32)
    elif kind == 1:
        angle = rng.uniform(0, 2 * np.pi)
        blend = 0.5 + 0.7 * ((grid_x - 0.5) * np.cos(angle) + (grid_y - 0.5) * np.sin(angle))
    elif kind == 3:
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(4, 16)
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * pitch * (grid_x * np.cos(angle) + grid_y * np.sin(angle)))
    else:
        cells = int(rng.integers(3, 20))
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
        blend = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
    mix = np.clip(blend, 0, 1)[..., None] * rng.uniform(0.3, 1.0)
    image = Image.fromarray((first * (1 - mix) + second * mix).astype(np.uint8))
    if kind == 4:
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(4, 12))):
            _shape(rng, draw, rng.uniform(0, size, 2), rng.uniform(0.05, 0.3) * size)
    return np.asarray(image)


def _color(rng: np.random.Generator) -> np.ndarray:
    """Draw a color, mostly close to gray; (3,)."""
    color = rng.uniform(0, 255, 3)
    return color if rng.random() < 0.25 else 0.15 * color + 0.85 * rng.uniform(0, 255)


def _shape(rng: np.random.Generator, draw: ImageDraw.ImageDraw, center: np.ndarray, radius: float) -> None:
    color = tuple(int(v) for v in rng.integers(0, 256, 3))
    if rng.random() < 0.5:
        reach = radius * rng.uniform(0.4, 1.0, 2)
        draw.ellipse([*(center - reach), *(center + reach)], fill=color)
        return
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
    draw.polygon([(center[0] + radius * np.cos(a), center[1] + radius * np.sin(a)) for a in angles], fill=color)


def _corners(rng: np.random.Generator, size: int, difficulty: float) -> np.ndarray:
    """Draw the positions of the mark's four corners, (4, 2) pixels: rotated, tilted and off center."""
    side = rng.uniform(0.55, 0.9) * size
    angle = np.deg2rad(rng.uniform(-20, 20) * difficulty)
    square: np.ndarray = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2
    square = square * (1.0, rng.uniform(1 - 0.25 * difficulty, 1.0))  # foreshortened before it is turned
    rotation = square @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    perspective = rotation + rng.uniform(-0.07, 0.07, (4, 2)) * difficulty * side
    slack = max(0.0, (size - side) / 2)
    corners: np.ndarray = perspective + size / 2 + rng.uniform(-slack, slack, 2)
    return corners


def _perspective(corners: np.ndarray, source: int, margin: float = 0.0) -> list[float]:
    """PIL's eight coefficients that map output pixels back into a ``source``-sized square.

    A negative ``margin`` places the corners inside that square, so that the drawing extends beyond them.
    """
    low, high = -margin * source, (1 + margin) * source
    inside = ((low, low), (high, low), (high, high), (low, high))
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, inside, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(c) for c in np.linalg.solve(np.array(rows), np.array(values))]


def _warp(mask: Image.Image, coefficients: Sequence[float], size: int) -> Image.Image:
    return mask.transform((size, size), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)


def _paint(rng: np.random.Generator, own: np.ndarray, ground: np.ndarray, size: int) -> Image.Image:
    """An image of the mark's color: the brand's own or a random one, plain or shaded, in contrast to the background."""
    for attempt in range(20):
        color = own if attempt == 0 and rng.random() < OWN_COLOR_SHARE else _color(rng)
        if np.abs(color - ground).mean() > 70:
            break
    other = np.clip(color + rng.uniform(-60, 60, 3), 0, 255) if rng.random() < 0.3 else color
    ramp = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    gradient = color * (1 - ramp) + other * ramp
    return Image.fromarray(np.broadcast_to(gradient, (size, size, 3)).astype(np.uint8))


def _cover(rng: np.random.Generator, image: Image.Image, corners: np.ndarray, difficulty: float) -> None:
    """Cover parts of the mark by up to two shapes near its border."""
    draw = ImageDraw.Draw(image)
    side = float(np.linalg.norm(corners[1] - corners[0]))
    for _ in range(int(rng.integers(0, 3))):
        angle = rng.uniform(0, 2 * np.pi)
        center = corners.mean(axis=0) + rng.uniform(0.25, 0.55) * side * np.array([np.cos(angle), np.sin(angle)])
        _shape(rng, draw, center, rng.uniform(0.08, 0.22) * difficulty * side)


def _light(rng: np.random.Generator, size: int) -> np.ndarray:
    """Gain of each pixel and channel, (S, S, 3): brightness, a tint, and a linear falloff to one side."""
    angle = rng.uniform(0, 2 * np.pi)
    grid_y, grid_x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    fall = 1 + rng.uniform(0, 0.9) * (grid_x * np.cos(angle) + grid_y * np.sin(angle))
    tint = rng.uniform(0.92, 1.08, 3) * rng.uniform(0.6, 1.2)
    gain: np.ndarray = (fall[..., None] * tint).astype(np.float32)
    return gain


def _blur(rng: np.random.Generator, image: Image.Image, difficulty: float) -> Image.Image:
    """Defocus blur, and sometimes motion blur."""
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5) * difficulty))
    if rng.random() < 0.35:
        kernel = np.zeros((5, 5))
        kernel[2] = 1
        kernel = kernel if rng.random() < 0.5 else kernel.T
        image = image.filter(ImageFilter.Kernel((5, 5), kernel.ravel().tolist()))
    return image
