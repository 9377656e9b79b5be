"""Frozen BatchNorm folded into the convolution before it while training: the same function, a third faster on a CPU.

A BatchNorm in eval mode is a fixed scale and shift a channel. Applied to the convolution's weights, it costs a
multiplication a weight in place of two passes over the activations, forward and backward. Weights, scale and shift stay
the parameters that they are: gradients reach each of them as before, and checkpoints do not change.
Measured (2026-11-23, EfficientNet-Lite0, 176 px, 4 stages frozen, two AVX2 cores): 35.6 -> 46.1 images/s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unalike.training.cpu.depthwise import FastDepthwise, gains

Pairs = Sequence[tuple[nn.Conv2d, _BatchNorm]]
# How far the folded network's vectors may be from its own, as a share of their largest value; float32 rounding is 1e-5.
TOLERANCE = 1e-3


def find_pairs(network: nn.Module, images_BCHW: Tensor) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Convolutions whose output goes straight into a BatchNorm, seen by running the network once in eval mode.

    A pair stands only if both modules ran once and folding all of them leaves the network's output as it was; otherwise
    there are none.
    """
    outputs: dict[int, nn.Conv2d] = {}
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []
    runs: dict[nn.Module, int] = {}
    alive: list[Tensor] = []  # a freed tensor's id would be given out again

    def after_conv(module: nn.Conv2d, _: Any, output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        outputs[id(output)] = module
        alive.append(output)

    def before_norm(module: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        runs[module] = runs.get(module, 0) + 1
        conv = outputs.get(id(inputs[0]))
        if conv is not None and _foldable(conv, module):
            pairs.append((conv, module))

    hooks: list[Any] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_conv))
        elif isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(before_norm))
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            own = network(images_BCHW)
            for hook in hooks:
                hook.remove()
            alive.clear()
            pairs = [(conv, norm) for conv, norm in pairs if runs[conv] == 1 and runs[norm] == 1]
            with folded(pairs):
                found = network(images_BCHW)
        same = bool((own - found).abs().max() <= TOLERANCE * own.abs().max())
        return pairs if same else []
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode


def _foldable(conv: nn.Conv2d, norm: _BatchNorm) -> bool:
    """A module with parameters of its own making (parametrised, hooked) or without running statistics is left alone."""
    plain = conv.padding_mode == "zeros" and not hasattr(conv, "parametrizations")
    return plain and norm.track_running_stats and norm.running_mean is not None and "forward" not in vars(conv)


@contextmanager
def folded(pairs: Pairs) -> Iterator[None]:
    """Within, each pair works as one convolution while its BatchNorm is in eval mode, and as itself in training mode."""
    for conv, norm in pairs:
        conv.forward = MethodType(_convolve(norm), conv)  # type: ignore[method-assign]
        norm.forward = MethodType(_pass_on, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for pair in pairs:
            for module in pair:
                del module.forward


def _convolve(norm: _BatchNorm) -> Any:
    def forward(conv: nn.Conv2d, images_BCHW: Tensor) -> Tensor:
        if norm.training:
            return type(conv).forward(conv, images_BCHW)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        shift = -norm.running_mean
        if conv.bias is not None:
            shift = shift + conv.bias
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = shift * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        # the convolution's own padding arithmetic (timm's "same" convolutions have one) with other weights
        own = conv._parameters["weight"], conv._parameters["bias"]
        conv._parameters["weight"] = own[0] * scale.view(-1, 1, 1, 1)  # type: ignore[assignment,operator]
        conv._parameters["bias"] = shift  # type: ignore[assignment]
        try:
            with FastDepthwise() if gains(conv, images_BCHW) else nullcontext():
                return type(conv).forward(conv, images_BCHW)
        finally:
            conv._parameters["weight"], conv._parameters["bias"] = own

    return forward


def _pass_on(norm: _BatchNorm, images_BCHW: Tensor) -> Tensor:
    if norm.training:
        return type(norm).forward(norm, images_BCHW)
    for name in ("drop", "act"):  # timm's BatchNormAct2d carries dropout and activation
        if isinstance(part := getattr(norm, name, None), nn.Module):
            images_BCHW = part(images_BCHW)
    return images_BCHW
