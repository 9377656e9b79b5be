"""Statistics of decisions: the database counts as a plain loop does, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from unalike.serve.store import DecisionRecord, Feedback, Store
from unalike.serve.store.statistics import BINS

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def records(store: Store) -> list[DecisionRecord]:
    rng = np.random.default_rng(0)
    rows = [
        DecisionRecord(
            "identify" if rng.random() < 0.8 else "inspect", str(rng.choice(["shop", "parts"])), str(rng.choice(["label", "unknown"])),
            score=None if rng.random() < 0.1 else float(rng.uniform(-1, 1)), time=START + timedelta(seconds=float(rng.uniform(0, 7200))),
        )
        for _ in range(300)
    ]  # fmt: skip
    # At the edges of buckets and bins.
    rows += [DecisionRecord("identify", "shop", "label", score=score, time=START + timedelta(seconds=300 * step)) for step, score in
             enumerate((1.0, -1.0, 0.0, 0.05, 0.5, 1.0, 0.95, -0.05))]  # fmt: skip
    store.decisions.add(rows)
    return rows


@pytest.mark.parametrize("bucket_s", [300, 3600])
@pytest.mark.parametrize("resource", [None, "shop"])
def test_counts_by_time_are_those_of_a_loop(
    store: Store, records: list[DecisionRecord], bucket_s: int, resource: str | None
) -> None:
    since, until = START + timedelta(seconds=100), START + timedelta(seconds=6000)
    expected: Counter[tuple[int, str, str, str]] = Counter()
    for one in records:
        if since <= one.time < until and (resource is None or (one.kind, one.resource) == ("identify", resource)):
            expected[int(one.time.timestamp()) // bucket_s * bucket_s, one.kind, one.resource, one.decision] += 1
    rows = store.statistics.count_by_time(since, until, bucket_s, resource=resource)
    assert {(int(row[0].timestamp()), *row[1:4]): row[4] for row in rows} == expected
    assert [row[0] for row in rows] == sorted(row[0] for row in rows) and all(row[0].tzinfo == UTC for row in rows)


def test_histograms_are_those_of_numpy(store: Store, records: list[DecisionRecord]) -> None:
    until = START + timedelta(hours=3)
    scores = [
        one.score
        for one in records
        if (one.kind, one.resource, one.decision) == ("identify", "shop", "label") and one.score is not None
    ]
    expected = np.bincount([min(int((score + 1) * 20 + 1e-9), BINS - 1) for score in scores], minlength=BINS)
    counts = store.statistics.score_histogram("shop", "label", START, until)
    assert counts == expected.tolist() and sum(counts) == len(scores)
    assert store.statistics.count_below("shop", "label", START, until, 0.3) == (
        sum(score < 0.3 for score in scores),
        len(scores),
    )
    assert store.statistics.count_below("none", "label", START, until, 0.3) == (0, 0)
    assert store.statistics.score_histogram("none", "label", START, until) == [0] * BINS


@pytest.mark.parametrize("count", [1, 50, 1000])
def test_the_latest_are_the_newest(store: Store, records: list[DecisionRecord], count: int) -> None:
    own = sorted(
        (one for one in records if (one.kind, one.resource) == ("identify", "shop")),
        key=lambda one: one.time,
        reverse=True,
    )
    assert store.statistics.latest("shop", START, count) == dict(Counter(one.decision for one in own[:count]))
    assert store.statistics.latest("shop", START + timedelta(days=1), count) == {}


def test_verdicts_are_counted(store: Store, records: list[DecisionRecord]) -> None:
    own = [one for one in records if (one.kind, one.resource) == ("identify", "shop")]
    for number, verdict in enumerate(["confirmed", "confirmed", "wrong", "confirmed"]):
        store.decisions.give_feedback(own[number].id, Feedback(verdict))
    store.decisions.give_feedback(own[0].id, Feedback("withdrawn"))
    assert store.statistics.count_verdicts("shop", START, START + timedelta(hours=3)) == {"confirmed": 2, "wrong": 1}
