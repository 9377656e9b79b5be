"""Fast bfloat16 gradients of depthwise convolutions on a CPU.

PyTorch's CPU kernels (oneDNN) have fast bfloat16 gradients for depthwise weights up to 3 x 3 and for inputs at stride 1;
everything else falls back to a plain loop. Measured (2026-11-26, PyTorch 2.13, two AVX-512 BF16 cores, batch 32): 5 x 5,
672 channels, 11 x 11: 45 ms for the gradient of the weights, 0.5 ms for 3 x 3; stride 2: 49 ms for the gradient of the
input, 1 ms in float32. Together that was half of a training step of EfficientNet-Lite0. Here the gradient of a larger
kernel is assembled from 3 x 3 gradients of shifted inputs, and the gradient of a strided input is computed in float32. In
float32 nothing is gained, so nothing changes there.
Shape letters: B batch, C channels, H height, W width, K kernel side.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_convolution_backward = torch.ops.aten.convolution_backward


def is_slow_depthwise(conv: nn.Module, images_BCHW: Tensor) -> bool:
    """Return whether ``conv`` is a depthwise convolution whose default bfloat16 backward pass is slow on these images.

    Args:
        conv: any module.
        images_BCHW: its input.
    """
    if not (isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels == conv.out_channels > 1):
        return False
    height, width = conv.kernel_size
    square = height == width and height % 2 == 1 and conv.stride[0] == conv.stride[1] and conv.dilation == (1, 1)
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    slow = height > 3 or conv.stride[0] > 1
    return square and slow and images_BCHW.device.type == "cpu" and (autocast or images_BCHW.dtype is torch.bfloat16)


class FastDepthwise(TorchFunctionMode):
    """Within this context, run ``torch.conv2d`` with the fast backward pass.

    Enter it only around a convolution for which ``is_slow_depthwise`` holds. It intercepts the function, not the module, so
    that padding which a module adds before the call is kept.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7:
            images, weight, bias, stride, padding = args[:5]
            if not isinstance(padding, str) and len(set(padding)) == 1:
                half = torch.bfloat16
                bias = None if bias is None else bias.to(half)
                return _Depthwise.apply(images.to(half), weight.to(half), bias, stride[0], padding[0])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution: the default forward pass, and the fast backward pass."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        needs_images, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        return (
            _input_gradient(gradient, images, weight, ctx.stride, ctx.padding) if needs_images else None,
            _weight_gradient(gradient, images, weight, ctx.stride, ctx.padding) if needs_weight else None,
            gradient.sum((0, 2, 3)) if needs_bias else None,
            None,
            None,
        )


def _default_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int, argument: int
) -> Tensor:
    """PyTorch's gradient of the input (``argument`` 0) or of the weight (1)."""
    mask = [argument == 0, argument == 1, False]
    groups = len(weight)
    gradients: tuple[Tensor, ...] = _convolution_backward(
        gradient, images, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, mask
    )
    return gradients[argument]


def _input_gradient(gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the input; in float32 where the stride is not 1."""
    if stride == 1:
        return _default_gradient(gradient, images, weight, stride, padding, 0)
    return _default_gradient(gradient.float(), images.float(), weight.float(), stride, padding, 0).to(images.dtype)


def _weight_gradient(gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the weight (C, 1, K, K), assembled from blocks of 3 x 3 taps.

    Tap (i, j) is the sum of the gradient times the input shifted by (i, j), so a block of taps is the gradient of a 3 x 3
    kernel for an input that starts at the block's first tap.
    """
    side = weight.shape[-1]
    if side <= 3:
        return _default_gradient(gradient, images, weight, stride, padding, 1)
    images = F.pad(images, (padding,) * 4)
    height, width = ((length - 1) * stride + 3 for length in gradient.shape[2:])
    taps, result = weight[:, :, :3, :3], torch.empty_like(weight, memory_format=torch.contiguous_format)
    for top in range(0, side - 2, 2):
        for left in range(0, side - 2, 2):
            crop = images[:, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
            result[:, :, top : top + 3, left : left + 3] = _default_gradient(gradient, crop, taps, stride, 0, 1)
    return result
