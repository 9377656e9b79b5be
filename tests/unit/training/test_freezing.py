"""Frozen is frozen (TAO D10), and modes come back (TAO D3)."""

import pytest
import torch

from tests.support.tiny import TinyEmbedder, spec
from unalike.errors import SpecError
from unalike.training.ema import ModelEma
from unalike.training.freezing import Freezer


def statistics(embedder):
    return {k: v.clone() for k, v in embedder.state_dict().items() if "running" in k}


def test_d10_a_frozen_trunk_does_not_move_its_batchnorm_statistics():
    embedder = TinyEmbedder()
    Freezer(embedder, spec(train__train_trunk=False)).set_train_modes(head_only=False)
    before = statistics(embedder)
    embedder(torch.randn(8, 3, 16, 16)).sum().backward()
    assert all(torch.equal(before[k], v) for k, v in statistics(embedder).items())
    assert all(p.grad is None for p in embedder.trunk.parameters()) and embedder.head.weight.grad is not None


def test_frozen_stages_rest_and_the_others_learn():
    embedder = TinyEmbedder()
    Freezer(embedder, spec(train__frozen_stages=2)).set_train_modes(head_only=False)
    before = statistics(embedder)
    embedder(torch.randn(8, 3, 16, 16)).sum().backward()
    after = statistics(embedder)
    assert torch.equal(before["trunk.low.1.running_mean"], after["trunk.low.1.running_mean"])
    assert not torch.equal(before["trunk.high.1.running_mean"], after["trunk.high.1.running_mean"])
    assert embedder.trunk.low[0].weight.grad is None and embedder.trunk.high[0].weight.grad is not None


def test_d03_modes_are_put_back_after_anything_left_eval_mode_behind():
    embedder = TinyEmbedder()
    freezer = Freezer(embedder, spec())
    embedder.eval()
    freezer.set_train_modes(head_only=False)
    assert all(m.training for m in embedder.modules())


def test_head_first_rests_the_trunk_and_gives_it_back():
    embedder = TinyEmbedder()
    freezer = Freezer(embedder, spec(train__freeze_batchnorm=True))
    freezer.set_train_modes(head_only=True)
    assert not any(p.requires_grad for p in embedder.trunk.parameters()) and embedder.head.training
    freezer.set_train_modes(head_only=False)
    assert all(p.requires_grad for p in embedder.trunk.parameters())
    assert not embedder.trunk.high[1].training and embedder.trunk.high.training


def test_more_frozen_stages_than_there_are_is_an_error():
    with pytest.raises(SpecError, match="at most 3"):
        Freezer(TinyEmbedder(), spec(train__frozen_stages=4))


def test_moving_average_follows_its_formula_and_gives_the_weights_back():
    embedder = TinyEmbedder()
    average = ModelEma(embedder, decay=0.5)
    expected = embedder.head.weight.detach().clone()
    for update in range(1, 6):
        with torch.no_grad():
            embedder.head.weight.add_(1.0)
        average.update(embedder)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * embedder.head.weight.detach()
    own = embedder.head.weight.detach().clone()
    with average.applied(embedder):
        assert torch.allclose(embedder.head.weight, expected, atol=1e-6)
    assert torch.equal(embedder.head.weight, own)
