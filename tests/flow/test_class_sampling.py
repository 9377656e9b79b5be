"""The way in which classes are drawn reaches the batches of a training."""

import numpy as np
import pytest
from PIL import Image

from unalike.cli import run_command
from unalike.data.batches.sampler import ClassBalancedSampler


@pytest.mark.parametrize("way", ["balanced", "sqrt"])
def test_classes_are_drawn_as_the_spec_says(way, tmp_path, monkeypatch):
    draws = np.random.default_rng(0)
    for label, count in enumerate((9, 4, 2, 2)):
        (tmp_path / "photos" / f"class {label}").mkdir(parents=True)
        for number in range(count):
            pixels = draws.integers(0, 255, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"class {label}" / f"{number}.png")
    ways, plan = [], ClassBalancedSampler.plan
    monkeypatch.setattr(
        ClassBalancedSampler, "plan", lambda s, epoch: (ways.append(s.class_sampling), plan(s, epoch))[1]
    )
    words = ["train", str(tmp_path / "photos"), "-r", str(tmp_path / "run"), "--automl-policy", "off", "model.backbone=test_resnet",
             "model.pretrained=false", "model.input_height=32", "model.input_width=32", "train.num_epochs=1", "dataset.workers=1",
             "train.batch_size=4", "dataset.num_instance=2", f"dataset.class_sampling={way}"]  # fmt: skip
    assert run_command(words) == 0
    assert set(ways) == {way}
