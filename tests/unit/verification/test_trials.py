"""Trials are determined by seed, asset and number, and consist of the kinds that were asked for."""

from __future__ import annotations

import numpy as np

from tests.support.marks import mark
from unalike.verification.benign import BENIGN
from unalike.verification.trials import TAMPERED_SCENES, measure_row, render_trials, stack_measurements


def test_other_trials_do_not_change_a_trial() -> None:
    assets = [mark(1), mark(2)]
    few = list(render_trials(assets, genuine=1, tampered=2, others=2, kinds=["recoloured"], seed=3))
    many = list(render_trials(assets[::-1], genuine=2, tampered=3, others=4, kinds=["recoloured"], seed=3))
    assert TAMPERED_SCENES == tuple(kind for kind in BENIGN if kind != "busy-background")
    assert [trial.kind for trial in few[:5]] == ["genuine", "recoloured", "recoloured", "other", "other"]
    own = [trial for trial in many if trial.asset == 1]  # mark 1 is the second one there
    for trial, again in zip(few[:5], [own[0], own[2], own[3], own[5], own[6]], strict=True):
        assert np.array_equal(trial.image_HW3, again.image_HW3) and trial.kind == again.kind


def test_similar_assets_are_shown_before_distractors() -> None:
    assets = [mark(1), mark(2), mark(3)]
    near = list(render_trials(assets, genuine=0, tampered=0, others=4, similar=lambda number: [2, 1, 0], seed=3))
    alone = list(render_trials(assets, genuine=0, tampered=0, others=4, seed=3))
    differs = [not np.array_equal(a.image_HW3, b.image_HW3) for a, b in zip(near, alone, strict=True)]
    assert differs == [True, True, False, False] * 3


def test_measurements_of_an_asset_that_was_not_found_are_large() -> None:
    row = measure_row(None)
    trials = stack_measurements([None, None], [0, 1], ["other", "genuine"], [0.2, 0.9])
    assert trials.measures_NM.shape == (2, 5) and (trials.measures_NM == row).all() and len(trials) == 2
    assert min(row) >= 0.7 and (trials.correlation_N == 0).all()
    assert trials.select(trials.kind_N == "genuine").asset_N.tolist() == [1]
