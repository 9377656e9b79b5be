"""The frozen lowest stages of a trunk, run by OpenVINO while training on a CPU.

They have no gradient: all that training needs of them is their output, and an inference runtime makes that several times
faster than eager torch (2026-11-26, four lowest stages of EfficientNet-Lite0 at 176 px, bf16, two busy AVX-512 cores: 49
against 293 ms a batch of 32). Only where they are a plain chain, each fed by the one before, as a run of the network shows;
anything else is left to torch. Shape letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unalike.deploy.onnx_export import quiet_exporter
from unalike.engines.openvino_engine import import_openvino
from unalike.errors import MissingExtra

REQUEST = 4  # images a request: small enough for the caches, several are in flight
# Least cosine between the runtime's output and torch's, above which it is taken for the same network.
SAME = {"f32": 0.99999, "bf16": 0.998}


class Prefix:
    """``modules`` run one after the other; calling it runs them all. Made by ``find_prefix``."""

    def __init__(self, modules: Sequence[nn.Module], run: Callable[[Tensor], Tensor]) -> None:
        self.modules, self.run = list(modules), run


def chain_of(network: nn.Module, stages: Sequence[Sequence[nn.Module]], images_BCHW: Tensor) -> list[nn.Module]:
    """The modules of ``stages`` in order, if the network feeds its images through them one after the other; else none."""
    modules = [module for stage in stages for module in stage]
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        seen.append((module, inputs[0], output))

    hooks = [module.register_forward_hook(after) for module in modules]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            network(images_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    fed = [images_BCHW, *(output for _, _, output in seen[:-1])]
    chained = len(seen) == len(modules) and all(
        module is wanted and given is before
        for (module, given, _), wanted, before in zip(seen, modules, fed, strict=True)
    )
    return modules if chained else []


def find_prefix(
    network: nn.Module, stages: Sequence[Sequence[nn.Module]], images_BCHW: Tensor, hint: str
) -> Prefix | None:
    """OpenVINO in place of ``stages`` for images of this shape; None where that cannot be had or is not the same.

    ``hint``: what it computes in, ``f32`` or ``bf16``.
    """
    modules = chain_of(network, stages, images_BCHW[:1]) if stages else []
    if not modules:
        return None
    lowest = nn.Sequential(*modules).eval()
    shown = images_BCHW[:REQUEST].float()
    try:
        run = _compiled(lowest, shown, hint)
    except (MissingExtra, RuntimeError, torch.onnx.OnnxExporterError):
        return None  # torch runs them, as it would without OpenVINO
    with torch.no_grad():
        own, found = lowest(shown).float().flatten(), run(shown).float().flatten()
    same = torch.nn.functional.cosine_similarity(own, found, dim=0) >= SAME[hint]
    return Prefix(modules, run) if bool(same) else None


def _compiled(lowest: nn.Module, shown: Tensor, hint: str) -> Callable[[Tensor], Tensor]:
    openvino = import_openvino()
    core = openvino.Core()
    with quiet_exporter():
        program = torch.onnx.export(lowest, (shown,), dynamo=True, verbose=False)
    assert program is not None
    graph = core.read_model(model=program.model_proto.SerializeToString(), weights=b"")
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": torch.get_num_threads()}  # fmt: skip
    queue = openvino.AsyncInferQueue(core.compile_model(graph, "CPU", settings))
    size = [int(side) for side in graph.output(0).get_partial_shape().get_shape()[1:]]

    def run(images_BCHW: Tensor) -> Tensor:
        images = np.ascontiguousarray(images_BCHW.detach().float().numpy())
        result = np.empty((len(images), *size), np.float32)

        def store(request: Any, start: int) -> None:
            part = result[start : start + REQUEST]
            part[...] = request.get_output_tensor(0).data[: len(part)]

        queue.set_callback(store)
        for start in range(0, len(images), REQUEST):
            part = images[start : start + REQUEST]
            if len(part) < REQUEST:  # filled up with copies, whose results are thrown away
                part = np.concatenate([part, np.repeat(part[-1:], REQUEST - len(part), axis=0)])
            queue.start_async({0: part}, start)
        queue.wait_all()
        return torch.from_numpy(result)

    return run


@contextmanager
def prefixed(prefix: Prefix | None) -> Iterator[None]:
    """Within, the first of the prefix's modules gives what the last one would, and the others pass it on."""
    if prefix is None:
        yield
        return
    own = [vars(module).get("forward") for module in prefix.modules]

    def lowest(images_BCHW: Tensor) -> Tensor:
        found_BCHW = prefix.run(images_BCHW)
        if torch.is_autocast_enabled("cpu"):
            found_BCHW = found_BCHW.to(torch.get_autocast_dtype("cpu"))
        return found_BCHW.contiguous(memory_format=torch.channels_last)

    def pass_on(images_BCHW: Tensor) -> Tensor:
        return images_BCHW

    for number, module in enumerate(prefix.modules):
        module.forward = pass_on if number else lowest  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module, forward in zip(prefix.modules, own, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward  # type: ignore[method-assign]
