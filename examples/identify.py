"""A recogniser in a program: enrol, calibrate "unknown", identify, take in a new class. Needs no torch.

    python examples/identify.py MODEL.onnx REFERENCES QUERIES [RATE]

REFERENCES and QUERIES hold one folder a class; classes of QUERIES that REFERENCES lack are unknown things.
"""

import sys
from collections import Counter
from pathlib import Path

import unalike


def main(model: str, references: str, queries: str, rate: str = "0.01") -> None:
    recogniser = unalike.Recogniser.load(model)
    print(f"enrolled {recogniser.enrol(references)} images of {len(recogniser.gallery.classes)} classes")

    # Of images of unknown things at most this share shall be taken for known; refused where the data cannot support it.
    made = recogniser.calibrate(float(rate))
    print(f"calibrated: {made}")
    recogniser.gallery.save("shop.gallery")

    # Any number of threads may share one recogniser; a gallery opens by memory map, whatever its size.
    recogniser = unalike.Recogniser.load(model, "shop.gallery")
    known = set(recogniser.gallery.classes)
    decisions: Counter[tuple[str, str]] = Counter()
    for folder in sorted(path for path in Path(queries).iterdir() if path.is_dir()):
        for answer in recogniser.identify(sorted(folder.iterdir())):
            decisions["known thing" if folder.name in known else "unknown thing", answer.decision] += 1
    for (thing, decision), count in sorted(decisions.items()):
        print(f"{thing}, answered {decision}: {count}")

    # A new class needs a picture and no training.
    new = next((path for path in sorted(Path(queries).iterdir()) if path.is_dir() and path.name not in known), None)
    if new is not None:
        first, *rest = sorted(new.iterdir())
        recogniser.enrol([first], new.name)
        answers = recogniser.identify(rest, k=1)
        print(
            f"after enrolling one image of {new.name}: nearest right for {sum(a.nearest == new.name for a in answers)} of {len(rest)}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
