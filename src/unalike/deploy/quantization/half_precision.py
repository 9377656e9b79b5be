"""Convert a float32 ONNX network to FP16 or BF16, layer by layer.

Strongly typed runtimes (TensorRT 11, TensorRT 10 with a flag) compute in the precision of the graph, so precision is a property
of the file. Types of inputs and outputs do not change; casts are inserted between layers of different precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.deploy.onnx_graph import drop_unused, is_quantized_graph
from unalike.engines.openvino_precision import EARLY_SHARE
from unalike.errors import ExportError, missing_extra

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("fp32", "fp16", "bf16")
# Sums over many values, exponentials and sizes of tensors lose most accuracy in few bits and are cheap in float32.
KEEP_FP32 = frozenset({
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum",
    "ReduceSumSquare", "ReduceL2", "ReduceL1", "LpNormalization", "Exp", "Pow", "Sqrt", "Reciprocal", "Erf", "Resize",
    "Range", "GlobalAveragePool", "CumSum",
})  # fmt: skip
LARGEST_FP16 = 65504.0
# Conv and the pools take bfloat16 from this opset on (onnx/docs/Changelog.md, version 22).
BF16_OPSET = 22


def convert_precision(
    proto: onnx.ModelProto, precision: str, layers: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """Convert a float32 network to another precision.

    Args:
        proto: the network.
        precision: of its layers: ``fp16``, ``bf16``, or ``fp32`` where ``layers`` alone are converted.
        layers: name of a layer -> its own precision.

    Returns:
        A copy.

    Raises:
        ExportError: the network is quantized, contains subgraphs, or cannot be written in the opset that bfloat16 needs.
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "train", "typed ONNX") from error
    if precision not in PRECISIONS:
        raise ExportError(f"precision {precision!r}", expected=" or ".join(PRECISIONS))
    if is_quantized_graph(proto):
        raise ExportError(
            "converting a quantized network", expected="a float network", remedy="give the network before quantization"
        )
    layers = dict(layers or {})
    if "bf16" in (precision, *layers.values()):
        proto = _at_opset(proto, BF16_OPSET)
    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    _PrecisionConverter(copy.graph, precision, layers).run()
    del copy.graph.value_info[:]
    try:
        onnx.checker.check_model(copy, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"this network cannot be converted to {precision} ({' '.join(str(error).split())[:200]})",
                          remedy="keep the layer in fp32 with layers_precision") from error  # fmt: skip
    return copy


def find_early_nodes(proto: onnx.ModelProto) -> list[str]:
    """Names of the early nodes of a network with depthwise convolutions, which stay float32 in bfloat16.

    ``engines.openvino_precision`` gives the reason. Empty for other networks.
    """
    nodes = list(proto.graph.node)
    weighted = [position for position, node in enumerate(nodes) if node.op_type in ("Conv", "Gemm", "MatMul")]
    groups = [entry.i for node in nodes if node.op_type == "Conv" for entry in node.attribute if entry.name == "group"]
    first = weighted[int(EARLY_SHARE * len(weighted))] if weighted and max(groups, default=1) > 1 else 0
    return [node.name for node in nodes[:first]]


def emulate_bf16(network: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a bfloat16 network for runtimes without bfloat16 kernels, to measure the accuracy of bfloat16.

    Each layer computes in float32; its inputs and outputs are rounded to bfloat16.
    """
    import onnx
    from onnx import TensorProto, helper

    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(network))
    values = [*copy.graph.value_info, *copy.graph.input, *copy.graph.output]
    low = {entry.name for entry in values if entry.type.tensor_type.elem_type == TensorProto.BFLOAT16}
    low |= {tensor.name for tensor in copy.graph.initializer if tensor.data_type == TensorProto.BFLOAT16}
    nodes: list[onnx.NodeProto] = []
    names: set[str] = set()
    for node in copy.graph.node:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        for position, name in enumerate(node.input):
            if name in low:
                if name not in names:
                    nodes.append(helper.make_node("Cast", [name], [f"{name}_wide"], to=TensorProto.FLOAT))
                    names.add(name)
                node.input[position] = f"{name}_wide"
        nodes.append(node)
        for position, name in enumerate(node.output):
            if name in low:
                node.output[position] = f"{name}_exact"
                nodes.append(helper.make_node("Cast", [f"{name}_exact"], [name], to=TensorProto.BFLOAT16))
    del copy.graph.node[:], copy.graph.value_info[:]
    copy.graph.node.extend(nodes)
    return copy


def _at_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    import onnx

    current = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if current >= opset:
        return proto
    try:
        converted = onnx.version_converter.convert_version(proto, opset)
    except Exception as error:  # of a C++ type
        raise ExportError(f"this network cannot be converted from opset {current} to {opset}, which bfloat16 needs "
                          f"({str(error)[:120]})", remedy=f"export it with export.opset_version={opset}") from error  # fmt: skip
    del converted.metadata_props[:]
    converted.metadata_props.extend(proto.metadata_props)
    return converted


class _PrecisionConverter:
    """Goes through one graph in order and sets the precision of each node."""

    def __init__(self, graph: onnx.GraphProto, precision: str, layers: Mapping[str, str]) -> None:
        from onnx import TensorProto

        self.graph, self.precision, self.layers = graph, precision, layers
        self.element_types = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
        values = [*graph.value_info, *graph.input, *graph.output]
        self.floats = {entry.name for entry in values if entry.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        self.floats |= set(self.constants)
        # Present precision of each tensor; a constant is fp32 until a node needs it in another.
        self.precisions = dict.fromkeys(self.floats, "fp32")
        self.converted: dict[tuple[str, str], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Convert the graph in place."""
        outputs = [entry.name for entry in self.graph.output if entry.name in self.floats]
        for node in self.graph.node:
            if any(attribute.HasField("g") for attribute in node.attribute):
                raise ExportError(
                    f"layer {node.name} contains a subgraph ({node.op_type})", expected="a network without control flow"
                )
            self._convert_node(node, outputs)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        drop_unused(self.graph)

    def _convert_node(self, node: onnx.NodeProto, outputs: list[str]) -> None:
        precision = self._precision_of(node)
        for position, name in enumerate(node.input):
            if name in self.floats:
                node.input[position] = self._converted_name(name, precision)
        self._retype_attributes(node, precision)
        self.nodes.append(node)
        for position, name in enumerate(node.output):
            if name not in self.floats:
                continue
            self.precisions[name] = precision
            if name in outputs and precision != "fp32":
                node.output[position] = f"{name}_{precision}"
                self._add_cast(node.output[position], name, "fp32")
                self.precisions[name] = "fp32"

    def _precision_of(self, node: onnx.NodeProto) -> str:
        if node.name in self.layers:
            return self.layers[node.name]
        if self.precision == "fp32" or node.op_type in KEEP_FP32:
            return "fp32"
        if self.precision == "fp16" and any(self._exceeds_fp16(name) for name in node.input):
            return "fp32"
        return self.precision

    def _exceeds_fp16(self, name: str) -> bool:
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return tensor is not None and bool(np.abs(numpy_helper.to_array(tensor)).max(initial=0) > LARGEST_FP16)

    def _converted_name(self, name: str, precision: str) -> str:
        """Name of the tensor in this precision; the conversion is added where it does not exist."""
        if self.precisions[name] == precision:
            return name
        key = (name, precision)
        if key not in self.converted:
            self.converted[key] = f"{name}_as_{precision}"
            if name in self.constants:
                self._add_constant(self.constants[name], self.converted[key], precision)
            else:
                self._add_cast(name, self.converted[key], precision)
        return self.converted[key]

    def _add_constant(self, tensor: onnx.TensorProto, name: str, precision: str) -> None:
        from onnx import numpy_helper

        values = numpy_helper.to_array(tensor)
        self.graph.initializer.append(numpy_helper.from_array(values.astype(_numpy_type(precision)), name))

    def _add_cast(self, name: str, output: str, precision: str) -> None:
        from onnx import helper

        self.nodes.append(
            helper.make_node("Cast", [name], [output], name=f"cast_{output}", to=self.element_types[precision])
        )

    def _retype_attributes(self, node: onnx.NodeProto, precision: str) -> None:
        """Change the output type that Cast, Constant and ConstantOfShape have as an attribute."""
        from onnx import TensorProto, numpy_helper

        if not any(name in self.floats for name in node.output):
            return
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = self.element_types[precision]
            elif node.op_type in ("Constant", "ConstantOfShape") and attribute.HasField("t"):
                values = numpy_helper.to_array(attribute.t).astype(_numpy_type(precision))
                attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def _numpy_type(precision: str) -> Any:
    if precision == "bf16":
        import ml_dtypes  # comes with onnx

        return ml_dtypes.bfloat16
    return {"fp32": np.float32, "fp16": np.float16}[precision]
