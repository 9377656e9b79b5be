"""Folding frozen BatchNorm keeps outputs and gradients, and leaves modules in training mode alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from unalike.model.timm_import import import_timm
from unalike.training.cpu.batchnorm_folding import find_foldable_pairs, fold_batchnorm

NETS = ("test_efficientnet", "resnet18", "test_vit", "regnetx_002")


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = import_timm().create_model(name, pretrained=False, num_classes=5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # unlike those of a new layer
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


def gradients(net: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    net.zero_grad(set_to_none=True)
    output = net(images)
    output.square().sum().backward()
    return output.detach(), {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NETS)
def test_output_and_gradients_are_equal(name: str) -> None:
    net = network(name)
    images = torch.randn(2, 3, *((160, 160) if name == "test_vit" else (64, 48)))
    pairs = find_foldable_pairs(net, images)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert len(pairs) == norms
    before = copy.deepcopy(net.state_dict())
    output, expected = gradients(net, images)
    with fold_batchnorm(pairs):
        folded_output, folded_gradients = gradients(net, images)
    torch.testing.assert_close(folded_output, output, rtol=1e-4, atol=1e-4)
    assert folded_gradients.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(
            folded_gradients[key], gradient, rtol=2e-3, atol=2e-3 * float(gradient.abs().max()) + 1e-6
        )
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net(images), output)  # the network is restored


def test_training_mode_is_unchanged() -> None:
    net = network("resnet18")
    images = torch.randn(4, 3, 32, 32)
    pairs = find_foldable_pairs(net, images)
    twin = copy.deepcopy(net)
    net.train(), twin.train()
    with fold_batchnorm(pairs):
        output = net(images)
    assert torch.equal(output, twin(images))
    assert torch.equal(net.bn1.running_mean, twin.bn1.running_mean)


class Shared(nn.Module):
    """The convolution's output is also used outside the BatchNorm, so folding would change the result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raw = self.conv(images)
        return (self.norm(raw) + raw).mean((2, 3))


class Twice(nn.Module):
    """One convolution that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.second.running_mean.uniform_(-1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.conv(self.first(self.conv(images)))).mean((2, 3))


@pytest.mark.parametrize("make_network", [Shared, Twice])
def test_unfoldable_pairs_are_not_returned(make_network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    assert find_foldable_pairs(make_network(), torch.randn(2, 3, 16, 16)) == []


def test_training_modes_are_restored() -> None:
    net = network("resnet18").train()
    net.layer1.eval()
    modes = [m.training for m in net.modules()]
    find_foldable_pairs(net, torch.randn(1, 3, 32, 32))
    assert [m.training for m in net.modules()] == modes
