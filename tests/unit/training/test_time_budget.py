"""Seconds of a time budget, on a clock that the test sets."""

from __future__ import annotations

from unalike.training.time_budget import TimeBudget


def test_seconds_left_and_until_a_share() -> None:
    now = [10.0]
    budget = TimeBudget(1.0, 10.0, lambda: now[0])
    now[0] = 30.0
    assert (budget.seconds, budget.spent, budget.left, budget.until(0.5)) == (60.0, 20.0, 40.0, 10.0)
    budget.reserved = 20.0  # for an evaluation afterwards: shares are of the rest
    assert (budget.spent, budget.left, budget.until(0.5)) == (20.0, 20.0, 0.0)
    assert budget.until(0.5, since=20.0) == 5.0 and budget.until(1.0, since=20.0) == budget.left  # 20 to 50
    now[0] = 75.0
    assert (budget.spent, budget.left) == (65.0, -25.0)


def test_time_is_kept_for_the_end_of_the_program_by_the_time_of_its_start() -> None:
    now = [110.0]
    budget = TimeBudget(1.0, 100.0, lambda: now[0])  # the imports took 10 s
    assert budget.end_seconds == 6.0 and budget.left == 44.0
    now[0] = 1000.0
    assert TimeBudget(1.0, 100.0, lambda: now[0]).end_seconds == 0.6 * 24.0  # at most 0.4 of the budget


def test_an_evaluation_afterwards_is_left_out_where_it_takes_too_much_of_the_budget() -> None:
    now = [0.0]
    budget = TimeBudget(1.0, 0.0, lambda: now[0])
    assert budget.has_time_after
    budget.reserve(20.0)
    assert budget.left == 40.0 and budget.has_time_after
    now[0] = 41.0
    assert budget.left < 0 and not budget.has_time_after
    now[0] = 0.0
    budget.reserve(30.0)  # more than 0.4 of it: none is kept, and it takes place only if so much happens to be left
    assert budget.left == 60.0 and budget.has_time_after
