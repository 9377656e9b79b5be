"""Correct the biases of a quantized network for the mean shift of each layer's output.

Rounded weights shift the mean of a channel, and the shifts add up through the network. One graph contains each layer and its
quantized copy, both with the float input; the mean difference over the calibration images is the correction (Nagel et al.
2019, "Data-free quantization through weight equalization and bias correction", the empirical form).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from unalike.deploy.onnx_graph import quantized_layers
from unalike.engines.metadata import NetworkFacts
from unalike.engines.normalization import network_input
from unalike.engines.onnx_engine import import_onnxruntime

if TYPE_CHECKING:
    import onnx


def correct_biases(
    quantized: onnx.ModelProto, original: onnx.ModelProto, facts: NetworkFacts, images_NHWC: np.ndarray, *, batch: int
) -> int:
    """Correct the biases of a quantized network in place.

    Args:
        quantized: the network with Q/DQ nodes.
        original: the float network.
        facts: its metadata, which says how images are normalized.
        images_NHWC: uint8 calibration images.
        batch: images a pass, where the network has no fixed batch.

    Returns:
        Number of corrected layers: those of type Conv and Gemm that have a bias.
    """
    from onnx import numpy_helper

    both, pairs = _side_by_side(quantized, original)
    if not pairs:
        return 0
    onnxruntime = import_onnxruntime("quantizing", "train")
    session = onnxruntime.InferenceSession(both.SerializeToString(), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    step = entry.shape[0] if isinstance(entry.shape[0], int) else batch
    sums: dict[str, np.ndarray | float] = dict.fromkeys(pairs, 0.0)
    count = 0
    for start in range(0, len(images_NHWC) - (len(images_NHWC) % step if step != batch else 0), step):
        images = images_NHWC[start : start + step]
        shifts = session.run(list(pairs.values()), {entry.name: network_input(images, facts)})
        for name, shift in zip(pairs, shifts, strict=True):
            sums[name] = sums[name] + len(images) * shift.astype(np.float64)
        count += len(images)
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.name in pairs:
            bias = numpy_helper.to_array(constants[node.input[2]])
            new_bias = (bias + sums[node.name] / count).astype(np.float32)
            quantized.graph.initializer.append(numpy_helper.from_array(new_bias, f"{node.name}_bias_corrected"))
            node.input[2] = f"{node.name}_bias_corrected"
    return len(pairs)


def _side_by_side(
    quantized: onnx.ModelProto, original: onnx.ModelProto
) -> tuple[onnx.ModelProto, dict[str, str]]:  # fmt: skip
    """Build the graph of float layers and their quantized copies.

    Returns:
        The graph, and layer -> its output with the mean difference for each channel.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    both = onnx.ModelProto()
    both.CopyFrom(original)
    opset = max(entry.version for entry in both.opset_import if entry.domain in ("", "ai.onnx"))
    producers = {name: node for node in quantized.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    initializer_names = {tensor.name for tensor in both.graph.initializer}
    twins = {node.name: node for node in original.graph.node}
    layers = set(quantized_layers(quantized))
    pairs: dict[str, str] = {}

    def add_initializers(names: Iterable[str]) -> None:
        for name in names:
            if name in constants and name not in initializer_names:
                both.graph.initializer.append(constants[name])
                initializer_names.add(name)

    def dequantized(name: str, source: str, stem: str) -> str:
        """Add the Q/DQ nodes of a layer's input ``name`` behind ``source``; returns the name of their output."""
        dq = producers.get(name)
        if dq is None or dq.op_type != "DequantizeLinear":
            return source
        inner = dq.input[0]
        q = producers.get(inner)
        add_initializers([*dq.input, *(q.input if q is not None else ())])
        if q is not None:
            inner = f"{stem}_q"
            both.graph.node.append(_copy_node(q, [source, *q.input[1:]], inner))
        both.graph.node.append(_copy_node(dq, [inner, *dq.input[1:]], f"{stem}_dq"))
        return f"{stem}_dq"

    for node in quantized.graph.node:
        twin = twins.get(node.name)
        has_bias = node.name in layers and node.op_type in ("Conv", "Gemm") and len(node.input) == 3
        if not has_bias or twin is None or node.input[2] not in constants:
            continue
        stem = f"shadow_{len(pairs)}"
        inputs = [dequantized(node.input[position], twin.input[position], f"{stem}_{position}") for position in (0, 1)]
        both.graph.node.append(_copy_node(twin, [*inputs, twin.input[2]], f"{stem}_y"))
        both.graph.node.append(helper.make_node("Sub", [twin.output[0], f"{stem}_y"], [f"{stem}_d"]))
        axes = [0] if node.op_type == "Gemm" else [0, 2, 3]
        if opset >= 18:
            both.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), f"{stem}_axes"))
            mean = helper.make_node("ReduceMean", [f"{stem}_d", f"{stem}_axes"], [f"{stem}_m"], keepdims=0)
        else:
            mean = helper.make_node("ReduceMean", [f"{stem}_d"], [f"{stem}_m"], axes=axes, keepdims=0)
        both.graph.node.append(mean)
        both.graph.output.append(helper.make_tensor_value_info(f"{stem}_m", TensorProto.FLOAT, None))
        pairs[node.name] = f"{stem}_m"
    return both, pairs


def _copy_node(node: onnx.NodeProto, inputs: list[str], output: str) -> onnx.NodeProto:
    """A copy of a node with other inputs and another output, by which it is named."""
    copy: onnx.NodeProto = type(node).FromString(node.SerializeToString())
    copy.name = output
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.append(output)
    return copy
