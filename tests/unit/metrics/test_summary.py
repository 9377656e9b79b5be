import json

import numpy as np
import pytest

from unalike.errors import UnalikeError
from unalike.metrics.retrieval import evaluate_ranking
from unalike.metrics.summary import confused_pairs, per_class_table, summarize, tao_kpis

NAMES = ["apple", "pear", "plum", "fig"]


def axes(*labels):
    return np.eye(6)[list(labels)]


@pytest.fixture
def ranking():
    # Three apples, one of them nearest to pear; one plum, right; fig is not in the reference; pear has no query.
    queries = axes(0, 0, 1, 2, 3)
    return evaluate_ranking(queries, [0, 0, 0, 2, 3], axes(0, 1, 2), [0, 1, 2])


def test_d24_micro_and_macro_stand_side_by_side_and_the_headline_is_micro(ranking):
    for n in (0, 100):
        summary = summarize(ranking, NAMES, n=n)
        assert summary["micro"]["precision_at_1"]["value"] == pytest.approx(3 / 4)
        assert summary["macro"]["precision_at_1"]["value"] == pytest.approx((2 / 3 + 1) / 2)
        assert summary["headline"] == {"metric": "precision_at_1", "average": "micro", "value": 0.75}
        assert tao_kpis(summary, "val")["val Precision at Rank 1"] == 0.75
    assert summary["micro"]["precision_at_1"]["low"] < 0.75 < summary["micro"]["precision_at_1"]["high"]


def test_d23_d33_names_and_values_of_classes_without_queries(ranking):
    rows = {row["class"]: row for row in per_class_table(ranking, NAMES, np.array([0, 1, 2]))}
    assert list(rows) == NAMES
    assert rows["apple"]["precision_at_1"] == pytest.approx(2 / 3)
    assert rows["pear"]["queries"] == 0 and rows["pear"]["precision_at_1"] is None
    assert rows["plum"]["precision_at_1"] == 1
    assert rows["fig"]["references"] == 0 and rows["fig"]["measured"] == 0


def test_open_set_queries_stand_apart(ranking):
    summary = summarize(ranking, NAMES)
    assert summary["open_set"]["queries"] == 1 and summary["open_set"]["classes"] == {"fig": 1}
    assert (summary["queries"], summary["measured"], summary["classes"]) == (5, 4, 2)


def test_confused_pairs_and_json(ranking):
    assert confused_pairs(ranking, NAMES) == [{"class": "apple", "taken_for": "pear", "count": 1, "share": 1 / 3}]
    assert json.loads(json.dumps(summarize(ranking, NAMES), allow_nan=False))["format_version"] == 1


def test_kpi_names_of_the_contract(ranking):
    summary = summarize(ranking, NAMES, clusters={"AMI": 0.5, "NMI": 0.6})
    assert list(tao_kpis(summary, "test")) == [
        "test_AMI", "test_NMI", "test Mean Average Precision", "test Mean Reciprocal Rank", "test r-Precision",
        "test Precision at Rank 1",
    ]  # fmt: skip
    assert "val_AMI" not in tao_kpis(summarize(ranking, NAMES), "val")


def test_intervals_name_their_claim(ranking):
    """Few classes: these classes, and their images vary; many: classes like these; series vary where they are known."""
    few, classes = summarize(ranking, NAMES), summarize(ranking, NAMES, resample="classes")
    assert few["intervals"]["resampled"] == "queries"
    assert few["intervals"]["claim"] == "further images of these 2 classes, each taken independently of the others"
    assert few["micro"]["precision_at_1"]["low"] > classes["micro"]["precision_at_1"]["low"]
    assert classes["intervals"]["claim"] == "further classes like these 2"
    assert (
        summarize(ranking, NAMES, series=["a", "a", "b", "c", "c"])["intervals"]["claim"]
        == "further series of these 2 classes"
    )
    single = summarize(ranking, NAMES, series=[""] * 5)["micro"]["precision_at_1"]
    assert single["low"] == pytest.approx(few["micro"]["precision_at_1"]["low"], abs=0.1)
    vectors, labels = np.eye(12), np.arange(12)
    many = evaluate_ranking(np.repeat(vectors, 2, 0), np.repeat(labels, 2), vectors, labels)
    assert summarize(many, [str(i) for i in range(12)])["intervals"]["resampled"] == "classes"


def test_settings_that_are_not_possible_are_refused(ranking):
    with pytest.raises(UnalikeError, match="auto, queries or classes"):
        summarize(ranking, NAMES, resample="images")
    with pytest.raises(UnalikeError, match="has no name"):
        summarize(ranking, NAMES[:2])
