"""What automatic training finds out before it trains: features of both views, trunks and sizes within a time, the start."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.metrics.knn import unit
from unalike.model.backbones import native_size
from unalike.model.embedder import EmbedderConfig, create_embedder
from unalike.spec import load_spec
from unalike.training.automatic import trunks
from unalike.training.automatic.throughput import BESIDE, LEVELS, plan
from unalike.training.automatic.trunks import Explorer, Found
from unalike.training.heads.discriminant import whitening
from unalike.training.heads.features import Features, trunk_features
from unalike.training.heads.warm_start import fitted_start
from unalike.training.losses import build_loss

LITE = "tf_efficientnet_lite0"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for label in "ab":
        for part in ("plain", "turned"):
            (tmp_path / part / label).mkdir(parents=True)
        for number in range(3):
            pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "plain" / label / f"{number}.png")
            Image.fromarray(pixels[:, ::-1]).save(tmp_path / "turned" / label / f"{number}.png")
    return tmp_path


def test_mirrored_features_are_those_of_mirrored_images(pictures: Path, monkeypatch) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(pictures / "cache"))
    spec = load_spec("train", {"dataset": {"workers": 1}})
    view = View(32, 32, resize_ratio=1.0)
    both = trunk_features(LITE, load_images(pictures / "plain"), view, Notices(), spec, mirrored=True)
    plain = trunk_features(LITE, load_images(pictures / "plain"), view, Notices(), spec)
    turned = trunk_features(LITE, load_images(pictures / "turned"), view, Notices(), spec)
    assert both.mirrored_NF is not None and plain.mirrored_NF is None
    np.testing.assert_allclose(both.vectors_NF, plain.vectors_NF, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(both.mirrored_NF, turned.vectors_NF, rtol=1e-3, atol=1e-3)
    again = trunk_features(LITE, load_images(pictures / "plain"), view, Notices(), spec, mirrored=True)
    assert np.array_equal(again.mirrored_NF, both.mirrored_NF) and again.rate == both.rate > 0  # from the disk
    labels_N = np.array([0, 0, 0, 1, 1, 1])
    rows = np.array([0, 4])
    fitted, told = both.both(rows, labels_N)
    assert np.array_equal(fitted, np.concatenate([both.vectors_NF[rows], both.mirrored_NF[rows]]))
    assert told.tolist() == [0, 1, 0, 1] and plain.both(rows, labels_N)[1].tolist() == [0, 1]


WORTH = {("big", 64): 0.6, ("big", 96): 0.7, ("small", 64): 0.5}


@pytest.fixture
def explorer(monkeypatch) -> Explorer:
    """Trunks whose features are made up; what they are worth stands in WORTH, and each image takes a second."""

    def features(name, images, view, notices, spec, *, mirrored=False):
        made = np.zeros((10, 4), np.float32)
        return Features(name, view, None, made, np.arange(10), 1.0, made if mirrored else None)  # type: ignore[arg-type]

    monkeypatch.setattr(trunks, "trunk_features", features)
    monkeypatch.setattr(trunks, "judged", lambda f, images, goal: WORTH[f.backbone, f.view.height])
    monkeypatch.setattr(trunks, "available_trunks", lambda: ("small", "big"))
    monkeypatch.setattr(trunks, "native_size", lambda name: ((64, 64), False))
    return Explorer(load_spec("train", {}), range(10), Notices())  # type: ignore[arg-type]


def test_the_best_trunk_and_size_that_the_time_allows(explorer: Explorer) -> None:
    found = explorer.trunks(60.0)
    assert [f.features.backbone for f in found] == ["big", "small"]
    assert [f.features.backbone for f in explorer.trunks(0.0)] == ["small"]  # the first is always looked at
    assert explorer.larger(found[0], 22.0) is found[0]  # 10 images of 9/4 the pixels take 22.5 s
    larger = explorer.larger(found[0], 23.0)
    assert larger.features.view.height == 96 and larger.score == 0.7
    assert (
        explorer.mirrored(larger, 19.0) is larger and explorer.mirrored(larger, 21.0).features.mirrored_NF is not None
    )
    explorer.settle(larger)
    model = explorer.spec.model
    assert (model.backbone, model.input_height, model.input_width) == ("big", 96, 96)


def test_larger_images_must_be_clearly_better(explorer: Explorer, monkeypatch) -> None:
    best = explorer.trunks(60.0)[0]
    monkeypatch.setitem(WORTH, ("big", 96), WORTH["big", 64] + trunks.WORTH / 2)
    assert explorer.larger(best, 1e9) is best


def test_what_the_user_named_is_kept(explorer: Explorer) -> None:
    named = load_spec("train", {"model": {"backbone": "small", "input_height": 64, "input_width": 64}})
    mine = Explorer(named, explorer.images, Notices())
    found = mine.trunks(1e9)
    assert [f.features.backbone for f in found] == ["small"]
    assert mine.larger(found[0], 1e9) is found[0]


def test_native_sizes() -> None:
    assert native_size("tf_efficientnet_lite2") == ((256, 256), False)  # 260, to a multiple of 32
    assert native_size(LITE) == ((224, 224), False)
    assert native_size("vit_small_patch14_dinov2") == ((518, 518), True)
    assert native_size("fan_tiny") == ((224, 224), False)


@pytest.mark.parametrize("loss, columns", [("CosFaceLoss", True), ("ProxyAnchorLoss", False)])
def test_fine_tuning_begins_as_the_fitted_head_says(loss: str, columns: bool) -> None:
    draw = np.random.default_rng(3)
    labels_N = np.arange(60) % 5
    network = create_embedder(EmbedderConfig(LITE, 4, 3, (32, 32), "rooted")).eval()
    images = torch.randn(60, 3, 32, 32)
    with torch.no_grad():
        features_NF = network.trunk(images).numpy() + 0.1 * draw.random((60, network.trunk.width), np.float32)
    head = whitening(features_NF, labels_N, root=True).head(0.0, 4)
    criterion = nn.ModuleDict({"loss": build_loss(loss, {}, classes=5, dim=4)})
    fitted_start(head, features_NF, labels_N)(network, criterion)
    with torch.no_grad():
        found = network.head(torch.from_numpy(features_NF)).numpy()
    vectors_ND = head(features_NF)
    np.testing.assert_allclose(unit(found), unit(vectors_ND), atol=1e-4)
    means = np.stack([unit(vectors_ND)[labels_N == c].mean(axis=0) for c in range(5)])
    proxies = next(criterion.parameters()).detach().numpy()
    np.testing.assert_allclose(proxies.T if columns else proxies, unit(means), atol=1e-5)


def test_the_pace_of_a_level(monkeypatch) -> None:
    spec = load_spec("train", {"train": {"batch_size": 4}, "model": {"input_height": 64, "input_width": 64}})
    network = create_embedder(EmbedderConfig(LITE, 4, 3, (64, 64)))
    monkeypatch.setattr("unalike.training.automatic.throughput.step_rate", lambda *_: 10.0)
    seconds = 10.1 * 5 * (1 + BESIDE)  # ten times 50 images in 5 s, and what is beside
    found = plan(network, spec, LEVELS[0], images=50, seconds=seconds, embeds=100.0)
    assert (found.side, found.frozen, found.epochs) == ((48, 48), 4, 10)
    monkeypatch.undo()
    measured = plan(network, spec, LEVELS[1], images=50, seconds=61.0, embeds=100.0)
    assert measured.rate > 0 and all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(("seconds", "epochs"), [(1.1, 32), (10.0, 5), (1000.0, 2), (0.0, 40)])
def test_epochs_are_counted_again_by_the_pace_of_the_last(seconds: float, epochs: int) -> None:
    """Of 60 s 20 are spent; 1.8 and two and a half looks at 100 images, 100 a second, are kept; 5 % for slower epochs."""
    from unalike.training.automatic.pipeline import Clock, _epochs_that_fit

    def found(name: str, rate: float) -> Found:
        return Found(Features(name, View(64, 64), None, np.zeros((2, 4)), np.arange(2), rate), 0.5)  # type: ignore[arg-type]

    clock = Clock(1.0, time.monotonic() - 20)
    tuned = load_spec("train", overrides=[f"model.backbone={LITE}"])
    assert _epochs_that_fit(clock, [found("slow", 1.0), found(LITE, 100.0)], 100, tuned, 2, seconds) == epochs


@pytest.mark.parametrize(("words", "seconds", "mirrored"), [
    ((), 1e9, True), ((), 0.0, False), (["train.finish.mirrored=true"], 0.0, True), (["train.finish.mirrored=false"], 1e9, False),
])  # fmt: skip
def test_mirror_images_are_as_the_user_says_or_as_time_allows(monkeypatch, words, seconds, mirrored) -> None:
    found = Found(Features(LITE, View(64, 64), None, np.zeros((2, 4)), np.arange(2), 1.0), 0.5)  # type: ignore[arg-type]
    explorer = Explorer(load_spec("train", overrides=words), SimpleNamespace(__len__=lambda self: 20), Notices())
    monkeypatch.setattr("unalike.training.automatic.trunks.len", lambda x: 20, raising=False)
    monkeypatch.setattr(explorer, "_features", lambda *_, mirrored: ("features", mirrored))
    chosen = explorer.mirrored(found, seconds)
    assert (chosen is not found) == mirrored and (not mirrored or chosen.features == ("features", True))


def test_a_draft_keeps_its_trunk_when_training_settles_again(monkeypatch) -> None:
    from unalike.training.automatic.pipeline import _draft
    from unalike.training.recipe import settle_backbone

    images = SimpleNamespace(classes=("a", "b"), __len__=lambda self: 20)
    found = Found(Features(LITE, View(64, 64), None, np.zeros((2, 4)), np.arange(2), 1.0), 0.5)  # type: ignore[arg-type]
    monkeypatch.setattr(
        "unalike.training.automatic.pipeline.len", lambda x: 20 if x is images else len(x), raising=False
    )
    draft, _ = _draft(load_spec("train", {}), images, found)
    monkeypatch.setattr("unalike.model.backbones.best_available_trunk", lambda: "another")
    settle_backbone(draft)
    assert draft.model.backbone == LITE and draft.model.input_height == 64
