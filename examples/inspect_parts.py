"""Fit an inspector to images of good parts and inspect others: drawn parts, no data needed (extra train; half a minute).

    python examples/inspect_parts.py              fit, save, load, inspect
    python examples/inspect_parts.py --draw DIR   only draw: DIR/good, DIR/test/good, DIR/test/scratch, .../stain, DIR/masks

On a deployment machine, Inspector.load(FILE).inspect(IMAGE) is all that is needed; torch is not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from unalike.inspection.inspector import Inspector

KINDS = ("", "scratch", "stain")


def draw_part(seed: int, kind: str = "") -> tuple[Image.Image, Image.Image]:
    """Draw a brushed plate with two holes, at a random position and brightness.

    Args:
        seed: Seed of position, brightness and defect.
        kind: One of ``KINDS``; empty for a good part.

    Returns:
        (image, mask of its defect).
    """
    rng = np.random.default_rng(seed)
    brushed = rng.normal(0, 9, (1, 224)).repeat(224, axis=0) + rng.normal(0, 3, (224, 224))
    plate = Image.fromarray((brushed + 150 * rng.uniform(0.9, 1.1)).clip(0, 255).astype(np.uint8)).convert("RGB")
    mask = Image.new("L", plate.size, 0)
    pen, marker = ImageDraw.Draw(plate), ImageDraw.Draw(mask)
    dx, dy = rng.integers(-6, 7, 2).tolist()
    for x, y in ((60, 60), (164, 164)):
        pen.ellipse((x + dx - 16, y + dy - 16, x + dx + 16, y + dy + 16), fill=(35, 35, 38))
    x, y = rng.integers(84, 120, 2).tolist()
    if kind == "scratch":
        for canvas, color in ((pen, (225, 225, 220)), (marker, 255)):
            canvas.line((x, y, x + 34, y + 21), fill=color, width=2)
    elif kind == "stain":
        marker.ellipse((x, y, x + 26, y + 20), fill=255)
        dark = plate.point(lambda level: round(level * 0.72))
        plate.paste(dark, mask=mask.filter(ImageFilter.GaussianBlur(2)))
    return plate, mask


def draw_folders(root: Path) -> None:
    """Draw 60 good parts to fit to; 20 good ones and 6 of each defect to test on, with masks."""
    folders = [(root / "good", "", range(60)), (root / "test" / "good", "", range(100, 120))]
    folders += [(root / "test" / kind, kind, range(200 + 100 * n, 206 + 100 * n)) for n, kind in enumerate(KINDS[1:])]
    for folder, kind, seeds in folders:
        folder.mkdir(parents=True)
        for seed in seeds:
            plate, mask = draw_part(seed, kind)
            plate.save(folder / f"{seed}.png")
            if kind:
                (root / "masks" / kind).mkdir(parents=True, exist_ok=True)
                mask.save(root / "masks" / kind / f"{seed}.png")


def main(arguments: list[str]) -> None:
    """Draw, or fit, save, load, inspect."""
    if arguments[:1] == ["--draw"]:
        draw_folders(Path(arguments[1]))
        return
    inspector = Inspector.fit([draw_part(seed)[0] for seed in range(40)], size=(224, 224), rate=0.05)
    print(inspector.threshold)
    with tempfile.TemporaryDirectory() as folder:
        deployed = Inspector.load(inspector.save(Path(folder) / "plate.inspector"))
        for seed, kind in ((100, ""), (101, ""), (200, "scratch"), (300, "stain")):
            result = deployed.inspect(draw_part(seed, kind)[0])
            boxes = [region.box for region in result.regions]
            print(f"{kind or 'good'}: {result.decision} ({result.score:.2f}) {boxes}")


if __name__ == "__main__":
    main(sys.argv[1:])
