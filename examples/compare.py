"""Spot the difference in a program: one reference, many pictures of the same thing. Needs OpenCV, no torch, no model.

    python examples/compare.py REFERENCE IMAGE...

Writes IMAGE_overlay.png into the working folder for each image that differs.
"""

import sys
from pathlib import Path

import unalike


def main(reference: str, *images: str) -> None:
    # Edges may lie three pixels off. For photographs of deep things: level="features", model="maps.onnx".
    comparer = unalike.Comparer(tolerance=3)
    for image in images:
        try:
            found = comparer.compare(reference, image)
        except unalike.UnalikeError as error:  # unreadable, or a picture of something else
            print(f"{image}: {error}")
            continue
        if found.same:
            print(f"{image}: no difference (alignment {found.registration.quality:.2f})")
            continue
        print(f"{image}: {len(found.regions)} differences")
        for region in found.regions:
            print(f"  {region.box} score {region.score:.1f}, {region.area} px, {region.change}")
        found.overlay().save(f"{Path(image).stem}_overlay.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
