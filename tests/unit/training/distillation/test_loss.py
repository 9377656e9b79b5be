"""The loss of distillation against a loop over images and pairs."""

from __future__ import annotations

import math

import pytest
import torch

from unalike.training.distillation.loss import DistillationLoss


def loop(vectors: list[list[float]], targets: list[list[float]], weight: float) -> float:
    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    count = len(vectors)
    loss = sum(1 - cosine(v, t) for v, t in zip(vectors, targets, strict=True)) / count
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    squares = [(cosine(vectors[i], vectors[j]) - cosine(targets[i], targets[j])) ** 2 for i, j in pairs]
    return loss + (weight * sum(squares) / len(squares) if squares else 0.0)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("weight", [0.0, 1.0, 5.0])
def test_it_equals_a_loop(count: int, weight: float) -> None:
    generator = torch.Generator().manual_seed(count)
    targets_ND = torch.nn.functional.normalize(torch.randn(10, 4, generator=generator))
    vectors_BD = 3 * torch.randn(count, 4, generator=generator)
    index_B = torch.randperm(10, generator=generator)[:count]
    loss = DistillationLoss(targets_ND, weight)(vectors_BD, index_B)
    assert loss.item() == pytest.approx(loop(vectors_BD.tolist(), targets_ND[index_B].tolist(), weight), abs=1e-5)


def test_it_is_zero_for_the_teachers_vectors_of_any_length_and_has_a_gradient_elsewhere() -> None:
    targets_ND = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))
    loss = DistillationLoss(targets_ND)
    assert loss(2.5 * targets_ND[[3, 1]], torch.tensor([3, 1])).item() == pytest.approx(0, abs=1e-6)
    vectors_BD = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss(vectors_BD, torch.arange(4)).backward()
    assert vectors_BD.grad is not None and bool((vectors_BD.grad.abs().sum(dim=1) > 0).all())


def test_the_targets_are_in_no_checkpoint() -> None:
    loss = DistillationLoss(torch.eye(3))
    assert not loss.state_dict() and not list(loss.parameters())
