"""Compute the frozen lowest stages of a trunk with OpenVINO while torch trains the others on a CPU.

Frozen stages need no gradient: training uses only their output, which an inference runtime computes several times faster
than eager torch (2026-11-26, four lowest stages of EfficientNet-Lite0 at 176 px, bf16, two busy AVX-512 cores: 49 against
293 ms per batch of 32). This applies only where the stages form a chain, each fed by the one before, as one run of the
network shows; otherwise torch runs them. Shape letters: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unalike.deploy.onnx_export import quiet_exporter
from unalike.engines.openvino_engine import import_openvino, thread_settings
from unalike.errors import MissingExtra

REQUEST_SIZE = 4  # images per inference request: small enough for the CPU's caches; several requests run at once
# Least cosine similarity between OpenVINO's and torch's output for them to count as the same network.
MIN_COSINE = {"f32": 0.99999, "bf16": 0.998}


class CompiledStages:
    """A chain of modules and a function that computes all of them at once; made by ``compile_stages``.

    Attributes:
        modules: the modules in the order in which they run.
        run: maps the input of the first module to the output of the last one.
    """

    def __init__(self, modules: Sequence[nn.Module], run: Callable[[Tensor], Tensor]) -> None:
        self.modules, self.run = list(modules), run


def find_chain(network: nn.Module, stages: Sequence[Sequence[nn.Module]], images_BCHW: Tensor) -> list[nn.Module]:
    """List the modules of ``stages`` in order, if the network feeds its images through them one after the other.

    Args:
        network: the network that contains the stages; its training modes are restored afterwards.
        stages: the modules of each stage, lowest stage first.
        images_BCHW: input images of the network, which runs once on them.

    Returns:
        The modules, or an empty list if the stages are no chain that starts at the images.
    """
    modules = [module for stage in stages for module in stage]
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def record_call(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((module, inputs[0], output))

    hooks = [module.register_forward_hook(record_call) for module in modules]
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
    expected_inputs = [images_BCHW, *(output for _, _, output in calls[:-1])]
    is_chain = len(calls) == len(modules) and all(
        callee is module and actual is expected_input
        for (callee, actual, _), module, expected_input in zip(calls, modules, expected_inputs, strict=True)
    )
    return modules if is_chain else []


def compile_stages(
    network: nn.Module, stages: Sequence[Sequence[nn.Module]], images_BCHW: Tensor, precision: str
) -> CompiledStages | None:
    """Compile ``stages`` with OpenVINO for images of this shape.

    Args:
        network: the network that contains the stages.
        stages: the modules of each stage, lowest stage first.
        images_BCHW: at least ``REQUEST_SIZE`` input images.
        precision: OpenVINO's inference precision, ``f32`` or ``bf16``.

    Returns:
        None where the stages are no chain, OpenVINO cannot compile them, or its output differs from torch's.
    """
    modules = find_chain(network, stages, images_BCHW[:1]) if stages else []
    if not modules:
        return None
    lowest = nn.Sequential(*modules).eval()
    sample_BCHW = images_BCHW[:REQUEST_SIZE].float()
    try:
        run = _compile_openvino(lowest, sample_BCHW, precision)
    except (MissingExtra, RuntimeError, torch.onnx.OnnxExporterError):
        return None  # torch runs them, as it would without OpenVINO
    with torch.no_grad():
        reference, actual = lowest(sample_BCHW).float().flatten(), run(sample_BCHW).float().flatten()
    same = torch.nn.functional.cosine_similarity(reference, actual, dim=0) >= MIN_COSINE[precision]
    return CompiledStages(modules, run) if bool(same) else None


def _compile_openvino(lowest: nn.Module, sample_BCHW: Tensor, precision: str) -> Callable[[Tensor], Tensor]:
    """Compile a module for requests of the sample's shape; the function takes any number of images."""
    openvino = import_openvino()
    core = openvino.Core()
    with quiet_exporter():
        program = torch.onnx.export(lowest, (sample_BCHW,), dynamo=True, verbose=False)
    assert program is not None
    graph = core.read_model(model=program.model_proto.SerializeToString(), weights=b"")
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision,
                **thread_settings(torch.get_num_threads())}  # fmt: skip
    queue = openvino.AsyncInferQueue(core.compile_model(graph, "CPU", settings))
    size = [int(side) for side in graph.output(0).get_partial_shape().get_shape()[1:]]

    def run(images_BCHW: Tensor) -> Tensor:
        images = np.ascontiguousarray(images_BCHW.detach().float().numpy())
        result = np.empty((len(images), *size), np.float32)

        def store(request: Any, start: int) -> None:
            rows = result[start : start + REQUEST_SIZE]
            rows[...] = request.get_output_tensor(0).data[: len(rows)]

        queue.set_callback(store)
        for start in range(0, len(images), REQUEST_SIZE):
            batch = images[start : start + REQUEST_SIZE]
            if len(batch) < REQUEST_SIZE:  # pad with copies; `store` drops their results
                batch = np.concatenate([batch, np.repeat(batch[-1:], REQUEST_SIZE - len(batch), axis=0)])
            queue.start_async({0: batch}, start)
        queue.wait_all()
        return torch.from_numpy(result)

    return run


@contextmanager
def use_compiled_stages(stages: CompiledStages | None) -> Iterator[None]:
    """Within this context, the first module of the chain returns the compiled output and the others return their input."""
    if stages is None:
        yield
        return
    original = [vars(module).get("forward") for module in stages.modules]

    def compiled_forward(images_BCHW: Tensor) -> Tensor:
        output_BCHW = stages.run(images_BCHW)
        if torch.is_autocast_enabled("cpu"):
            output_BCHW = output_BCHW.to(torch.get_autocast_dtype("cpu"))
        return output_BCHW.contiguous(memory_format=torch.channels_last)

    def identity(images_BCHW: Tensor) -> Tensor:
        return images_BCHW

    for number, module in enumerate(stages.modules):
        module.forward = identity if number else compiled_forward
    try:
        yield
    finally:
        for module, forward in zip(stages.modules, original, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward
