"""Settings that were changed count before the start options; what is no number of days is refused."""

from __future__ import annotations

from typing import Any

import pytest

from unalike.serve.problems import Problem
from unalike.serve.runtime_settings import describe_settings, read_changes, retention_days
from unalike.spec.serve import Serve


def test_a_change_counts_before_the_start_option() -> None:
    settings = Serve(retention_days=10.0, decision_days=20.0)
    assert retention_days(settings, {}) == (10.0, 20.0)
    assert retention_days(settings, {"decision_days": 0}) == (10.0, 0.0)
    assert describe_settings(settings, {"retention_days": 3})["retention_days"] == {
        "value": 3.0,
        "default": 10.0,
        "is_changed": True,
    }


def test_null_means_the_start_option() -> None:
    assert read_changes({"retention_days": None, "decision_days": 1}) == {"retention_days": None, "decision_days": 1.0}


@pytest.mark.parametrize("values", [
    {}, {"other": 1}, {"retention_days": "1"}, {"retention_days": -1}, {"retention_days": 1e9}, {"retention_days": True},
    {"retention_days": float("nan")}, {"retention_days": []},
])  # fmt: skip
def test_what_is_no_number_of_days_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Problem) as info:
        read_changes(values)
    assert info.value.status == 422
