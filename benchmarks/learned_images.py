"""Inspection before and after it learns a few good images of another condition, beside a fit with all images.

    python benchmarks/learned_images.py --data DIR [--only cookies,screws] [--condition weave=0.1] [--learn 5] [--rate 0.05] [--seeds 3]

DIR as in `suite.py`. The condition is drawn: every value multiplied (brightness=0.8), Gaussian noise (noise=20, its standard
deviation), or a fine weave of 12 pixels in the surface (weave=0.1, its contrast). An inspector is fitted to the published good
images; `--learn` good images of the development split, of as many series where there are so many, are shown in the condition and
learned. The report split is inspected as it is and in the condition, at the stated rate of false alarms. Seeds draw the images to learn and
seed the inspectors. Reported: false alarms and defects found with Clopper-Pearson intervals of the first seed, image AUROC, all
seeds, seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from data_sets import GOOD, InspectionSet
from PIL import Image
from suite import load_suite

from unalike.data.decode import open_image
from unalike.data.imageset import ImageSet
from unalike.inference.feature_map_model import load_feature_maps
from unalike.inspection.anomaly_model import AnomalyModelConfig
from unalike.inspection.inspector import Inspector
from unalike.inspection.learned_images import learn_images
from unalike.metrics.intervals import clopper_pearson
from unalike.metrics.roc import auroc


def _weave(image_HWC: np.ndarray, contrast: float, _: np.random.Generator) -> np.ndarray:
    rows_HW, columns_HW = np.indices(image_HWC.shape[:2])
    weave_HW = np.sin(2 * np.pi * columns_HW / WEAVE_PIXELS) * np.sin(2 * np.pi * rows_HW / WEAVE_PIXELS)
    return np.asarray(image_HWC * (1 + contrast * weave_HW[..., None]))


WEAVE_PIXELS = 12
CONDITIONS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "brightness": lambda image_HWC, factor, _: image_HWC * factor,
    "noise": lambda image_HWC, deviation, rng: image_HWC + rng.normal(0, deviation, image_HWC.shape),
    "weave": _weave,
}


def change(paths: Sequence[Path], condition: str) -> list[Image.Image]:
    """The images in a condition, NAME=NUMBER."""
    name, _, number = condition.partition("=")
    rng = np.random.default_rng(0)
    images = (CONDITIONS[name](np.asarray(open_image(path), np.float32), float(number), rng) for path in paths)
    return [Image.fromarray(image_HWC.round().clip(0, 255).astype(np.uint8)) for image_HWC in images]


def choose(images: ImageSet, count: int, seed: int) -> list[Path]:
    """Good images, one of each series as far as there are series enough."""
    order = np.random.default_rng(seed).permutation(len(images))
    labels, groups = images.label_names(), images.groups or [str(path) for path in images.paths]
    good = [index for index in order if labels[index] == GOOD]
    first = {groups[index]: index for index in reversed(good)}
    chosen = [*first.values(), *(index for index in good if index not in first.values())]
    return [Path(images.paths[index]) for index in chosen[:count]]


def split_scores(
    inspector: Inspector, images: Sequence[Path | Image.Image], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the good and of the defective images."""
    scores = np.array([inspector.inspect(image).score for image in images])
    is_good = np.array([label == GOOD for label in labels])
    return scores[is_good], scores[~is_good]


def measure(data: InspectionSet, condition: str, count: int, rate: float, seeds: int) -> None:
    """Print a line for each inspector, condition and seed."""
    network = load_feature_maps("pretrained", vector=False, precision="fp32", threads=1)
    report, labels = [Path(path) for path in data.report.paths], data.report.label_names()
    changed = change(report, condition)
    fit_paths = [str(path) for path in data.fit.paths]
    for seed in range(seeds):
        config = AnomalyModelConfig(seed=seed)
        learned_paths = choose(data.development, count, seed)
        further = change(learned_paths, condition)
        groups = list(data.fit.groups or fit_paths)
        groups = groups if len(set(groups)) > 1 else fit_paths  # one series: each photograph shows another part
        start = time.process_time()
        before = Inspector.fit(fit_paths, model=network, rate=rate, parts=groups, config=config)
        fitted = time.process_time()
        result = learn_images(before, further)
        after = result.inspector
        learned = time.process_time()
        parts = [*groups, *(f"further {number}" for number in range(count))]
        together = Inspector.fit([*fit_paths, *further], model=network, rate=rate, parts=parts, config=config)
        refitted = time.process_time()
        print(f"{data.name} seed {seed}: fit {len(fit_paths)} {fitted - start:.1f} s, learn {count} {learned - fitted:.1f} s, "
              f"fit {len(parts)} {refitted - learned:.1f} s; memory {len(before.model.memory)}, {len(after.model.memory)}")  # fmt: skip
        for name, inspector in (("before", before), ("learned", after), ("fit with all", together)):
            assert inspector.threshold is not None
            print(f"  {name}: {inspector.threshold}")
            if name == "learned":
                print(f"    of the images to learn: {result.before} above before, {result.after} after, {result.held_out} held out, "
                      f"expected {result.expected_rate:.1%} ({result.low:.1%} to {result.high:.1%}), unlike {result.unlike}")  # fmt: skip
            for shown, images in (("as fitted", report), (condition, changed)):
                good, defective = split_scores(inspector, images, labels)
                limit = inspector.threshold.threshold
                rates = [
                    f"{(scores > limit).sum()}/{len(scores)} ({interval.low:.1%} to {interval.high:.1%})"
                    for scores in (good, defective)
                    for interval in [clopper_pearson(int((scores > limit).sum()), len(scores))]
                ]
                print(f"    {shown}: false alarms {rates[0]}, found {rates[1]}, AUROC {auroc(defective, good):.4f}, "
                      f"median good score {np.median(good):.3f}, defective {np.median(defective):.3f}", flush=True)  # fmt: skip


def main() -> None:
    """Measure the sets that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the sources")
    parser.add_argument("--only", default="cookies,screws", help="names of sets, comma-separated")
    parser.add_argument("--condition", default="weave=0.1", help="NAME=NUMBER")
    parser.add_argument("--learn", type=int, default=5, help="number of images to learn")
    parser.add_argument("--rate", type=float, default=0.05, help="stated rate of false alarms")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    sets, missing = load_suite(options.data, Path("runs/suite"), options.only.split(","))
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}")
    for data in sets.values():
        assert isinstance(data, InspectionSet)
        measure(data, options.condition, options.learn, options.rate, options.seeds)


if __name__ == "__main__":
    main()
