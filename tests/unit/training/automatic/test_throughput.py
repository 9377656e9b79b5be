"""The plan of fine-tuning: epochs by the measured or given rate of training steps."""

from __future__ import annotations

import pytest

from unalike.model.embedder import EmbedderConfig, create_embedder
from unalike.spec import load_spec
from unalike.training.automatic import throughput
from unalike.training.automatic.throughput import OVERHEAD, TUNING_PRESETS, plan_tuning


def test_epochs_follow_from_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec("train", {"train": {"batch_size": 4}, "model": {"input_height": 64, "input_width": 64}})
    network = create_embedder(EmbedderConfig("tf_efficientnet_lite0", 4, 3, (64, 64)))
    monkeypatch.setattr(throughput, "measure_step_rate", lambda *_: 10.0)
    seconds = 10.1 * 5 * (1 + OVERHEAD)  # ten epochs of 50 images, at 5 s each
    plan = plan_tuning(network, spec, TUNING_PRESETS[0], images=50, seconds=seconds, inference_rate=100.0)
    assert (plan.size, plan.frozen_stages, plan.epochs) == ((48, 48), 4, 10)
    monkeypatch.undo()
    measured = plan_tuning(network, spec, TUNING_PRESETS[1], images=50, seconds=61.0, inference_rate=100.0)
    assert measured.rate > 0 and all(p.requires_grad for p in network.parameters())
