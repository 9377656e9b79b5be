"""Defects of printed boards by comparing each with its template: DeepPCB, one setting for all groups, no training.

    python benchmarks/deeppcb.py --data DIR [--half even|odd|all] [--groups NAME,...] [--limit N] [--out FILE.json] [SETTING=VALUE...]

DIR holds the groups (group12300/12300/*_temp.jpg and *_test.jpg, group12300/12300_not/*.txt with "x1 y1 x2 y2 type"). A box
is right when it overlaps an annotated one by IoU 0.33 or more; each annotation is found at most once, boxes taken by score;
all others are false. The defaults of ``unalike compare`` were chosen on the even half of the pairs in order of name.
Settings are those of ``unalike.Comparer``, such as tolerance=2. Time is of ``Comparer.compare`` on decoded pictures.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import yaml

import unalike
from unalike.data.decode import decode
from unalike.metrics.intervals import wilson
from unalike.progress import progress

TYPES = {1: "open", 2: "short", 3: "mousebite", 4: "spur", 5: "copper", 6: "pin-hole"}
IOU = 0.33


def overlaps(boxes_N4: np.ndarray, others_M4: np.ndarray) -> np.ndarray:
    """IoU of every pair of boxes (left, top, right, bottom), (N, M)."""
    low = np.maximum(boxes_N4[:, None, :2], others_M4[None, :, :2])
    high = np.minimum(boxes_N4[:, None, 2:], others_M4[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes_N4, others_M4)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def found_of(boxes_N4: np.ndarray, truth_M4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bool (M,) which annotations were found, bool (N,) which boxes found one); boxes in order of falling score."""
    hit, right = np.zeros(len(truth_M4), bool), np.zeros(len(boxes_N4), bool)
    if len(boxes_N4) and len(truth_M4):
        for n, row in enumerate(overlaps(boxes_N4.astype(float), truth_M4.astype(float))):
            free = np.where(hit, -1, row)
            if free.max() >= IOU:
                hit[free.argmax()] = right[n] = True
    return hit, right


def pairs_of(data: Path, groups: Sequence[str], half: str) -> list[tuple[str, Path]]:
    """(group, template) of the wanted half, by order of name within its group."""
    found = []
    for folder in sorted(data.glob("group*")):
        templates = sorted(folder.glob("*/*_temp.jpg"))
        if not groups or folder.name.removeprefix("group") in groups:
            keep = {"even": templates[::2], "odd": templates[1::2], "all": templates}[half]
            found += [(folder.name, path) for path in keep]
    return found


def annotated(template: Path) -> np.ndarray:
    """int (M, 5): left, top, right, bottom, type."""
    place = template.parent.with_name(template.parent.name + "_not") / template.name.replace("_temp.jpg", ".txt")
    rows = [[int(v) for v in line.replace(",", " ").split()] for line in place.read_text().splitlines() if line.strip()]
    return np.array(rows, int).reshape(-1, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=("even", "odd", "all"), default="odd")
    parser.add_argument("--groups", default="")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    told = parser.parse_args()
    settings = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in told.settings)}
    comparer = unalike.Comparer(**settings)
    pairs = pairs_of(told.data, [g for g in told.groups.split(",") if g], told.half)
    if told.limit:
        pairs = pairs[:: max(1, len(pairs) // told.limit)]
    every: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    false: dict[str, list[int]] = {}
    seconds, misses, extra = [], [], []
    with progress("comparing", len(pairs), "pairs") as advance:
        for group, template in pairs:
            truth = annotated(template)
            board = template.with_name(template.name.replace("_temp", "_test"))
            found = comparer.compare(decode(template), decode(board))
            seconds.append(found.seconds)
            boxes = np.array([region.box for region in found.regions], int).reshape(-1, 4)
            hit, right = found_of(boxes, truth[:, :4])
            false.setdefault(group, []).append(int((~right).sum()))
            for row, was in zip(truth, hit, strict=True):
                for key in ("all", group, TYPES[int(row[4])]):
                    every[key] += 1
                    hits[key] += int(was)
                if not was:
                    misses.append([board.name, *row.tolist()])
            extra += [[board.name, *boxes[n].tolist(), found.regions[n].score] for n in np.nonzero(~right)[0]]
            advance()
    print(f"{date.today()}  {len(pairs)} pairs, half {told.half}, settings {settings or 'default'}")
    for key in ("all", *sorted(false), *TYPES.values()):
        if every[key]:
            sure = wilson(hits[key], every[key])
            count = [n for counts in false.values() for n in counts] if key == "all" else false.get(key)
            rest = f"   false boxes an image {np.mean(count):.3f}" if count is not None else ""
            share = hits[key] / every[key]
            print(
                f"{key:12} found {hits[key]:5d} of {every[key]:5d}  {share:.4f} ({sure.low:.4f} to {sure.high:.4f}){rest}"
            )
    times = np.array(seconds) * 1000
    print(
        f"milliseconds a pair: median {np.median(times):.0f}, 5 % {np.percentile(times, 5):.0f}, 95 % {np.percentile(times, 95):.0f}"
    )
    if told.out:
        told.out.write_text(json.dumps({"missed": misses, "false": extra}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
