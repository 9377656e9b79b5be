"""Discover groups of similar images from Python and draw them as one picture, one row a group.

    python examples/discover.py HEAP OUT [MODEL.onnx] [ROWS]

HEAP is a folder of images in any arrangement; OUT is a new folder. Without MODEL the best installed trunk is used.
"""

import csv
import sys
from pathlib import Path

from PIL import Image

import unalike

SIDE, COLUMNS = 72, 10


def main(heap: str, out: str, model: str = "", rows: str = "8") -> None:
    result = unalike.discover(heap, out, model=model or None)
    print({name: result.figures[name] for name in ("images", "groups", "in_no_group", "near_duplicates")})

    groups: dict[str, list[tuple[float, Path]]] = {}
    with open(result.path, encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            groups.setdefault(row["label"], []).append((float(row["confidence"]), result.results_dir / row["path"]))
    largest = list(groups.items())[: int(rows)]
    if not largest:
        print("no groups to draw")
        return
    sheet = Image.new("RGB", (SIDE * COLUMNS, SIDE * len(largest)), "white")
    for top, (name, members) in enumerate(largest):
        members.sort(key=lambda member: -member[0])
        print(f"{name}: {len(members)} images, the least certain {members[-1][1].name} at {members[-1][0]:.2f}")
        for left, (_, path) in enumerate(members[:COLUMNS]):
            thumbnail = Image.open(path).convert("RGB").resize((SIDE - 2, SIDE - 2))
            sheet.paste(thumbnail, (SIDE * left, SIDE * top))
    sheet.save(result.results_dir / "groups.jpg", quality=80)
    print(result.results_dir / "groups.jpg")


if __name__ == "__main__":
    main(*sys.argv[1:])
