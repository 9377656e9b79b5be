"""The choice of trunk and image size within a time: on made-up features, scores and rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.model.backbones import native_size
from unalike.spec import load_spec
from unalike.training.automatic import trunks
from unalike.training.automatic.sampling import IMAGES_PER_TURN
from unalike.training.automatic.trunks import TrunkResult, TrunkSelector
from unalike.training.heads.features import TrunkFeatures
from unalike.training.time_budget import TimeBudget

LITE = "tf_efficientnet_lite0"
SCORES = {("big", 64): 0.6, ("big", 96): 0.7, ("small", 64): 0.5, ("small", 96): 0.55}


def image_set(count: int) -> ImageSet:
    return ImageSet(tuple(Path(f"{i}.png") for i in range(count)), np.zeros(count, np.int64), ("a",))


@pytest.fixture
def selector(monkeypatch: pytest.MonkeyPatch) -> TrunkSelector:
    """Two trunks with the scores of SCORES; each image takes a second."""

    def features(name: str, images: ImageSet, view: View, *_: Any, mirrored: bool = False, **__: Any) -> TrunkFeatures:
        vectors = np.zeros((10, 4), np.float32)
        return TrunkFeatures(name, view, None, vectors, np.arange(10), 1.0, vectors if mirrored else None)  # type: ignore[arg-type]

    monkeypatch.setattr(trunks, "compute_features", features)
    monkeypatch.setattr(trunks, "score_features", lambda f, images, goal: SCORES[f.backbone, f.view.height])
    monkeypatch.setattr(trunks, "available_trunks", lambda: ("small", "big"))
    monkeypatch.setattr(trunks, "native_size", lambda name: ((64, 64), False))
    return TrunkSelector(load_spec("train", {}), image_set(10), Notices())


def test_the_best_trunk_and_size_that_the_time_allows(selector: TrunkSelector) -> None:
    first: list[TrunkResult] = []
    results = selector.compare_trunks(60.0, first.append)
    assert [r.features.backbone for r in first] == ["small"]
    assert [r.features.backbone for r in results] == ["big", "small"]
    assert [r.features.backbone for r in selector.compare_trunks(0.0)] == ["small"]  # the first one in any case
    assert selector.try_larger_images(results[0], 22.0) is results[0]  # 10 images of 9/4 the pixels take 22.5 s
    larger = selector.try_larger_images(results[0], 23.0)
    assert larger.features.view.height == 96 and larger.score == 0.7
    assert selector.add_mirrored(larger, 19.0) is larger
    assert selector.add_mirrored(larger, 21.0).features.mirrored_NF is not None
    larger.settle_spec(selector.spec)
    model = selector.spec.model
    assert (model.backbone, model.input_height, model.input_width) == ("big", 96, 96)


def test_larger_images_must_be_clearly_better(selector: TrunkSelector, monkeypatch: pytest.MonkeyPatch) -> None:
    best = selector.compare_trunks(60.0)[0]
    monkeypatch.setitem(SCORES, ("big", 96), SCORES["big", 64] + trunks.MIN_GAIN / 2)
    assert selector.try_larger_images(best, 1e9) is best


class Machine:
    """A machine that embeds images of 64 x 64 pixels at a rate; it notes which were embedded at what time."""

    def __init__(self, rate: float, slower: Mapping[str, float] | None = None) -> None:
        self.rate, self.slower, self.now = rate, slower or {}, 5.0
        self.known: dict[tuple[str, int], set[Path]] = {}
        self.calls: list[tuple[str, int, int]] = []  # trunk, side, images that were not known
        self.expected: set[int] = set()

    def clock(self) -> float:
        return self.now

    def compute_features(
        self, name: str, images: ImageSet, view: View, *_: Any, mirrored: bool = False, limit: Any = None, order_N: Any = None,
        expected_images: int,
    ) -> TrunkFeatures:  # fmt: skip
        rows = np.arange(len(images)) if order_N is None else order_N
        known = self.known.setdefault((name, view.height), set())
        new = [i for i in rows.tolist() if images.paths[i] not in known]
        if limit is not None:
            limit.begin()
            self.expected.add(limit.expected_images())
        done = 0
        for done, i in enumerate(new, 1):
            self.now += (view.height / 64) ** 2 * self.slower.get(name, 1.0) / self.rate
            known.add(images.paths[i])
            if limit is not None and limit.stop(done, len(new)):
                break
        self.calls.append((name, view.height, done))
        kept_N = np.sort(np.array([i for i in rows.tolist() if images.paths[i] in known], np.int64))
        rate = self.rate * (64 / view.height) ** 2 / self.slower.get(name, 1.0)
        return TrunkFeatures(name, view, None, np.zeros((len(kept_N), 4), np.float32), kept_N, rate, tried=len(kept_N))  # type: ignore[arg-type]


def selector_on(machine: Machine, count: int, minutes: float, monkeypatch: pytest.MonkeyPatch) -> TrunkSelector:
    images = ImageSet(
        tuple(Path(f"{i}.png") for i in range(count)), np.arange(count) % 20, tuple("abcdefghijklmnopqrst")
    )
    monkeypatch.setattr(trunks, "compute_features", machine.compute_features)
    monkeypatch.setattr(trunks.time, "monotonic", machine.clock)
    return TrunkSelector(load_spec("train", {}), images, Notices(), TimeBudget(minutes, 0.0, machine.clock))


def choose(selector: TrunkSelector) -> TrunkResult:
    assert selector.budget is not None
    results = selector.compare_trunks(selector.budget.until(0.2))
    return selector.embed_all(selector.try_larger_images(results[0], selector.budget.until(0.7)))


def test_trunks_and_sizes_are_compared_on_a_part_and_all_images_embedded_once(
    selector: TrunkSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(rate=200.0)
    selector = selector_on(machine, 2600, 2.0, monkeypatch)
    best = choose(selector)
    trial = trunks.TRIAL_IMAGES
    assert machine.calls == [("small", 64, trial), ("big", 64, trial), ("big", 96, trial), ("big", 96, 2600 - trial)]
    assert best.features.view.height == 96 and best.score == 0.7 and len(best.features.kept_N) == 2600
    assert not selector.is_sampled and np.array_equal(best.features.kept_N, np.arange(2600))
    assert len(machine.expected) == 1  # the same engine for all of them, however late
    assert np.ptp(np.bincount(selector.trial.labels_N)) <= IMAGES_PER_TURN


@pytest.mark.parametrize("rate", [60.0, 80.0, 100.0, 120.0, 150.0])
def test_larger_images_are_taken_only_where_all_of_them_fit(
    selector: TrunkSelector, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    machine = Machine(rate)
    selector = selector_on(machine, 2600, 2.0, monkeypatch)
    best = choose(selector)
    assert not (best.features.view.height == 96 and selector.is_sampled) and machine.now < 0.75 * 120
    assert (best.features.view.height == 96) == (rate >= 100)


def test_a_slow_machine_embeds_a_sample_with_the_first_trunk_and_goes_on_where_the_trial_stopped(
    selector: TrunkSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(rate=20.0)
    selector = selector_on(machine, 100_000, 1.0, monkeypatch)
    best = choose(selector)
    assert [call[:2] for call in machine.calls] == [("small", 64), ("small", 64)] and best.score == 0.0
    embedded = sum(count for *_, count in machine.calls)
    assert selector.is_sampled and len(selector.images) == len(best.features.kept_N) == embedded
    assert 400 < embedded < trunks.TRIAL_IMAGES and machine.now < 40


def test_of_a_large_set_a_sample_is_embedded_with_the_best_trunk(
    selector: TrunkSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(rate=200.0)
    selector = selector_on(machine, 100_000, 2.0, monkeypatch)
    best = choose(selector)
    trial = trunks.TRIAL_IMAGES
    assert machine.calls[:2] == [("small", 64, trial), ("big", 64, trial)] and machine.calls[2][:2] == ("big", 64)
    assert len(machine.calls) == 3 and best.features.backbone == "big" and selector.is_sampled
    assert len(selector.images) == trial + machine.calls[2][2] and machine.now < 0.6 * 120


def test_what_the_user_set_is_kept(selector: TrunkSelector) -> None:
    spec = load_spec("train", {"model": {"backbone": "small", "input_height": 64, "input_width": 64}})
    with_setting = TrunkSelector(spec, selector.images, Notices())
    results = with_setting.compare_trunks(1e9)
    assert [r.features.backbone for r in results] == ["small"]
    assert with_setting.try_larger_images(results[0], 1e9) is results[0]


@pytest.mark.parametrize(("overrides", "seconds", "mirrored"), [
    ((), 1e9, True), ((), 0.0, False), (["train.finish.mirrored=true"], 0.0, True), (["train.finish.mirrored=false"], 1e9, False),
])  # fmt: skip
def test_mirror_images_follow_the_spec_or_the_time(
    monkeypatch: pytest.MonkeyPatch, overrides: Sequence[str], seconds: float, mirrored: bool
) -> None:
    features = TrunkFeatures(LITE, View(64, 64), None, np.zeros((2, 4)), np.arange(2), 1.0)  # type: ignore[arg-type]
    result = TrunkResult(features, 0.5)
    selector = TrunkSelector(load_spec("train", overrides=overrides), image_set(20), Notices())
    monkeypatch.setattr(selector, "_compute_features", lambda *_, mirrored: ("features", mirrored))
    chosen = selector.add_mirrored(result, seconds)
    assert (chosen is not result) == mirrored and (not mirrored or chosen.features == ("features", True))


def test_native_sizes() -> None:
    assert native_size("tf_efficientnet_lite2") == ((256, 256), False)  # 260, to a multiple of 32
    assert native_size(LITE) == ((224, 224), False)
    assert native_size("vit_small_patch14_dinov2") == ((518, 518), True)
    assert native_size("fan_tiny") == ((224, 224), False)
