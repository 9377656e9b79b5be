"""The time limit of a plain training, by the pace of steps that the test sets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet
from unalike.training.plain_limit import PlainLimit, limit_validation
from unalike.training.time_budget import TimeBudget

NAMES = tuple(f"class {i:02d}" for i in range(40))


def image_set(count: int, prefix: str, classes: int = 40) -> ImageSet:
    return ImageSet(tuple(Path(f"{prefix}{i}.jpg") for i in range(count)), np.arange(count) % classes, NAMES)


def budget_after(seconds: float, minutes: float = 1.0) -> TimeBudget:
    now = [0.0]
    budget = TimeBudget(minutes, 0.0, lambda: now[0])
    now[0] = seconds
    return budget


def test_a_validation_that_fits_stays_and_a_large_one_is_sampled(capsys: pytest.CaptureFixture[str]) -> None:
    few = TrainingSets(image_set(10, "t"), image_set(100, "r"), image_set(50, "q"), "held out", True)
    assert limit_validation(few, budget_after(0.0)) is few
    many = TrainingSets(image_set(10, "t"), image_set(20_000, "r"), image_set(10_000, "q"), "held out", True)
    limited = limit_validation(many, budget_after(0.0))
    assert limited.query is not None and limited.reference is not None
    assert len(limited.query) + len(limited.reference) == 180  # 6 s at 30 images per second
    assert set(limited.query.label_names()) <= set(limited.reference.label_names())
    assert f"{len(limited.query)} of 10000 query" in capsys.readouterr().err
    same = image_set(20_000, "r")
    limited = limit_validation(TrainingSets(same, same, same, "its own", False), budget_after(0.0))
    assert limited.query is limited.reference and limited.query is not None and len(limited.query) == 180


def limit_of(train: int, seconds: float, *, finish: bool = True, minutes: float = 1.0) -> PlainLimit:
    sets = TrainingSets(image_set(train, "t"), image_set(100, "r"), image_set(50, "q"), "held out", True)
    options = SimpleNamespace(num_epochs=10, batch_size=10, finish=SimpleNamespace(mirrored=False))
    setup = SimpleNamespace(sets=sets, experiment=SimpleNamespace(train=options), fabric=SimpleNamespace(world_size=1))
    limit = PlainLimit(budget_after(seconds, minutes), setup, finish=finish)  # type: ignore[arg-type]
    limit.attach(SimpleNamespace(recent_seconds=[0.1] * 5, validation_seconds=1.0))  # type: ignore[arg-type]
    return limit


def test_time_is_kept_for_validation_and_for_fitting_the_head_again() -> None:
    """A step of ten images takes 0.1 s: an image 0.01 s."""
    limit = limit_of(1000, 10.0)
    assert limit.refits() and limit.seconds_left() == pytest.approx(50 - 3 - (2 * 150 + 1000) * 0.01)
    large = limit_of(50_000, 10.0)
    assert not large.refits() and large.seconds_left() == pytest.approx(50 - 3 - 150 * 0.01)
    assert limit_of(1000, 10.0, finish=False).seconds_left() == pytest.approx(50 - 3 - 150 * 0.01)


@pytest.mark.parametrize(("spent", "expected"), [(0.0, 7), (40.0, 2), (100.0, 2)])
def test_epochs_and_their_validations_fit(spent: float, expected: int) -> None:
    """Two epochs are finished; further ones take 6 s, a second of validation, and 5 % more."""
    assert limit_of(1000, spent).choose_epochs(2, 6.0) == expected
    assert limit_of(1000, 0.0, minutes=60.0).choose_epochs(2, 6.0) == 10
