"""Correct the biases of a quantized network for the mean shift of each layer's output.

A rounded weight moves the mean of a channel, and that adds up through the network. Each layer stands beside its quantized
twin in one graph, both reading the float input; the mean difference over the calibration images is the correction (Nagel
et al. 2019, "Data-free quantization through weight equalization and bias correction", the empirical form).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    """Correct ``quantized`` in place; returns how many layers have a bias to correct (Conv and Gemm)."""
    from onnx import numpy_helper

    both, pairs = _side_by_side(quantized, original)
    if not pairs:
        return 0
    onnxruntime = import_onnxruntime("quantizing", "train")
    session = onnxruntime.InferenceSession(both.SerializeToString(), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    step = entry.shape[0] if isinstance(entry.shape[0], int) else batch
    sums: dict[str, Any] = dict.fromkeys(pairs, 0.0)
    count = 0
    for start in range(0, len(images_NHWC) - (len(images_NHWC) % step if step != batch else 0), step):
        part = images_NHWC[start : start + step]
        found = session.run(list(pairs.values()), {entry.name: network_input(part, facts)})
        for name, shift in zip(pairs, found, strict=True):
            sums[name] = sums[name] + len(part) * shift.astype(np.float64)
        count += len(part)
    constants = {held.name: held for held in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.name in pairs:
            bias = numpy_helper.to_array(constants[node.input[2]])
            fixed = (bias + sums[node.name] / count).astype(np.float32)
            quantized.graph.initializer.append(numpy_helper.from_array(fixed, f"{node.name}_bias_corrected"))
            node.input[2] = f"{node.name}_bias_corrected"
    return len(pairs)


def _side_by_side(
    quantized: onnx.ModelProto, original: onnx.ModelProto
) -> tuple[onnx.ModelProto, dict[str, str]]:  # fmt: skip
    """(the float graph with each layer's quantized twin, {layer: output that holds the mean difference a channel})."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    both = onnx.ModelProto()
    both.CopyFrom(original)
    opset = max(entry.version for entry in both.opset_import if entry.domain in ("", "ai.onnx"))
    makers = {name: node for node in quantized.graph.node for name in node.output}
    constants = {held.name: held for held in quantized.graph.initializer}
    known = {held.name for held in both.graph.initializer}
    twins = {node.name: node for node in original.graph.node}
    layers = set(quantized_layers(quantized))
    pairs: dict[str, str] = {}

    def bring(names: Any) -> None:
        for name in names:
            if name in constants and name not in known:
                both.graph.initializer.append(constants[name])
                known.add(name)

    def rounded(name: str, source: str, stem: str) -> str:
        """The dequantized form of ``source`` as the layer reads it."""
        dq = makers.get(name)
        if dq is None or dq.op_type != "DequantizeLinear":
            return source
        inner = dq.input[0]
        q = makers.get(inner)
        bring([*dq.input, *(q.input if q is not None else ())])
        if q is not None:
            inner = f"{stem}_q"
            both.graph.node.append(_copied(q, [source, *q.input[1:]], inner))
        both.graph.node.append(_copied(dq, [inner, *dq.input[1:]], f"{stem}_dq"))
        return f"{stem}_dq"

    for node in quantized.graph.node:
        twin = twins.get(node.name)
        fits = node.name in layers and node.op_type in ("Conv", "Gemm") and len(node.input) == 3 and twin is not None
        if not fits or twin is None or node.input[2] not in constants:
            continue
        stem = f"shadow_{len(pairs)}"
        inputs = [rounded(node.input[place], twin.input[place], f"{stem}_{place}") for place in (0, 1)]
        both.graph.node.append(_copied(twin, [*inputs, twin.input[2]], f"{stem}_y"))
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


def _copied(node: onnx.NodeProto, inputs: list[str], output: str) -> onnx.NodeProto:
    copy: onnx.NodeProto = type(node).FromString(node.SerializeToString())
    copy.name = output
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.append(output)
    return copy
