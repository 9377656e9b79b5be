"""Fine-tuning in the rest of the time: how many epochs fit, and what the drafted spec keeps.

Whole runs are tested in tests/flow/test_automatic.py.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from unalike.data.imageset import ImageSet
from unalike.data.view import View
from unalike.spec import load_spec
from unalike.training.automatic.budget import TimeBudget
from unalike.training.automatic.fine_tuning import _draft_spec, _epochs_that_fit
from unalike.training.automatic.trunks import TrunkResult
from unalike.training.heads.features import TrunkFeatures
from unalike.training.recipe import settle_backbone

LITE = "tf_efficientnet_lite0"


def trunk_result(name: str, rate: float) -> TrunkResult:
    features = TrunkFeatures(name, View(64, 64), None, np.zeros((2, 4)), np.arange(2), rate)  # type: ignore[arg-type]
    return TrunkResult(features, 0.5)


@pytest.mark.parametrize(("seconds", "epochs"), [(1.1, 32), (10.0, 5), (1000.0, 2), (0.0, 40)])
def test_epochs_are_planned_again_by_the_last_epoch_s_time(seconds: float, epochs: int) -> None:
    """Of 60 s, 20 are spent; 1.8 s and 2.5 passes over 100 images at 100 per second are reserved; 5 % are a margin."""
    budget = TimeBudget(1.0, time.monotonic() - 20)
    spec = load_spec("train", overrides=[f"model.backbone={LITE}"])
    trunks = [trunk_result("slow", 1.0), trunk_result(LITE, 100.0)]
    assert _epochs_that_fit(budget, trunks, 100, spec, 2, seconds) == epochs


def test_a_draft_keeps_its_trunk_when_training_settles_the_spec_again(monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageSet(tuple(Path(f"{i}.png") for i in range(20)), np.arange(20) % 2, ("a", "b"))
    draft, _ = _draft_spec(load_spec("train", {}), images, trunk_result(LITE, 1.0))
    monkeypatch.setattr("unalike.model.backbones.best_available_trunk", lambda: "another")
    settle_backbone(draft)
    assert draft.model.backbone == LITE and draft.model.input_height == 64
