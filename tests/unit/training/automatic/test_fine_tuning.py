"""Fine-tuning in the rest of the time: how many epochs fit, and what the drafted spec keeps.

Whole runs are tested in tests/flow/test_automatic.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unalike.data.imageset import ImageSet
from unalike.data.view import View
from unalike.model.embedder import Embedder
from unalike.spec import load_spec
from unalike.training.automatic import fine_tuning
from unalike.training.automatic.fine_tuning import (
    InitialHead,
    _draft_spec,
    _plan_spec,
    _reserved_seconds,
    _trunk_of,
    can_fine_tune,
    epochs_that_fit,
)
from unalike.training.automatic.throughput import OVERHEAD, TuningPlan
from unalike.training.automatic.trunks import TrunkResult
from unalike.training.heads.discriminant import identity_head
from unalike.training.heads.features import TrunkFeatures
from unalike.training.losses import build_loss
from unalike.training.recipe import settle_backbone
from unalike.training.time_budget import TimeBudget

LITE = "tf_efficientnet_lite0"


def budget_after(seconds: float, minutes: float) -> TimeBudget:
    """A budget of which so many seconds are spent."""
    now = [0.0]
    budget = TimeBudget(minutes, 0.0, lambda: now[0])
    now[0] = seconds
    return budget


def trunk_result(name: str, rate: float) -> TrunkResult:
    features = TrunkFeatures(name, View(64, 64), None, np.zeros((2, 4)), np.arange(2), rate)  # type: ignore[arg-type]
    return TrunkResult(features, 0.5)


@pytest.mark.parametrize(("seconds", "epochs"), [(1.1, 32), (10.0, 5), (1000.0, 2), (0.0, 40)])
def test_epochs_are_planned_again_by_the_last_epoch_s_time(seconds: float, epochs: int) -> None:
    """Of 60 s, 20 are spent; 1.8 s and 2.5 passes over 100 images at 100 per second are reserved; 5 % are a margin."""
    budget = budget_after(20.0, 1.0)
    spec = load_spec("train", overrides=[f"model.backbone={LITE}", "model.input_height=64"])
    trunks = [trunk_result("slow", 1.0), trunk_result(LITE, 100.0)]

    def seconds_left() -> float:
        return budget.left - _reserved_seconds(budget, _trunk_of(trunks, spec), 100, 0.0, spec)

    assert epochs_that_fit(seconds_left, 2, seconds) == epochs


def test_time_is_kept_for_engines_heads_and_an_evaluation_afterwards() -> None:
    budget = budget_after(20.0, 1.0)
    budget.reserve(5.0)
    trunk = TrunkResult(replace(trunk_result(LITE, 100.0).features, setup_seconds=3.0), 0.5)
    spec = load_spec("train", overrides=["train.finish.mirrored=true", "model.input_height=64"])
    reserved = _reserved_seconds(budget, trunk, 100, 4.0, spec)
    assert reserved == pytest.approx(1.8 + 3.5 + 2 * 3.0 + 4.0) and budget.left == 35.0


@pytest.mark.parametrize(("rate", "images", "minutes", "tunes"), [
    (100.0, 2640, 10.0, True), (100.0, 2640, 2.0, False), (100.0, 100_000, 10.0, True), (100.0, 100_000, 2.0, False),
    (20.0, 100_000, 10.0, False), (20.0, 2640, 10.0, False), (20.0, 500, 10.0, True),
])  # fmt: skip
def test_large_sets_are_fine_tuned_on_a_part_where_the_rate_allows_it(
    monkeypatch: pytest.MonkeyPatch, rate: float, images: int, minutes: float, tunes: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    budget = budget_after(0.2 * 60 * minutes, minutes)
    assert can_fine_tune(load_spec("train", {}), [trunk_result(LITE, rate)], images, budget) is tunes


@pytest.mark.parametrize(
    ("minutes", "passes"), [(2.0, 0.0), (10.0, (256 / 224) ** 2), (30.0, (256**2 + 288**2) / 224**2)]
)
def test_time_is_kept_for_larger_images_where_there_is_much(minutes: float, passes: float) -> None:
    """Of 2,640 images at 60 a second."""
    trunk = TrunkResult(replace(trunk_result(LITE, 60.0).features, view=View(224, 224)), 0.5)
    budget = budget_after(0.0, minutes)
    reserved = _reserved_seconds(budget, trunk, 2640, 0.0, load_spec("train", {}))
    assert reserved == pytest.approx(0.03 * 60 * minutes + (2.5 + passes) * 44)


def test_of_a_set_that_is_too_large_an_epoch_draws_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 90 images per second 500 s train on 45,000 images, less 12 %: 10 epochs of 4,017 of 50,000."""
    count = 50_000
    images = ImageSet(tuple(Path(f"{i}.png") for i in range(count)), np.arange(count) % 2, ("a", "b"))

    def plan(*_: object, images: int, seconds: float, **__: object) -> TuningPlan:
        assert images == count and seconds == pytest.approx(500.0)
        return TuningPlan((48, 48), 2, int(seconds * 90 / images / (1 + OVERHEAD)), 90.0)

    monkeypatch.setattr(fine_tuning, "plan_tuning", plan)
    spec = load_spec("train", overrides=["model.input_height=64"])
    budget = TimeBudget(10.0, 0.0, lambda: 0.0)
    trunk = trunk_result(LITE, 100.0)
    reserved = 600 - 500 - 0.03 * 600 - 2.5 * 1000 / 100.0
    plan_of_part = _plan_spec(spec, images, [trunk], 1000, reserved, budget)
    assert plan_of_part is not None
    settings = plan_of_part.train
    assert (settings.num_epochs, settings.epoch_images, settings.frozen_stages) == (10, 4017, 2)
    few = images.select(np.arange(500))
    monkeypatch.setattr(fine_tuning, "plan_tuning", lambda *_, **__: TuningPlan((48, 48), 2, 30, 30.0))
    whole = _plan_spec(spec, few, [trunk], 1000, 0.0, budget)
    assert whole is not None and (whole.train.num_epochs, whole.train.epoch_images) == (30, None)
    monkeypatch.setattr(fine_tuning, "plan_tuning", lambda *_, **__: TuningPlan((48, 48), 2, 3, 5.0))
    assert _plan_spec(spec, images, [trunk], 1000, 0.0, budget) is None


def test_a_head_of_a_sample_starts_classes_that_it_lacks_at_random() -> None:
    head = identity_head(np.eye(4, dtype=np.float32)[[0, 0, 1]], kind="linear", dim=None)
    initial = InitialHead(head, np.eye(4, dtype=np.float32)[[0, 0, 1]], ["b", "b", "gone"])
    train = ImageSet(tuple(Path(f"{i}.png") for i in range(4)), np.array([0, 1, 1, 2]), ("a", "b", "c"))
    criterion = build_loss("CosFaceLoss", {}, classes=3, dim=4)
    initial.initializer(train)(Embedder(SimpleNamespace(width=4, name="tiny"), 4, "linear"), criterion)  # type: ignore[arg-type]
    proxies_DC = criterion.W.detach().numpy()
    assert np.allclose(proxies_DC[:, 1] / np.linalg.norm(proxies_DC[:, 1]), np.eye(4)[0], atol=1e-5)
    assert np.allclose(np.linalg.norm(proxies_DC, axis=0), 1.0, atol=1e-5) and np.isfinite(proxies_DC).all()


def test_a_draft_keeps_its_trunk_when_training_settles_the_spec_again(monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageSet(tuple(Path(f"{i}.png") for i in range(20)), np.arange(20) % 2, ("a", "b"))
    draft, _ = _draft_spec(load_spec("train", {}), images, trunk_result(LITE, 1.0))
    monkeypatch.setattr("unalike.model.backbones.best_available_trunk", lambda: "another")
    settle_backbone(draft)
    assert draft.model.backbone == LITE and draft.model.input_height == 64
