"""The README's path on images of one's own: minutes to a right answer, and what `unknown` costs beside what was stated.

    python benchmarks/first_hour.py --data DIR [--out DIR] [--sets grocery,marks,singles] [--minutes 10] [--seed 0]

Three sets, drawn by seed; none of them was used to choose a default:

    grocery   14 of the 60 classes that have photographs in `val`; train split enrolled, `val` asked
    marks     40 brands with 3 rendered images each enrolled, their other renderings asked
    singles   one photograph a class of 40 grocery classes enrolled, `val` asked

Strangers are images of classes that are not enrolled. The commands are those of the README, each in a process of its own with an
empty cache: check, gallery build with the pretrained network, identify, train, gallery build with the trained one, identify. A
right answer is an enrolled class's image that gets its class as label. With --minutes 0 nothing is trained. Appends a JSON line a
set to OUT/first_hour.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data_sources as sources
import numpy as np
from data_sets import Row, shuffle

from unalike.metrics.intervals import mean_interval
from unalike.recognition.gallery import Gallery

GROCERY_CLASSES, BRANDS, BRAND_IMAGES, SINGLES = 14, 40, 3, 40
Parts = tuple[list[Row], list[Row], list[Row]]


def split_grocery(data: Path, out: Path, seed: int) -> Parts:
    """Images to enroll, images of their classes to ask, strangers to ask."""
    later = sources.validation_rows(data / "grocery")
    chosen = set(shuffle((row[1] for row in later), seed)[:GROCERY_CLASSES])
    enrolled = [row for row in sources.grocery_rows(data / "grocery") if row[1] in chosen]
    return enrolled, [row for row in later if row[1] in chosen], [row for row in later if row[1] not in chosen]


def split_marks(data: Path, out: Path, seed: int) -> Parts:
    """Three renderings of each brand are enrolled."""
    images = sources.load_marks(out).fit
    rows = [(path, label, "") for path, label in zip(images.paths, images.label_names(), strict=True)]
    chosen = shuffle(images.classes, seed)
    parts: Parts = ([], [], [])
    for number, brand in enumerate(chosen[: 2 * BRANDS]):
        own = sorted(row for row in rows if row[1] == brand)
        if number < BRANDS:
            parts[0].extend(own[:BRAND_IMAGES])
            parts[1].extend(own[BRAND_IMAGES:])
        else:
            parts[2].extend(own[BRAND_IMAGES:])
    return parts


def split_singles(data: Path, out: Path, seed: int) -> Parts:
    """One photograph of the training split is enrolled for each class."""
    later = sources.validation_rows(data / "grocery")
    chosen = shuffle((row[1] for row in later), seed)[:SINGLES]
    rows = sources.grocery_rows(data / "grocery")
    enrolled = [min(row for row in rows if row[1] == name) for name in chosen]
    return enrolled, [row for row in later if row[1] in chosen], [row for row in later if row[1] not in chosen]


SETS = {"grocery": split_grocery, "marks": split_marks, "singles": split_singles}


def link(rows: Sequence[Row], folder: Path) -> Path:
    """A folder with a sub-folder a class, as a user has it."""
    for number, (path, label, _) in enumerate(rows):
        target = folder / label / f"{number:04d}{Path(path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def call(out: Path, *arguments: str) -> tuple[str, str]:
    """Run a command line; standard output and standard error."""
    environment = os.environ | {"UNALIKE_CACHE": str(out / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "unalike", *arguments],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        cwd=out,
    )
    if done.returncode:
        raise SystemExit(f"unalike {' '.join(arguments)}: exit {done.returncode}: {done.stderr[-500:]}")
    return done.stdout, done.stderr


def share(answers: Sequence[bool], labels: Sequence[str]) -> dict[str, Any]:
    """A share with its interval over classes like these."""
    codes = {label: code for code, label in enumerate(sorted(set(labels)))}
    interval = mean_interval(np.array(answers, float), np.array([codes[label] for label in labels]))
    return {"n": len(answers), "classes": len(codes), "share": round(sum(answers) / len(answers), 4),
            "interval": [round(float(interval.low), 4), round(float(interval.high), 4)]}  # fmt: skip


def ask(out: Path, gallery: str, known: Path, strangers: Path) -> dict[str, Any]:
    """What the gallery answers to images of enrolled classes and to strangers, beside what its calibration states."""
    figures: dict[str, Any] = {}
    for name, folder in (("enrolled", known), ("strangers", strangers)):
        rows = json.loads(call(out, "identify", gallery, str(folder), "--json")[0])["answers"]
        labels = [Path(row["path"]).parent.name for row in rows]
        unknown = [row["decision"] == "unknown" for row in rows]
        if name == "enrolled":
            figures["right"] = share([row["label"] == label for row, label in zip(rows, labels, strict=True)], labels)
            figures["right, nearest whatever the decision"] = share(
                [row["nearest"] == label for row, label in zip(rows, labels, strict=True)], labels
            )
            figures["enrolled called unknown"] = share(unknown, labels)
        else:
            figures["strangers taken for known"] = share([not answer for answer in unknown], labels)
    calibration = Gallery.load(out / gallery).calibration
    if calibration is not None:
        match = calibration.false_match
        figures["stated"] = {
            "provisional": calibration.provisional, "strangers taken for known": [match.rate, match.low, match.high, match.trials],
            "enrolled called unknown": calibration.refused_share(),
        }  # fmt: skip
    return figures


def walk(name: str, data: Path, out: Path, minutes: float, seed: int) -> dict[str, Any]:
    """The README's commands on one set."""
    folder = out / f"walk-{name}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    enrolled, known, strangers = SETS[name](data, out, seed)
    photographs, queries, others = (
        link(rows, folder / part)
        for rows, part in ((enrolled, "photographs"), (known, "new"), (strangers, "strangers"))
    )
    first = sorted(queries.rglob("*.*"))
    start = time.monotonic()
    call(folder, "check", str(photographs))
    call(folder, "gallery", "build", "first.gallery", str(photographs), "-m", "pretrained")
    right_after = None
    for image in first:  # one command an image, as somebody tries it
        row = json.loads(call(folder, "identify", "first.gallery", str(image), "--json")[0])["answers"][0]
        if row["label"] == image.parent.name:
            right_after = time.monotonic() - start
            break
    result: dict[str, Any] = {
        "set": name, "seed": seed, "images": len(enrolled), "classes": len({row[1] for row in enrolled}), "minutes": minutes,
        "seconds to the first right answer": right_after and round(right_after, 1),
        "pretrained": ask(folder, "first.gallery", queries, others),
    }  # fmt: skip
    if not minutes:
        return result
    start = time.monotonic()
    _, said = call(folder, "train", str(photographs), "--minutes", f"{minutes:g}")
    result["seconds of training"] = round(time.monotonic() - start, 1)
    call(folder, "gallery", "build", "shop.gallery", str(photographs), "-m", "runs/latest")
    row = json.loads(call(folder, "identify", "shop.gallery", str(first[0]), "--json")[0])["answers"][0]
    result["seconds to an answer of the trained network"] = round(time.monotonic() - start, 1)
    result["trained"] = ask(folder, "shop.gallery", queries, others)
    result["training said"] = [line for line in said.splitlines() if "R@1" in line][-3:]
    return result


def main() -> None:
    """Walk through each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/first_hour"))
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets.split(","):
        row = {"load": round(os.getloadavg()[0], 1)}
        row |= walk(name, arguments.data.resolve(), arguments.out.resolve(), arguments.minutes, arguments.seed)
        with (arguments.out / "first_hour.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
