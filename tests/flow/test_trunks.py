"""Weights from a hub to a machine without a network: fetch, pack, unpack, train."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.hub import Hub, serve_hub, write_weights
from tests.support.program import process

NAME, REPO = "test_efficientnet", "timm/test_efficientnet.r160_in1k"
SMALL = [
    f"model.backbone={NAME}",
    "model.input_height=64",
    "model.input_width=64",
    "model.feat_dim=16",
    "dataset.workers=0",
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_weights(NAME, tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture
def hub(weights: bytes) -> Iterator[Hub]:
    with serve_hub({f"{REPO}/model.safetensors": weights}) as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "images" / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 60, (64, 64, 3)) + 60 * (number % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "images"


def machine(folder: Path, endpoint: str) -> dict[str, str]:
    """The environment of a machine whose caches are in a folder."""
    return {
        "HF_HOME": str(folder / "hf"), "HF_HUB_CACHE": "", "TORCH_HOME": str(folder / "torch"), "HF_ENDPOINT": endpoint,
        "UNALIKE_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "", "UNALIKE_DOWNLOAD": "",
        "HF_TOKEN": "", "HOME": str(folder), "PATH": os.environ["PATH"],
    }  # fmt: skip


@pytest.mark.slow
def test_weights_travel_to_a_machine_without_a_network(hub, images, tmp_path, weights):
    first, second = machine(tmp_path / "first", hub.address), machine(tmp_path / "second", hub.address)
    done = process("trunks", "fetch", NAME, env=first)
    assert done.returncode == 0 and "downloaded" in done.stdout, done.stderr
    assert "fetching model.safetensors" in done.stderr
    archive = tmp_path / "trunks.zip"
    done = process("trunks", "pack", NAME, "-o", archive, env=first)
    assert done.returncode == 0 and archive.stat().st_size > len(weights), done.stderr
    hub.asked.clear()
    command = ["train", images, *SMALL, "model.pretrained=true", "automl_policy=off", "train.num_epochs=1", "--offline",
               "-r", tmp_path / "runs"]  # fmt: skip
    done = process(*command, env=second)
    assert done.returncode == 1 and "no pretrained weights for test_efficientnet" in done.stderr, done.stderr
    done = process("trunks", "unpack", archive, env=second)
    assert done.returncode == 0 and str(tmp_path / "second" / "hf") in done.stdout, done.stderr
    done = process(*command, "--overwrite", env=second)
    assert done.returncode == 0, done.stderr
    assert hub.asked == [], "the second machine asked nothing"
    spec = (tmp_path / "runs" / "train" / "experiment.yaml").read_text(encoding="utf-8")
    assert NAME in spec
    card = (tmp_path / "runs" / "train" / "model_card.json").read_text(encoding="utf-8")
    assert f"cached {REPO}" in card


def test_a_large_download_is_refused_without_a_terminal_with_the_line_that_allows_it(hub, images, tmp_path):
    hub.stated_size = 200_000_000
    line = ["gallery", "build", str(tmp_path / "g.gallery"), str(images), "-m", f"pretrained:{NAME}"]
    environment = machine(tmp_path / "first", hub.address)
    done = process(*line, env=environment)
    assert done.returncode == 1, done.stderr
    assert (
        f"would download 200 MB, and there is no terminal to ask on; to allow it: unalike {shlex.join(line)} --download"
        in done.stderr
    )
    assert hub.downloads() == [] and not (tmp_path / "g.gallery").exists()
    hub.stated_size = None
    done = process(*line, "--download", env=environment)
    assert done.returncode == 0 and (tmp_path / "g.gallery").is_file(), done.stderr
    assert len(hub.downloads()) == 1


def test_a_search_asks_before_its_trials_start(hub, images, tmp_path):
    hub.stated_size = 200_000_000
    line = ["train", str(images), *SMALL, "automl.trials=2", "-r", str(tmp_path / "runs")]
    done = process(*line, env=machine(tmp_path / "first", hub.address))
    assert done.returncode == 1 and f"unalike {shlex.join(line)} --download" in done.stderr, done.stderr
    assert hub.downloads() == [] and not (tmp_path / "runs" / "train").exists()
