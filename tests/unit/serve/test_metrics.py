"""Values of the metrics."""

from __future__ import annotations

from unalike.serve.batching import BatchReport
from unalike.serve.metrics import Metrics


def test_stages_batches_decisions_and_scores_are_counted() -> None:
    metrics = Metrics()
    metrics.add_decoding(0.004)
    metrics.add_batch(BatchReport(3, 0.02, 0.001, (0.0, 0.001, 0.003)))
    for decision, score in (("unknown", 0.2), ("label", 0.9)):
        metrics.add_decision("shop", decision, score)
    text = metrics.render(5, {"shop": 7}).decode()
    for line in (
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
