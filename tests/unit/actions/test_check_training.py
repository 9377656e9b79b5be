"""Check of a spec that trains names what the run would meet after its network is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unalike


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for label in range(5):
        (root / "train" / f"class {label}").mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(10 * label + number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "train" / f"class {label}" / f"{number}.png")
    (root / "file").write_text("x")
    return root


@pytest.mark.parametrize(("train", "dataset", "model", "named"), [
    ({"batch_size": 1}, {}, {}, "cannot hold two classes"),
    ({"frozen_stages": 99}, {}, {}, "train.frozen_stages is 99"),
    ({"checkpointer": {"monitor": "val_foo"}}, {}, {}, "train.checkpointer.monitor is 'val_foo'"),
    ({"checkpointer": {"filename": "x{nothing}", "enable_topk": True}}, {}, {}, "train.checkpointer.filename"),
    ({"checkpointer": {"dirpath": "FILE", "enable_topk": True}}, {}, {}, "is a file; expected a folder"),
    ({"warm_start": True}, {}, {"head": "residual"}, "no closed form fits"),
    ({"results_dir": "FILE"}, {}, {}, "is a file; expected a folder"),
    ({}, {"cache": {"mode": "disk", "directory": "FILE"}}, {}, "is a file; expected a folder"),
])  # fmt: skip
def test_what_would_fail_later_is_named(
    train: dict[str, Any], dataset: dict[str, Any], model: dict[str, Any], named: str, photos: Path
) -> None:
    spec = {"train": train, "dataset": {"train_dataset": str(photos / "train"), **dataset},
            "model": {"backbone": "test_resnet", "pretrained": "false", "input_height": 32, "input_width": 32, **model}}  # fmt: skip
    text = json.dumps(spec).replace('"FILE"', json.dumps(str(photos / "file")))
    found = unalike.check(json.loads(text)).faults
    assert len(found) == 1 and named in found[0], found


def test_a_good_spec_has_no_fault(photos: Path) -> None:
    spec = {"dataset": {"train_dataset": str(photos / "train")}, "train": {"batch_size": 8, "frozen_stages": 1},
            "model": {"backbone": "test_resnet", "pretrained": "false", "input_height": 32, "input_width": 32}}  # fmt: skip
    assert unalike.check(spec).ok
