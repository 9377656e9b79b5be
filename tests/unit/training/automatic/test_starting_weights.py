"""Weights of the user's own: every candidate that is evaluated is delivered, prepared as the weights' own images were."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.tao_files import write_tao_checkpoint
from tests.unit.training.automatic.test_delivery import BACKBONE, folder, run_in, vectors_of
from unalike.data.decoding import Decoding
from unalike.data.imageset import load_images
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.errors import WeightsError
from unalike.model.checkpoint import load_embedder, write_checkpoint
from unalike.model.embedder import Embedder, EmbedderConfig, create_embedder
from unalike.numerics.normalization import l2_normalize
from unalike.spec import load_spec
from unalike.training.automatic.choice_rule import select_best
from unalike.training.automatic.delivery import save_untuned
from unalike.training.automatic.final_choice import evaluate_given, evaluate_heads
from unalike.training.automatic.holdout import Split
from unalike.training.automatic.pipeline import unsupported_reason
from unalike.training.automatic.starting_weights import (
    AS_GIVEN,
    describe_weights,
    load_given_network,
    starting_spec,
)
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.features import compute_features

__all__ = ["folder"]  # a fixture
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
SIZE = (64, 32)
OPEN = ["dataset.workers=1"]
SET = [*OPEN, f"model.backbone={BACKBONE}", "model.input_height=64", "model.input_width=32"]


@dataclass(frozen=True)
class Weights:
    """A file of weights and what a training from it must keep."""

    overrides: list[str]
    network: Embedder
    head: bool = True
    stored: bool = True  # the file says how its images were prepared


def network_of(head: str = "linear", seed: int = 5) -> Embedder:
    torch.manual_seed(seed)
    embedder = create_embedder(EmbedderConfig(BACKBONE, 24, 3, SIZE, head))
    with torch.no_grad():
        for parameter in embedder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return embedder.eval()


def write_own(path: Path, network: Embedder, classes: list[str] | None = None) -> Path:
    spec = load_spec("train", overrides=[*SET, "model.feat_dim=24", f"model.head={network.head_kind}"])
    view = View(*SIZE, 1.5, "fit", "bicubic", Decoding(2, (1, 2, 3), (0, 255)))
    facts = {"mean": MEAN, "std": STD, "weights": "own", "licence": "own", "trunk": BACKBONE, "view": view.to_dict()}
    payload = {"model": network.state_dict(), "spec": spec.to_dict(), "classes": classes or [], "epoch": 0, "step": 0,
               "metrics": {}, "facts": facts}  # fmt: skip
    return write_checkpoint(path, payload)


def make_weights(kind: str, root: Path) -> Weights:
    """Write the weights of one kind."""
    network = network_of(kind if kind in ("rooted", "mlp", "residual") else "linear")
    if kind == "tao":
        spec: dict[str, Any] = {
            "model": {"backbone": BACKBONE, "feat_dim": 24, "input_height": 64, "input_width": 32},
            "dataset": {"pixel_mean": MEAN, "pixel_std": STD},
        }
        path = write_tao_checkpoint(root / "tao.pth", network, spec)
        return Weights([*OPEN, f"model.pretrained_model_path={path}"], network)
    if kind == "safetensors":
        save_file(network.trunk.net.state_dict(), root / "trunk.safetensors")
        return Weights([*SET, f"model.pretrained_trunk_path={root / 'trunk.safetensors'}"], network, False, False)
    path = write_own(root / "own.pth", network)
    if kind == "trunk and head":
        return Weights(
            [*OPEN, f"model.pretrained_trunk_path={path}", f"model.pretrained_embedder_path={path}"], network
        )
    if kind == "trunk":
        return Weights([*OPEN, f"model.pretrained_trunk_path={path}"], network, False)
    return Weights([*OPEN, f"model.pretrained_model_path={path}", "model.pretrained=false"], network)


@pytest.mark.parametrize(
    "kind", ["linear", "rooted", "mlp", "residual", "tao", "trunk", "trunk and head", "safetensors"]
)
def test_what_is_evaluated_is_delivered(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    weights = make_weights(kind, tmp_path)
    own = load_spec("train", overrides=weights.overrides)
    assert unsupported_reason(own) == "" and own.model.head == "auto"
    spec = starting_spec(own)
    view = View.from_spec(spec)
    assert spec.model.backbone == BACKBONE and (view.height, view.width) == SIZE
    images = load_images(folder)
    features = compute_features(spec.model.backbone, images, view, Notices(), spec)
    assert not weights.stored or features.facts.mean == tuple(MEAN) and features.facts.std == tuple(STD)
    if weights.stored and kind != "tao":
        assert (view.mode, view.resize_ratio, view.interpolation) == ("fit", 1.5, "bicubic")
        assert view.decoding == Decoding(2, (1, 2, 3), (0, 255))
    rows = np.arange(len(images))
    splits = [Split("known", rows, rows[rows % 5 > 0], rows[rows % 5 == 0])]
    candidates = evaluate_heads([None, HeadConfig(True, 0.5)], features, images.labels_N, splits, "both")
    given = load_given_network(own, spec)
    candidates += evaluate_given(given, features, images.labels_N, splits, "both")
    assert [c.name for c in candidates][2:] == ([AS_GIVEN] if weights.head else [])
    for number, candidate in enumerate(candidates):
        checkpoint, delivered = save_untuned(candidate, spec, run_in(tmp_path), images, features)
        assert candidate.vectors_ND is not None
        delivered_ND, evaluated_ND = (
            l2_normalize(v) for v in (vectors_of(checkpoint, images.paths), candidate.vectors_ND)
        )
        assert np.abs(delivered_ND @ delivered_ND.T - evaluated_ND @ evaluated_ND.T).max() < 0.003, candidate.name
        network, meta = load_embedder(checkpoint)
        for name, tensor in weights.network.trunk.state_dict().items():
            assert torch.equal(network.trunk.state_dict()[name], tensor), name
        assert View.from_dict(meta["facts"]["view"]) == view and delivered.model.head == network.head_kind
        if number == 2:  # as given
            for name, tensor in weights.network.state_dict().items():
                assert torch.equal(network.state_dict()[name], tensor), name
            assert not (tmp_path / "best_spec.yaml").exists()
        reloaded = load_spec("train", None, meta["spec"])
        starting_spec(reloaded)  # the stored spec does not contradict its own weights


def test_features_are_cached_by_the_content_of_the_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    images, path, rows = load_images(folder), tmp_path / "own.pth", []
    for seed in (5, 6):
        write_own(path, network_of(seed=seed))
        spec = starting_spec(load_spec("train", overrides=[*OPEN, f"model.pretrained_trunk_path={path}"]))
        rows.append(compute_features(BACKBONE, images, View.from_spec(spec), Notices(), spec).vectors_NF)
    assert not np.allclose(rows[0], rows[1])
    assert len(list((tmp_path / "cache/features").glob("*.npz"))) == 2


def test_the_given_network_is_delivered_where_nothing_beats_it(folder: Path, tmp_path: Path) -> None:
    weights = make_weights("linear", tmp_path)
    own = load_spec("train", overrides=weights.overrides)
    images = load_images(folder)
    spec = starting_spec(own)
    features = compute_features(BACKBONE, images, View.from_spec(spec), Notices(), spec)
    rows = np.arange(len(images))
    splits = [Split("known", rows, rows[rows % 5 > 0], rows[rows % 5 == 0])]
    frozen = evaluate_heads([None], features, images.labels_N, splits, "both")
    (given,) = evaluate_given(load_given_network(own, spec), features, images.labels_N, splits, "both")
    result = frozen[0].result
    equal = replace(given, result=result)
    assert select_best([*frozen, equal], "both") is equal
    lower = replace(given, result=replace(result, hit_Q=result.hit_Q * 0, precision_Q=result.precision_Q * 0))
    assert result.hit_Q.any()
    assert select_best([*frozen, lower], "both") is frozen[0]


def test_what_the_weights_may_have_seen_is_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_own(tmp_path / "own.pth", network_of(), ["a", "b", "z"])
    spec = load_spec("train", overrides=[*OPEN, f"model.pretrained_model_path={path}"])
    record = describe_weights(spec, ["a", "b", "c"])
    assert record is not None and record["shared_classes"] == 2 and record["trunk"] == record["head"] == str(path)
    assert "know 2 of the 3 classes by name" in record["note"] and record["note"] in capsys.readouterr().err
    assert describe_weights(load_spec("train", overrides=SET), ["a"]) is None


@pytest.mark.parametrize("key", ["pretrained_model_path", "pretrained_trunk_path"])
def test_weights_that_do_not_fit_are_refused_before_any_image_is_read(key: str, tmp_path: Path) -> None:
    torch.save({"something.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for path in (tmp_path / "other.pth", tmp_path / "missing.pth"):
        with pytest.raises(WeightsError, match=path.name):
            unsupported_reason(load_spec("train", overrides=[*SET, f"model.{key}={path}"]))


def test_random_weights_are_searched_by_trials() -> None:
    assert unsupported_reason(load_spec("train", overrides=["model.pretrained=false"])) == "model.pretrained is false"
