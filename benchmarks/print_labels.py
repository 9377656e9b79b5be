"""One changed character on drawn labels: share found by character height, beside pixelmatch and SSIM.

    python benchmarks/print_labels.py [--split development|report] [--pairs 40] [--heights 8,10,12,16,20,28,40]
        [--copies file,scan] [--methods unalike,pixelmatch,ssim] [--fonts DIR] [--false 0.05] [SETTING=VALUE...]

A label of 400 x 300 px has text of one height (of a capital letter, in pixels) in one font, a border, a disk and a bar code. The
image of a pair is a copy of it as JPEG of quality 60, 75, 85 or 95; in half of the pairs one letter or digit is another one. A
copy ``file`` lies on the same pixels; a copy ``scan`` is turned by up to 0.5 degrees, scaled by up to 1 %, shifted by up to 2 px,
blurred by 0.4 px, lit by 0.9 to 1.1 and has noise of 2 gray levels. The split ``development`` has DejaVu fonts and its own words and
seeds, ``report`` has Liberation fonts. Defaults were chosen on ``development`` alone.

A box counts as correct where its center lies on the changed character, within 4 px; every other box is false. Boxes have scores,
and a method's lowest score is chosen for the largest share found at no more than ``--false`` false boxes a pair (over all heights of
a kind of copy together); pixelmatch and SSIM are run at several thresholds each. Their boxes are connected differing
pixels, joined within 5 px as ours are, with their number as score. The second column of ours is without such a choice: every
box counts. pixelmatch and SSIM need the packages ``pixelmatch`` and ``scikit-image``.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont

import unalike
from unalike.errors import NotComparable
from unalike.metrics.intervals import wilson_interval
from unalike.progress import progress

HEIGHTS = (8, 10, 12, 16, 20, 28, 40)
QUALITIES = (60, 75, 85, 95)
WIDTH, HEIGHT = 400, 300
REACH, JOIN = 4, 5
FONTS = {
    "development": ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf"),
    "report": ("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", "LiberationSerif-Regular.ttf", "LiberationMono-Regular.ttf"),
}  # fmt: skip
WORDS = {
    "development": "NET 500 g|Best before 12 2027|LOT 4471 B|Keep cool and dry|Store below 25 C|Energy 1840 kJ|Salt 0.8 g|Made of 62 % apples",
    "report": "Inhalt 250 ml|EXP 2029-03-18|Batch 90K35|Shake well before use|REF 70-1182|Sugar 12.5 g|Serves 6|pH 5.5 neutral",
}  # fmt: skip
SEEDS = {"development": 0, "report": 1}
Box = tuple[float, float, float, float]
ScoredBoxes = list[tuple[float, Box]]


@dataclass(frozen=True)
class LabelPair:
    """A label, its copy, the copy's changed character (left, top, right, bottom) or None, and its height in pixels."""

    reference_HWC: np.ndarray
    image_HWC: np.ndarray
    character: Box | None
    height: int


def draw_pairs(split: str, heights: list[int], count: int, copy: str, fonts: Path) -> Iterator[LabelPair]:
    """Yield ``count`` pairs of each height with a change and as many without."""
    files = {path.name: path for path in fonts.rglob("*.ttf")}
    for height in heights:
        for number in range(2 * count):
            rng = np.random.default_rng([SEEDS[split], height, number])
            font = fit_font(str(files[FONTS[split][number // 2 % len(FONTS[split])]]), height)
            reference, image, character = draw_label(
                rng, font, height, WORDS[split].split("|"), changed=number % 2 == 0
            )
            copied_HWC, character = copy_label(np.asarray(image), rng, copy, QUALITIES[number // 8 % 4], character)
            yield LabelPair(np.asarray(reference), copied_HWC, character, height)


def fit_font(file: str, height: int) -> ImageFont.FreeTypeFont:
    """The font in the size at which a capital letter is ``height`` pixels high."""
    for size in range(height, 3 * height):
        _, top, _, bottom = ImageFont.truetype(file, size).getbbox("H")
        if bottom - top >= height:
            break
    return ImageFont.truetype(file, size)


def draw_label(
    rng: np.random.Generator, font: ImageFont.FreeTypeFont, height: int, words: list[str], *, changed: bool
) -> tuple[Image.Image, Image.Image, Box | None]:
    """Draw a label twice, the second time with or without a changed character."""
    ground = tuple(int(v) for v in rng.integers(225, 256, 3))
    ink = tuple(int(v) for v in rng.integers(0, 90, 3))
    pictures = [Image.new("RGB", (WIDTH, HEIGHT), ground) for _ in range(2)]
    tints, bars = rng.integers(40, 220, (2, 3)), rng.integers(2, 6, 40)
    lines = min(6, int((HEIGHT - 90) / (1.7 * height)))
    texts = [words[n] for n in rng.integers(0, len(words), lines)]
    glyphs = []  # (character, left, top) of all lines
    for line, text in enumerate(texts):
        left = float(rng.uniform(24, 40))
        for character in text:
            advance = font.getlength(character)
            if left + advance > WIDTH - 24:
                break
            glyphs.append((character, left, 22 + 1.7 * height * line, advance))
            left += advance
    candidates = [n for n, glyph in enumerate(glyphs) if glyph[0].isalnum()]
    place = int(rng.choice(candidates))
    character, left, top, advance = glyphs[place]
    alike = (
        "0123456789"
        if character.isdigit()
        else "ABCDEFGHKLMNOPRSTUVXZ"
        if character.isupper()
        else "abcdefghknopqrstuvxz"
    )
    other = str(rng.choice([c for c in alike if c != character]))
    for number, picture in enumerate(pictures):
        draw = ImageDraw.Draw(picture)
        draw.rectangle((8, 8, WIDTH - 9, HEIGHT - 9), outline=tuple(tints[0].tolist()), width=4)
        draw.ellipse((300, 225, 365, 285), fill=tuple(tints[1].tolist()))
        for bar, width in enumerate(bars):
            if bar % 2 == 0:
                x = 30 + int(bars[:bar].sum())
                draw.rectangle((x, 240, x + int(width) - 1, 280), fill=ink)
        for n, (glyph, x, y, _) in enumerate(glyphs):
            if number and changed and n == place:
                draw.text((x + (advance - font.getlength(other)) / 2, y), other, fill=ink, font=font)
            else:
                draw.text((x, y), glyph, fill=ink, font=font)
    box = font.getbbox("Hg")
    return *pictures, (left, top + box[1], left + advance, top + box[3]) if changed else None


def copy_label(
    pixels_HWC: np.ndarray, rng: np.random.Generator, copy: str, quality: int, character: Box | None
) -> tuple[np.ndarray, Box | None]:
    """Return the copy, and where the character lies in it."""
    altered_HWC = pixels_HWC.astype(np.float32)
    if copy == "scan":
        motion = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), rng.uniform(-0.5, 0.5), rng.uniform(0.99, 1.01))
        motion[:, 2] += rng.uniform(-2, 2, 2)
        altered_HWC = cv2.warpAffine(
            altered_HWC, motion, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        altered_HWC = cv2.GaussianBlur(altered_HWC, (0, 0), 0.4) * rng.uniform(0.9, 1.1)
        altered_HWC += rng.normal(0, 2, altered_HWC.shape)
        if character is not None:
            corners = np.array([[x, y, 1] for x in character[::2] for y in character[1::2]]) @ motion.T
            character = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    file = io.BytesIO()
    Image.fromarray(np.clip(altered_HWC + 0.5, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB")), character


# ---- methods ----


def compare_unalike(comparer: unalike.Comparer, pair: LabelPair) -> ScoredBoxes:
    """Boxes of unalike; a pair that is refused has none."""
    try:
        result = comparer.compare(pair.reference_HWC, pair.image_HWC)
    except NotComparable:
        return []
    return [(region.score, region.extent) for region in result.regions]


def compare_pixelmatch(pair: LabelPair, threshold: float) -> ScoredBoxes:
    """Boxes of the pixels that pixelmatch marks, without antialiasing."""
    from pixelmatch.contrib.PIL import pixelmatch

    marked = Image.new("RGBA", (WIDTH, HEIGHT))
    images = (Image.fromarray(pixels).convert("RGBA") for pixels in (pair.reference_HWC, pair.image_HWC))
    pixelmatch(*images, marked, threshold=threshold, diff_mask=True)
    pixels_HWC = np.asarray(marked)
    return group(np.asarray((pixels_HWC[..., 0] == 255) & (pixels_HWC[..., 1] == 0) & (pixels_HWC[..., 3] == 255)))


def compare_ssim(pair: LabelPair, threshold: float) -> ScoredBoxes:
    """Boxes of the pixels whose structural similarity is below 1 - threshold."""
    from skimage.metrics import structural_similarity

    grays = [cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) for pixels in (pair.reference_HWC, pair.image_HWC)]
    similarity_HW = structural_similarity(*grays, full=True)[1]
    return group(similarity_HW < 1 - threshold)


def group(mask_HW: np.ndarray) -> ScoredBoxes:
    """Boxes of marked pixels that lie within JOIN pixels, with their number as score."""
    joined = cv2.dilate(mask_HW.astype(np.uint8), np.ones((JOIN, JOIN), np.uint8))
    total, labels_HW, stats, _ = cv2.connectedComponentsWithStats(joined)
    counts = np.bincount(labels_HW[mask_HW], minlength=total)
    return [(float(counts[n]), (x, y, x + w, y + h)) for n, (x, y, w, h, _) in enumerate(stats.tolist()) if n]


METHODS: dict[str, dict[str, Callable[[LabelPair], ScoredBoxes]]] = {
    "pixelmatch": {f"threshold {t}": (lambda pair, t=t: compare_pixelmatch(pair, t)) for t in (0.1, 0.2, 0.4)},
    "ssim": {f"threshold {t}": (lambda pair, t=t: compare_ssim(pair, t)) for t in (0.5, 0.7, 0.8, 0.9)},
}


# ---- figures ----


def is_correct(box: Box, character: Box | None) -> bool:
    """Whether the center of a box lies on the character, within REACH pixels."""
    if character is None:
        return False
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return character[0] - REACH <= x <= character[2] + REACH and character[1] - REACH <= y <= character[3] + REACH


def choose_score(boxes: list[ScoredBoxes], pairs: list[LabelPair], rate: float) -> float:
    """The lowest score with at most ``rate`` false boxes a pair."""
    false = sorted((score for own, pair in zip(boxes, pairs, strict=True) for score, box in own
                    if not is_correct(box, pair.character)), reverse=True)  # fmt: skip
    allowed = int(rate * len(pairs))
    return np.nextafter(false[allowed], np.inf) if len(false) > allowed else 0.0


def print_row(name: str, boxes: list[ScoredBoxes], pairs: list[LabelPair], least: float) -> None:
    """Print the share found by height with boxes from a score on."""
    found: dict[int, list[bool]] = {}
    false = 0
    for own, pair in zip(boxes, pairs, strict=True):
        correct = [is_correct(box, pair.character) for score, box in own if score >= least]
        false += len(correct) - sum(correct)
        if pair.character is not None:
            found.setdefault(pair.height, []).append(any(correct))
    shares = []
    for height, hits in found.items():
        interval = wilson_interval(sum(hits), len(hits))
        shares.append(f"{height} px {sum(hits)}/{len(hits)} ({interval.low:.2f} to {interval.high:.2f})")
    total = [hit for hits in found.values() for hit in hits]
    print(f"  {name:44} found {np.mean(total):.3f} of {len(total)}, false boxes a pair {false / len(pairs):.3f}, score from {least:.3g}: "
          f"{', '.join(shares)}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=tuple(FONTS), default="development")
    parser.add_argument("--pairs", type=int, default=40, help="pairs of a height with a change, and as many without")
    parser.add_argument("--heights", default=",".join(map(str, HEIGHTS)))
    parser.add_argument("--copies", default="file,scan")
    parser.add_argument("--methods", default="unalike")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    parser.add_argument("--false", type=float, default=0.05, help="false boxes a pair")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    options = parser.parse_args()
    settings = {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in options.settings)}
    comparer = unalike.Comparer(**settings)
    methods = METHODS | {"unalike": {"": lambda pair: compare_unalike(comparer, pair)}}
    heights = [int(height) for height in options.heights.split(",")]
    print(f"{date.today()}  split {options.split}, settings {settings or 'default'}")
    for copy in options.copies.split(","):
        pairs = list(draw_pairs(options.split, heights, options.pairs, copy, options.fonts))
        print(f"copies {copy}: {len(pairs)} pairs")
        for name in options.methods.split(","):
            for setting, find_boxes in methods[name].items():
                with progress("comparing", len(pairs), "pairs") as advance:
                    boxes = []
                    for pair in pairs:
                        boxes.append(find_boxes(pair))
                        advance()
                if name == "unalike":
                    print_row(f"{name}, every box", boxes, pairs, 0.0)
                print_row(f"{name} {setting}".strip(), boxes, pairs, choose_score(boxes, pairs, options.false))


if __name__ == "__main__":
    main()
