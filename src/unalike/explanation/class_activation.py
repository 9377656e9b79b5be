"""What a network averages over positions, and the linear rest behind it: a vector as a sum of parts of the image.

Most trunks end in a mean over the positions of their last map, and most heads are linear; then the vector is exactly a sum
of one contribution a position. ``open_positions`` finds the mean in an exported network (OpenVINO), cuts there, and claims
the sum only after having tested, on random numbers, that what follows is linear. Where it is not (another pooling, a
norm in the head) it says so, and whoever asks must find out by covering parts up.

Shape letters: B images, P positions (h x w of the map), C channels, D width of the vector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unalike.engines.openvino_engine import OpenVinoEngine, import_openvino
from unalike.errors import ModelError

# Relative difference at which two float32 results count as equal.
EQUAL = 2e-4
PROBES = 4


class Positions:
    """``features(images)`` -> float32 (B, h, w, C); a vector is ``features.mean((1, 2)) @ weight_DC.T + bias_D``,
    before it is brought to unit length."""

    def __init__(self, compiled: Any, input_size: tuple[int, int], weight_DC: np.ndarray, bias_D: np.ndarray) -> None:
        self._compiled, self.input_size = compiled, input_size
        self.weight_DC, self.bias_D = weight_DC, bias_D

    def features(self, images_BHWC: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) of the network's size -> float32 (B, h, w, C)."""
        rows = [np.array(self._compiled({0: image_HWC[None]})[self._compiled.output(0)]) for image_HWC in images_BHWC]
        return np.ascontiguousarray(np.concatenate(rows).transpose(0, 2, 3, 1), np.float32)


def open_positions(model: str | Path | bytes) -> Positions:
    """Cut a network (an ONNX file, its content, or an OpenVINO ``.xml``) where it averages; always in fp32.

    Raises ModelError where it averages nowhere or what follows is not linear, MissingExtra without OpenVINO.
    """
    openvino = import_openvino()
    engine = OpenVinoEngine(model, "auto")
    try:
        weight_DC, bias_D = _linear_rest(openvino, engine, model)
        graph = _graph(engine, model)
        source = _mean(graph).input_value(0)
        kept = openvino.Model([source], graph.get_parameters(), "positions")
        compiled = openvino.Core().compile_model(kept, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:  # OpenVINO raises nothing finer
        raise ModelError(f"the network cannot be cut where it averages ({str(error).splitlines()[0][:120]})") from error
    return Positions(compiled, engine.input_size, weight_DC, bias_D)


def _graph(engine: OpenVinoEngine, model: str | Path | bytes) -> Any:
    graph = engine._with_preprocessing(engine._read(model, "the network"), engine.facts)
    height, width = engine.input_size
    graph.reshape([1, height, width, 3])
    # What is asked of shapes is known now: folded, it no longer ties what follows the mean to the image.
    from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    return graph


def _mean(graph: Any) -> Any:
    """The last mean over both sides of a map. ModelError where there is none."""
    found = None
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "ReduceMean" and len(node.input(0).get_partial_shape()) == 4:
            axes = node.input_value(1).get_node()
            if axes.get_type_name() == "Constant" and sorted(int(a) % 4 for a in np.ravel(axes.data)) == [2, 3]:
                found = node
    if found is None:
        raise ModelError("the network averages over no map", remedy="its parts are found by covering them up instead")
    return found


def _linear_rest(openvino: Any, engine: OpenVinoEngine, model: str | Path | bytes) -> tuple[np.ndarray, np.ndarray]:
    """(weight_DC, bias_D) of what follows the mean, up to a last step to unit length. ModelError where it is not linear."""
    graph = _graph(engine, model)
    mean = _mean(graph)
    shape = [int(n) for n in mean.output(0).get_shape()]
    entry = openvino.op.Parameter(openvino.Type.f32, openvino.Shape(shape))
    for target in list(mean.output(0).get_target_inputs()):
        target.replace_source_output(entry.output(0))
    final = graph.get_results()[0].input_value(0)
    dim = int(final.get_shape()[-1])
    rest = openvino.Model([final], [entry], "rest")  # raises where something else of the image reaches the vector
    places = [final]
    for node in reversed(rest.get_ordered_ops()):
        if node.get_output_size() == 1 and list(node.output(0).get_shape()) == [1, dim] and node.output(0) != final:
            places.append(node.output(0))
    probes = np.random.default_rng(0).standard_normal((PROBES, *shape)).astype(np.float32)
    told = _run(openvino, openvino.Model([final], [entry], "whole"), probes)
    for place in places:
        model_to = openvino.Model([place], [entry], "part")
        zero = _run(openvino, model_to, np.zeros((1, *shape), np.float32))[0]
        seen = _run(openvino, model_to, np.concatenate([probes, probes[:1] + probes[1:2], 3 * probes[2:3]]))
        wanted = np.stack([seen[0] + seen[1] - zero, 3 * seen[2] - 2 * zero])
        size = max(float(np.abs(seen).max()), 1e-9)
        if np.abs(seen[-2:] - wanted).max() > EQUAL * size:
            continue
        lengths = np.linalg.norm(seen[:PROBES], axis=1) * np.linalg.norm(told, axis=1)
        if np.abs((seen[:PROBES] * told).sum(axis=1) / lengths - 1).max() > EQUAL:
            continue
        channels = int(np.prod(shape))
        basis = np.eye(channels, dtype=np.float32).reshape(channels, *shape)
        weight_CD = _run(openvino, model_to, basis) - zero
        return np.ascontiguousarray(weight_CD.T), zero
    raise ModelError(
        "what follows the network's mean is not linear", remedy="its parts are found by covering them up instead"
    )


def _run(openvino: Any, part: Any, inputs: np.ndarray) -> np.ndarray:
    compiled = openvino.Core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.stack([np.array(compiled({0: one})[compiled.output(0)])[0] for one in inputs]).astype(np.float32)
