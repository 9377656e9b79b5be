"""Series of photographs: linkage as scipy's, folds that divide no series, honest refusal of known images."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.numerics.normalization import l2_normalize
from unalike.recognition.calibration_trials import leave_image_out, leave_series_out
from unalike.recognition.gallery import Gallery
from unalike.recognition.series import assign_folds, average_linkage, rows_of


@pytest.mark.parametrize("seed", range(8))
def test_average_linkage_is_scipys(seed: int) -> None:
    from scipy.cluster.hierarchy import fcluster, linkage

    rng = np.random.default_rng(seed)
    unit_SD = l2_normalize(rng.normal(size=(40, 6)) + 2 * rng.normal(size=(5, 6))[rng.integers(0, 5, 40)])
    cosine_SS = unit_SD @ unit_SD.T
    merges = linkage(np.maximum(0, 1 - cosine_SS[np.triu_indices(40, 1)]), "average")
    expected = fcluster(merges, 1 - 0.4, "distance")
    ours = average_linkage(cosine_SS, 0.4)
    assert len(set(ours.tolist())) == len(set(expected.tolist())) == len(set(zip(ours.tolist(), expected, strict=True)))


def _in_series(
    classes: int = 12, series: int = 6, images: int = 5, seed: int = 0
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Vectors of classes whose photographs come in series; their labels, and the series of each."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, 1, 1, 32))
    places = 0.8 * rng.normal(size=(classes, series, 1, 32))
    vectors = centers + places + 0.1 * rng.normal(size=(classes, series, images, 32))
    labels = [f"class {c}" for c in range(classes) for _ in range(series * images)]
    return vectors.reshape(-1, 32).astype(np.float32), labels, np.repeat(np.arange(classes * series), images)


def test_no_series_is_divided() -> None:
    vectors_ND, labels, series_N = _in_series()
    gallery = Gallery(32)
    gallery.enrol(vectors_ND, labels)
    fold_N = assign_folds(gallery.snapshot, np.arange(len(labels)), 0.9)
    assert (fold_N >= 0).all() and len(set(fold_N.tolist())) == 4
    for series in np.unique(series_N):
        assert len(set(fold_N[series_N == series].tolist())) == 1
    assert (fold_N == assign_folds(gallery.snapshot, np.arange(len(labels)), 0.9)).all()


def test_known_images_are_compared_with_other_series() -> None:
    """The scores are like those of new series; without their own image alone they are those of near duplicates."""
    vectors_ND, labels, _ = _in_series(series=8)
    new = np.tile(np.arange(40) >= 35, 12)  # the last series of each class is not enrolled
    gallery = Gallery(32)
    gallery.enrol(vectors_ND[~new], [label for label, is_new in zip(labels, new, strict=True) if not is_new])
    scores = l2_normalize(vectors_ND[new]) @ l2_normalize(vectors_ND[~new]).T
    later = np.median(scores.max(axis=1))
    by_series = leave_series_out(gallery.snapshot, 5000, 0, "nearest", 10)
    by_image = leave_image_out(gallery.snapshot, 5000, 0, "nearest", 10)
    assert by_series is not None and by_image is not None
    assert abs(np.median(by_series.score_M) - later) < 0.1 < abs(np.median(by_image.score_M) - later)
    assert np.median(by_image.score_M) > 0.95


def test_classes_of_one_series_and_of_one_image() -> None:
    vectors_ND, labels, _ = _in_series(classes=4, series=1, images=4)
    gallery = Gallery(32)
    gallery.enrol(vectors_ND, labels)
    trials = leave_series_out(gallery.snapshot, 5000, 0, "nearest", 10)
    assert trials is not None and len(trials.score_M) >= 8
    single = Gallery(32)
    single.enrol(vectors_ND[::4], labels[::4])
    assert leave_series_out(single.snapshot, 5000, 0, "nearest", 10) is None
    part = rows_of(gallery.snapshot, np.array([0, 5]))
    assert len(part) == 2 and np.allclose(part.vectors(np.array([1])), gallery.snapshot.vectors(np.array([5])))
