"""bfloat16 in OpenVINO for the late layers of a graph; its early layers stay in float32.

Under the hint bf16 OpenVINO lowers everything, and the early layers, whose rounding errors every later one inherits, cost
most accuracy. EfficientNet-Lite0 at 224 px, untrained head, worst of 400 photographs' cosines with float32: all in bf16
0.9948; with the first 40, 50 and 60 % of its convolutions in float32 0.9991, 0.9993 and 0.9995, for 1.26, 1.25 and 1.34
times the processor time of all in bf16; at 40 % another 400 fell to 0.9989, and so 60 % (own measurements, 2026-11-26).
Networks without depthwise convolutions lose next to nothing (ResNet-50: 0.99999) and are lowered entirely.
"""

from __future__ import annotations

from typing import Any

# Convolutions and matrix products in the order of computation; this share of them, from the first on, stays in float32.
WEIGHTED_OPS = ("Convolution", "GroupConvolution", "MatMul")
EARLY_SHARE = 0.6
# What sums over many values, raises to powers or names its own type keeps float32 (as in deploy's half_precision).
KEEP_FP32 = frozenset({
    "Result", "Parameter", "Constant", "Convert", "ConvertLike", "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "MVN",
    "NormalizeL2", "GroupNormalization", "SoftMax", "Softmax", "LogSoftmax", "Exp", "Power", "Sqrt", "Erf", "Interpolate",
    "Range", "CumSum", "ShapeOf", "FakeQuantize", "ScaledDotProductAttention", "RMS",
})  # fmt: skip


def has_depthwise_convolutions(graph: Any) -> bool:
    """Whether it is one of the networks whose early layers lose accuracy in bfloat16."""
    return any(node.get_type_name() == "GroupConvolution" for node in graph.get_ops())


def lower_late_layers(graph: Any, openvino: Any) -> Any:
    """Convert what follows the early layers to bfloat16, with float32 inputs and outputs; the graph is changed in place.

    Args:
        graph: an ``openvino.Model`` in float32.
        openvino: the imported module.

    Returns:
        The graph.

    Raises:
        RuntimeError: an output is neither float32 nor bfloat16.
    """
    from openvino import opset13

    nodes = graph.get_ordered_ops()
    weighted = [number for number, node in enumerate(nodes) if node.get_type_name() in WEIGHTED_OPS]
    first = weighted[int(EARLY_SHARE * len(weighted))] if weighted else len(nodes)
    fp32, bf16 = openvino.Type.f32, openvino.Type.bf16
    layers = {
        node.get_name() for node in nodes[first:] if node.get_type_name() not in KEEP_FP32 and _all_outputs(node, fp32)
    }
    converted: dict[tuple[str, int, bool], Any] = {}
    for node in nodes:
        is_lowered = node.get_name() in layers
        for entry in node.inputs():
            source = entry.get_source_output()
            source_node = source.get_node()
            if source.get_element_type() != fp32 or (source_node.get_name() in layers) == is_lowered:
                continue
            key = (source_node.get_name(), source.get_index(), is_lowered)
            if key not in converted:
                converted[key] = opset13.convert(source, "bf16" if is_lowered else "f32").output(0)
            entry.replace_source_output(converted[key])
    graph.validate_nodes_and_infer_types()
    if any(output.get_element_type() not in (fp32, bf16) for output in graph.outputs):
        raise RuntimeError("an output that is neither float32 nor bfloat16")
    return graph


def _all_outputs(node: Any, element_type: Any) -> bool:
    """Whether all outputs of a node have this type."""
    return all(output.get_element_type() == element_type for output in node.outputs())
