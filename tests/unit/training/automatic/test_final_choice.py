"""Which candidate is delivered. Their evaluation is tested through the command line in tests/flow/test_automatic.py."""

from __future__ import annotations

import numpy as np

from tests.support.series import holdout_result
from unalike.training.automatic.final_choice import FINE_TUNED, INTERPOLATED, Candidate, metrics_of, select_best


def candidate(name: str, hits: np.ndarray) -> Candidate:
    result = holdout_result(hits, hits)
    return Candidate(name, result, result.score("known-classes"))


def test_final_weights_must_be_significantly_better_than_interpolated_ones() -> None:
    goal, rng = "known-classes", np.random.default_rng(0)
    base = (rng.random(200) < 0.5).astype(float)
    better = np.where(np.arange(200) < 40, 1.0, base)
    insignificant = base.copy()
    insignificant[np.flatnonzero(base == 0)[0]] = 1.0  # one more hit
    frozen, interpolated = candidate("frozen trunk", np.zeros(200)), candidate(INTERPOLATED, base)
    for hits, chosen in ((insignificant, INTERPOLATED), (better, FINE_TUNED), (np.zeros(200), INTERPOLATED)):
        assert select_best([frozen, candidate(FINE_TUNED, hits), interpolated], goal).name == chosen
    assert select_best([frozen, candidate(FINE_TUNED, insignificant)], goal).name == FINE_TUNED
    worse = candidate(INTERPOLATED, np.zeros(200))
    head = candidate("a head", base)
    assert select_best([frozen, head, candidate(FINE_TUNED, better), worse], goal).name == FINE_TUNED


def test_metrics_stand_beside_those_of_the_frozen_trunk() -> None:
    frozen, best = candidate("frozen trunk", np.zeros(4)), candidate("a head", np.ones(4))
    metrics = metrics_of(best, frozen)
    assert metrics["known classes R@1"] == 1.0 and metrics["known classes R@1 frozen"] == 0.0
