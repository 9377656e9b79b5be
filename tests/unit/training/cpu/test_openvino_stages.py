"""Frozen stages in OpenVINO give torch's output and gradients, and only a chain of stages is compiled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unalike.model.embedder import EmbedderConfig, create_embedder
from unalike.training.cpu.batchnorm_folding import find_foldable_pairs, fold_batchnorm
from unalike.training.cpu.openvino_stages import compile_stages, find_chain, use_compiled_stages


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    torch.manual_seed(0)
    network = create_embedder(EmbedderConfig("tf_efficientnet_lite0", 16, 3, (64, 64))).eval()
    for stage in network.trunk.stages()[:4]:
        for module in stage:
            module.requires_grad_(False)
    return network


def vectors_and_gradients(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    network.zero_grad(set_to_none=True)
    vectors = network(images)
    vectors.square().sum().backward()
    return vectors.detach(), [p.grad for p in network.parameters() if p.grad is not None]


def test_vectors_and_gradients_equal_those_of_the_network(lite: nn.Module) -> None:
    images = torch.randn(6, 3, 64, 64)  # not a multiple of the request size
    compiled = compile_stages(lite, lite.trunk.stages()[:4], images, "f32")
    assert compiled is not None
    vectors, gradients = vectors_and_gradients(lite, images)
    with fold_batchnorm(find_foldable_pairs(lite, images[:1])), use_compiled_stages(compiled):
        compiled_vectors, compiled_gradients = vectors_and_gradients(lite, images)
    torch.testing.assert_close(compiled_vectors, vectors, rtol=1e-3, atol=1e-3 * float(vectors.abs().max()))
    assert len(compiled_gradients) == len(gradients) > 10
    for ours, expected in zip(compiled_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()) + 1e-7)
    again, _ = vectors_and_gradients(lite, images)
    assert torch.equal(again, vectors)  # the network is restored
    assert not any("forward" in vars(module) for module in lite.modules())


def test_the_same_images_give_the_same_bits(lite: nn.Module) -> None:
    images = torch.randn(9, 3, 64, 64)
    compiled = compile_stages(lite, lite.trunk.stages()[:4], images, "f32")
    assert compiled is not None
    assert torch.equal(compiled.run(images), compiled.run(images))
    torch.testing.assert_close(compiled.run(images[3:5]), compiled.run(images)[3:5], rtol=0, atol=0)


class Forked(nn.Module):
    """Stages that are no chain: the second one gets the sum of the image and the first one's output."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(images) + images)


def test_only_a_chain_is_compiled(lite: nn.Module) -> None:
    images = torch.randn(1, 3, 64, 64)
    assert len(find_chain(lite, lite.trunk.stages()[:4], images)) >= 5
    forked = Forked()
    assert find_chain(forked, [[forked.one]], images) == [forked.one]
    assert find_chain(forked, [[forked.one], [forked.two]], images) == []
    assert compile_stages(forked, [[forked.one], [forked.two]], images, "f32") is None
    assert compile_stages(forked, [], images, "f32") is None


def test_a_network_that_cannot_be_exported_is_not_compiled(lite: nn.Module, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr("torch.onnx.export", broken)
    assert compile_stages(lite, lite.trunk.stages()[:2], torch.randn(4, 3, 64, 64), "f32") is None
