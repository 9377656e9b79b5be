"""Training without labels from the command line: folder names have no effect, and the best candidate is delivered."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.flow.conftest import draw_class
from tests.support.program import unalike
from tests.support.shared_folder import make_once
from unalike.model.checkpoint import load_embedder, read_checkpoint
from unalike.training.automatic.group_tuning import FINE_TUNED
from unalike.training.heads.head_search import FROZEN

SMALL = ["model.input_height=64", "model.input_width=64", "dataset.workers=1", "train.seed=3", "train.batch_size=16",
         "model.backbone=tf_efficientnet_lite0"]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNALIKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_photos(root: Path) -> None:
    for number in range(24):
        draw_class(root / "classes" / f"class {number}", number, 6, 0)
    files = sorted((root / "classes").rglob("*.png"))
    for place, i in enumerate(np.random.default_rng(0).permutation(len(files)).tolist()):
        target = root / "shuffled" / f"folder {place % 7}" / f"{place:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files[i], target)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``classes``: 24 class folders of six; ``shuffled``: the same files under other names in other folders."""
    return make_once(tmp_path_factory, "unlabeled-photos", make_photos)


@pytest.fixture(scope="module")
def two_runs(photos: Path, tmp_path_factory: pytest.TempPathFactory, cache: None) -> list[Path]:
    def train(out: Path) -> None:
        for name in ("classes", "shuffled"):
            process = unalike("train", photos / name, "--no-labels", "-r", out / name, "--minutes", "5", *SMALL,
                           "train.num_epochs=1", f"dataset.val_dataset.reference={photos / 'classes'}",
                           f"dataset.val_dataset.query={photos / 'classes'}", "--json")  # fmt: skip
            assert process.returncode == 0, process.stderr[-3000:]
            figures = json.loads(process.stdout)["figures"]
            assert figures["val Precision at Rank 1"] > 0.5 and figures["discovered groups R@1"] >= 0

    out = make_once(tmp_path_factory, "unlabeled-runs", train)
    return [out / name / "train" for name in ("classes", "shuffled")]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(file)["model"]


def test_folder_names_have_no_effect(two_runs: list[Path]) -> None:
    for name in ("ml_model_best.pth", "fine_tuning_1/ml_model_latest.pth"):
        first, second = (weights(folder / name) for folder in two_runs)
        assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    records = [json.loads((folder / "unlabelled.json").read_text()) for folder in two_runs]
    assert records[0]["candidates"] == records[1]["candidates"]


def test_the_candidate_of_the_highest_score_is_delivered(two_runs: list[Path]) -> None:
    folder = two_runs[0]
    record = json.loads((folder / "unlabelled.json").read_text())
    names = [c["name"] for c in record["candidates"]]
    assert names[0] == FROZEN and names[-1] == FINE_TUNED and len(names) == 4
    best = max(record["candidates"], key=lambda c: c["score"])
    assert record["chosen"] == best["name"] and "no accuracy" in record["meaning"]
    assert record["judged_on"]["new"] > 0 and record["fitted_to_images"] < 144
    embedder, meta = load_embedder(folder / "ml_model_best.pth")
    assert embedder(torch.zeros(1, 3, 64, 64)).shape == (1, meta["spec"]["model"]["feat_dim"])
    assert not any("class" in name for name in meta["classes"])
    card = json.loads((folder / "model_card.json").read_text())
    assert card["automatic"]["chosen"] == best["name"]


def test_labels_none_in_a_spec_and_a_time_too_short_for_the_query(photos: Path, tmp_path: Path, cache: None) -> None:
    """Without time to fine-tune, the frozen trunk with or without a head is delivered; how to evaluate it is said."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"dataset:\n  labels: none\n  train_dataset: {photos / 'shuffled'}\n  val_dataset:\n"
                    f"    reference: {photos / 'classes'}\n    query: {photos / 'classes'}\n")  # fmt: skip
    process = unalike("train", "-e", spec, "-r", tmp_path, *SMALL, "automl.minutes=0.001", "--json")
    assert process.returncode == 0, process.stderr[-3000:]
    assert "too short to fine-tune" in process.stderr
    figures = json.loads(process.stdout)["figures"]
    assert "val Precision at Rank 1" not in figures and figures["discovered groups R@1"] >= 0
    checkpoint = tmp_path / "train/ml_model_best.pth"
    assert (
        f"unalike evaluate {checkpoint} --reference {photos / 'classes'} --query {photos / 'classes'}" in process.stderr
    )
    record = json.loads((tmp_path / "train/unlabelled.json").read_text())
    embedder, _ = load_embedder(checkpoint)
    images = torch.rand(3, 3, 64, 64)
    same = torch.allclose(embedder(images), embedder.trunk(images), atol=1e-4)
    assert same == (record["chosen"] == FROZEN)


def test_with_few_images_the_frozen_trunk_is_delivered(tmp_path: Path, cache: None) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        (tmp_path / "few").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 70, 3), dtype=np.uint8)).save(tmp_path / "few" / f"{i}.png")
    process = unalike("train", tmp_path / "few", "--no-labels", "-r", tmp_path / "out", "--minutes", "1", *SMALL)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "too few groups to hold some out" in process.stderr and "it is delivered unchanged" in process.stderr
    embedder, _ = load_embedder(tmp_path / "out/train/ml_model_best.pth")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(embedder(images), embedder.trunk(images))
    (tmp_path / "few" / "1.png").unlink(), (tmp_path / "few" / "2.png").unlink()
    process = unalike("train", tmp_path / "few", "--no-labels", "-r", tmp_path / "one", *SMALL)
    assert process.returncode != 0 and "1 image to learn from" in process.stderr


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(photos: Path, tmp_path: Path, cache: None) -> None:
    """Killed in both rounds of fine-tuning, a run continues from finished stages, and its results are equal."""

    def arguments(name: str) -> list[object]:
        return ["train", photos / "shuffled", "--no-labels", "-r", tmp_path / name, "--minutes", "5", *SMALL,
                "train.num_epochs=6", "train.checkpoint_interval=1"]  # fmt: skip

    straight, killed = tmp_path / "straight" / "train", tmp_path / "killed" / "train"
    process = unalike(*arguments("straight"))
    assert process.returncode == 0, process.stderr[-3000:]
    for number in (1, 2):
        log = tmp_path / f"killed {number}.txt"
        with log.open("w") as file:
            resume = ["--resume"] if number > 1 else []
            action = subprocess.Popen(
                [sys.executable, "-m", "unalike", *map(str, arguments("killed")), *resume], stderr=file
            )
            try:
                while not (killed / f"fine_tuning_{number}" / "ml_model_latest.pth").exists():
                    assert action.poll() is None, log.read_text()[-3000:]
                    time.sleep(0.01)
            finally:
                action.kill()
                action.wait()
        assert not (killed / "unlabelled.json").exists(), "the run ended before it was killed"
    process = unalike(*arguments("killed"), "--resume", "--minutes", "3")
    assert process.returncode == 0, process.stderr[-3000:]
    for stage in ("groups", "augmented queries", "learned vectors", "groups of the second round"):
        assert f"{stage}: loaded from the run that is resumed" in process.stderr
    for name in ("fine_tuning_1/ml_model_latest.pth", "fine_tuning_2/ml_model_latest.pth", "ml_model_best.pth"):
        first, second = weights(straight / name), weights(killed / name)
        assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first), name
    records = [json.loads((folder / "unlabelled.json").read_text()) for folder in (straight, killed)]
    assert records[0]["candidates"] == records[1]["candidates"] and records[0]["groups"] == records[1]["groups"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.pretrained=false"], "model.pretrained is false"),
        (["--trials", "3"], "a search and dataset.labels: none"),
        (["dataset.val_dataset.query=x"], "query without a reference"),
    ],
)
def test_errors_are_one_line(photos: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    process = unalike("train", photos / "shuffled", "--no-labels", "-r", tmp_path, *arguments)
    assert process.returncode != 0 and message in process.stderr and "Traceback" not in process.stderr


def test_labels_has_two_values(photos: Path) -> None:
    process = unalike("train", photos / "shuffled", "dataset.labels=nothing")
    assert process.returncode != 0 and "dataset.labels" in process.stderr and "none" in process.stderr


def test_check_accepts_a_flat_folder(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    Image.fromarray(np.zeros((70, 70, 3), np.uint8)).save(tmp_path / "flat" / "a.png")
    process = unalike("check", tmp_path / "flat", "dataset.labels=none", *SMALL)
    assert process.returncode == 0, process.stderr
