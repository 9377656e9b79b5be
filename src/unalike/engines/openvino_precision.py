"""bfloat16 for the layers that bear it: a graph's early layers stay in float32, its rear is lowered.

Under the hint bf16 OpenVINO lowers everything, and the early layers, whose rounding every later one inherits, cost most
of it. EfficientNet-Lite0 at 224 px, untrained head, worst of 400 photographs' cosines with float32: all in bf16 0.9948;
with the first 40, 50 and 60 % of its convolutions in float32 0.9991, 0.9993 and 0.9995, for 1.26, 1.25 and 1.34 times
the processor time of all in bf16; at 40 % another 400 fell to 0.9989, and so 60 % (own measurements, 2026-11-26). Networks
without depthwise convolutions lose nothing to speak of (ResNet-50: 0.99999) and are lowered whole.
"""

from __future__ import annotations

from typing import Any

# Convolutions and products, in the order of computation, of which the first share stays as it is.
HEAVY = ("Convolution", "GroupConvolution", "MatMul")
EARLY = 0.6
# What sums over many values, raises to powers or names its own type keeps float32 (as in deploy.typed_onnx).
KEPT = frozenset({
    "Result", "Parameter", "Constant", "Convert", "ConvertLike", "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "MVN",
    "NormalizeL2", "GroupNormalization", "SoftMax", "Softmax", "LogSoftmax", "Exp", "Power", "Sqrt", "Erf", "Interpolate",
    "Range", "CumSum", "ShapeOf", "FakeQuantize", "ScaledDotProductAttention", "RMS",
})  # fmt: skip


def loses_early(graph: Any) -> bool:
    """Whether it is one of the networks whose early layers lose in bfloat16: those with depthwise convolutions."""
    return any(part.get_type_name() == "GroupConvolution" for part in graph.get_ops())


def lower_rear(graph: Any, openvino: Any) -> Any:
    """The graph with what follows the early layers in bfloat16, float32 going in and coming out; changed in place."""
    from openvino import opset13

    ordered = graph.get_ordered_ops()
    heavy = [place for place, part in enumerate(ordered) if part.get_type_name() in HEAVY]
    first = heavy[int(EARLY * len(heavy))] if heavy else len(ordered)
    wide, low = openvino.Type.f32, openvino.Type.bf16
    lowered = {
        part.get_name() for part in ordered[first:] if part.get_type_name() not in KEPT and _is_float(part, wide)
    }  # fmt: skip
    made: dict[tuple[str, int, bool], Any] = {}
    for part in ordered:
        down = part.get_name() in lowered
        for entry in part.inputs():
            source = entry.get_source_output()
            node = source.get_node()
            if source.get_element_type() != wide or (node.get_name() in lowered) == down:
                continue
            key = (node.get_name(), source.get_index(), down)
            if key not in made:
                made[key] = opset13.convert(source, "bf16" if down else "f32").output(0)
            entry.replace_source_output(made[key])
    graph.validate_nodes_and_infer_types()
    if any(part.get_element_type() not in (wide, low) for part in graph.outputs):
        raise RuntimeError("an output that is neither float32 nor bfloat16")
    return graph


def _is_float(part: Any, wide: Any) -> bool:
    return all(output.get_element_type() == wide for output in part.outputs())
