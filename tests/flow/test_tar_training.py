"""Training from tar files that are not unpacked: the same weights as from the folder, bit for bit."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch

from tests.flow.conftest import draw_class
from tests.support.program import PLAINLY, TINY, unalike
from unalike.runs.filenames import BEST_CHECKPOINT

CLASSES, EACH = 6, 4
SETTINGS = ["train.num_epochs=2", "train.batch_size=8", "dataset.num_instance=2", "train.seed=3", "dataset.validation.by=class",
            "dataset.validation.fraction=0.34", PLAINLY, *TINY]  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "train" / BEST_CHECKPOINT, weights_only=True)["model"]


def test_weights_are_those_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "images"
    for number in range(CLASSES):
        draw_class(images / f"class {number}", number, EACH, 1)
    files = sorted(images.rglob("*.png"))
    for part in range(3):  # every file has images of every class
        with tarfile.open(f"part-{part}.tar", "w") as tar:
            for path in files[part::3]:
                tar.add(path, path.relative_to(images))
    sources = {"folder": "images", "tars": "part-{0..2}.tar"}
    for name, source in sources.items():
        done = unalike("train", source, "-r", name, *SETTINGS)
        assert done.returncode == 0, done.stderr[-2000:]
    assert f"{CLASSES * EACH} images in 3 tar files" in done.stderr and "nothing is unpacked" in done.stderr
    first, second = (weights(tmp_path / name) for name in sources)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "cache/archives").exists()
    # what is written names members, and can be given again
    assert "part-0.tar!class 0/" in (tmp_path / "tars/train/split.csv").read_text()
    results = []
    for name in sources:
        done = unalike("evaluate", f"evaluate.checkpoint={name}/train/{BEST_CHECKPOINT}", "-r", f"{name}-evaluation",
                       f"dataset.val_dataset.reference={name}/train/split.csv", f"dataset.val_dataset.query={name}/train/split.csv")  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(json.loads(next((tmp_path / f"{name}-evaluation").rglob("metrics.json")).read_text()))
    for part in ("headline", "micro", "macro", "per_class", "intervals"):
        assert results[0][part] == results[1][part]
    assert not (tmp_path / "cache/archives").exists()
    done = unalike("train", "images", "-r", "tars", "--resume", *SETTINGS, "train.num_epochs=3")
    assert done.returncode == 0, done.stderr[-2000:]  # the folder that was packed has the same fingerprint
