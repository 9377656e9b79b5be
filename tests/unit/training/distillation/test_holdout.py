"""What distillation holds out, and how networks are judged by it."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.errors import DataError
from unalike.numerics.normalization import l2_normalize
from unalike.training.distillation.holdout import MAX_HELD_OUT, MIN_IMAGES, HeldOut, head_vectors, hold_out, judge
from unalike.training.heads.discriminant import FittedHead


def draw(classes: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of images of several scenes a class, and labels."""
    rng = np.random.default_rng(seed)
    labels_N = np.repeat(np.arange(classes), count)
    centers = rng.normal(size=(classes, 8))
    scenes = 0.5 * rng.normal(size=(classes * count // 4, 8))
    vectors_ND = centers[labels_N] + np.repeat(scenes, 4, axis=0) + 0.05 * rng.normal(size=(classes * count, 8))
    return l2_normalize(vectors_ND), labels_N


def test_without_labels_a_tenth_is_held_out_and_the_seed_repeats_it() -> None:
    vectors_ND, _ = draw(10, 40)
    own_N = np.arange(400) < 300
    first, again, other = (hold_out(vectors_ND, np.full(400, -1), own_N, seed=seed) for seed in (0, 0, 1))
    assert len(first.held_H) == 30 and not first.splits and (first.held_H < 300).all()
    assert np.array_equal(first.held_H, again.held_H) and not np.array_equal(first.held_H, other.held_H)
    assert np.array_equal(np.sort(np.concatenate([first.held_H, first.fit_N])), np.arange(400))
    large = hold_out(np.zeros((20_000, 1)), np.full(20_000, -1), np.ones(20_000, bool))
    assert len(large.held_H) == MAX_HELD_OUT


def test_groups_of_a_manifest_are_not_divided() -> None:
    groups = [f"part {number // 5}" for number in range(100)]
    held_out = hold_out(np.zeros((100, 1)), np.full(100, -1), np.ones(100, bool), groups=groups)
    assert not {groups[i] for i in held_out.held_H} & {groups[i] for i in held_out.fit_N} and len(held_out.held_H) == 10
    uneven = ["large" if number < 60 else f"part {number}" for number in range(100)]
    held_out = hold_out(np.zeros((100, 1)), np.full(100, -1), np.ones(100, bool), groups=uneven)
    assert len(held_out.held_H) == 10 and (held_out.held_H >= 60).all()
    few = [f"part {number // 50}" for number in range(100)]
    assert len(hold_out(np.zeros((100, 1)), np.full(100, -1), np.ones(100, bool), groups=few).held_H) == 10


def test_with_labels_scenes_are_held_out_and_looked_up_among_all_others() -> None:
    vectors_ND, labels_N = draw(12, 16)
    labels_N = np.concatenate([labels_N, np.full(50, -1)])  # further images, without labels
    vectors_ND = np.concatenate([vectors_ND, vectors_ND[:50]])
    held_out = hold_out(vectors_ND, labels_N, np.arange(242) < 192, seed=0)
    (split,) = held_out.splits
    assert split.kind == "known" and np.array_equal(np.sort(split.query_N), held_out.held_H)
    assert (labels_N[split.reference_N] >= 0).all() and np.array_equal(held_out.fit_N[-50:], np.arange(192, 242))
    assert not np.intersect1d(split.reference_N, held_out.held_H).size
    outcome = judge(vectors_ND, vectors_ND, held_out)
    assert (
        outcome.cosine == pytest.approx(1)
        and outcome.result is not None
        and outcome.score == outcome.result.score("known-classes")
    )
    record = outcome.to_dict(outcome.result)
    assert record["difference_to_teacher"]["known"]["R@1"]["value"] == 0
    assert record["figures"]["held-out images"]["cosine to the teacher"]["value"] == pytest.approx(1)


def test_classes_of_one_image_are_judged_by_the_cosine_which_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    vectors_ND, _ = draw(10, 8)
    held_out = hold_out(vectors_ND, np.arange(80), np.ones(80, bool))
    assert "R@1 is not measured: too few classes" in capsys.readouterr().err
    assert not held_out.splits and len(held_out.held_H) == 8


@pytest.mark.parametrize(("count", "own"), [(MIN_IMAGES - 1, MIN_IMAGES - 1), (200, 10), (0, 0)])
def test_too_few_images_are_refused_with_the_number_that_is_needed(count: int, own: int) -> None:
    with pytest.raises(DataError, match=rf"{count} readable images.*at least {MIN_IMAGES}"):
        hold_out(np.zeros((count, 1)), np.full(count, -1), np.arange(count) < own)


def test_the_cosine_is_that_of_the_held_out_images_alone_and_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    targets_ND = l2_normalize(rng.normal(size=(30, 4)))
    good_ND = targets_ND.copy()
    good_ND[20:] = -good_ND[20:]  # of images that are not held out
    held_out = HeldOut(np.arange(20), np.arange(20, 30), np.full(30, -1))
    good = judge(3 * good_ND, targets_ND, held_out)
    worse = judge(targets_ND + 0.3 * rng.normal(size=(30, 4)), targets_ND, held_out)
    assert good.cosine == good.score == pytest.approx(1) and worse.cosine < 1
    gain = good.gain_over(worse)
    assert gain.value == pytest.approx(good.cosine - worse.cosine) and gain.low > 0
    assert worse.describe_cosine().low < worse.cosine < worse.describe_cosine().high


def test_a_head_is_applied_in_blocks() -> None:
    rng = np.random.default_rng(0)
    head = FittedHead(rng.normal(size=(3, 2)), rng.normal(size=2), True)
    features_NF = rng.normal(size=(8200, 3)).astype(np.float32)
    assert np.array_equal(head_vectors(head, features_NF), head(features_NF))
