"""Label weights are taken where more labels are suspected than look-alikes explain, or where the user says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from tests.unit.training.heads.test_label_weights import draw, flip
from unalike.errors import DataError
from unalike.spec import load_spec
from unalike.training.automatic import label_noise
from unalike.training.automatic.evaluation_data import EvaluationData
from unalike.training.automatic.label_noise import FIELD, weighs_labels
from unalike.training.heads import label_weights


def data_of(features: np.ndarray, labels: np.ndarray, fit_N: np.ndarray | None = None) -> EvaluationData:
    rows = np.arange(len(labels)) if fit_N is None else fit_N
    content = SimpleNamespace(features=SimpleNamespace(vectors_NF=features), labels_N=labels, fit_N=rows)
    return cast(EvaluationData, content)


def test_wrong_labels_are_noticed_and_right_ones_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    features, labels = draw(seed=4, distance=4.0)
    spec = load_spec("train")
    assert not weighs_labels(spec, data_of(features, labels))
    assert "labels" not in capsys.readouterr().err
    assert weighs_labels(spec, data_of(features, flip(labels, 0.1)))
    message = capsys.readouterr().err
    assert "10 % of the labels are contradicted by similar images" in message and FIELD in message


def test_held_out_images_are_not_looked_at() -> None:
    features, labels = draw(seed=4, distance=4.0)
    wrong, fit_N = labels.copy(), np.flatnonzero(np.arange(len(labels)) % 5 > 0)
    held_N = np.setdiff1d(np.arange(len(labels)), fit_N)
    wrong[held_N] = (labels[held_N] + 1) % 12
    assert not weighs_labels(load_spec("train"), data_of(features, wrong, fit_N))


@pytest.mark.parametrize("value", [True, False])
def test_the_user_decides(value: bool) -> None:
    features, labels = draw(seed=3, distance=4.0)
    spec = load_spec("train", overrides=[f"{FIELD}={str(value).lower()}"])
    assert weighs_labels(spec, data_of(features, labels)) == value
    assert weighs_labels(spec, data_of(features, flip(labels, 0.2))) == value


def test_what_cannot_be_asked_is_not_weighed_and_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = draw(seed=4, distance=4.0)
    assert not weighs_labels(load_spec("train"), data_of(features[:5], np.arange(5)))  # one image a class
    monkeypatch.setattr(label_noise, "MAX_IMAGES", 100)
    monkeypatch.setattr(label_weights, "MAX_IMAGES", 100)
    assert not weighs_labels(load_spec("train"), data_of(features, flip(labels, 0.2)))
    spec = load_spec("train", overrides=[f"{FIELD}=true"])
    with pytest.raises(DataError, match=r"label_weights is set for 180 images.*at most 100"):
        weighs_labels(spec, data_of(features, labels))
    with pytest.raises(DataError, match=r"at most 100"):
        label_weights.label_weights(features, labels)
    assert len(label_weights.label_weights(features[:100], labels[:100], views=2)) == 100
