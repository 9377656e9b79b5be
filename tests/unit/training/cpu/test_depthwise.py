"""Depthwise gradients put together from fast pieces equal the plain ones, whatever the kernel, stride and padding."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unalike.training.cpu.depthwise import FastDepthwise, gains

CASES = [(side, stride, padding) for side in (3, 5, 7) for stride in (1, 2) for padding in (0, side // 2)]


def gradients(conv: nn.Conv2d, images: torch.Tensor, out: torch.Tensor, *, fast: bool) -> list[torch.Tensor]:
    images = images.clone().requires_grad_()
    conv.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise() if fast else nullcontext():
        found = conv(images)
    (found.float() * out).sum().backward()
    assert conv.weight.grad is not None and images.grad is not None and conv.bias is not None
    assert conv.bias.grad is not None
    return [found.detach(), images.grad, conv.weight.grad, conv.bias.grad]


@pytest.mark.parametrize("side, stride, padding", CASES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_the_plain_ones(side: int, stride: int, padding: int, layout: torch.memory_format) -> None:
    torch.manual_seed(side * 10 + stride)
    conv = nn.Conv2d(24, 24, side, stride, padding, groups=24)
    images = torch.randn(3, 24, 13, 10).contiguous(memory_format=layout)
    out = torch.randn(conv(images).shape)
    # the slow, obvious way in float64, on what bfloat16 leaves of inputs and weights
    exact_images = images.bfloat16().double().requires_grad_()
    exact_weight = conv.weight.detach().bfloat16().double().requires_grad_()
    exact = F.conv2d(exact_images, exact_weight, conv.bias.detach().double(), stride, padding, 1, 24)
    (exact * out.bfloat16().double()).sum().backward()
    found = gradients(conv, images, out, fast=True)
    wanted = [exact.detach(), exact_images.grad, exact_weight.grad, out.double().sum((0, 2, 3))]
    for ours, right in zip(found, wanted, strict=True):
        assert right is not None
        torch.testing.assert_close(ours.double(), right, rtol=2e-2, atol=2e-2 * float(right.abs().max()))


def test_only_parts_that_are_asked_for_are_computed() -> None:
    conv = nn.Conv2d(8, 8, 5, 1, 2, groups=8)
    conv.weight.requires_grad_(False)
    images = torch.randn(1, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise():
        conv(images).float().sum().backward()
    assert conv.weight.grad is None and conv.bias is not None and conv.bias.grad is not None


def test_what_gains() -> None:
    images = torch.randn(1, 8, 9, 9)
    depthwise = nn.Conv2d(8, 8, 5, groups=8)
    assert not gains(depthwise, images)  # float32 has fast kernels of its own
    with torch.autocast("cpu", torch.bfloat16):
        assert gains(depthwise, images)
        assert gains(nn.Conv2d(8, 8, 3, 2, groups=8), images)
        assert not gains(nn.Conv2d(8, 8, 3, groups=8), images)
        assert not gains(nn.Conv2d(8, 8, 5), images)
        assert not gains(nn.Conv2d(8, 16, 5, groups=8), images)
        assert not gains(nn.Conv2d(8, 8, 5, dilation=2, groups=8), images)
        assert not gains(nn.Conv2d(8, 8, (5, 3), groups=8), images)
        assert not gains(nn.Linear(8, 8), images)
