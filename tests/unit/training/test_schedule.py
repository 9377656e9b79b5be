"""The rate at every step is the formula (TAO D2: there it never left warmup_factor x base)."""

import math
from types import SimpleNamespace

import pytest
import torch

from tests.support.tiny import TinyEmbedder, spec
from unalike.errors import SpecError
from unalike.training.losses import build_criterion
from unalike.training.optimizer import FUSED, OPTIMIZERS, build_optimizer, is_fused, set_learning_rates
from unalike.training.schedule import LRSchedule


def expected_step_factor(epoch, warmup, factor, method, milestones, gamma):
    value = gamma ** len([m for m in milestones if m <= epoch])
    if epoch < warmup:
        value *= factor if method == "constant" else factor * (1 - epoch / warmup) + epoch / warmup
    return value


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_d02_step_schedule_equals_the_formula_at_every_step(method):
    s = spec(train__num_epochs=10, train__optim__warmup_method=method, train__optim__warmup_iters=3)
    schedule = LRSchedule.from_spec(s, steps_per_epoch=7)
    seen = set()
    for epoch in range(10):
        for step in range(7):
            value = schedule.factor(epoch, step)
            assert value == pytest.approx(expected_step_factor(epoch, 3, 0.1, method, [4, 6], 0.1), abs=1e-12)
            seen.add(round(value, 9))
    assert len(seen) >= 3  # it moves


def test_cosine_starts_at_the_warm_up_factor_and_ends_at_zero():
    s = spec(train__num_epochs=5, train__optim__schedule="cosine", train__optim__warmup_iters=1)
    schedule = LRSchedule.from_spec(s, steps_per_epoch=10)
    assert schedule.factor(0, 0) == pytest.approx(0.1)
    for epoch, step in [(1, 0), (2, 5), (4, 9)]:
        assert schedule.factor(epoch, step) == pytest.approx(0.5 * (1 + math.cos(math.pi * (epoch + step / 10) / 5)))
    values = [schedule.factor(e, t) for e in range(5) for t in range(10)]
    assert values[-1] < 0.01 and max(values) <= 1


def test_rates_written_to_the_optimizer_with_bias_factors():
    s = spec()
    embedder = TinyEmbedder()
    optimizer = build_optimizer(s, embedder, build_criterion(s, classes=4, dim=8))
    rates = set_learning_rates(optimizer, 0.5)
    assert rates == pytest.approx({"trunk": 5e-3, "trunk_bias": 1e-2, "embedder": 5e-3, "embedder_bias": 1e-2})
    assert all(g["lr"] == rates[g["name"]] for g in optimizer.param_groups)
    assert set_learning_rates(optimizer, 1.0, train_trunk=False)["trunk"] == 0.0


def test_proxies_have_their_own_rate_and_no_decay():
    s = spec(train__optim__loss_lr=0.5)
    s.train.loss.name, s.train.miner.name = "CosFaceLoss", None
    optimizer = build_optimizer(s, TinyEmbedder(), build_criterion(s, classes=4, dim=8))
    (group,) = [g for g in optimizer.param_groups if g["name"] == "loss"]
    assert group["base_lr"] == 0.5 and group["weight_decay"] == 0.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step(name):
    s = spec(train__optim__name=name)
    embedder = TinyEmbedder()
    before = embedder.head.weight.detach().clone()
    optimizer = build_optimizer(s, embedder, build_criterion(s, classes=4, dim=8))
    embedder(torch.randn(4, 3, 16, 16)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, embedder.head.weight)


def test_the_update_is_one_kernel_on_a_gpu_unless_gradients_are_scaled():
    on_gpu = SimpleNamespace(is_cuda=True, is_floating_point=lambda: True)
    on_cpu = SimpleNamespace(is_cuda=False, is_floating_point=lambda: True)
    for name, precision, parameters, fused in [
        ("Adam", "bf16", [on_gpu], True), ("AdamW", "fp32", [on_gpu], True), ("SGD", "bf16", [on_gpu], True),
        ("Adamax", "bf16", [on_gpu], False), ("Adam", "fp16", [on_gpu], False), ("Adam", "bf16", [on_gpu, on_cpu], False),
        ("Adam", "fp32", [on_cpu], False),
    ]:  # fmt: skip
        assert is_fused(spec(train__optim__name=name, train__precision=precision), parameters) is fused, (
            name,
            precision,
        )


@pytest.mark.parametrize("name", FUSED)
def test_an_update_in_one_kernel_moves_the_weights_as_the_others_do(name, monkeypatch):
    weights = []
    for fused in (False, True):
        monkeypatch.setattr("unalike.training.optimizer.is_fused", lambda *_, fused=fused: fused)
        s = spec(train__optim__name=name)
        embedder = TinyEmbedder()
        optimizer = build_optimizer(s, embedder, build_criterion(s, classes=4, dim=8))
        assert bool(optimizer.defaults.get("fused")) is fused
        for _ in range(3):
            embedder(torch.ones(4, 3, 16, 16)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(embedder.head.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_nothing_left_to_train_is_an_error():
    embedder = TinyEmbedder().requires_grad_(False)
    with pytest.raises(SpecError, match="nothing is left to train"):
        build_optimizer(spec(), embedder, build_criterion(spec(), classes=4, dim=8))
