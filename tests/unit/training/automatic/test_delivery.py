"""What is evaluated is what is delivered: for every head, width and normalization the saved network gives the same vectors."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.series import holdout_result
from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.model.backbones import build_trunk
from unalike.model.checkpoint import load_embedder
from unalike.model.frozen_trunk import FrozenTrunk
from unalike.numerics.normalization import l2_normalize
from unalike.spec import load_spec, settle
from unalike.training.automatic import delivery, unlabeled
from unalike.training.automatic.delivery import save_fine_tuned, save_first, save_frozen
from unalike.training.automatic.final_choice import Candidate, TunedTrunk, evaluate_heads, refit_tuned
from unalike.training.automatic.group_holdout import UnlabeledCandidate
from unalike.training.automatic.holdout import Split
from unalike.training.automatic.trunks import TrunkResult
from unalike.training.heads import features as features_module
from unalike.training.heads.config import HeadConfig, frozen_head_kind, head_training, requested_dim
from unalike.training.heads.features import compute_features
from unalike.training.heads.interpolation import embed_with_trunk
from unalike.training.heads.unsupervised import fit_unlabeled_head
from unalike.training.history import History
from unalike.training.time_budget import TimeBudget
from unalike.training.trainer import TrainingResult

BACKBONE = "test_efficientnet"  # of few features: heads are fitted in no time
SPEC = [f"model.backbone={BACKBONE}", "model.input_height=64", "model.input_width=32", "dataset.workers=1"]
NORMALIZATIONS = {"the trunk's": [], "own": ["dataset.pixel_mean=[0.1,0.2,0.3]", "dataset.pixel_std=[0.9,0.8,0.7]"]}
HEADS = {
    "": [
        None,
        HeadConfig(True, 0.5),
        HeadConfig(False, 0.3),
        HeadConfig(True, 0.5, 1.0, head_training("CosFaceLoss")),
        HeadConfig(True, 0.5, label_weights=True),
    ],
    "linear": [None, HeadConfig(False, 0.0)],
    "rooted": [None, HeadConfig(True, 0.5)],
    "mlp": [None, HeadConfig(True, 0.5, 1.0, head_training(None, mlp=True))],
}
CLASSES, EACH = 4, 5


@functools.cache
def random_trunk(backbone: str, size: tuple[int, int]) -> FrozenTrunk:
    """A trunk with random weights in place of pretrained ones, the same each time."""
    torch.manual_seed(0)
    return FrozenTrunk(build_trunk(backbone, pretrained="false", input_size=size))


@pytest.fixture(autouse=True)
def no_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (delivery, features_module, unlabeled):
        monkeypatch.setattr(module, "build_starting_trunk", lambda _, *arguments: random_trunk(*arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for c in range(CLASSES):
        (root / f"class {c}").mkdir()
        for i in range(EACH):
            pixels = rng.integers(0, 256, (9, 5, 3), np.uint8)
            pixels[:, :3] = 60 * c
            Image.fromarray(pixels).resize((40, 72)).save(root / f"class {c}" / f"{i}.png")
    return root


def run_in(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(dir=folder, write_experiment=lambda spec: None)


def vectors_of(checkpoint: Path, paths: tuple[Path, ...]) -> np.ndarray:
    """The delivered network's vectors, one image at a time, prepared as the checkpoint says."""
    embedder, meta = load_embedder(checkpoint)
    preprocessing = Preprocessing.from_facts(meta["facts"])
    assert meta["spec"]["model"]["feat_dim"] == embedder.dim and meta["spec"]["model"]["head"] == embedder.head_kind
    rows = []
    for path in paths:
        pixels = (preprocessing.view(path) / 255.0 - preprocessing.mean) / preprocessing.std
        with torch.inference_mode():
            rows.append(embedder(torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32)))[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("dim", [None, 3, 16])
@pytest.mark.parametrize("kind", HEADS)
def test_the_network_that_is_evaluated_is_delivered(
    kind: str, dim: int | None, normalization: str, folder: Path, tmp_path: Path
) -> None:
    overrides = [*SPEC, *NORMALIZATIONS[normalization], *([f"model.head={kind}"] if kind else [])]
    spec = load_spec("train", overrides=[*overrides, *([f"model.feat_dim={dim}"] if dim else [])])
    images = load_images(folder)
    features = compute_features(BACKBONE, images, View.from_spec(spec), Notices(), spec)
    rows = np.arange(len(images))
    query = rows % EACH == 0
    splits = [Split("known", rows, rows[~query], rows[query])]  # fitted to all images, as the delivered head is
    configs = [c for c in HEADS[kind] if c is None or c.residual > 0 or dim is None or dim < CLASSES]
    candidates = evaluate_heads(
        configs, features, images.labels_N, splits, "both", requested_dim(spec), frozen_head_kind(spec)
    )
    for candidate in candidates:
        checkpoint, delivered = save_frozen(candidate.config, candidate.name, spec, run_in(tmp_path), images, features)
        assert dim is None or delivered.model.feat_dim == dim
        assert candidate.vectors_ND is not None
        delivered_ND, evaluated_ND = (
            l2_normalize(v) for v in (vectors_of(checkpoint, images.paths), candidate.vectors_ND)
        )
        assert np.abs(delivered_ND @ delivered_ND.T - evaluated_ND @ evaluated_ND.T).max() < 0.003, candidate.name


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [(64, 32), (96, 64)])
def test_a_fine_tuned_network_is_delivered_at_the_size_of_its_evaluation(
    size: tuple[int, int], mirrored: bool, folder: Path, tmp_path: Path
) -> None:
    overrides = [f"model.backbone={BACKBONE}", "dataset.workers=1", f"train.finish.mirrored={mirrored}"]
    spec = load_spec("train", overrides=overrides)
    settle(spec, "model.input_height", 64, "test")
    settle(spec, "model.input_width", 32, "test")
    images, config = load_images(folder), HeadConfig(True, 0.5)
    trunk, view = random_trunk(BACKBONE, (64, 32)).trunk, replace(View.from_spec(spec), height=size[0], width=size[1])
    preprocessing = replace(Preprocessing.from_spec(spec), view=view)
    features = embed_with_trunk(
        trunk, images, preprocessing, dataset=spec.dataset, notices=Notices(), mirrored=mirrored
    )
    tuned = TunedTrunk(trunk, features, view, mirrored)
    candidate = Candidate("tuned", holdout_result(np.ones(2), np.ones(2)), 1.0, config, tuned=tuned)
    sets = TrainingSets(images, None, None, "", False)
    training = TrainingResult(tmp_path, {}, None, {}, History(), sets, None, trunk.facts)
    checkpoint, delivered = save_fine_tuned(candidate, training, spec, run_in(tmp_path), images)
    assert (delivered.model.input_height, delivered.model.input_width) == size
    assert (spec.model.input_height, spec.model.input_width) == (64, 32)
    network = refit_tuned(tuned, images, np.arange(len(images)), config, spec)
    assert network is not None
    with torch.inference_mode():
        evaluated_ND = network.head(torch.from_numpy(features.vectors_ND[: len(images)])).numpy()
    delivered_ND = vectors_of(checkpoint, images.paths)
    assert np.abs(l2_normalize(delivered_ND) - l2_normalize(evaluated_ND)).max() < 0.003


@pytest.mark.parametrize("kind", ["", "linear", "rooted", "mlp"])
@pytest.mark.parametrize("sqrt", [None, False, True])
def test_without_labels_too(kind: str, sqrt: bool | None, folder: Path, tmp_path: Path) -> None:
    if sqrt is not None and kind and sqrt != (kind != "linear"):
        pytest.skip("not a candidate of that head")
    overrides = [*SPEC, *NORMALIZATIONS["own"], *([f"model.head={kind}"] if kind else []), "model.feat_dim=16"]
    spec = load_spec("train", overrides=overrides)
    images = load_images(folder)
    features = compute_features(BACKBONE, images, View.from_spec(spec), Notices(), spec)
    head = fit_unlabeled_head(features.vectors_NF, sqrt, seed=0, dim=16, kind=frozen_head_kind(spec))
    best = UnlabeledCandidate("a candidate", None, 0.0, sqrt)
    checkpoint, _ = unlabeled._save_frozen(best, spec, run_in(tmp_path), images, features, 0)
    cosines = (l2_normalize(vectors_of(checkpoint, images.paths)) * l2_normalize(head(features.vectors_NF))).sum(axis=1)
    assert cosines.min() > 0.999


def test_the_first_model_is_there_before_anything_is_compared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, images = load_spec("train", overrides=["dataset.workers=1"]), load_images(folder)
    view = replace(View.from_spec(spec), height=64, width=32)
    first = TrunkResult(compute_features(BACKBONE, images, view, Notices(), spec), 0.0)
    for name, own_spec, is_saved in (("a", spec, True), ("b", load_spec("train", overrides=["model.head=mlp"]), False)):
        (tmp_path / name).mkdir()
        run = run_in(tmp_path / name)
        save_first(first, own_spec, run, images, "new-classes", TimeBudget(10, time.monotonic()))
        checkpoint = run.dir / "ml_model_best.pth"
        assert checkpoint.exists() is is_saved
        if is_saved:
            assert "first model after" in capsys.readouterr().err
            assert vectors_of(checkpoint, images.paths).shape[0] == len(images)
            before = checkpoint.read_bytes()
            save_first(
                first, own_spec, run, images, "new-classes", TimeBudget(10, time.monotonic())
            )  # a run that is resumed
            assert checkpoint.read_bytes() == before
    assert spec.model.backbone == load_spec("train").model.backbone, "the run's spec is settled by the comparison alone"
