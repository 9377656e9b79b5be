"""The choice of trunk and image size within a time: on made-up features, scores and rates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.model.backbones import native_size
from unalike.spec import load_spec
from unalike.training.automatic import trunks
from unalike.training.automatic.trunks import TrunkResult, TrunkSelector
from unalike.training.heads.features import TrunkFeatures

LITE = "tf_efficientnet_lite0"
SCORES = {("big", 64): 0.6, ("big", 96): 0.7, ("small", 64): 0.5}


def image_set(count: int) -> ImageSet:
    return ImageSet(tuple(Path(f"{i}.png") for i in range(count)), np.zeros(count, np.int64), ("a",))


@pytest.fixture
def selector(monkeypatch: pytest.MonkeyPatch) -> TrunkSelector:
    """Two trunks with the scores of SCORES; each image takes a second."""

    def features(name: str, images: ImageSet, view: View, *_: Any, mirrored: bool = False, **__: Any) -> TrunkFeatures:
        vectors = np.zeros((10, 4), np.float32)
        return TrunkFeatures(name, view, None, vectors, np.arange(10), 1.0, vectors if mirrored else None)  # type: ignore[arg-type]

    monkeypatch.setattr(trunks, "compute_features", features)
    monkeypatch.setattr(trunks, "score_features", lambda f, images, goal, dim=None: SCORES[f.backbone, f.view.height])
    monkeypatch.setattr(trunks, "available_trunks", lambda: ("small", "big"))
    monkeypatch.setattr(trunks, "native_size", lambda name: ((64, 64), False))
    return TrunkSelector(load_spec("train", {}), image_set(10), Notices())


def test_the_best_trunk_and_size_that_the_time_allows(selector: TrunkSelector) -> None:
    results = selector.compare_trunks(60.0)
    assert [r.features.backbone for r in results] == ["big", "small"]
    assert [r.features.backbone for r in selector.compare_trunks(0.0)] == ["small"]  # the first one in any case
    assert selector.try_larger_images(results[0], 22.0) is results[0]  # 10 images of 9/4 the pixels take 22.5 s
    larger = selector.try_larger_images(results[0], 23.0)
    assert larger.features.view.height == 96 and larger.score == 0.7
    assert selector.add_mirrored(larger, 19.0) is larger
    assert selector.add_mirrored(larger, 21.0).features.mirrored_NF is not None
    selector.settle_spec(larger)
    model = selector.spec.model
    assert (model.backbone, model.input_height, model.input_width) == ("big", 96, 96)


def test_larger_images_must_be_clearly_better(selector: TrunkSelector, monkeypatch: pytest.MonkeyPatch) -> None:
    best = selector.compare_trunks(60.0)[0]
    monkeypatch.setitem(SCORES, ("big", 96), SCORES["big", 64] + trunks.MIN_GAIN / 2)
    assert selector.try_larger_images(best, 1e9) is best


def test_what_the_user_set_is_kept(selector: TrunkSelector) -> None:
    spec = load_spec("train", {"model": {"backbone": "small", "input_height": 64, "input_width": 64}})
    with_setting = TrunkSelector(spec, selector.images, Notices())
    results = with_setting.compare_trunks(1e9)
    assert [r.features.backbone for r in results] == ["small"]
    assert with_setting.try_larger_images(results[0], 1e9) is results[0]


@pytest.mark.parametrize(("overrides", "seconds", "mirrored"), [
    ((), 1e9, True), ((), 0.0, False), (["train.finish.mirrored=true"], 0.0, True), (["train.finish.mirrored=false"], 1e9, False),
])  # fmt: skip
def test_mirror_images_follow_the_spec_or_the_time(
    monkeypatch: pytest.MonkeyPatch, overrides: Sequence[str], seconds: float, mirrored: bool
) -> None:
    features = TrunkFeatures(LITE, View(64, 64), None, np.zeros((2, 4)), np.arange(2), 1.0)  # type: ignore[arg-type]
    result = TrunkResult(features, 0.5)
    selector = TrunkSelector(load_spec("train", overrides=overrides), image_set(20), Notices())
    monkeypatch.setattr(selector, "_compute_features", lambda *_, mirrored: ("features", mirrored))
    chosen = selector.add_mirrored(result, seconds)
    assert (chosen is not result) == mirrored and (not mirrored or chosen.features == ("features", True))


def test_native_sizes() -> None:
    assert native_size("tf_efficientnet_lite2") == ((256, 256), False)  # 260, to a multiple of 32
    assert native_size(LITE) == ((224, 224), False)
    assert native_size("vit_small_patch14_dinov2") == ((518, 518), True)
    assert native_size("fan_tiny") == ((224, 224), False)
