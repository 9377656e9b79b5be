"""Every KPI of TAO has a short name, and other names stay."""

import numpy as np

from unalike.metrics.retrieval import evaluate_ranking
from unalike.metrics.summary import KPI_NAMES
from unalike.runs.kpi_names import SHORT_NAMES, short_name


def test_every_kpi_has_a_short_name():
    assert {name.strip() for name in KPI_NAMES} == set(SHORT_NAMES)
    assert short_name("val Precision at Rank 1") == "val R@1"
    assert short_name("test Mean Average Precision") == "test MAP@R"
    assert short_name("new classes R@1") == "new classes R@1"


def test_keys_of_our_files_have_the_same_names():
    ranking = evaluate_ranking(np.eye(4), [0, 0, 1, 1], np.eye(4), [0, 0, 1, 1], ks=(1, 5, 10))
    assert {key: short_name(key) for key in ranking.metrics()} == {
        "precision_at_1": "R@1", "r_precision": "R-precision", "mean_average_precision_at_r": "MAP@R",
        "mean_average_precision": "mean_average_precision", "mean_reciprocal_rank": "MRR",
        "recall_at_1": "R@1", "recall_at_5": "R@5", "recall_at_10": "R@10",
    }  # fmt: skip
    assert short_name("recall_loss") == "R@1 loss in points"
