"""Compare many images of one thing with a reference, from a program. Needs OpenCV, no torch, no model.

    python examples/compare.py REFERENCE IMAGE...

Writes IMAGE_overlay.png into the working folder for each image that differs.
"""

import sys
from pathlib import Path

import unalike


def main(reference: str, *images: str) -> None:
    # Edges may be displaced by three pixels. For photographs of things with depth: level="features", model="maps.onnx".
    comparer = unalike.Comparer(tolerance=3)
    for image in images:
        try:
            result = comparer.compare(reference, image)
        except unalike.UnalikeError as error:  # unreadable, or an image of something else
            print(f"{image}: {error}")
            continue
        if result.same:
            print(f"{image}: no difference (alignment {result.registration.quality:.2f})")
            continue
        print(f"{image}: {result.answer}: {'; '.join(result.reasons)}")  # different or incomplete
        for region in result.regions:
            print(f"  {region.box} score {region.score:.1f}, {region.area} px, {region.change}")
        result.overlay().save(f"{Path(image).stem}_overlay.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
