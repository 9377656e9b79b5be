"""Heads and the network of a spec."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unalike import progress
from unalike.errors import ModelError
from unalike.model.backbones import BACKBONES
from unalike.model.embedder import Adapter, EmbedderConfig, LinearHead, ResidualHead, build_embedder, create_embedder


@pytest.mark.parametrize("name", BACKBONES)
def test_d36_feat_dim_is_honoured_on_every_backbone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    dim = 7
    progress._said.clear()
    with torch.device("meta"):
        embedder = create_embedder(EmbedderConfig(name, dim, 3, (224, 224)))
    residual = name.startswith(("fan", "nvdinov2"))
    said = capsys.readouterr().err
    assert (f"model.feat_dim {dim} differs" in said) == residual
    vectors = embedder.eval()(torch.empty(2, 3, 224, 224, device="meta"))
    assert vectors.shape == (2, dim) and embedder.dim == dim
    assert isinstance(embedder.head, ResidualHead if residual else LinearHead)


def test_d36_no_projection_where_feat_dim_is_the_width(capsys: pytest.CaptureFixture[str]) -> None:
    progress._said.clear()
    with torch.device("meta"):
        embedder = create_embedder(EmbedderConfig("fan_tiny", 192, 3, (64, 64)))
    assert isinstance(embedder.head.projection, nn.Identity) and "differs" not in capsys.readouterr().err


def test_residual_head_is_the_contracts() -> None:
    head = ResidualHead(16, 6)
    assert len(head.adaptors) == 4
    for adaptor in head.adaptors:
        assert isinstance(adaptor, Adapter)
        assert (adaptor.down.in_features, adaptor.down.out_features, adaptor.up.out_features) == (16, 8, 16)
        nn.init.normal_(adaptor.up.weight)
    features = torch.randn(3, 16)
    expected = features
    for adaptor in head.adaptors:
        hidden = F.gelu(expected @ adaptor.down.weight.T + adaptor.down.bias)
        expected = expected + hidden @ adaptor.up.weight.T + adaptor.up.bias
    expected = head.linear(F.layer_norm(expected, (16,)))
    torch.testing.assert_close(head(features), head.projection(expected))


def test_an_untrained_head_keeps_the_trunks_geometry() -> None:
    torch.manual_seed(0)
    features = F.layer_norm(torch.randn(200, 64), (64,))
    angles = F.normalize(features) @ F.normalize(features).T
    wide = F.normalize(LinearHead(64, 128)(features))
    torch.testing.assert_close(wide @ wide.T, angles, atol=1e-5, rtol=0)
    same = F.normalize(ResidualHead(64, 64)(features))
    torch.testing.assert_close(same @ same.T, angles, atol=1e-4, rtol=0)
    narrow = F.normalize(LinearHead(64, 32)(features))
    off = ~torch.eye(200, dtype=torch.bool)
    assert torch.corrcoef(torch.stack([(narrow @ narrow.T)[off], angles[off]]))[0, 1] > 0.6


def spec_of(**model: object) -> SimpleNamespace:
    paths = dict.fromkeys(("pretrained_model_path", "pretrained_trunk_path", "pretrained_embedder_path"))
    given = {"backbone": "resnet18", "feat_dim": 5, "input_channels": 1, "input_height": 96, "input_width": 32}
    return SimpleNamespace(
        model=SimpleNamespace(**{**given, "pretrained": False, "allow_partial_weights": False, **paths, **model}),
        train=SimpleNamespace(drop_path=0.0),
    )


def test_d19_build_embedder_reads_height_and_width_of_the_spec() -> None:
    embedder = build_embedder(spec_of())
    assert embedder.trunk.input_size == (96, 32) and embedder.trunk.net.conv1.in_channels == 1
    assert embedder(torch.randn(2, 1, 96, 32)).shape == (2, 5)


def test_feat_dim_below_one_is_refused() -> None:
    with pytest.raises(ModelError, match="feat_dim = 0"):
        build_embedder(spec_of(feat_dim=0))


def test_frozen_and_bf16_forward() -> None:
    """The network runs under autocast and in channels-last memory."""
    embedder = build_embedder(spec_of(backbone="fan_tiny", input_channels=3, input_height=64, input_width=64)).eval()
    embedder = embedder.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain = embedder(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = embedder(images)
    assert torch.cosine_similarity(plain, half.float()).min() > 0.99
