"""Recognition in a program: enrol references, calibrate "unknown", identify images, add a class. Needs no torch.

    python examples/identify.py MODEL.onnx REFERENCES QUERIES [RATE]

REFERENCES and QUERIES hold one folder a class; classes of QUERIES that are not in REFERENCES are unknown.
"""

import sys
from collections import Counter
from pathlib import Path

import unalike


def main(model: str, references: str, queries: str, rate: str = "0.01") -> None:
    recognizer = unalike.Recogniser.load(model)
    print(f"enrolled {recognizer.enrol(references)} images of {len(recognizer.gallery.classes)} classes")

    # At most this share of images of unknown classes shall be taken for known; an error where the data cannot support it.
    calibration = recognizer.calibrate(float(rate))
    print(f"calibrated: {calibration}")
    recognizer.gallery.save("shop.gallery")

    # Any number of threads may share one recognizer; a gallery is memory-mapped, whatever its size.
    recognizer = unalike.Recogniser.load(model, "shop.gallery")
    known = set(recognizer.gallery.classes)
    decisions: Counter[tuple[str, str]] = Counter()
    for folder in sorted(path for path in Path(queries).iterdir() if path.is_dir()):
        for result in recognizer.identify(sorted(folder.iterdir())):
            decisions["known class" if folder.name in known else "unknown class", result.decision] += 1
    for (kind, decision), count in sorted(decisions.items()):
        print(f"{kind}, answered {decision}: {count}")

    # A new class needs one image and no training.
    new = next((path for path in sorted(Path(queries).iterdir()) if path.is_dir() and path.name not in known), None)
    if new is not None:
        first, *rest = sorted(new.iterdir())
        recognizer.enrol([first], new.name)
        right = sum(result.nearest == new.name for result in recognizer.identify(rest, k=1))
        print(f"after enrolling one image of {new.name}: nearest right for {right} of {len(rest)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
