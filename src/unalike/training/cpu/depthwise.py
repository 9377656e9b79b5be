"""Depthwise convolutions in bfloat16 on a CPU with a backward pass that takes the fast ways there are.

PyTorch's CPU kernels (oneDNN) have fast bfloat16 gradients of depthwise weights up to 3 x 3 and of inputs at stride 1;
all else falls to a plain loop. Measured (2026-11-26, PyTorch 2.13, two AVX-512 BF16 cores, batch 32): 5 x 5, 672 channels,
11 x 11: 45 ms for the weights' gradient, 0.5 ms for 3 x 3; stride 2: 49 ms for the input's, 1 ms in float32. Together that
was half of a training step of EfficientNet-Lite0. Here the gradient of a larger kernel is put together from 3 x 3 ones of
shifted inputs, and a strided input's gradient is computed in float32. In float32 nothing is gained, and nothing changed.
Shape letters: B batch, C channels, H height, W width, K kernel side.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_backward = torch.ops.aten.convolution_backward


def gains(conv: nn.Module, images_BCHW: Tensor) -> bool:
    """Whether ``conv`` on these images is one whose plain backward pass is slow."""
    if not (isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels == conv.out_channels > 1):
        return False
    height, width = conv.kernel_size
    square = height == width and height % 2 == 1 and conv.stride[0] == conv.stride[1] and conv.dilation == (1, 1)
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    slow = height > 3 or conv.stride[0] > 1
    return square and slow and images_BCHW.device.type == "cpu" and (half or images_BCHW.dtype is torch.bfloat16)


class FastDepthwise(TorchFunctionMode):
    """Within, a convolution for which ``gains`` holds takes the fast ways, whatever padding its module put on before."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7:
            images, weight, bias, stride, padding = args[:5]
            if not isinstance(padding, str) and len(set(padding)) == 1:
                half = torch.bfloat16
                bias = None if bias is None else bias.to(half)
                return _Depthwise.apply(images.to(half), weight.to(half), bias, stride[0], padding[0])
        return func(*args, **(kwargs or {}))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        wants_images, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        return (
            _of_images(gradient, images, weight, ctx.stride, ctx.padding) if wants_images else None,
            _of_weight(gradient, images, weight, ctx.stride, ctx.padding) if wants_weight else None,
            gradient.sum((0, 2, 3)) if wants_bias else None,
            None,
            None,
        )


def _plain(gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int, part: int) -> Tensor:
    mask = [part == 0, part == 1, False]
    groups = len(weight)
    found: Any = _backward(
        gradient, images, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, mask
    )
    return found[part]  # type: ignore[no-any-return]


def _of_images(gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    if stride == 1:
        return _plain(gradient, images, weight, stride, padding, 0)
    return _plain(gradient.float(), images.float(), weight.float(), stride, padding, 0).to(images.dtype)


def _of_weight(gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Tap (i, j) sums gradient times the input shifted by it: 3 x 3 taps at once, from an input that starts at the first."""
    side = weight.shape[-1]
    if side <= 3:
        return _plain(gradient, images, weight, stride, padding, 1)
    images = F.pad(images, (padding,) * 4)
    height, width = ((length - 1) * stride + 3 for length in gradient.shape[2:])
    taps, found = weight[:, :, :3, :3], torch.empty_like(weight, memory_format=torch.contiguous_format)
    for top in range(0, side - 2, 2):
        for left in range(0, side - 2, 2):
            part = images[:, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
            found[:, :, top : top + 3, left : left + 3] = _plain(gradient, part, taps, stride, 0, 1)
    return found
