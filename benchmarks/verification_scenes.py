"""Verification of wide wordmarks and of marks on photographs: harmless changes, alterations, strangers.

    python benchmarks/verification_scenes.py [--assets 24] [--photographs GROCERY/train] [--split report] [--seed 0]
                                             [--rate 0.02] [--only GROUP] [--boxes] [--rows rows.jsonl]

The assets are wordmarks (random words in the fonts of this machine, 3:1 to 8:1), lockups (a brand mark beside a word) and
brand marks of simpleicons. They fill about 60 % of a picture whose ground is plain, drawn or a photograph. One harmless
change is applied to each picture, or one alteration with a slight harmless change, or another drawing is in the asset's
place. With ``--boxes``, each picture comes with a box around the drawing, each side of which is off by up to 5 % of the box's
longer side (of a photograph alone, with a box somewhere). The whole verification runs: the frozen trunk proposes, the calibration is the product's own. The splits ``dev`` and
``report`` share neither a mark, a word, a font nor a photograph; settings are chosen on ``dev``. Shares are printed with the
number of pictures and the 95 % interval (Wilson) over pictures; pictures of one asset are alike, so read them as of that many
assets. Seconds are of the processor, one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scene_grounds import choose_ground, draw_texture

from unalike.actions.demo_images import pick_marks
from unalike.verification.asset import MAX_SIDE, Asset, open_asset
from unalike.verification.benign import warp_layer
from unalike.verification.color_difference import ciede2000, srgb_to_lab
from unalike.verification.tampering import MIN_MIRRORED_SHARE, compute_changed_share
from unalike.verification.verifier import Verifier

SPLITS = ("dev", "report")
# The asset's longer side as a share of the picture's width.
SHARE = (0.55, 0.65)
# Largest error of a side of a box, as a share of its longer side.
BOX_ERROR = 0.05
SYLLABLES = "ba be bo ca co da de do fa fi go ha jo ka ki la lo lu ma mi mo na ne no pa po qua ra re ri ro sa so ta te ti va vi xo za"
SYLLABLES_OF = {"dev": SYLLABLES.split()[::2], "report": SYLLABLES.split()[1::2]}
FONTS = Path("/usr/share/fonts")
HARMLESS = (
    "untouched", "jpeg 30", "rotated 5", "half brightness", "blurred", "half size", "double size", "cropped close",
    "colored ground", "drawn ground", "photograph", "photograph, jpeg 50, rotated 3",
)  # fmt: skip
ALTERED = ("letter changed", "mirrored", "hue", "lightness", "part missing", "part added")
STRANGERS = ("other drawing", "other drawing on photograph", "photograph alone")


@dataclass(frozen=True)
class Item:
    """An asset's drawing, and how to draw it with a letter changed (None for a mark without letters)."""

    name: str
    family: str
    layer_HW4: np.ndarray
    changed: Callable[[np.random.Generator], np.ndarray] | None = None


@dataclass(frozen=True)
class Scene:
    """A picture and the answer that is right for it."""

    image_HW3: np.ndarray
    item: Item
    group: str
    kind: str
    ground: str
    facts: dict[str, float] = field(default_factory=dict)
    pose_23: np.ndarray | None = None
    size: tuple[int, int] = (0, 0)

    def draw_box(self, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """A box (x, y, width, height) about where the drawing is, as a person draws it; without one, somewhere."""
        limits = np.array(self.image_HW3.shape[1::-1])
        if self.pose_23 is None:
            size = rng.uniform(0.4, 0.7, 2) * limits
            low = rng.uniform(0, 1, 2) * (limits - size)
            high = low + size
        else:
            height, width = self.size
            corners = self.pose_23 @ [[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]]
            low, high = corners.min(axis=1), corners.max(axis=1)
            error = BOX_ERROR * float((high - low).max())
            low, high = low + rng.uniform(-error, error, 2), high + rng.uniform(-error, error, 2)
        low, high = np.clip(low, 0, limits - 20), np.clip(high, 20, limits)
        x, y = (int(v) for v in low)
        right, bottom = (int(v) for v in np.maximum(np.ceil(high), low + 16))
        return x, y, right - x, bottom - y


# ---- drawings ----


def fonts_of(split: str) -> list[str]:
    """Font files of a split: every second family, so that both have serif, sans and mono."""
    files = sorted(FONTS.rglob("*.ttf")) if FONTS.exists() else []
    files = [file for file in files if not any(word in file.name for word in ("Math", "Narrow", "ExtraLight"))]
    return [str(file) for file in files[SPLITS.index(split) :: 2]]


def draw_word(word: str, font: str | None, color: tuple[int, ...], spacing: float) -> np.ndarray:
    """Draw a word, letter by letter; uint8 (H, W, 4), cropped."""
    typeface = ImageFont.truetype(font, 140) if font else ImageFont.load_default(140)
    layer = Image.new("RGBA", (180 * (len(word) + 2), 320), (*color, 0))
    draw, x = ImageDraw.Draw(layer), 60.0
    for letter in word:
        draw.text((x, 60), letter, font=typeface, fill=(*color, 255))
        x += typeface.getlength(letter) + spacing * 140
    return np.array(layer.crop(layer.getbbox()))


def make_wordmark(number: int, split: str, rng: np.random.Generator, color: tuple[int, ...]) -> Item:
    """A wordmark of 3:1 to 8:1."""
    fonts = fonts_of(split)
    while True:
        word = "".join(rng.choice(SYLLABLES_OF[split], int(rng.integers(2, 6))))
        word = (str.upper if rng.random() < 0.3 else str.title if rng.random() < 0.6 else str)(word)
        font, spacing = str(rng.choice(fonts)) if fonts else None, float(rng.choice([0.0, 0.0, 0.02, 0.1]))
        layer = draw_word(word, font, color, spacing)
        if 3.0 <= layer.shape[1] / layer.shape[0] <= 8.0:
            break

    def changed(rng: np.random.Generator) -> np.ndarray:
        place = int(rng.integers(len(word)))
        letters = "ABDEGHKLMNPRSTUVWXYZ" if word[place].isupper() else "abcdeghkmnopqrstuvwxyz"
        other = str(rng.choice([letter for letter in letters if letter != word[place]]))
        return draw_word(word[:place] + other + word[place + 1 :], font, color, spacing)

    return Item(f"{split} word {number} {word}", "wordmark", layer, changed)


def beside(first_HW4: np.ndarray, second_HW4: np.ndarray) -> np.ndarray:
    """Two layers side by side, as high as the first."""
    height = first_HW4.shape[0]
    wide = max(1, round(second_HW4.shape[1] * 0.6 * height / second_HW4.shape[0]))
    second = Image.fromarray(second_HW4).resize((wide, round(0.6 * height)), Image.Resampling.LANCZOS)
    layer = Image.new("RGBA", (first_HW4.shape[1] + height // 4 + wide, height))
    layer.paste(Image.fromarray(first_HW4))
    layer.paste(second, (first_HW4.shape[1] + height // 4, round(0.2 * height)))
    return np.array(layer)


def make_items(count: int, split: str, seed: int) -> list[Item]:
    """Half wordmarks, a quarter lockups, a quarter marks."""
    rng = np.random.default_rng([seed, SPLITS.index(split), 1])
    marks = list(pick_marks(4 * count, seed + 3).items())[SPLITS.index(split) :: 2]
    items = []
    for number in range(count):
        family = ("wordmark", "lockup", "wordmark", "mark")[number % 4]
        name, mark = marks[number]
        color = tuple(int(v) for v in (mark.color if rng.random() < 0.8 else (20, 20, 24)))
        layer = np.dstack([np.broadcast_to(np.array(color, np.uint8), (*mark.mask_MM.shape, 3)), mark.mask_MM])
        layer = np.array(Image.fromarray(layer).crop(Image.fromarray(mark.mask_MM).getbbox()))
        word = make_wordmark(number, split, rng, (40, 40, 44) if family == "lockup" and number % 8 == 1 else color)
        if family == "wordmark":
            items.append(word)
        elif family == "lockup":
            alter = word.changed
            assert alter is not None
            items.append(Item(f"{word.name} with {name}", family, beside(layer, word.layer_HW4),
                              lambda r, alter=alter, layer=layer: beside(layer, alter(r))))  # fmt: skip
        else:
            items.append(Item(f"{split} {name}", family, layer))
    return items


# ---- alterations ----


def recolor(layer_HW4: np.ndarray, rng: np.random.Generator, kind: str) -> tuple[np.ndarray, float] | None:
    """Shift the drawing's color by a CIEDE2000 difference of 10 to 20, in hue and chroma or in lightness alone."""
    ink = layer_HW4[..., 3] > 127
    mean = layer_HW4[ink][:, :3].astype(float).mean(axis=0)
    target = rng.uniform(10, 20)
    for _ in range(4000):
        shift = rng.normal(0, 30, 3) if kind == "hue" else np.full(3, rng.normal(0, 50))
        new = np.clip(mean + shift, 0, 255)
        before, after = srgb_to_lab(mean), srgb_to_lab(new)
        if kind == "hue" and abs(before[0] - after[0]) > 6:
            continue
        difference = float(ciede2000(before, after))
        if abs(difference - target) < 1.5:
            layer = layer_HW4.copy()
            layer[..., :3] = np.clip(layer[..., :3] + (new - mean), 0, 255)
            return layer, difference
    return None


def alter(item: Item, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]] | None:
    """An altered layer and facts about it; None where the alteration is not possible or not visible."""
    layer = item.layer_HW4.copy()
    if kind == "letter changed":
        return (item.changed(rng), {}) if item.changed is not None else None
    if kind == "mirrored":
        mirrored = np.ascontiguousarray(layer[:, ::-1])
        return (mirrored, {}) if compute_changed_share(layer, mirrored) >= MIN_MIRRORED_SHARE else None
    if kind in ("hue", "lightness"):
        recolored = recolor(layer, rng, kind)
        return (recolored[0], {"difference": recolored[1]}) if recolored else None
    height, width = layer.shape[:2]
    ink = layer[..., 3] > 127
    if kind == "part missing":
        count, labels = cv2.connectedComponents(ink.astype(np.uint8))
        sizes = np.bincount(labels.ravel(), minlength=count) / ink.sum()
        parts = [n for n in range(1, count) if 0.03 < sizes[n] < 0.4]
        if parts:
            mask = cv2.dilate((labels == rng.choice(parts)).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        else:
            rows, columns = np.nonzero(ink)
            pick, radius = int(rng.integers(len(rows))), 0.16 * np.sqrt(height * width)
            y, x = np.mgrid[:height, :width]
            mask = (y - rows[pick]) ** 2 + (x - columns[pick]) ** 2 < radius**2
        layer[mask, 3] = 0
        share = float((mask & ink).sum() / ink.sum())
        return (layer, {"share": share}) if share > 0.02 else None
    # part added: a bar or a disk of the drawing's own color, beside it or in a gap, by 4 to 10 % of its ink.
    color = tuple(int(v) for v in np.median(layer[ink][:, :3], axis=0))
    side = np.sqrt(rng.uniform(0.04, 0.10) * ink.sum())
    edge = round(0.06 * max(height, width))
    canvas = Image.fromarray(np.pad(layer, ((edge, edge), (edge, edge), (0, 0))))
    x, y = rng.uniform(edge, width + edge - side), rng.choice([edge * 0.4, height + edge * 1.1])
    draw = ImageDraw.Draw(canvas)
    if rng.random() < 0.5:
        draw.rectangle([x, y, x + 2 * side, y + side / 2], fill=(*color, 255))
    else:
        draw.ellipse([x, y, x + side, y + side], fill=(*color, 255))
    return np.array(canvas), {}


# ---- pictures ----


def read_photographs(folder: Path | None, split: str, count: int, seed: int) -> list[np.ndarray]:
    """Photographs of a split, uint8 RGB; drawn textures where there is no folder."""
    rng = np.random.default_rng([seed, SPLITS.index(split), 2])
    if folder is None:
        return [draw_texture(rng, 480, 640) for _ in range(count)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    classes = sorted({path.parent for path in paths})
    own = set(classes[SPLITS.index(split) :: 2])
    chosen = rng.permutation([path for path in paths if path.parent in own])[:count]
    return [np.asarray(Image.open(path).convert("RGB")) for path in chosen]


def place(
    layer_HW4: np.ndarray, reference_HW4: np.ndarray, width: int, rng: np.random.Generator, *, rotation: float = 0.0,
    share: float | None = None, ground: Callable[[tuple[int, int], np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draw a layer into a picture of ``width``, as large as the reference would fill ``share`` of it; picture and pose."""
    share = float(rng.uniform(*SHARE)) if share is None else share
    height = round(width * float(rng.choice([0.6, 0.75, 1.0])))
    if share > 0.9:  # cropped close: the picture is the drawing with a small margin
        height = round(width * (reference_HW4.shape[0] / reference_HW4.shape[1] + 1 - share))
    scale = share * width / reference_HW4.shape[1]
    if reference_HW4.shape[0] * scale > 0.9 * height:
        scale = 0.9 * height / reference_HW4.shape[0] if share <= 0.9 else scale
    angle = np.deg2rad(rotation)
    linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    high, wide = layer_HW4.shape[0], layer_HW4.shape[1]
    free = np.maximum(0, np.array([width - scale * wide, height - scale * high]) / 2)
    center = np.array([width, height]) / 2 + rng.uniform(-0.6, 0.6, 2) * free * (0.0 if share > 0.9 else 1.0)
    pose = np.column_stack([linear, center - linear @ [wide / 2, high / 2]])
    colors, alpha = warp_layer(layer_HW4, pose, (height, width))
    image = ground((height, width), pose) * (1 - alpha[..., None]) + colors * alpha[..., None]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), pose


def compress(image_HW3: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image_HW3).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def visible_color(layer_HW4: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    ink = layer_HW4[layer_HW4[..., 3] > 127][:, :3].astype(float)
    while True:
        color = rng.uniform(0, 255, 3)
        if (np.abs(ink - color).mean(axis=1) > 60).mean() > 0.95:
            return color


def make_harmless(item: Item, kind: str, photographs: list[np.ndarray], rng: np.random.Generator) -> Scene:
    width = int(rng.integers(420, 1000))
    layer = item.layer_HW4
    plain = np.full(3, 255.0) if np.abs(layer[layer[..., 3] > 127][:, :3].mean() - 255) > 60 else np.full(3, 20.0)
    rotation, share = 0.0, None
    if kind == "colored ground":
        plain = visible_color(layer, rng)

    def ground(size: tuple[int, int], pose: np.ndarray) -> np.ndarray:
        if kind.startswith("photograph"):
            return choose_ground(layer, photographs, size, pose, rng)
        if kind == "drawn ground":
            return choose_ground(layer, [draw_texture(rng, *size)], size, pose, rng)
        return np.broadcast_to(plain, (*size, 3))

    if kind == "rotated 5":
        rotation = float(rng.choice([-5, 5]))
    elif kind.endswith("rotated 3"):
        rotation = float(rng.choice([-3, 3]))
    elif kind == "cropped close":
        share = 0.96
    elif kind.startswith("photograph"):
        width = int(rng.integers(350, 700))
    image, pose = place(layer, layer, width, rng, rotation=rotation, share=share, ground=ground)
    if kind == "jpeg 30":
        image = compress(image, 30)
    elif "jpeg 50" in kind:
        image = compress(image, 50)
    elif kind == "half brightness":
        image = (image * 0.5).astype(np.uint8)
    elif kind == "blurred":
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(1.0, 2.0) * width / 700)
    elif kind in ("half size", "double size"):
        factor = 0.5 if kind == "half size" else 2.0
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        pose = pose * factor
    on = "photograph" if kind.startswith("photograph") else "drawn" if kind == "drawn ground" else "plain"
    return Scene(image, item, "harmless", kind, on, pose_23=pose, size=layer.shape[:2])


def make_other(
    layer_HW4: np.ndarray, item: Item, group: str, kind: str, ground_kind: str, photographs: list[np.ndarray],
    rng: np.random.Generator, facts: dict[str, float],
) -> Scene:  # fmt: skip
    """An altered or another drawing under a slight harmless change: JPEG 60 to 90, up to 3 degrees, 80 to 110 % brightness."""
    width = int(rng.integers(350, 900))
    plain = np.full(3, 255.0)
    if np.abs(layer_HW4[layer_HW4[..., 3] > 127][:, :3].mean() - 255) < 60:
        plain = np.full(3, 20.0)

    def ground(size: tuple[int, int], pose: np.ndarray) -> np.ndarray:
        if ground_kind == "photograph":
            return choose_ground(layer_HW4, photographs, size, pose, rng)
        return np.broadcast_to(plain, (*size, 3))

    image, pose = place(layer_HW4, layer_HW4, width, rng, rotation=float(rng.uniform(-3, 3)), ground=ground)
    image = np.clip(image * rng.uniform(0.8, 1.1), 0, 255).astype(np.uint8)
    return Scene(
        compress(image, int(rng.integers(60, 91))), item, group, kind, ground_kind, facts, pose, layer_HW4.shape[:2]
    )


def make_scenes(items: list[Item], strangers: list[Item], photographs: list[np.ndarray], seed: int) -> Iterator[Scene]:
    """The scenes of all items; an item's scenes depend on the seed and its number alone."""
    for number, item in enumerate(items):
        for place_of, kind in enumerate(HARMLESS):
            yield make_harmless(item, kind, photographs, np.random.default_rng([seed, number, 1, place_of]))
        for place_of, kind in enumerate(ALTERED):
            for ground_number, ground in enumerate(("plain", "photograph")):
                rng = np.random.default_rng([seed, number, 2, place_of, ground_number])
                altered = alter(item, kind, rng)
                if altered is not None:
                    layer, facts = altered
                    scale = min(1.0, MAX_SIDE / max(layer.shape[:2]))
                    yield make_other(layer, item, "altered", kind, ground, photographs, rng, {**facts, "scale": scale})
        for place_of, kind in enumerate(STRANGERS):
            rng = np.random.default_rng([seed, number, 3, place_of])
            stranger = strangers[number % len(strangers)]
            if kind == "photograph alone":
                image = photographs[int(rng.integers(len(photographs)))]
                yield Scene(image, item, "stranger", kind, "photograph")
            else:
                ground = "photograph" if kind.endswith("photograph") else "plain"
                yield make_other(stranger.layer_HW4, item, "stranger", kind, ground, photographs, rng, {})


# ---- measuring ----


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson)."""
    z, share = 1.96, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def build_verifier(items: list[Item], rate: float, seed: int) -> Verifier:
    assets: list[Asset] = []
    for number, item in enumerate(items):
        if number % 3 == 2 and np.abs(item.layer_HW4[item.layer_HW4[..., 3] > 127][:, :3].mean() - 255) > 60:
            white = Image.new("RGBA", (item.layer_HW4.shape[1] + 60, item.layer_HW4.shape[0] + 60), "white")
            white.alpha_composite(Image.fromarray(item.layer_HW4), (30, 30))
            assets.append(open_asset(np.asarray(white.convert("RGB")), item.name))  # a drawing on white
        else:
            assets.append(open_asset(item.layer_HW4, item.name))
    verifier = Verifier.build(assets)
    start = time.process_time()
    print(verifier.calibrate(rate, seed=seed))
    print(f"calibrated in {time.process_time() - start:.0f} s of the processor: limits {verifier.thresholds.limits}, "
          f"correlation from {verifier.thresholds.min_correlation:.3f}, similarity from {verifier.thresholds.min_similarity:.3f}")  # fmt: skip
    return verifier


def right_answers(scene: Scene) -> tuple[str, ...]:
    if scene.group == "stranger":
        return ("not in the set", "different")
    return ("same",) if scene.group == "harmless" else ("altered",)


def print_table(rows: list[dict]) -> None:
    def line(name: str, own: list[dict]) -> None:
        right = sum(row["right"] for row in own)
        low, high = wilson(right, len(own))
        answers = ", ".join(
            f"{answer} {count}" for answer, count in Counter(row["answer"] for row in own).most_common()
        )
        print(f"{name:44} {right / len(own):6.1%} of {len(own):4} ({low:.1%} to {high:.1%})  {answers}")

    for group in ("harmless", "altered", "stranger"):
        own = [row for row in rows if row["group"] == group]
        if not own:
            continue
        line(group, own)
        for kind in dict.fromkeys(row["kind"] for row in own):
            of_kind = [row for row in own if row["kind"] == kind]
            grounds = dict.fromkeys(row["ground"] for row in of_kind)
            for ground in grounds:
                name = f"  {kind}" + (f", on {ground}" if len(grounds) > 1 else "")
                line(name, [row for row in of_kind if row["ground"] == ground])
        for family in ("wordmark", "lockup", "mark"):
            of_family = [row for row in own if row["family"] == family]
            if of_family:
                line(f"  all of {family}s", of_family)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=24)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--only", help="group of scenes, or part of a kind's name")
    parser.add_argument("--boxes", action="store_true", help="give a box around the drawing with each picture")
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    items = make_items(options.assets + 8, options.split, options.seed)
    items, strangers = items[: options.assets], items[options.assets :]
    photographs = read_photographs(options.photographs, options.split, 60, options.seed)
    verifier = build_verifier(items, options.rate, options.seed)
    rows = []
    box_rng = np.random.default_rng([options.seed, 5])
    for scene in make_scenes(items, strangers, photographs, options.seed):
        if options.only and options.only != scene.group and options.only not in scene.kind:
            continue
        box = scene.draw_box(box_rng) if options.boxes else None
        start = time.thread_time()
        result = verifier.verify(scene.image_HW3, box=box)
        seconds = time.thread_time() - start
        right = result.answer in right_answers(scene) and (scene.group == "stranger" or result.asset == scene.item.name)
        similarity_A = verifier.matcher.similarities(verifier.matcher.embed([scene.image_HW3])[0])
        number = verifier.asset_number(scene.item.name)
        measures = {} if result.difference is None else {k: round(v, 4) for k, v in result.difference.measures.items()}
        rows.append({
            "item": scene.item.name, "family": scene.item.family, "group": scene.group, "kind": scene.kind, "ground": scene.ground,
            "answer": result.answer, "asset": result.asset, "right": right, "score": round(result.score, 4),
            "rank": int((similarity_A > similarity_A[number]).sum()), "similarity": round(float(similarity_A[number]), 3),
            "measures": measures, "seconds": round(seconds, 3), **scene.facts,
        })  # fmt: skip
    if options.rows:
        options.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print_table(rows)
    own = [row for row in rows if row["group"] != "stranger"]
    if own:
        print(f"the right asset among the four nearest: {np.mean([row['rank'] < 4 for row in own]):.1%}; seconds an image: "
              f"median {np.median([row['seconds'] for row in rows]):.2f}, largest {max(row['seconds'] for row in rows):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
