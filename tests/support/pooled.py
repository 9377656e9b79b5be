"""The cheapest network that tells colours and coarse shapes apart: an exported file written by hand, without torch."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper, save

from unalike.data.view import View
from unalike.engines.metadata import KEY, NetworkFacts

VIEW = View(48, 32)


def write_pooled(folder: Path) -> Path:
    """``model.onnx``: 48 x 32 RGB -> the means of 6 x 4 squares, 72 numbers around zero."""
    facts = NetworkFacts(mean=(0.5, 0.4, 0.45), std=(0.2, 0.3, 0.25), dim=72, view=VIEW.to_dict(), trunk="pooled")
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["squares"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["squares"], ["fc_pred"]),
        ],
        "pooled",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 48, 32])],
        [helper.make_tensor_value_info("fc_pred", TensorProto.FLOAT, ["batch", 72])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {KEY: facts.to_json()})
    path = folder / "model.onnx"
    save(model, path)
    return path
