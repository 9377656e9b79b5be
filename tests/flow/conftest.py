"""Tiny class folders that a network can tell apart, and a finished training run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.program import PLAINLY, TINY, data_of, unalike


def draw_class(folder: Path, number: int, count: int, seed: int) -> None:
    """Images of one class: its own stripe direction and colour, shifted and noisy."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, number])
    colour = np.random.default_rng(number).integers(60, 255, 3)
    ys, xs = np.mgrid[0:72, 0:72]
    for i in range(count):
        wave = np.sin((xs * np.cos(number) + ys * np.sin(number)) / (3 + number % 3) + rng.uniform(0, 6))
        image = (0.5 + 0.4 * wave)[..., None] * colour + rng.normal(0, 12, (72, 72, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """``train`` (6 classes), ``reference`` and ``query`` (the same 6), names with a space and an umlaut."""
    root = tmp_path_factory.mktemp("Bilder für uns")
    for part, count, seed in (("train", 6, 0), ("reference", 3, 1), ("query", 3, 2)):
        for number in range(6):
            draw_class(root / part / f"class {number} ü", number, count, seed)
    return root


@pytest.fixture(scope="session")
def trained(images, tmp_path_factory):
    """A finished training run: the folder of its results."""
    out = tmp_path_factory.mktemp("results")
    done = unalike("train", images / "train", "-r", out, *data_of(images), "train.num_epochs=2", "train.batch_size=12",
                   *TINY, PLAINLY, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert Path(result["path"]).name == "ml_model_best.pth"
    return out / "train"


@pytest.fixture(scope="session")
def figures_of_torch(trained, images, tmp_path_factory):
    """What the checkpoint measures when torch runs it: the figures that every other way must give."""
    out = tmp_path_factory.mktemp("torch")
    done = unalike("evaluate", "-r", out, *data_of(images), f"evaluate.checkpoint={trained / 'ml_model_best.pth'}",
                   "evaluate.runtime=torch", "evaluate.precision=fp32")  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((out / "evaluate/metrics.json").read_text())["micro"]
