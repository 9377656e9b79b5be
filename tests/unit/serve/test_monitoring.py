"""What is told of a gallery's last hours: shares with intervals, drift, times, and alarms by their stated rules."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.serving import store_in
from unalike.metrics.intervals import wilson_interval
from unalike.recognition.score_baseline import ScoreBaseline
from unalike.serve.metrics import Metrics
from unalike.serve.monitoring import RANGES, Share, rates, read_statistics
from unalike.serve.store import DecisionRecord, Store
from unalike.serve.store.records import utc_now

NOW = utc_now()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


def add(store: Store, decision: str, count: int, minutes: float = 1, score: float = 0.9, **values: Any) -> None:
    values = {"kind": "identify", "resource": "shop"} | values
    store.decisions.add([
        DecisionRecord(decision=decision, score=score, time=NOW - timedelta(minutes=minutes), **values) for _ in range(count)
    ])  # fmt: skip


def baseline(*known: float) -> ScoreBaseline:
    return ScoreBaseline(np.array(known), np.empty(0), 1)


def read(
    store: Store, span: str = "day", known: ScoreBaseline | None = None, metrics: Metrics | None = None, **options: Any
) -> dict[str, Any]:
    return read_statistics(store, metrics or Metrics(), "shop", span, known, now=NOW, **options)


def alarms(document: dict[str, Any]) -> dict[str, bool]:
    return {alarm["name"]: alarm["is_on"] for alarm in document["alarms"]}


@pytest.mark.parametrize("span", list(RANGES))
def test_decisions_are_counted_within_the_range(store: Store, span: str) -> None:
    for minutes, count in ((1, 2), (90, 3), (60 * 30, 5), (60 * 24 * 8, 7)):
        add(store, "label", count, minutes)
    add(store, "good", 4, kind="inspect", resource="part")
    document = read(store, span)
    expected = {"hour": 2, "day": 5, "week": 10}[span]
    assert document["totals"] == {"label": expected, "ambiguous": 0, "unknown": 0}
    assert sum(entry["label"] for entry in document["decisions"]) == expected
    assert document["others"] == [{"kind": "inspect", "resource": "part", "decision": "good", "count": 4}]
    assert read(store, span, only=True)["others"] == []
    times = [entry["time"] for entry in document["decisions"]]
    assert times == sorted(times) and len(times) in range(12, 30)
    points = rates(document, "label")
    assert all(hours <= 0 for hours, _ in points)
    assert sum(rate for _, rate in points) * document["bucket_s"] / 3600 == pytest.approx(expected)


def test_the_unknown_share_has_an_interval_and_an_alarm(store: Store) -> None:
    add(store, "label", 20, minutes=5)
    document = read(store)
    assert document["unknown"] == {
        "count": 0,
        "total": 20,
        "share": 0.0,
        **dict(zip(("low", "high"), bounds(0, 20), strict=True)),
    }
    assert not alarms(document)["unknown images"]
    add(store, "unknown", 9)
    assert not alarms(read(store))["unknown images"], "too few decisions"
    add(store, "unknown", 20)
    document = read(store)
    assert alarms(document)["unknown images"] and document["unknown"]["low"] > 0.2
    assert "59.2%" in next(alarm["text"] for alarm in document["alarms"] if alarm["name"] == "unknown images")
    add(store, "label", 200, minutes=0.5)  # the latest ones count
    assert document["unknown"]["total"] == 49 and read(store)["unknown"]["count"] == 0


def bounds(count: int, total: int) -> tuple[float, float]:
    interval = wilson_interval(count, total)
    return interval.low, interval.high


def test_scores_are_compared_with_those_of_references(store: Store) -> None:
    known = baseline(*np.linspace(0.5, 1.0, 51))
    add(store, "label", 60, score=0.9)
    add(store, "unknown", 60, score=0.1)  # not among the labels
    document = read(store, known=known)
    scores = document["scores"]
    assert scores["labels_n"] == 60 and scores["references_n"] == 51 == sum(scores["references"])
    assert (
        scores["bound"] == pytest.approx(0.55) and scores["below"]["count"] == 0 and not alarms(document)["score drift"]
    )
    add(store, "label", 60, score=0.52)
    document = read(store, known=known)
    assert document["scores"]["below"]["share"] == 0.5 and alarms(document)["score drift"]
    assert read(store)["scores"]["is_measured"] is False and not alarms(read(store))["score drift"]
    assert read(store, known=baseline(0.9))["scores"]["bound"] is None


def test_errors_are_counted_since_the_start(store: Store) -> None:
    metrics = Metrics()
    for status, count in ((200, 90), (404, 5)):
        for _ in range(count):
            metrics.add_request("/v1/identify", "POST", status, 0.01)
    document = read(store, metrics=metrics)
    assert document["requests"] == {"200": 90, "404": 5} and not alarms(document)["errors"]
    for _ in range(10):
        metrics.add_request("/v1/identify", "POST", 503, 0.01)
    assert alarms(read(store, metrics=metrics))["errors"]


def test_times_are_those_of_the_stages(store: Store) -> None:
    metrics = Metrics()
    for _ in range(10):
        metrics.add_decoding(0.02)
    latency = read(store, metrics=metrics, workers=3)["latency"]
    assert latency["processes"] == 1 and latency["of_processes"] == 3
    assert latency["stages"]["decode"]["count"] == 10 and latency["stages"]["decode"]["mean_ms"] == 20.0
    assert 10 <= latency["stages"]["decode"]["p50_ms"] <= 25 and latency["stages"]["network"]["p95_ms"] is None


def test_a_share_of_nothing_says_so() -> None:
    assert str(Share.of(0, 0)) == "none yet" and Share.of(0, 0).share is None
    assert str(Share.of(1, 4)).startswith("25.0% (")
