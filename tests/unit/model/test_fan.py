"""FAN against slow, literal readings of its paper's formulas, and against the key names of published files."""

from __future__ import annotations

import math

import torch

from unalike.model.backbones import build_trunk
from unalike.model.fan import ChannelGate, FourierPosition, TokenMixing
from unalike.model.weights import load_tensors


def test_channel_gate_equals_its_formula() -> None:
    torch.manual_seed(0)
    gate = ChannelGate(dim=6, heads=2, hidden=8).eval()
    torch.nn.init.uniform_(gate.temperature)
    tokens = torch.randn(2, 12, 6)
    with torch.no_grad():
        value = gate.norm_v(gate.mlp_v(tokens, 3, 4))
        query = gate.q(tokens)
        expected = torch.empty_like(tokens)
        for image in range(2):
            for channel in range(6):
                head = channel // 3
                looked = query[image, :, channel].softmax(0)
                average = sum(tokens[image, :, 3 * head + other].softmax(0) for other in range(3)) / 3
                weight = torch.sigmoid((looked * average).sum()) * gate.temperature[head, 0, 0]
                expected[image, :, channel] = weight * value[image, :, channel]
        torch.testing.assert_close(gate(tokens, 3, 4), expected)


def test_token_mixing_equals_softmax_attention() -> None:
    torch.manual_seed(0)
    mixing = TokenMixing(8, heads=2)
    tokens = torch.randn(1, 5, 8)
    query, (key, value) = mixing.q(tokens)[0], mixing.kv(tokens)[0].split(8, dim=-1)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        weights = (query[:, part] @ key[:, part].T / math.sqrt(4)).softmax(-1)
        heads.append(weights @ value[:, part])
    torch.testing.assert_close(mixing(tokens)[0], mixing.proj(torch.cat(heads, dim=-1)))


def test_position_waves_equal_their_formula_and_tell_height_from_width() -> None:
    torch.manual_seed(0)
    position = FourierPosition(dim=7, bands=4)
    height, width = 3, 5
    given = position(height, width)
    assert given.shape == (1, 15, 7)
    for row in range(height):
        for column in range(width):
            waves = []
            for place in ((row + 1) / (height + 1e-6), (column + 1) / (width + 1e-6)):
                for band in range(4):
                    angle = place * 2 * math.pi / 10000 ** (2 * (band // 2) / 4)
                    waves.append(math.cos(angle) if band % 2 else math.sin(angle))
            expected = position.token_projection.weight[:, :, 0, 0] @ torch.tensor(waves)
            expected = expected + position.token_projection.bias
            torch.testing.assert_close(given[0, row * width + column], expected, atol=1e-5, rtol=1e-5)


def test_names_are_those_of_published_files() -> None:
    with torch.device("meta"):
        names = set(build_trunk("fan_tiny", pretrained=False).net.state_dict())
    expected = """cls_token pos_embed.token_projection.weight patch_embed.proj.weight patch_embed.backbone.stem.0.weight
        patch_embed.backbone.stem.1.bias patch_embed.backbone.stages.0.blocks.2.conv_dw.weight
        patch_embed.backbone.stages.1.downsample.0.weight patch_embed.backbone.stages.1.downsample.1.weight
        patch_embed.backbone.stages.1.blocks.0.gamma patch_embed.backbone.stages.1.blocks.0.mlp.fc1.weight
        blocks.7.norm1.weight blocks.7.attn.q.weight blocks.7.attn.kv.bias blocks.7.attn.proj.weight
        blocks.7.mlp.temperature blocks.7.mlp.mlp_v.fc1.weight blocks.7.mlp.mlp_v.gamma
        blocks.7.mlp.mlp_v.dwconv.conv1.weight blocks.7.mlp.mlp_v.dwconv.bn.running_var
        blocks.7.mlp.mlp_v.dwconv.conv2.bias blocks.7.mlp.norm_v.weight blocks.7.mlp.q.weight blocks.7.gamma2
        cls_attn_blocks.1.attn.q.weight cls_attn_blocks.1.attn.proj.bias cls_attn_blocks.0.mlp.fc2.weight
        cls_attn_blocks.0.gamma1 norm.weight"""
    assert set(expected.split()) <= names
    assert not [n for n in names if n.startswith("head")]


def test_d05_a_published_file_with_its_classifier_fills_fan() -> None:
    torch.manual_seed(0)
    theirs = build_trunk("fan_tiny", pretrained=False, input_size=(64, 64)).net
    state = {f"backbone.{k}": v for k, v in theirs.state_dict().items()}
    state["backbone.head.weight"], state["backbone.head.bias"] = torch.zeros(1000, 192), torch.zeros(1000)
    for block in range(2):  # older files keep the class attention in one tensor
        for kind in ("weight", "bias"):
            thirds = [state.pop(f"backbone.cls_attn_blocks.{block}.attn.{letter}.{kind}") for letter in "qkv"]
            state[f"backbone.cls_attn_blocks.{block}.attn.qkv.{kind}"] = torch.cat(thirds)
    ours = build_trunk("fan_tiny", pretrained=False, input_size=(64, 64)).net
    report = load_tensors(ours, state, part="trunk")
    assert report.complete and report.ignored == ("head.weight", "head.bias")
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))
