"""Draw approved brand marks and images of them, some tampered with, and verify which are unaltered.

    pip install 'unalike[train,vision,demo]'
    python examples/verify.py [DIR] [--draw-only]

DIR (runs/verify) gets assets/ (PNG with transparency), pictures/ (JPEG) and brand.set, which opens without torch.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from unalike.actions.demo_images import pick_marks
from unalike.verification.asset import open_asset
from unalike.verification.benign import render_benign
from unalike.verification.tampering import tamper
from unalike.verification.verifier import Verifier


def draw(root: Path) -> None:
    """Draw five marks, a benign and a tampered image of four of them, and an image of no asset."""
    marks = list(pick_marks(6, seed=5).items())
    for folder in ("assets", "pictures"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (name, mark) in enumerate(marks):
        color = np.broadcast_to(mark.color.astype(np.uint8), (*mark.mask_MM.shape, 3))
        asset = open_asset(np.dstack([color, mark.mask_MM]), name)
        if number < 5:
            Image.fromarray(asset.layer_HW4).save(root / "assets" / f"{name}.png")
        layers = {"benign" if number < 5 else "no-asset": None}
        if number < 4:
            kind = ("recoloured", "part-missing", "stretched", "text-changed")[number]
            layers[kind] = tamper(asset, kind, np.random.default_rng(1)).layer_HW4
        for kind, layer in layers.items() if number != 4 else ():
            rendered = render_benign(asset, np.random.default_rng([number, 8]), layer_HW4=layer)
            Image.fromarray(rendered.image_HW3).save(root / "pictures" / f"{name}-{kind}.jpg", quality=88)


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    root = Path(arguments[0] if arguments else "runs/verify")
    draw(root)
    if "--draw-only" in sys.argv:
        return
    verifier = Verifier.build(root / "assets")
    print(verifier.calibrate(rate=0.05))
    verifier.save(root / "brand.set")
    for path in sorted((root / "pictures").iterdir()):
        result = verifier.verify(path)
        print(f"{path.name}: {result}", *[region.box for region in result.regions[:1]])


if __name__ == "__main__":
    main()
