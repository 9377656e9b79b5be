"""Frozen stages run by OpenVINO give what torch gives, with the gradients above them, and only where they are a chain."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unalike.model.embedder import Shape, assemble
from unalike.training.cpu.batchnorm_folding import find_pairs, folded
from unalike.training.cpu.frozen_stages import chain_of, find_prefix, prefixed


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    torch.manual_seed(0)
    network = assemble(Shape("tf_efficientnet_lite0", 16, 3, (64, 64))).eval()
    for stage in network.trunk.stages()[:4]:
        for module in stage:
            module.requires_grad_(False)
    return network


def outcome(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    network.zero_grad(set_to_none=True)
    vectors = network(images)
    vectors.square().sum().backward()
    return vectors.detach(), [p.grad for p in network.parameters() if p.grad is not None]


def test_vectors_and_gradients_are_those_of_the_network(lite: nn.Module) -> None:
    images = torch.randn(6, 3, 64, 64)  # not a multiple of a request
    prefix = find_prefix(lite, lite.trunk.stages()[:4], images, "f32")
    assert prefix is not None
    vectors, gradients = outcome(lite, images)
    with folded(find_pairs(lite, images[:1])), prefixed(prefix):
        found, found_gradients = outcome(lite, images)
    torch.testing.assert_close(found, vectors, rtol=1e-3, atol=1e-3 * float(vectors.abs().max()))
    assert len(found_gradients) == len(gradients) > 10
    for ours, right in zip(found_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-2, atol=1e-2 * float(right.abs().max()) + 1e-7)
    again, _ = outcome(lite, images)
    assert torch.equal(again, vectors)  # and the network is itself again
    assert not any("forward" in vars(module) for module in lite.modules())


def test_the_same_images_give_the_same_bits(lite: nn.Module) -> None:
    images = torch.randn(9, 3, 64, 64)
    prefix = find_prefix(lite, lite.trunk.stages()[:4], images, "f32")
    assert prefix is not None
    assert torch.equal(prefix.run(images), prefix.run(images))
    torch.testing.assert_close(prefix.run(images[3:5]), prefix.run(images)[3:5], rtol=0, atol=0)


class Forked(nn.Module):
    """Stages that are not a chain: the second one sees the sum of the image and the first one's output."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(images) + images)


def test_only_a_chain_is_taken(lite: nn.Module) -> None:
    images = torch.randn(1, 3, 64, 64)
    assert len(chain_of(lite, lite.trunk.stages()[:4], images)) >= 5
    forked = Forked()
    assert chain_of(forked, [[forked.one]], images) == [forked.one]
    assert chain_of(forked, [[forked.one], [forked.two]], images) == []
    assert find_prefix(forked, [[forked.one], [forked.two]], images, "f32") is None
    assert find_prefix(forked, [], images, "f32") is None


def test_a_network_that_the_runtime_cannot_have_is_left_to_torch(lite: nn.Module, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr("torch.onnx.export", broken)
    assert find_prefix(lite, lite.trunk.stages()[:2], torch.randn(4, 3, 64, 64), "f32") is None
