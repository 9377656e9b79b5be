"""The fast depthwise gradients equal the default ones for every kernel size, stride and padding."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unalike.training.cpu.depthwise import FastDepthwise, is_slow_depthwise

CASES = [(side, stride, padding) for side in (3, 5, 7) for stride in (1, 2) for padding in (0, side // 2)]


def gradients(conv: nn.Conv2d, images: torch.Tensor, out: torch.Tensor, *, fast: bool) -> list[torch.Tensor]:
    images = images.clone().requires_grad_()
    conv.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise() if fast else nullcontext():
        output = conv(images)
    (output.float() * out).sum().backward()
    assert conv.weight.grad is not None and images.grad is not None and conv.bias is not None
    assert conv.bias.grad is not None
    return [output.detach(), images.grad, conv.weight.grad, conv.bias.grad]


@pytest.mark.parametrize("side, stride, padding", CASES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_equal_to_exact_ones(side: int, stride: int, padding: int, layout: torch.memory_format) -> None:
    torch.manual_seed(side * 10 + stride)
    conv = nn.Conv2d(24, 24, side, stride, padding, groups=24)
    images = torch.randn(3, 24, 13, 10).contiguous(memory_format=layout)
    out = torch.randn(conv(images).shape)
    # reference: float64, on inputs and weights rounded to bfloat16
    exact_images = images.bfloat16().double().requires_grad_()
    exact_weight = conv.weight.detach().bfloat16().double().requires_grad_()
    exact = F.conv2d(exact_images, exact_weight, conv.bias.detach().double(), stride, padding, 1, 24)
    (exact * out.bfloat16().double()).sum().backward()
    actual = gradients(conv, images, out, fast=True)
    expected = [exact.detach(), exact_images.grad, exact_weight.grad, out.double().sum((0, 2, 3))]
    for ours, reference in zip(actual, expected, strict=True):
        assert reference is not None
        torch.testing.assert_close(ours.double(), reference, rtol=2e-2, atol=2e-2 * float(reference.abs().max()))


def test_only_needed_gradients_are_computed() -> None:
    conv = nn.Conv2d(8, 8, 5, 1, 2, groups=8)
    conv.weight.requires_grad_(False)
    images = torch.randn(1, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise():
        conv(images).float().sum().backward()
    assert conv.weight.grad is None and conv.bias is not None and conv.bias.grad is not None


def test_which_convolutions_are_slow() -> None:
    images = torch.randn(1, 8, 9, 9)
    depthwise = nn.Conv2d(8, 8, 5, groups=8)
    assert not is_slow_depthwise(depthwise, images)  # float32 has fast kernels of its own
    with torch.autocast("cpu", torch.bfloat16):
        assert is_slow_depthwise(depthwise, images)
        assert is_slow_depthwise(nn.Conv2d(8, 8, 3, 2, groups=8), images)
        assert not is_slow_depthwise(nn.Conv2d(8, 8, 3, groups=8), images)
        assert not is_slow_depthwise(nn.Conv2d(8, 8, 5), images)
        assert not is_slow_depthwise(nn.Conv2d(8, 16, 5, groups=8), images)
        assert not is_slow_depthwise(nn.Conv2d(8, 8, 5, dilation=2, groups=8), images)
        assert not is_slow_depthwise(nn.Conv2d(8, 8, (5, 3), groups=8), images)
        assert not is_slow_depthwise(nn.Linear(8, 8), images)
