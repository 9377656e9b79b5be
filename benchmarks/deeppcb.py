"""Defects of printed circuit boards (DeepPCB) found by comparison with the template; one setting, no training.

    python benchmarks/deeppcb.py --data DIR [--half even|odd|all] [--groups NAME,...] [--limit N] [--out FILE.json] [SETTING=VALUE...]

DIR holds the groups (group12300/12300/*_temp.jpg and *_test.jpg, group12300/12300_not/*.txt with "x1 y1 x2 y2 type"). A box
is a true positive if it overlaps an annotated one by IoU 0.33 or more; boxes are matched by falling score, each annotation at
most once; all others are false positives. The defaults of ``unalike compare`` were chosen on the even half of the pairs in
order of name. Settings are those of ``unalike.Comparer``, such as tolerance=2. Times are of ``Comparer.compare`` on decoded
images.
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
from unalike.metrics.intervals import wilson_interval
from unalike.progress import progress

TYPES = {1: "open", 2: "short", 3: "mousebite", 4: "spur", 5: "copper", 6: "pin-hole"}
MIN_IOU = 0.33


def compute_iou(boxes_N4: np.ndarray, others_M4: np.ndarray) -> np.ndarray:
    """IoU of every pair of boxes (left, top, right, bottom), (N, M)."""
    low = np.maximum(boxes_N4[:, None, :2], others_M4[None, :, :2])
    high = np.minimum(boxes_N4[:, None, 2:], others_M4[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes_N4, others_M4)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def match_boxes(boxes_N4: np.ndarray, truth_M4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bool (M,) which annotations are matched, bool (N,) which boxes match one); boxes in order of falling score."""
    detected, correct = np.zeros(len(truth_M4), bool), np.zeros(len(boxes_N4), bool)
    if len(boxes_N4) and len(truth_M4):
        for n, row in enumerate(compute_iou(boxes_N4.astype(float), truth_M4.astype(float))):
            free = np.where(detected, -1, row)
            if free.max() >= MIN_IOU:
                detected[free.argmax()] = correct[n] = True
    return detected, correct


def find_templates(data: Path, groups: Sequence[str], half: str) -> list[tuple[str, Path]]:
    """Return (group, template) of one half, in the order of names within each group."""
    pairs = []
    for folder in sorted(data.glob("group*")):
        templates = [path for path in sorted(folder.glob("*/*_temp.jpg")) if annotation_file(path).is_file()]
        if not groups or folder.name.removeprefix("group") in groups:
            selected = {"even": templates[::2], "odd": templates[1::2], "all": templates}[half]
            pairs += [(folder.name, path) for path in selected]
    return pairs


def annotation_file(template: Path) -> Path:
    """Path of a template's annotations; one template of the published set has none."""
    return template.parent.with_name(template.parent.name + "_not") / template.name.replace("_temp.jpg", ".txt")


def read_annotations(template: Path) -> np.ndarray:
    """int (M, 5): left, top, right, bottom, type."""
    lines = annotation_file(template).read_text().splitlines()
    rows = [[int(v) for v in line.replace(",", " ").split()] for line in lines if line.strip()]
    return np.array(rows, int).reshape(-1, 5)


def print_rates(
    truths: Counter[str], hits: Counter[str], false_boxes: dict[str, list[int]], seconds: Sequence[float]
) -> None:
    """Print detection rates and false boxes, of all boards, by group and by type, and times."""
    for key in ("all", *sorted(false_boxes), *TYPES.values()):
        if truths[key]:
            interval = wilson_interval(hits[key], truths[key])
            counts = [n for group in false_boxes.values() for n in group] if key == "all" else false_boxes.get(key)
            note = f"   false boxes an image {np.mean(counts):.3f}" if counts is not None else ""
            rate, low, high = hits[key] / truths[key], interval.low, interval.high
            print(f"{key:12} found {hits[key]:5d} of {truths[key]:5d}  {rate:.4f} ({low:.4f} to {high:.4f}){note}")
    median, low, high = np.percentile(np.array(seconds) * 1000, (50, 5, 95))
    print(f"milliseconds a pair: median {median:.0f}, 5 % {low:.0f}, 95 % {high:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=("even", "odd", "all"), default="odd")
    parser.add_argument("--groups", default="")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    options = parser.parse_args()
    settings = {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in options.settings)}
    comparer = unalike.Comparer(**settings)
    pairs = find_templates(options.data, [g for g in options.groups.split(",") if g], options.half)
    if options.limit:
        pairs = pairs[:: max(1, len(pairs) // options.limit)]
    truths: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    false_boxes: dict[str, list[int]] = {}
    seconds, missed, false = [], [], []
    with progress("comparing", len(pairs), "pairs") as advance:
        for group, template in pairs:
            annotations = read_annotations(template)
            board = template.with_name(template.name.replace("_temp", "_test"))
            result = comparer.compare(decode(template), decode(board))
            seconds.append(result.seconds)
            boxes = np.array([region.box for region in result.regions], int).reshape(-1, 4)
            detected, correct = match_boxes(boxes, annotations[:, :4])
            false_boxes.setdefault(group, []).append(int((~correct).sum()))
            for row, is_detected in zip(annotations, detected, strict=True):
                for key in ("all", group, TYPES[int(row[4])]):
                    truths[key] += 1
                    hits[key] += int(is_detected)
                if not is_detected:
                    missed.append([board.name, *row.tolist()])
            false += [[board.name, *boxes[n].tolist(), result.regions[n].score] for n in np.nonzero(~correct)[0]]
            advance()
    print(f"{date.today()}  {len(pairs)} pairs, half {options.half}, settings {settings or 'default'}")
    print_rates(truths, hits, false_boxes, seconds)
    if options.out:
        options.out.write_text(json.dumps({"missed": missed, "false": false}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
