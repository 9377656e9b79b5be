"""Values of the metrics."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unalike.serve.batching import BatchReport
from unalike.serve.metrics import FOLDER_VARIABLE, Metrics


def test_stages_batches_decisions_and_scores_are_counted() -> None:
    metrics = Metrics()
    metrics.add_decoding(0.004)
    metrics.add_batch(BatchReport(3, 0.02, 0.001, (0.0, 0.001, 0.003)))
    for decision, score in (("unknown", 0.2), ("label", 0.9)):
        metrics.add_decision("shop", decision, score)
    metrics.add_shadow("shop", "dropped", 3)
    text = metrics.render(5, {"shop": 7}).decode()
    for line in (
        'unalike_shadow_images_total{gallery="shop",outcome="dropped"} 3.0',
        'unalike_stage_seconds_count{stage="decode"} 1.0', 'unalike_stage_seconds_count{stage="queue"} 3.0',
        'unalike_stage_seconds_sum{stage="network"} 0.02', "unalike_batch_images_sum 3.0", "unalike_queue_images 5.0",
        'unalike_score_bucket{le="0.3",resource="shop"} 1.0', 'unalike_unknown_share{resource="shop"} 1.0',
        'unalike_gallery_images{gallery="shop"} 7.0',
    ):  # fmt: skip
        assert line in text, line


def test_the_share_of_unknown_images_is_that_of_the_last_ones() -> None:
    metrics = Metrics()
    for number in range(1011):
        metrics.add_decision("shop", "unknown" if number >= 506 else "label", None)
    assert 'unalike_unknown_share{resource="shop"} 0.' in metrics.render(0, {}).decode()
    assert sum(metrics._recent["shop"]) == 505 and len(metrics._recent["shop"]) == 1000


def test_times_of_stages_are_read_back_with_quantiles() -> None:
    metrics = Metrics()
    for seconds in (0.0004, 0.002, 0.002, 0.2):
        metrics.add_decoding(seconds)
    times = metrics.stage_times()
    assert times["decode"].count == 4 and times["decode"].mean_s == pytest.approx(0.0511)
    median, high = times["decode"].quantile(0.5), times["decode"].quantile(0.99)
    assert median is not None and 0.001 <= median <= 0.0025 and high is not None and 0.1 < high <= 0.25
    assert times["network"].count == 0 and times["network"].mean_s is None and times["network"].quantile(0.5) is None
    metrics.add_decoding(100.0)  # beyond the last bound
    assert metrics.stage_times()["decode"].quantile(1.0) == 30


def test_answers_are_counted_by_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 503):
        metrics.add_request("/v1/identify", "POST", status, 0.01)
    metrics.add_request("/v1/classes", "GET", 200, 0.01)
    assert metrics.status_counts() == {200: 3, 503: 1} and not metrics.is_shared


def test_processes_that_share_a_folder_are_read_together(tmp_path: Path) -> None:
    program = (
        "from unalike.serve.metrics import Metrics\n"
        "metrics = Metrics()\n"
        "metrics.add_decoding(0.01); metrics.add_request('/', 'GET', 200, 0.1)\n"
        "print(metrics.is_shared, metrics.stage_times()['decode'].count, metrics.status_counts())\n"
    )
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    outputs = [
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert outputs == ["True 1 {200: 1}\n", "True 2 {200: 2}\n"]
