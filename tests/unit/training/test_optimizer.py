"""Parameter groups: every trainable parameter once, at the rate and decay that the spec says by stage and kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.tiny import spec
from unalike.model.backbones import build_trunk
from unalike.model.embedder import Embedder
from unalike.training.losses import build_criterion
from unalike.training.optimizer import build_optimizer, set_learning_rates


def transformer() -> Embedder:
    return Embedder(build_trunk("test_vit", pretrained="false", input_size=(16, 16)), 8, "linear")


def rates_and_decays(embedder: Embedder, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Base rate and weight decay by the parameter's name."""
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {
        name: (group_of[id(p)]["base_lr"], group_of[id(p)]["weight_decay"]) for name, p in embedder.named_parameters()
    }


def optimizer_of(embedder: Embedder, **changes: Any) -> torch.optim.Optimizer:
    settled = spec(**changes)
    return build_optimizer(settled, embedder, build_criterion(settled, classes=4, dim=8))


def test_rates_fall_from_stage_to_stage_of_a_transformer() -> None:
    embedder = transformer()
    optimizer = optimizer_of(embedder, train__optim__layer_decay=0.5)
    found = rates_and_decays(embedder, optimizer)
    blocks = len(embedder.trunk.net.blocks)
    for name, (rate, _) in found.items():
        if name.startswith("head"):
            height = 0
        elif "blocks." in name:
            height = blocks - int(name.split("blocks.")[1].split(".")[0])
        else:  # patches, class token and position table are the stem, the norm at the end is the top
            height = 0 if ".norm." in name or ".fc_norm." in name else blocks + 1
        factor = 2.0 if name.endswith("bias") else 1.0
        assert rate == pytest.approx(1e-2 * factor * 0.5**height), name
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found)
    assert len({group["name"] for group in optimizer.param_groups}) == len(optimizer.param_groups)
    rates = set_learning_rates(optimizer, 0.5, train_trunk=False)
    assert all((rate == 0) == name.startswith("trunk") for name, rate in rates.items())
    assert set_learning_rates(optimizer, 0.5)["trunk"] == pytest.approx(0.5e-2)  # what is logged: the top stage's


def test_scales_tokens_and_position_tables_are_without_decay_where_it_is_said() -> None:
    embedder = transformer()
    found = rates_and_decays(embedder, optimizer_of(embedder, train__optim__decay_norms=False))
    for name, (rate, decay) in found.items():
        is_bias = name.endswith("bias")
        is_kept = "norm" in name or name.endswith(("cls_token", "pos_embed", "reg_token", "gamma"))
        expected = 0.0 if is_bias or (is_kept and name.startswith("trunk")) else 5e-4
        assert decay == expected and rate == pytest.approx(2e-2 if is_bias else 1e-2), name
    assert found["trunk.net.blocks.0.attn.qkv.weight"][1] == 5e-4 and found["trunk.net.pos_embed"][1] == 0


def test_groups_are_those_of_earlier_checkpoints_by_default() -> None:
    embedder = transformer()
    groups = optimizer_of(embedder).param_groups
    assert [group["name"] for group in groups] == ["trunk", "trunk_bias", "embedder", "embedder_bias"]
    parts: tuple[nn.Module, ...] = (embedder.trunk, embedder.head)
    expected = [
        [p for name, p in part.named_parameters() if name.endswith("bias") == biases]
        for part in parts
        for biases in (False, True)
    ]
    assert all(
        all(a is b for a, b in zip(group["params"], wanted, strict=True))
        for group, wanted in zip(groups, expected, strict=True)
    )
