"""Draw approved brand marks and pictures of them, some tampered with, and ask which are unaltered.

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
    """Five marks; of the first three a harmless picture and a tampered one each, and one picture of no asset."""
    marks = list(pick_marks(6, seed=5).items())
    for folder in ("assets", "pictures"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (name, mark) in enumerate(marks):
        colour = np.broadcast_to(mark.colour.astype(np.uint8), (*mark.mask_MM.shape, 3))
        asset = open_asset(np.dstack([colour, mark.mask_MM]), name)
        if number < 5:
            Image.fromarray(asset.layer_HW4).save(root / "assets" / f"{name}.png")
        seen = {"harmless" if number < 5 else "no-asset": None}
        if number < 4:
            kind = ("recoloured", "part-missing", "stretched", "text-changed")[number]
            seen[kind] = tamper(asset, kind, np.random.default_rng(1)).layer_HW4
        for what, layer in seen.items() if number != 4 else ():
            shown = render_benign(asset, np.random.default_rng([number, 8]), layer_HW4=layer)
            Image.fromarray(shown.image_HW3).save(root / "pictures" / f"{name}-{what}.jpg", quality=88)


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    root = Path(words[0] if words else "runs/verify")
    draw(root)
    if "--draw-only" in sys.argv:
        return
    verifier = Verifier.build(root / "assets")
    print(verifier.calibrate(rate=0.05))
    verifier.save(root / "brand.set")
    for path in sorted((root / "pictures").iterdir()):
        verdict = verifier.verify(path)
        print(f"{path.name}: {verdict}", *[spot.box for spot in verdict.regions[:1]])


if __name__ == "__main__":
    main()
