"""Fields of a spec that contradict the model's file are refused, each by name; fields that agree, or that are not known, pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.errors import SpecError
from unalike.inference.contradictions import refuse_contradictions
from unalike.spec import load_spec

OF_MODEL = Preprocessing(View(32, 64), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def compare(*overrides: str, head: str = "linear") -> None:
    refuse_contradictions(
        load_spec("evaluate", None, list(overrides)), Path("m.pth"), OF_MODEL, dim=8, trunk="resnet18", head=head
    )


def test_what_agrees_passes() -> None:
    compare()
    compare("model.backbone=resnet18", "model.input_height=32", "model.input_width=64", "model.feat_dim=8", "model.head=auto",
            "dataset.pixel_mean=[0.4, 0.5, 0.6]", "dataset.view.mode=crop")  # fmt: skip
    compare("model.head=rooted", head="")  # the file does not say it


@pytest.mark.parametrize("override", [
    "model.backbone=resnet34", "model.input_width=32", "model.feat_dim=9", "model.head=rooted", "dataset.pixel_mean=[0.1, 0.5, 0.6]",
    "dataset.pixel_std=[0.1, 0.3, 0.4]", "dataset.view.mode=fit", "dataset.view.resize_ratio=1.5", "dataset.decoding.version=1",
])  # fmt: skip
def test_what_contradicts_is_named(override: str) -> None:
    with pytest.raises(SpecError, match=rf"contradicts m\.pth: {override.partition('=')[0].removesuffix('.version')}"):
        compare(override)


def test_all_of_them_are_named() -> None:
    with pytest.raises(SpecError, match=r"model.feat_dim is 9.*dataset.view.mode is fit"):
        compare("model.feat_dim=9", "dataset.view.mode=fit")
