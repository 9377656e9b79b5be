"""Which candidate is delivered, and the reasons that are given."""

from __future__ import annotations

import numpy as np

from tests.support.series import holdout_result
from unalike.training.automatic.choice_rule import describe_expected, explain_choice, metrics_of, select_best
from unalike.training.automatic.final_choice import FINE_TUNED, INTERPOLATED, LARGER, Candidate


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


def values(name: str, r_at_1: float, map_at_r: float) -> Candidate:
    result = holdout_result(np.arange(200) < round(200 * r_at_1), np.full(200, map_at_r))
    return Candidate(name, result, result.score("known-classes"))


def test_the_nearest_reference_decides_and_precision_only_among_equals() -> None:
    """A head of R@1 0.950 was left out for a frozen trunk of 0.883 whose MAP@R was higher."""
    goal = "known-classes"
    frozen, head = values("frozen trunk", 0.883, 0.9), values("a head", 0.95, 0.6)
    best = select_best([frozen, head], goal)
    assert best is head
    reasons = explain_choice([frozen, head], best, goal)
    assert reasons["frozen trunk"].startswith("R@1 lower by 0.065 (standard error 0.0")
    assert reasons["a head"] == "highest R@1"
    nearly = values("another head", 0.945, 0.9)
    best = select_best([frozen, head, nearly], goal)
    assert best is nearly
    reasons = explain_choice([frozen, head, nearly], best, goal)
    assert "within one standard error of the highest (a head)" in reasons["another head"]
    assert reasons["a head"] == "R@1 equal within one standard error (+0.005), MAP@R lower by 0.300"


def test_of_equal_candidates_the_first_is_delivered() -> None:
    first, second = values("frozen trunk", 0.9, 0.5), values("a head", 0.9, 0.5)
    assert select_best([first, second], "both") is first


def test_every_candidate_gets_a_reason() -> None:
    base = (np.random.default_rng(0).random(200) < 0.5).astype(float)
    candidates = [candidate("frozen trunk", np.zeros(200)), candidate(FINE_TUNED, base), candidate(INTERPOLATED, base)]
    best = select_best(candidates, "known-classes")
    reasons = explain_choice(candidates, best, "known-classes")
    assert best.name == INTERPOLATED and all(reasons.values()) and "interpolated weights" in reasons[FINE_TUNED]


def test_of_sizes_that_count_as_equal_the_next_larger_one_is_delivered() -> None:
    goal = "known-classes"
    names = [LARGER.format(height=side, width=side, cost=side**2 / 224**2) for side in (256, 288)]
    frozen, tuned = values("frozen trunk", 0.5, 0.5), values(INTERPOLATED, 0.9, 0.8)
    for at_1, precisions, chosen, preferred in (
        ((0.895, 0.9), (0.79, 0.79), 1, True), ((0.9, 0.95), (0.7, 0.7), 2, False), ((0.8, 0.8), (0.9, 0.9), 0, False),
        ((0.9, 0.9), (0.7, 0.85), 2, False), ((0.8, 0.9), (0.9, 0.79), 2, True),
    ):  # fmt: skip
        larger = [values(*row) for row in zip(names, at_1, precisions, strict=True)]
        candidates = [frozen, tuned, *larger]
        best = select_best(candidates, goal)
        assert best is [tuned, *larger][chosen], (at_1, precisions)
        reasons = explain_choice(candidates, best, goal)
        assert all(reasons.values()) and not any("lower by -" in reason for reason in reasons.values())
        assert ("next larger" in reasons[INTERPOLATED]) == ("four other sets" in reasons[best.name]) == preferred
    assert not frozen.is_larger and not tuned.is_larger and all(c.is_larger for c in larger)
    head = values("a head", 0.91, 0.85)
    assert select_best([frozen, head, tuned, *larger], goal) is head


def test_what_to_expect_is_a_sentence() -> None:
    text = describe_expected(values("a head", 0.9, 0.5).result)
    assert text.startswith("expected R@1 on 100 new images of these classes: 0.8")
    few = holdout_result(np.ones(6), np.ones(6), "known")
    assert "too few to say (6 images of 6 classes)" in describe_expected(few) or "to 1.00" in describe_expected(few)
    assert describe_expected(holdout_result(np.ones(6), np.ones(6), "new")) == ""
