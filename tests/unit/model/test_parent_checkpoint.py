"""A network that starts from a checkpoint of ours is that network: head, sizes, view, mean and std come with the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unalike.errors import SpecError
from unalike.model.checkpoint import write_checkpoint
from unalike.model.embedder import Embedder, build_embedder
from unalike.spec import load_spec
from unalike.training.recipe import settle_backbone, settle_normalization

OWN = {"model.backbone": "test_efficientnet", "model.input_height": 64, "model.input_width": 32, "model.feat_dim": 24,
       "model.pretrained": "false"}  # fmt: skip
FACTS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "weights": "own", "licence": "own",
         "view": {"height": 64, "width": 32, "resize_ratio": 1.5, "mode": "fit", "interpolation": "bicubic"}}  # fmt: skip


def write(path: Path, head: str) -> Embedder:
    spec = load_spec("train", None, {**OWN, "model.head": head})
    embedder = build_embedder(spec).eval()
    with torch.no_grad():
        for parameter in embedder.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    payload = {
        "model": embedder.state_dict(),
        "spec": spec.to_dict(),
        "classes": [],
        "epoch": 0,
        "step": 0,
        "metrics": {},
    }
    write_checkpoint(path, {**payload, "facts": FACTS})
    return embedder


@pytest.mark.parametrize("recipe", ["tao", "unalike"])
@pytest.mark.parametrize("head", ["auto", "linear", "residual", "rooted", "mlp"])
def test_the_network_is_that_of_the_checkpoint(head: str, recipe: str, tmp_path: Path) -> None:
    first = write(tmp_path / "first.pth", head)
    spec = load_spec(
        "train", {"model": {"pretrained_model_path": str(tmp_path / "first.pth")}, "train": {"recipe": recipe}}
    )
    settle_backbone(spec)
    second = build_embedder(spec).eval()
    images = torch.randn(4, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(first(images), second(images))
    settle_normalization(spec, second.trunk.facts)
    assert (spec.dataset.pixel_mean, spec.dataset.pixel_std) == (FACTS["mean"], FACTS["std"])
    view = spec.dataset.view
    assert (view.mode, view.resize_ratio, view.interpolation) == ("fit", 1.5, "bicubic")
    assert (spec.model.input_height, spec.model.input_width, spec.model.feat_dim) == (64, 32, 24)


def test_another_head_than_that_of_the_weights_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "first.pth", "rooted")
    for key in ("pretrained_model_path", "pretrained_embedder_path"):
        spec = load_spec("train", None, {**OWN, "model.head": "linear", f"model.{key}": str(tmp_path / "first.pth")})
        with pytest.raises(SpecError, match=f"model.head is linear.*{key}.*is rooted"):
            build_embedder(spec)


def test_parts_decide_their_own_share(tmp_path: Path) -> None:
    write(tmp_path / "first.pth", "rooted")
    trunk = load_spec("train", None, {"model.pretrained_trunk_path": str(tmp_path / "first.pth")})
    embedder = build_embedder(trunk)
    assert embedder.head_kind == "linear" and embedder.trunk.facts.mean == (0.1, 0.2, 0.3)
    head = load_spec("train", None, {**OWN, "model.pretrained_embedder_path": str(tmp_path / "first.pth")})
    embedder = build_embedder(head)
    assert embedder.head_kind == "rooted" and embedder.trunk.facts.mean != (0.1, 0.2, 0.3)


def test_what_the_user_set_stays(tmp_path: Path) -> None:
    write(tmp_path / "first.pth", "rooted")
    own = {"model.pretrained_model_path": str(tmp_path / "first.pth"), "dataset.view.mode": "crop", "model.input_height": 96,
           "dataset.pixel_mean": [0.5, 0.5, 0.5]}  # fmt: skip
    spec = load_spec("train", None, own)
    settle_normalization(spec, build_embedder(spec).trunk.facts)
    assert (spec.dataset.view.mode, spec.model.input_height, spec.dataset.pixel_mean) == ("crop", 96, [0.5] * 3)
