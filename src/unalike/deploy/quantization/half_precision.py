"""Convert a float32 ONNX network to FP16 or BF16, layer by layer.

Strongly typed runtimes (TensorRT 11, TensorRT 10 when asked) compute in what the graph says, so precision is a property
of the file. Input and output stay as they are; casts stand wherever two precisions meet.
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
# Sums over many values, exponentials and what sizes a tensor lose most in few bits and cost next to nothing in many.
KEEP_FP32 = frozenset({
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum",
    "ReduceSumSquare", "ReduceL2", "ReduceL1", "LpNormalization", "Exp", "Pow", "Sqrt", "Reciprocal", "Erf", "Resize",
    "Range", "GlobalAveragePool", "CumSum",
})  # fmt: skip
LARGEST_HALF = 65504.0
# Conv and the pools take bfloat16 from this opset on (onnx/docs/Changelog.md, version 22).
BF16_OPSET = 22


def convert_precision(
    proto: onnx.ModelProto, precision: str, layers: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """A copy that computes in ``precision`` (fp16, bf16; fp32 with ``layers`` alone), except in ``layers`` (name -> type).

    Raises ExportError for quantized graphs, subgraphs, and where ONNX's converter cannot raise the opset for bfloat16.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "train", "typed ONNX") from error
    if precision not in PRECISIONS:
        raise ExportError(f"precision {precision!r}", expected=" or ".join(PRECISIONS))
    if is_quantized_graph(proto):
        raise ExportError(
            "typing a quantized network", expected="a float network", remedy="give the one it was made from"
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
        raise ExportError(f"this network cannot be typed as {precision} ({' '.join(str(error).split())[:200]})",
                          remedy="keep the layer in fp32 with layers_precision") from error  # fmt: skip
    return copy


def find_early_nodes(proto: onnx.ModelProto) -> list[str]:
    """The names of those nodes that bfloat16 spares in networks with depthwise convolutions (``engines.openvino_precision``)."""
    nodes = list(proto.graph.node)
    heavy = [place for place, node in enumerate(nodes) if node.op_type in ("Conv", "Gemm", "MatMul")]
    groups = [entry.i for node in nodes if node.op_type == "Conv" for entry in node.attribute if entry.name == "group"]
    first = heavy[int(EARLY_SHARE * len(heavy))] if heavy and max(groups, default=1) > 1 else 0
    return [node.name for node in nodes[:first]]


def emulate_bf16(typed: onnx.ModelProto) -> onnx.ModelProto:
    """The same network for runtimes that have no bfloat16 kernels: each layer computes in float32, and what goes in and
    comes out is rounded to bfloat16, so that its vectors show what bfloat16 costs."""
    import onnx
    from onnx import TensorProto, helper

    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(typed))
    known = [*copy.graph.value_info, *copy.graph.input, *copy.graph.output]
    low = {entry.name for entry in known if entry.type.tensor_type.elem_type == TensorProto.BFLOAT16}
    low |= {held.name for held in copy.graph.initializer if held.data_type == TensorProto.BFLOAT16}
    nodes: list[Any] = []
    widened: set[str] = set()
    for node in copy.graph.node:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            if name in low:
                if name not in widened:
                    nodes.append(helper.make_node("Cast", [name], [f"{name}_wide"], to=TensorProto.FLOAT))
                    widened.add(name)
                node.input[place] = f"{name}_wide"
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in low:
                node.output[place] = f"{name}_exact"
                nodes.append(helper.make_node("Cast", [f"{name}_exact"], [name], to=TensorProto.BFLOAT16))
    del copy.graph.node[:], copy.graph.value_info[:]
    copy.graph.node.extend(nodes)
    return copy


def _at_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    import onnx

    held = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if held >= opset:
        return proto
    try:
        raised = onnx.version_converter.convert_version(proto, opset)
    except Exception as error:  # a C++ exception type of its own
        raise ExportError(f"this network cannot be raised from opset {held} to {opset}, which bfloat16 needs "
                          f"({str(error)[:120]})", remedy=f"export it with export.opset_version={opset}") from error  # fmt: skip
    del raised.metadata_props[:]
    raised.metadata_props.extend(proto.metadata_props)
    return raised


class _PrecisionConverter:
    """Goes through one graph in order and gives each node its type."""

    def __init__(self, graph: onnx.GraphProto, precision: str, layers: Mapping[str, str]) -> None:
        from onnx import TensorProto

        self.graph, self.precision, self.layers = graph, precision, layers
        self.kinds = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
        known = [*graph.value_info, *graph.input, *graph.output]
        self.floats = {entry.name for entry in known if entry.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.constants = {held.name: held for held in graph.initializer if held.data_type == TensorProto.FLOAT}
        self.floats |= set(self.constants)
        # Which type each tensor has now; constants are fp32 until someone wants them otherwise.
        self.types = dict.fromkeys(self.floats, "fp32")
        self.made: dict[tuple[str, str], str] = {}
        self.nodes: list[Any] = []

    def run(self) -> None:
        outputs = [entry.name for entry in self.graph.output if entry.name in self.floats]
        for node in self.graph.node:
            if any(attribute.HasField("g") for attribute in node.attribute):
                raise ExportError(
                    f"layer {node.name} holds a graph of its own ({node.op_type})", expected="a plain network"
                )
            self._node(node, outputs)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        holder = type("Holder", (), {"graph": self.graph})
        drop_unused(holder)  # type: ignore[arg-type]

    def _node(self, node: onnx.NodeProto, outputs: list[str]) -> None:
        kind = self._kind(node)
        for place, name in enumerate(node.input):
            if name in self.floats:
                node.input[place] = self._as(name, kind)
        self._retype_attributes(node, kind)
        self.nodes.append(node)
        for place, name in enumerate(node.output):
            if name not in self.floats:
                continue
            self.types[name] = kind
            if name in outputs and kind != "fp32":
                node.output[place] = f"{name}_{kind}"
                self._cast(node.output[place], name, "fp32")
                self.types[name] = "fp32"

    def _kind(self, node: onnx.NodeProto) -> str:
        if node.name in self.layers:
            return self.layers[node.name]
        if self.precision == "fp32" or node.op_type in KEEP_FP32:
            return "fp32"
        if self.precision == "fp16" and any(self._too_large(name) for name in node.input):
            return "fp32"
        return self.precision

    def _too_large(self, name: str) -> bool:
        from onnx import numpy_helper

        held = self.constants.get(name)
        return held is not None and bool(np.abs(numpy_helper.to_array(held)).max(initial=0) > LARGEST_HALF)

    def _as(self, name: str, kind: str) -> str:
        """The name under which a tensor can be read in this type."""
        if self.types[name] == kind:
            return name
        key = (name, kind)
        if key not in self.made:
            self.made[key] = f"{name}_as_{kind}"
            if name in self.constants:
                self._typed_constant(self.constants[name], self.made[key], kind)
            else:
                self._cast(name, self.made[key], kind)
        return self.made[key]

    def _typed_constant(self, held: onnx.TensorProto, name: str, kind: str) -> None:
        from onnx import numpy_helper

        values = numpy_helper.to_array(held)
        self.graph.initializer.append(numpy_helper.from_array(values.astype(_numpy_type(kind)), name))

    def _cast(self, name: str, output: str, kind: str) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node("Cast", [name], [output], name=f"cast_{output}", to=self.kinds[kind]))

    def _retype_attributes(self, node: onnx.NodeProto, kind: str) -> None:
        """Nodes that name the type of what they make."""
        from onnx import TensorProto, numpy_helper

        if not any(name in self.floats for name in node.output):
            return
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = self.kinds[kind]
            elif node.op_type in ("Constant", "ConstantOfShape") and attribute.HasField("t"):
                values = numpy_helper.to_array(attribute.t).astype(_numpy_type(kind))
                attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def _numpy_type(kind: str) -> Any:
    if kind == "bf16":
        import ml_dtypes  # comes with onnx

        return ml_dtypes.bfloat16
    return {"fp32": np.float32, "fp16": np.float16}[kind]
