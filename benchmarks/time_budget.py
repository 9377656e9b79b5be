"""Seconds that `unalike train --minutes M` takes on sets of N images, from the start of the process to its end.

    python benchmarks/time_budget.py --data DIR [--out DIR] [--counts 20,300,3000,30000,100000] [--minutes 1,2]
                                     [--ways labels,no-labels,singles,search,plain]

The sets are crops of photographs (any folder of class folders), encoded again as JPEG with the seed. Beyond CROPS the crops come
again, with a comment in the file: every file has a content of its own. The largest set is made once; smaller ones are hard links into it, so that all take the space of one (about 18 KB an
image). Ways: with labels, without, one image a class, the search by trials, and plain training to a time limit. The cache of
features is empty at every start. Each finished run appends a JSON line to OUT/time_budget.jsonl; runs in that file are not
repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png"}
CROP_SHARE, QUALITY, SIDE = (0.6, 1.0), (70, 92), (256, 348)
CROPS = 15_000
COMMENT = b"\xff\xfe"  # marker of a comment in a JPEG file, after the two bytes of its start
IMAGES_PER_CLASS = 5  # of small sets, which have fewer classes
WAYS = {
    "labels": [],
    "no-labels": ["--no-labels"],
    "singles": [],
    "search": ["model.pretrained=false", "model.backbone=resnet18", "model.input_height=64", "model.input_width=64"],
}  # fmt: skip


def photographs(data: Path) -> dict[str, list[Path]]:
    """Photographs by class, the name of their folder."""
    classes: dict[str, list[Path]] = {}
    for path in sorted(data.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            classes.setdefault(path.parent.name, []).append(path)
    return classes


def make_images(classes: dict[str, list[Path]], folder: Path, count: int, seed: int) -> None:
    """Write ``count`` images, image by image in turn of the classes: FOLDER/CLASS/NUMBER.jpg."""
    names = sorted(classes)
    crops = CROPS // len(names) * len(names)  # copies stay in the class of their crop

    def write(number: int) -> None:
        name = names[number % len(names)]
        target = folder / name / f"{number:06d}.jpg"
        if target.exists():
            return
        if number >= crops:
            first = number % crops
            content = (folder / names[first % len(names)] / f"{first:06d}.jpg").read_bytes()
            text = str(number).encode()
            target.write_bytes(content[:2] + COMMENT + (len(text) + 2).to_bytes(2, "big") + text + content[2:])
            return
        draw = random.Random(f"{seed} {number}")
        with Image.open(draw.choice(classes[name])) as opened:
            image = opened.convert("RGB")
        side = int(draw.uniform(*CROP_SHARE) * min(image.size))
        left, top = draw.randint(0, image.width - side), draw.randint(0, image.height - side)
        size = draw.randint(*SIDE)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        image.save(target, quality=draw.randint(*QUALITY))

    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(min(count, crops))))
        list(pool.map(write, range(crops, count)))


def link_set(images: Path, folder: Path, count: int, way: str) -> Path:
    """Make a set of the first ``count`` images by hard links: of all classes, or each image in a class of its own."""
    if folder.exists():
        return folder
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    names = sorted(path.name for path in images.iterdir())
    used = max(2, min(len(names), count // IMAGES_PER_CLASS))
    for number in range(count):
        turn, place = divmod(number, used)
        source = images / names[place] / f"{turn * len(names) + place:06d}.jpg"
        target = partial / (f"{number:06d}" if way == "singles" else names[place]) / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    partial.rename(folder)
    return folder


def run(images: Path, way: str, minutes: float, out: Path) -> dict[str, object]:
    """Train once in a process of its own, and measure it from outside."""
    results = out / "run"
    shutil.rmtree(results, ignore_errors=True)
    environment = os.environ | {"UNALIKE_CACHE": str(results / "cache")}
    command = [
        sys.executable,
        "-m",
        "unalike",
        "train",
        str(images),
        "-r",
        str(results),
        "--minutes",
        f"{minutes:g}",
        *WAYS[way],
    ]
    load, start = os.getloadavg()[0], time.monotonic()
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - start
    (out / "last.log").write_text(done.stderr)
    record = next((json.loads(p.read_text()) for p in (results / "train").glob("*.json")
                   if p.name in ("automatic.json", "unlabelled.json")), {})  # fmt: skip
    return {
        "seconds": round(seconds, 1), "share": round(seconds / 60 / minutes, 3), "exit": done.returncode,
        "load": [round(load, 1), round(os.getloadavg()[0], 1)], "chosen": record.get("chosen"),
        "used": record.get("images_used"), "log": done.stderr.splitlines()[-1:],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/time_budget"))
    parser.add_argument("--counts", default="20,300,3000,30000,100000")
    parser.add_argument("--minutes", default="1,2")
    parser.add_argument("--ways", default="labels", help=",".join(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.counts.split(",")]
    rows_file = arguments.out / "time_budget.jsonl"
    classes, images = photographs(arguments.data), arguments.out / "images"
    make_images(classes, images, -(-max(counts) // len(classes)) * len(classes), arguments.seed)
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.exists() else []
    finished = {(row["way"], row["count"], row["minutes"]) for row in rows}
    for way in arguments.ways.split(","):
        for count in counts:
            name = f"singles-{count}" if way == "singles" else f"images-{count}"
            folder = link_set(images, arguments.out / name, count, way)
            for minutes in map(float, arguments.minutes.split(",")):
                if (way, count, minutes) in finished:
                    continue
                row = {"way": way, "count": count, "minutes": minutes, **run(folder, way, minutes, arguments.out)}
                with rows_file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
