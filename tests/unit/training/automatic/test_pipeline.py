"""Which heads are compared on held-out images, and which specs are not supported.

Whole runs are tested in tests/flow/test_automatic.py.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.series import holdout_result
from unalike.spec import load_spec
from unalike.storage.downloads import DownloadRefused
from unalike.training.automatic import pipeline
from unalike.training.automatic.pipeline import _fits, candidates_to_evaluate, unsupported_reason
from unalike.training.heads.config import HEAD_TRAININGS, HeadConfig, HeadTraining
from unalike.training.heads.head_search import HeadTrial
from unalike.training.time_budget import TimeBudget

GOAL = "known-classes"


def trial(r_at_1: float, map_at_r: float, training: HeadTraining | None = None) -> HeadTrial:
    result = holdout_result(np.arange(200) < 200 * r_at_1, np.full(200, map_at_r))
    return HeadTrial(HeadConfig(training=training), result, result.score(GOAL))


def test_a_trained_head_is_compared_only_if_it_beats_the_closed_form() -> None:
    closed_form, better = trial(0.5, 0.4), trial(0.6, 0.4, HEAD_TRAININGS[0])
    lower_r_at_1 = trial(0.45, 0.9, HEAD_TRAININGS[0])
    frozen, other = HeadTrial(None, closed_form.result, 0.0), trial(0.5, 0.4)
    trials = [frozen, closed_form, other]
    configs = candidates_to_evaluate(trials, [lower_r_at_1, better], None, GOAL)
    assert configs == [None, closed_form.config, better.config]
    assert candidates_to_evaluate(trials, [lower_r_at_1], None, GOAL) == [None, closed_form.config]
    fixed = candidates_to_evaluate([frozen, closed_form], [], HEAD_TRAININGS[1], GOAL)
    assert fixed == [None, HeadConfig(training=HEAD_TRAININGS[1])]
    assert candidates_to_evaluate([frozen], [], None, GOAL) == [None]


@pytest.mark.parametrize(("override", "reason"), [
    ("model.pretrained=false", "model.pretrained is false"),
    ("model.head=residual", "no closed form"),
    ("train.resume_training_checkpoint_path=x.pth", "a checkpoint to resume"),
    ("model.backbone=resnet_50", "no pretrained weights for resnet_50"),
    ("model.backbone=tf_efficientnet_lite0", ""),
])  # fmt: skip
def test_unsupported_specs_have_a_reason(override: str, reason: str) -> None:
    actual = unsupported_reason(load_spec("train", overrides=[override]))
    assert reason in actual and bool(actual) == bool(reason)


def test_a_refused_download_is_an_error_and_no_reason_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise DownloadRefused("the weights of resnet18")

    monkeypatch.setattr(pipeline, "build_starting_trunk", refuse)
    with pytest.raises(DownloadRefused):
        unsupported_reason(load_spec("train", overrides=["model.backbone=resnet18"]))


def test_cross_validation_after_a_hold_out_needs_time_for_all_of_its_splits() -> None:
    now = [0.0]
    budget = TimeBudget(1.0, 0.0, lambda: now[0])
    hold_out, pooled = SimpleNamespace(splits=[1, 2]), SimpleNamespace(splits=[1] * 10)
    now[0] = 45.0
    assert _fits(pooled, hold_out, 2.0, budget)  # 10 seconds of the 15 that are left
    now[0] = 52.0
    assert not _fits(pooled, hold_out, 2.0, budget)
