"""Downgrade an ONNX graph to an older opset (14 to 17).

onnx's own converter (1.23, seen 2026-11-23) fails on the graphs of torch's exporter (ReduceMean's axes are "no initializer or
constant input") and has no rule for LayerNormalization below 17. Each rule here undoes one change of ONNX's operator history
(onnx/docs/Changelog.md); onnx's checker reports operators without a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.errors import ExportError, missing_extra

if TYPE_CHECKING:
    import onnx

TRACED_OPSET = 18  # of torch.onnx's operators (torch 2.13)
LOWEST = 14
IR_OF_OPSET = {14: 7, 15: 8, 16: 8, 17: 8}


def refuse_opset(opset: int) -> None:
    """Raise ExportError for an opset older than LOWEST."""
    if opset < LOWEST:
        raise ExportError(f"export.opset_version {opset}", expected=f"at least {LOWEST}")


def downgrade_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Convert a network to an older opset.

    Args:
        proto: the network, in opset TRACED_OPSET.
        opset: LOWEST to 17.

    Returns:
        A copy in that opset.

    Raises:
        ExportError: the network uses an operator that this opset lacks; it names the lowest opset that works.
        MissingExtra: onnx is not installed.
    """
    refuse_opset(opset)
    try:
        return _convert(proto, opset)
    except ValueError as error:
        works = next(
            (number for number in range(opset + 1, TRACED_OPSET) if _is_convertible(proto, number)), TRACED_OPSET
        )
        raise ExportError(
            f"this network cannot be written in opset {opset} ({error})", remedy=f"the lowest that works is {works}"
        ) from error


def _is_convertible(proto: onnx.ModelProto, opset: int) -> bool:
    try:
        _convert(proto, opset)
    except ValueError:
        return False
    return True


def _convert(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "train", "ONNX export") from error
    older = onnx.ModelProto()
    older.CopyFrom(proto)
    _Rewriter(older.graph, opset).run()
    for entry in older.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    older.ir_version = min(older.ir_version, IR_OF_OPSET[opset])
    try:
        onnx.checker.check_model(older, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
    return older


class _Rewriter:
    """Replaces the nodes of one graph in order."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        from onnx import numpy_helper

        self.graph, self.opset = graph, opset
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self.layer_norms = 0

    def run(self) -> None:
        """Rewrite every node that has a rule."""
        rules: dict[str, Callable[[onnx.NodeProto], list[onnx.NodeProto]]] = {"Split": self._split, "Pad": self._pad}
        for name in ("Max", "Min", "Mean", "L1", "L2", "Prod", "SumSquare", "LogSum", "LogSumExp"):
            rules[f"Reduce{name}"] = self._reduce
        if self.opset < 17:
            rules["LayerNormalization"] = self._layer_norm
        if self.opset < 15:
            rules["Shape"] = self._shape
        nodes: list[onnx.NodeProto] = []
        for node in self.graph.node:
            rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            nodes += rule(node) if rule else [node]
        del self.graph.node[:]
        self.graph.node.extend(nodes)

    def _reduce(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Opset 18 made ``axes`` an input."""
        from onnx import helper

        if len(node.input) == 2 and node.input[1]:
            if node.input[1] not in self.constants:
                raise ValueError(f"{node.op_type} has computed axes")
            axes = self.constants[node.input[1]].ravel().tolist()
            node.attribute.append(helper.make_attribute("axes", axes))
        del node.input[1:]
        _remove_attribute(node, "noop_with_empty_axes")
        return [node]

    def _split(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Opset 18 added ``num_outputs``; before, equal parts are the default."""
        _remove_attribute(node, "num_outputs")
        return [node]

    def _pad(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Opset 18 added ``axes``."""
        if len(node.input) > 3 and node.input[3]:
            raise ValueError("Pad with axes")
        return [node]

    def _shape(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Opset 15 added ``start`` and ``end``; before, the shape is sliced."""
        from onnx import helper

        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if not attributes:
            return [node]
        full_shape = f"{node.output[0]}_whole"
        start = self._constant(f"{node.output[0]}_start", [attributes.get("start", 0)])
        end = self._constant(f"{node.output[0]}_end", [attributes.get("end", np.iinfo(np.int64).max)])
        return [
            helper.make_node("Shape", [node.input[0]], [full_shape]),
            helper.make_node("Slice", [full_shape, start, end], [node.output[0]]),
        ]

    def _layer_norm(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Opset 17 added it; before, it is computed in steps: (x - mean) / sqrt(variance + epsilon) * scale + bias."""
        from onnx import helper

        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        axis, epsilon = attributes.get("axis", -1), attributes.get("epsilon", 1e-5)
        if axis >= 0 or len([name for name in node.output if name]) > 1:
            raise ValueError("LayerNormalization with a positive axis or several outputs")
        axes = list(range(axis, 0))
        x, scale = node.input[0], node.input[1]
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        self.layer_norms += 1
        stem = f"{node.output[0]}_steps{self.layer_norms}"
        steps: list[onnx.NodeProto] = []

        def add(operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
            output = output or f"{stem}_{len(steps)}"
            steps.append(helper.make_node(operator, inputs, [output], **attributes))
            return output

        centered = add("Sub", [x, add("ReduceMean", [x], axes=axes, keepdims=1)])
        variance = add("ReduceMean", [add("Mul", [centered, centered])], axes=axes, keepdims=1)
        deviation = add("Sqrt", [add("Add", [variance, self._constant(f"{stem}_epsilon", np.float32(epsilon))])])
        scaled = [add("Div", [centered, deviation]), scale]
        if bias is None:
            add("Mul", scaled, node.output[0])
        else:
            add("Add", [add("Mul", scaled), bias], node.output[0])
        return steps

    def _constant(self, name: str, value: object) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _remove_attribute(node: onnx.NodeProto, name: str) -> None:
    attributes = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(attributes)
