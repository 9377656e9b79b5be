"""Every KPI of TAO has a short name, and other names stay."""

from unalike.metrics.summary import KPI_NAMES
from unalike.runs.kpi_names import SHORT_NAMES, short_name


def test_every_kpi_has_a_short_name():
    assert {name.strip() for name in KPI_NAMES} == set(SHORT_NAMES)
    assert short_name("val Precision at Rank 1") == "val R@1"
    assert short_name("test Mean Average Precision") == "test MAP@R"
    assert short_name("new classes R@1") == "new classes R@1"
