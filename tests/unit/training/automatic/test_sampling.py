"""Samples of images by a time budget, on a clock that the test sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from unalike.data.imageset import ImageSet
from unalike.training.automatic.holdout import Holdout
from unalike.training.automatic.sampling import (
    FIRST_CLASSES,
    IMAGES_PER_TURN,
    EmbeddingLimit,
    ImageSample,
    ShareLimit,
    balanced_order,
)
from unalike.training.time_budget import TimeBudget


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def embedded(minutes: float, images: int, rate: float, *, before: float = 5.0, passes: int = 1, reserved: float = 0.0,
             slower: float = 1.0) -> tuple[int, float]:  # fmt: skip
    """Images that a limit lets pass at a rate that falls by ``slower`` at halfway, and the time then."""
    clock = Clock()
    budget = TimeBudget(minutes, 0.0, clock)
    budget.reserved = reserved
    clock.now = before
    limit = EmbeddingLimit(budget, passes)
    limit.begin()
    done = 0
    while done < images:
        clock.now += 16 / (rate if done < images / 2 else rate / slower)
        done = min(done + 16, images)
        if limit.stop(done, images):
            break
    return done, clock.now


@pytest.mark.parametrize("minutes", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("images", [20, 300, 3000, 30_000, 100_000])
@pytest.mark.parametrize("rate", [10.0, 100.0, 1000.0])
def test_embedding_ends_within_its_share_of_the_budget(minutes: float, images: int, rate: float) -> None:
    done, now = embedded(minutes, images, rate)
    share_end = 5 + 0.5 * (60 * minutes - 5)  # the program took 5 s to start
    assert now <= max(share_end, 5 + 80 / rate) + 16 / rate
    if 5 + images / rate < share_end:
        assert done == images
    else:
        assert done < images and done >= min(64, images)


def test_more_is_embedded_where_no_fine_tuning_follows() -> None:
    assert embedded(2.0, 100_000, 100.0)[1] == pytest.approx(5 + 0.45 * 115, abs=0.2)
    assert embedded(10.0, 100_000, 100.0)[1] == pytest.approx(5 + 0.2 * 595, abs=0.2)


@pytest.mark.parametrize("before", [5.0, 20.0, 30.0, 40.0])
def test_the_time_that_a_slow_start_leaves_is_what_is_shared_out(before: float) -> None:
    """On a busy machine the start alone took longer than the share of embedding, and 64 images were embedded."""
    done, now = embedded(1.0, 100_000, 20.0, before=before)
    assert now == pytest.approx(before + 0.45 * (60 - before), abs=0.9) and done >= 180
    assert embedded(1.0, 100_000, 20.0, before=59.9)[0] == 64  # hardly any is left: as few as can be


def test_the_stages_end_within_the_budget_on_a_busy_machine() -> None:
    """Start, embedding, what follows (at most the time left) and the end, each slower by one factor."""
    for slower in (1.0, 2.0, 4.0, 8.0):
        clock = Clock()
        clock.now = 3.0 * slower
        budget = TimeBudget(1.0, 0.0, clock)
        limit = EmbeddingLimit(budget)
        clock.now += 1.0 * slower  # headers, and the network is compiled
        limit.begin()
        done = 0
        while not limit.stop(done, 100_000):
            done, clock.now = done + 16, clock.now + 16 * slower / 60
        assert done >= 64 and budget.left > 0
        clock.now += budget.left + 2.0 * slower  # heads and evaluation; report, model card and the interpreter's end
        assert clock.now <= 1.05 * budget.seconds


def test_time_of_further_passes_and_of_an_evaluation_is_kept() -> None:
    assert embedded(2.0, 100_000, 100.0, passes=3)[1] == pytest.approx(5 + 0.45 * 115 / 3, abs=0.5)
    assert embedded(2.0, 100_000, 100.0, reserved=60.0)[1] == pytest.approx(5 + 0.45 * 55, abs=0.2)


def test_a_machine_that_becomes_slower_stops_the_embedding() -> None:
    done, now = embedded(2.0, 5000, 100.0, slower=4.0)
    assert 2500 < done < 5000 and now <= 0.5 * 120


def test_files_are_read_for_the_cache_for_a_small_share() -> None:
    clock = Clock()
    limit = EmbeddingLimit(TimeBudget(1.0, 0.0, clock))
    for done in range(256, 100_000, 256):
        clock.now += 0.25
        if limit.stop_digests(done, 100_000):
            break
    assert clock.now == pytest.approx(0.04 * 60, abs=0.8)
    assert not limit.stop_digests(20, 20)


def test_a_trial_ends_after_its_share_of_what_is_left_at_its_first_image() -> None:
    clock = Clock()
    limit = ShareLimit(TimeBudget(1.0, 0.0, clock), 0.2)
    clock.now = 30.0
    limit.begin()
    clock.now = 35.9
    assert not limit.stop(10, 100)
    clock.now = 36.1
    assert limit.stop(10, 100) and not limit.stop(100, 100)


def test_every_beginning_of_the_order_is_balanced() -> None:
    labels_N = np.repeat(np.arange(30), 100)
    order_N = balanced_order(labels_N, 0)
    assert sorted(order_N.tolist()) == list(range(3000))
    for count in (360, 900, 1801):
        sizes = Counter(labels_N[order_N[:count]].tolist())
        assert max(sizes.values()) - min(sizes.values()) <= IMAGES_PER_TURN
    assert not np.array_equal(order_N, balanced_order(labels_N, 1))
    assert np.array_equal(order_N, balanced_order(labels_N, 0))


def test_small_classes_are_sampled_with_all_their_images() -> None:
    labels_N = np.arange(30_000) // 3
    sizes = Counter(labels_N[balanced_order(labels_N, 0)[:900]].tolist())
    assert len(sizes) == 300 and set(sizes.values()) == {3}


def test_classes_with_a_second_image_come_first_where_most_have_one() -> None:
    labels_N = np.concatenate([np.arange(5000), np.repeat(np.arange(5000, 5030), 2)])
    first = labels_N[balanced_order(labels_N, 0)[: 2 * FIRST_CLASSES]]
    assert len(set(first.tolist())) == FIRST_CLASSES and first.min() >= 5000


def image_set(labels: list[int], groups: tuple[str, ...] | None = None) -> ImageSet:
    names = tuple(Path(f"{i}.png") for i in range(len(labels)))
    return ImageSet(names, np.array(labels), ("a", "b", "c"), groups)


def paths(images: ImageSet) -> list[int]:
    return [int(path.stem) for path in images.paths]


def test_training_draws_from_all_images_but_the_kin_of_held_out_ones() -> None:
    every = image_set([0, 0, 0, 1, 1, 1, 2, 2, 2])
    sample = ImageSample(every, np.array([0, 1, 3, 4, 6]))
    scene_N = np.array([False, True, False, False, False])  # image 1, of class a
    class_N = np.array([False, False, True, True, False])  # class b
    train = sample.training_images(np.arange(5), Holdout(class_N, scene_N))
    assert paths(train) == [0, 6, 7, 8] and train.classes == ("a", "c")
    assert sample.facts() == {"images_available": 9, "images_used": 5}
    complete = ImageSample(every, np.arange(9))
    nothing = np.zeros(9, bool)
    assert paths(complete.training_images(np.arange(9), Holdout(nothing, nothing))) == list(range(9))
    assert complete.facts() == {}


def test_groups_say_which_images_are_kin() -> None:
    groups = ("x", "y", "y", "z", "", "w", "x", "v", "")
    sample = ImageSample(image_set([0, 0, 0, 0, 0, 2, 2, 2, 2], groups), np.array([0, 1, 7]))
    held_N = np.array([True, False, False])  # image 0, of group x
    nothing = np.zeros(3, bool)
    assert paths(sample.training_images(np.arange(3), Holdout(nothing, held_N))) == [1, 2, 3, 5, 7, 8]


def test_what_is_used_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    budget = TimeBudget(2.0, 0.0, lambda: 0.0)
    ImageSample(image_set([0, 1]), np.array([0])).say(budget, ("a", "b"))
    assert "1 of 2 images" in capsys.readouterr().err
    ImageSample(image_set([0, 1]), np.array([0, 1])).say(budget)
    assert not capsys.readouterr().err
