"""What a gallery's calibration accepts, and what then holds on strangers: photographs, many random choices of classes.

    python benchmarks/gallery_photographs.py --data DIR [--sets grocery-by-class,coins,marks] [--backbone tf_efficientnet_lite0]
        [--split development] [--checkpoint FILE] [--draws 200] [--rates 0.01,0.02,0.05,0.1] [--enrolled 0.5] [--strangers gallery|images] [--out DIR]

Images are those of the parts fit and development (or report) of `suite.py`. In every draw a share of the classes is enrolled and the
gallery is calibrated; images of the other classes are the strangers, and their share above the threshold is the true rate. Of
every enrolled class one series (scene, photographs of the same coins; of `marks` a quarter of the images) is not enrolled:
these are the known images of which a share is refused. With `--strangers images` a third of the other classes calibrates, and
the rest is tested. With `--checkpoint` of a network that was trained on the set's `fit` part, classes of that part are
enrolled and the others are strangers, as users do who enroll what they trained on.

A draw is good where calibration is refused or the true rate is at most 1.5 x the target. Draws share their classes: their
intervals tell how exact the simulation is, not what holds on other photographs. Shape letters: N images, D dimensions.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from data_sets import RecognitionSet
from gallery_calibration import find_scores
from suite import load_suite
from unlabeled import frozen_vectors

import unalike
from unalike.errors import DataError
from unalike.metrics.intervals import wilson_interval
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import TOLERANCE, calibrate

# Share of the images of a class that are not enrolled where the class is one series.
KNOWN_SHARE = 0.25


@dataclass(frozen=True)
class Images:
    """Vectors (N, D) of images, with class, series, and whether the image may have been trained on."""

    vectors_ND: np.ndarray
    label_N: np.ndarray
    group_N: np.ndarray
    fit_N: np.ndarray


def embed_set(data_set: RecognitionSet, split: str, backbone: str, checkpoint: Path | None, out: Path) -> Images:
    """Vectors of the images to fit on and of a split, computed once a network."""
    rows: dict[str, tuple[str, str, bool]] = {}
    for name, part in data_set.parts().items():
        if name.split()[0] in ("fit", split):
            for path, label, group in zip(part.paths, part.label_names(), part.groups or (), strict=True):
                rows.setdefault(str(path.resolve()), (label, group, name == "fit"))
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / f"{data_set.name}-{split}.csv"
    manifest.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, (label, *_) in rows.items()))
    file = out / f"{data_set.name}-{split}-{checkpoint.parent.name if checkpoint else backbone}.npz"
    if not file.exists() and checkpoint is None:
        frozen_vectors(manifest, file, backbone)
    elif not file.exists():
        unalike.embed(manifest, file, checkpoint=checkpoint)
    with np.load(file) as content:
        vectors_ND = l2_normalize(content["vectors"])
    return Images(vectors_ND, *(np.array(column) for column in zip(*rows.values(), strict=True)))


def hold_out_known(images: Images, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which of the rows, all of enrolled classes, are not enrolled: a series of every class that has two or more."""
    held = np.zeros(len(rows), bool)
    for label in np.unique(images.label_N[rows]):
        own = np.flatnonzero(images.label_N[rows] == label)
        groups = np.unique(images.group_N[rows[own]])
        if len(groups) > 1:
            held[own[images.group_N[rows[own]] == rng.choice(groups)]] = True
        else:
            held[rng.permutation(own)[: round(KNOWN_SHARE * len(own))]] = True
    return held


def choose_classes(
    images: Images, enrolled: float, trained: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Classes to enroll, and strangers, in random order."""
    names = np.unique(images.label_N)
    if trained:
        fitted = np.unique(images.label_N[images.fit_N])
        order = rng.permutation(fitted)
        return order[: round(enrolled * len(order))], rng.permutation(np.setdiff1d(names, fitted))
    order = rng.permutation(names)
    count = round(enrolled * len(names))
    return order[:count], order[count:]


def measure_draw(
    images: Images, rates: Sequence[float], options: argparse.Namespace, draw: int
) -> list[dict[str, float]]:
    """A row for each rate: whether it was refused, and what was true."""
    rng = np.random.default_rng([options.seed, draw])
    chosen, strangers = choose_classes(images, options.enrolled, options.checkpoint is not None, rng)
    rows = np.flatnonzero(np.isin(images.label_N, chosen))
    held = hold_out_known(images, rows, rng)
    gallery = Gallery(images.vectors_ND.shape[1])
    gallery.enrol(images.vectors_ND[rows[~held]], images.label_N[rows[~held]].tolist())
    further = None
    if options.strangers == "images":
        third, strangers = strangers[: len(strangers) // 3], strangers[len(strangers) // 3 :]
        own_N = np.isin(images.label_N, third)
        further = (images.vectors_ND[own_N], images.label_N[own_N].tolist())
    stranger_ND, known_ND = images.vectors_ND[np.isin(images.label_N, strangers)], images.vectors_ND[rows[held]]
    results = []
    for rate in rates:
        try:
            calibration = calibrate(gallery, rate, images=further)
        except DataError as error:
            offered = re.search(r"ask for a rate of ([0-9.]+[0-9])", str(error))
            results.append({"rate": rate, "refused": 1.0, "offered": float(offered[1]) if offered else 1.0})
            continue
        score_N, known_N = (find_scores(gallery, vectors_ND, calibration) for vectors_ND in (stranger_ND, known_ND))
        true, guarantee = float(np.mean(score_N >= calibration.threshold)), calibration.false_match
        results.append({
            "rate": rate, "refused": 0.0, "true": true, "low": guarantee.low, "high": guarantee.high,
            "known_refused": float(np.mean(known_N < calibration.threshold)),
        })  # fmt: skip
    return results


def summarize(rows: Sequence[dict[str, float]]) -> dict[str, object]:
    """The figures of one rate over all draws."""
    rate, count = rows[0]["rate"], len(rows)
    accepted = [row for row in rows if not row["refused"]]
    summary: dict[str, object] = {"rate": rate, "draws": count, "refused": round(1 - len(accepted) / count, 3)}
    above = sum(row["true"] > TOLERANCE * rate for row in accepted)
    summary["refused or at most 1.5 x"] = share(count - above, count)
    if len(accepted) < count:
        summary["rate offered, median"] = float(np.median([row["offered"] for row in rows if row["refused"]]))
    if accepted:
        inside = sum(row["low"] <= row["true"] <= row["high"] for row in accepted)
        summary |= {
            "accepted: at most 1.5 x": share(len(accepted) - above, len(accepted)),
            "accepted: in the interval": share(inside, len(accepted)),
            "true / rate, median": round(float(np.median([row["true"] for row in accepted])) / rate, 2),
            "true / rate, greatest": round(max(row["true"] for row in accepted) / rate, 2),
            "upper end / rate, median": round(float(np.median([row["high"] for row in accepted])) / rate, 2),
            "known images refused": round(float(np.mean([row["known_refused"] for row in accepted])), 3),
        }
    return summary


def share(count: int, total: int) -> str:
    """A share with its interval."""
    interval = wilson_interval(count, total)
    return f"{count}/{total} = {count / total:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def main() -> None:
    """Print a summary a set and rate, and append it to OUT/gallery_photographs.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/suite"), help="folder for rendered images")
    parser.add_argument("--sets", default="grocery-by-class,coins,marks")
    parser.add_argument("--split", choices=("development", "report"), default="development")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--checkpoint", type=Path, help="network that was trained on the set's fit part")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--rates", default="0.01,0.02,0.05,0.1")
    parser.add_argument("--enrolled", type=float, default=0.5, help="share of the classes that are enrolled")
    parser.add_argument(
        "--strangers", choices=("gallery", "images"), default="gallery", help="what calibration takes for unknown"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/gallery_photographs"))
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    sets, missing = load_suite(options.data, options.cache, options.sets.split(","))
    for name, reason in missing.items():
        print(f"{name}: left out, {reason}")
    for name, data_set in sets.items():
        assert isinstance(data_set, RecognitionSet)
        images = embed_set(data_set, options.split, options.backbone, options.checkpoint, options.out)
        by_rate = defaultdict(list)
        for draw in range(options.draws):
            for row in measure_draw(images, [float(rate) for rate in options.rates.split(",")], options, draw):
                by_rate[row["rate"]].append(row)
        for rows in by_rate.values():
            record = {
                "date": date.today().isoformat(), "set": name, "split": options.split, "classes": len(np.unique(images.label_N)), "images": len(images.label_N),
                "network": options.checkpoint.parent.name if options.checkpoint else f"frozen {options.backbone}",
                "enrolled": options.enrolled, "strangers": options.strangers, "seed": options.seed, **summarize(rows),
            }  # fmt: skip
            print(json.dumps(record), flush=True)
            with (options.out / "gallery_photographs.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
