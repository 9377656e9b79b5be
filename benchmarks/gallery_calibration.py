"""What a gallery's calibration accepts, and what then holds on unknown classes, in simulated galleries of known truth.

    python benchmarks/gallery_calibration.py [--galleries 200] [--seed 0]

Classes come in families, a tenth of them have a near twin, and each is shot in a few series of like images. A third of the
classes is enrolled; the others are the unknown ones. Then the gallery grows, and its threshold follows.
"""

from __future__ import annotations

import argparse

import numpy as np

from unalike.errors import DataError
from unalike.recognition.decision import GalleryCalibration, score_of
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_calibration import TOLERANCE, calibrate
from unalike.recognition.ranking import rank_classes

DIM = 64
# Classes, images of each, series of each, target rate.
SCENARIOS = (
    (8, 60, 2, 0.02), (10, 40, 2, 0.01), (20, 30, 2, 0.01), (40, 20, 2, 0.01), (8, 60, 2, 0.1), (20, 30, 2, 0.1), (20, 6, 6, 0.1),
    (40, 20, 2, 0.05), (100, 6, 2, 0.05), (200, 4, 2, 0.02),
)  # fmt: skip
GROWTH = ((60, 8, 4, 0.1), (100, 6, 2, 0.05))


def draw_world(rng: np.random.Generator, classes: int, images: int, series: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (N, D) of all classes, and the class of each."""
    families = rng.normal(size=(max(1, classes // 8), DIM))
    centers = rng.normal(size=(classes, DIM)) + 0.8 * families[rng.integers(0, len(families), classes)]
    for i in range(classes // 20):
        centers[2 * i + 1] = centers[2 * i] + 0.25 * rng.normal(size=DIM)
    shots = centers[:, None] + 0.8 * rng.normal(size=(classes, series, DIM))
    vectors = shots[:, np.arange(images) % series] + 0.15 * rng.normal(size=(classes, images, DIM))
    return vectors.reshape(-1, DIM), np.repeat(np.arange(classes), images)


def enroll(gallery: Gallery, vectors_ND: np.ndarray, label_N: np.ndarray, classes: np.ndarray) -> None:
    """Enroll the images of these classes."""
    chosen_N = np.isin(label_N, classes)
    gallery.enrol(vectors_ND[chosen_N], [str(label) for label in label_N[chosen_N]])


def find_scores(gallery: Gallery, vectors_QD: np.ndarray, calibration: GalleryCalibration) -> np.ndarray:
    """What the threshold is compared with, of each query."""
    ranking = rank_classes(gallery.snapshot, vectors_QD, calibration.rule, calibration.k)
    return score_of(ranking.score_Q, ranking.margin_Q, calibration.second_weight)


def measure(scenario: tuple[int, int, int, float], galleries: int, seed: int) -> str:
    """A row of the table: what was refused, and what was true of the rest."""
    classes, images, series, rate = scenario
    truths, covered = [], 0
    for number in range(galleries):
        rng = np.random.default_rng([seed, number])
        vectors_ND, label_N = draw_world(rng, 3 * classes, images, series)
        order = rng.permutation(3 * classes)
        gallery = Gallery(DIM)
        enroll(gallery, vectors_ND, label_N, order[:classes])
        try:
            calibration = calibrate(gallery, rate)
        except DataError:
            continue
        unknown_N = np.isin(label_N, order[classes:])
        truths.append(float(np.mean(find_scores(gallery, vectors_ND[unknown_N], calibration) >= calibration.threshold)))
        covered += calibration.false_match.low <= truths[-1] <= calibration.false_match.high
    above = sum(truth > TOLERANCE * rate for truth in truths)
    inside = f"{covered / len(truths):.2f}" if truths else ""
    median = f"{np.median(truths) / rate:.2f}" if truths else ""
    return (f"| {classes} x {images}, {series} series | {rate:g} | {1 - len(truths) / galleries:.2f} | "
            f"{1 - above / galleries:.3f} | {inside} | {median} |")  # fmt: skip


def measure_growth(scenario: tuple[int, int, int, float], galleries: int, seed: int) -> str:
    """Mean true rate, in units of the target, of the old and of the adapted threshold as the gallery grows."""
    classes, images, series, rate = scenario
    rows = []
    for number in range(galleries):
        rng = np.random.default_rng([seed, 1, number])
        vectors_ND, label_N = draw_world(rng, 8 * classes, images, series)
        order = rng.permutation(8 * classes)
        unknown_N = np.isin(label_N, order[4 * classes :])
        gallery = Gallery(DIM)
        enroll(gallery, vectors_ND, label_N, order[:classes])
        try:
            calibration = calibrate(gallery, rate)
        except DataError:
            continue
        row = []
        for old, size in ((0, 1), (1, 2), (2, 4)):
            if old:
                enroll(gallery, vectors_ND, label_N, order[old * classes : size * classes])
            scores = find_scores(gallery, vectors_ND[unknown_N], calibration)
            threshold = calibration.threshold_for(len(gallery), size * classes)
            row += [np.mean(scores >= calibration.threshold) / rate, np.mean(scores >= threshold) / rate]
        rows.append(row)
    means = " | ".join(f"{old:.2f}, {new:.2f}" for old, new in np.mean(rows, axis=0).reshape(-1, 2))
    return f"| {classes} x {images}, {series} series | {rate:g} | {len(rows)} | {means} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--galleries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        "| gallery | rate | refused | refused or at most 1.5 x the rate | of the accepted in the interval | median of true rate / rate |"
    )
    print("|---|---|---|---|---|---|")
    for scenario in SCENARIOS:
        print(measure(scenario, arguments.galleries, arguments.seed), flush=True)
    print("\n| gallery | rate | galleries | same size: old, adapted threshold | doubled | fourfold |")
    print("|---|---|---|---|---|---|")
    for scenario in GROWTH:
        print(measure_growth(scenario, max(1, arguments.galleries // 8), arguments.seed), flush=True)


if __name__ == "__main__":
    main()
