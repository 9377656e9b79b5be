"""The threshold of a new gallery: a promised rate where there is one with few refusals, else one that known images set."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.augmented_views import augmented_views
from unalike.recognition.calibration_trials import KnownTrials, collect_trials
from unalike.recognition.decision import GalleryCalibration
from unalike.recognition.gallery import Gallery
from unalike.recognition.operating_point import RATES, _lower_quantile, choose_threshold, cost_curve
from unalike.recognition.ranking import rank_classes
from unalike.recognition.report import describe_costs
from unalike.recognition.training_trials import trained_share, trials_from_training


def gallery_of(classes: int, images: int, spread: float, seed: int = 0) -> tuple[Gallery, np.ndarray]:
    """A gallery of drawn classes, and one new vector of each class."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(classes, 1, 24)) + spread * rng.normal(size=(classes, images + 1, 24))
    gallery = Gallery(24)
    gallery.enrol(
        vectors[:, :-1].reshape(-1, 24).astype(np.float32), [f"c{c}" for c in range(classes) for _ in range(images)]
    )
    return gallery, vectors[:, -1].astype(np.float32)


def test_a_large_gallery_gets_the_lowest_rate_with_few_refusals() -> None:
    gallery, _ = gallery_of(400, 4, 0.3)
    calibration = choose_threshold(collect_trials(gallery))
    assert not calibration.provisional and calibration.false_match.target in RATES
    assert calibration.figures["known_unknown"] <= 0.05 and "are taken for known" in calibration.costs()


def test_a_rate_that_is_asked_for_is_kept_whatever_is_refused() -> None:
    gallery, _ = gallery_of(400, 4, 0.6)
    calibration = choose_threshold(collect_trials(gallery), 0.02)
    assert not calibration.provisional and calibration.false_match.target == 0.02


@pytest.mark.parametrize("spread", [0.3, 0.6, 1.0])
def test_a_small_gallery_accepts_new_images_of_its_classes(spread: float) -> None:
    """Over 20 galleries of eight classes, about 5 % of new images of enrolled classes are called unknown."""
    refused = []
    for seed in range(20):
        gallery, new_QD = gallery_of(8, 6, spread, seed)
        calibration = choose_threshold(collect_trials(gallery), 0.01)
        assert (
            calibration.provisional and "classes like these" in calibration.needs and not calibration.false_match.kept
        )
        ranking = rank_classes(gallery.snapshot, new_QD)
        refused.append(np.mean([d == "unknown" for d in calibration.decide(ranking.score_Q, ranking.margin_Q)]))
    assert np.mean(refused) <= 0.1
    assert GalleryCalibration.from_dict(calibration.to_dict()) == calibration


def test_one_image_a_class_is_set_by_views_and_not_stated() -> None:
    gallery, _ = gallery_of(12, 1, 0.3)
    trials = collect_trials(gallery)
    assert trials.knowns is None
    views = KnownTrials(np.full(24, 0.9), np.ones(24), np.ones(24, bool), np.repeat(np.arange(12), 2))
    calibration = choose_threshold(trials, views=views)
    assert calibration.threshold <= 0.9 and "cannot be measured" in calibration.costs()
    unknown, measured = describe_costs(calibration)
    assert (
        unknown.startswith("Of 12 images of unknown things, ") and f"promises no rate: {calibration.needs}" in measured
    )
    with pytest.raises(DataError, match="none with a second image"):
        choose_threshold(trials)


def test_where_no_class_has_a_second_image_a_rate_is_promised_on_demand_alone_and_few_known_images_are_refused() -> (
    None
):
    """Views are nearer to their reference than new photographs, whose best score is at least that to the other classes."""
    gallery, photographs_ND = gallery_of(400, 1, 1.2, seed=5)
    trials = collect_trials(gallery)
    views = KnownTrials(np.full(800, 0.95), np.ones(800), np.ones(800, bool), np.repeat(np.arange(400), 2))
    calibration = choose_threshold(trials, views=views)
    assert calibration.provisional and "a second image of some classes" in calibration.needs
    with gallery.view() as view:
        scores_N = view.rank(l2_normalize(photographs_ND), "nearest", 10, k=1).score_Q
    refused = float(np.mean(scores_N < calibration.threshold))
    assert refused <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    assert not choose_threshold(trials, rate=0.2, views=views).provisional


def test_a_gallery_of_one_class() -> None:
    gallery, _ = gallery_of(1, 6, 0.3)
    calibration = choose_threshold(collect_trials(gallery))
    assert calibration.provisional and "was not measured" in calibration.costs() and calibration.false_match.high == 1
    assert describe_costs(calibration)[0] == (
        "Of 6 images of known things, 0 are called unknown; 1 class is too few to say how many it will be of others."
    )
    assert "are called unknown (too few to say; 6 images of 1 classes)" in calibration.costs(), (
        "no interval of 0 to 100 %"
    )


def test_the_curve_is_the_two_shares() -> None:
    gallery, _ = gallery_of(20, 5, 0.6)
    trials = collect_trials(gallery)
    accepted, refused = cost_curve(trials)
    assert trials.knowns is not None
    for threshold, share in accepted[::20]:
        assert share == pytest.approx(np.mean(trials.unknowns.score_N >= threshold))
    for threshold, share in refused[::20]:
        assert share == pytest.approx(np.mean(trials.knowns.score_M < threshold))


def test_scores_that_training_held_out_stand_for_new_images() -> None:
    gallery, _ = gallery_of(10, 5, 0.2)
    assert trained_share(gallery.snapshot, ["c0", "c1", "other"]) == 0.2
    assert trials_from_training({}, gallery.snapshot, "nearest", 10) is None
    scores = {"known": {"score": [0.3, 0.5, 0.6] * 20, "class": [0, 1, 2] * 20, "right": [True] * 60}}
    trials = trials_from_training(scores, gallery.snapshot, "nearest", 10)
    assert trials is not None
    calibration = choose_threshold(trials)
    assert calibration.provisional and calibration.threshold == 0.3 and "held out" in calibration.made_from
    assert calibration.second_weight == 0  # no images of unknown classes, and none of their leads
    unknown = {"score": [0.2, 0.25] * 30, "class": [3, 4] * 30, "matched": [0, 1] * 30}
    earlier = trials_from_training(scores | {"unknown": unknown}, gallery.snapshot, "nearest", 10)
    assert earlier is not None and earlier.second_weight == 0 and earlier.unknowns.score_N.max() == 0.25
    leads = {"known": scores["known"] | {"lead": [0.1] * 60}, "unknown": unknown | {"lead": [0.05] * 60}}
    trials = trials_from_training(leads, gallery.snapshot, "nearest", 10)
    assert trials is not None and trials.second_weight == 0.25
    assert trials.unknowns.score_N[0] == pytest.approx(0.2 - 0.25 * 0.15)


def test_views_repeat_and_differ() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    first, again = (list(augmented_views(image, 3, seed=5)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(view.dtype == np.uint8 and view.ndim == 3 for view in first)
    assert not np.array_equal(first[0], first[1])
    assert next(augmented_views(np.zeros((1, 1, 3), np.uint8), 1, seed=0)).shape == (1, 1, 3)


def test_a_share_of_scores_is_counted_whatever_its_product_is_to_a_computer() -> None:
    """0.29 * 100 is a little less than 29."""
    assert 0.29 * 100 < 29
    assert _lower_quantile(np.arange(99.0), 0.29) == 28.0
