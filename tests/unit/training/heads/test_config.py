"""A head's settings: read from a spec, written to a spec, and named."""

from __future__ import annotations

import pytest

from unalike.spec import load_spec
from unalike.training.heads.config import HeadConfig, head_training

CONFIGS = [
    HeadConfig(False, 0.2, 2.0),
    HeadConfig(True, 0.5, 1.0, head_training("CosFaceLoss")),
    HeadConfig(True, 0.0, 4.0, head_training("ProxyAnchorLoss", mlp=True)),
    HeadConfig(True, 0.5, label_weights=True),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_settings_that_are_written_to_a_spec_are_read_back(config: HeadConfig) -> None:
    spec = load_spec("train")
    config.settle(spec, mirrored=True)
    assert HeadConfig.from_spec(spec) == config and spec.train.finish.mirrored


def test_a_setting_of_the_user_is_kept() -> None:
    spec = load_spec("train", overrides=["train.finish.residual=0.37", "model.head=linear"])
    HeadConfig(True, 0.1).settle(spec, mirrored=False)
    assert (spec.train.finish.residual, spec.model.head) == (0.37, "linear")


def test_names() -> None:
    assert HeadConfig(False, 0.0).name == "discriminant head, residual 0"
    config = HeadConfig(True, 0.3, 2.0, head_training(None, mlp=True))
    name = "discriminant head, residual 0.3, shrinkage x 2, square root, trained with CosFaceLoss and a perceptron"
    assert config.name == name
    assert HeadConfig(False, 0.0, label_weights=True).name == "discriminant head, residual 0, label weights"
    assert head_training(None) is None
