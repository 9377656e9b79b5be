"""Class activation for embeddings: a network cut at its mean over positions, and the linear head that follows.

Most trunks end in a mean over the positions of their last feature map, and most heads are linear; then the embedding is
exactly a sum of one contribution a position. ``load_pooled_network`` finds the mean in an exported network (OpenVINO) and
cuts there, after testing with random numbers that the rest is linear. Where it is not (another pooling, a norm in the head)
it raises ModelError, and evidence can be found by occlusion alone.

Shape letters: B images, H, W their height and width, h x w positions of the feature map, C channels, D width of an embedding.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from unalike.engines.openvino_engine import OpenVinoEngine, import_openvino, thread_settings
from unalike.engines.process_local import ModelSource, ProcessLocal, restore_engine
from unalike.errors import ModelError

# Relative difference at which two float32 results count as equal.
TOLERANCE = 2e-4
PROBES = 4
BY_OCCLUSION = "method covers (occlusion) explains any network"


class PooledNetwork:
    """A network whose embedding, before normalization, is ``features.mean((1, 2)) @ weight_DC.T + bias_D``.

    Args:
        source: Where the network was read from.
        trunk: OpenVINO's network up to the mean, for one image.
        input_size: Height and width of the input, in pixels.
        weight_DC, bias_D: The linear head.
        threads: CPU cores that it may use; OpenVINO's choice if unset.
    """

    def __init__(
        self, source: ModelSource, trunk: Any, input_size: tuple[int, int], weight_DC: np.ndarray,
        bias_D: np.ndarray, threads: int | None = None,
    ) -> None:  # fmt: skip
        self.source, self.input_size, self.threads = source, input_size, threads
        self.weight_DC, self.bias_D = weight_DC, bias_D
        self._local: ProcessLocal[Any] = ProcessLocal()
        self._local.set(_compile(trunk, threads))

    def __reduce__(self) -> tuple[Any, ...]:
        return restore_engine, (load_pooled_network, (self.source.model, self.threads), self.source.sha256)

    def _compile_again(self) -> Any:
        network = load_pooled_network(self.source.model, self.threads)
        network.source.require(self.source.sha256)
        return network._local.get(self._compile_again)

    def features(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Compute feature maps: uint8 (B, H, W, 3) of the input size -> float32 (B, h, w, C)."""
        compiled = self._local.get(self._compile_again)
        maps = [np.array(compiled({0: image_HWC[None]})[compiled.output(0)]) for image_HWC in images_BHWC]
        return np.ascontiguousarray(np.concatenate(maps).transpose(0, 2, 3, 1), np.float32)


def load_pooled_network(model: str | Path | bytes, threads: int | None = None) -> PooledNetwork:
    """Cut a network at its mean over positions; it is computed in fp32.

    Args:
        model: An ONNX file, its content, or an OpenVINO ``.xml``.
        threads: CPU cores that it may use; OpenVINO's choice if unset.

    Raises:
        ModelError: There is no such mean, or what follows is not linear.
        MissingExtra: OpenVINO is not installed.
    """
    openvino = import_openvino()
    engine = OpenVinoEngine(model, "auto", threads)
    try:
        weight_DC, bias_D = _linear_head(openvino, engine)
        graph = _static_graph(engine)
        feature_map = _last_spatial_mean(graph).input_value(0)
        trunk = openvino.Model([feature_map], graph.get_parameters(), "trunk")
        return PooledNetwork(engine.source, trunk, engine.input_size, weight_DC, bias_D, threads)
    except RuntimeError as error:  # the only error class of OpenVINO
        raise ModelError(f"the network cannot be cut where it averages ({str(error).splitlines()[0][:120]})") from error


def _compile(graph: Any, threads: int | None) -> Any:
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        options |= thread_settings(threads)
    return import_openvino().Core().compile_model(graph, "CPU", options)


def _static_graph(engine: OpenVinoEngine) -> Any:
    """The network's graph for one uint8 image."""
    graph = engine.read_graph()
    height, width = engine.input_size
    graph.reshape([1, height, width, 3])
    # Shapes are constants now: folded, their computation no longer ties what follows the mean to the image.
    from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    return graph


def _last_spatial_mean(graph: Any) -> Any:
    """The last node that averages over height and width of a feature map. Raises ModelError where there is none."""
    mean = None
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "ReduceMean" and len(node.input(0).get_partial_shape()) == 4:
            axes = node.input_value(1).get_node()
            if axes.get_type_name() == "Constant" and sorted(int(a) % 4 for a in np.ravel(axes.data)) == [2, 3]:
                mean = node
    if mean is None:
        raise ModelError("the network has no mean over the positions of a feature map", remedy=BY_OCCLUSION)
    return mean


def _linear_head(openvino: ModuleType, engine: OpenVinoEngine) -> tuple[np.ndarray, np.ndarray]:
    """(weight_DC, bias_D) of the head after the mean, up to a last normalization. Raises ModelError where it is not linear.

    The outputs of the nodes behind the mean are tested from the last one backwards: one is the head's where it is linear in
    the mean and has the direction of the final output.
    """
    graph = _static_graph(engine)
    mean = _last_spatial_mean(graph)
    shape = [int(n) for n in mean.output(0).get_shape()]
    entry = openvino.op.Parameter(openvino.Type.f32, openvino.Shape(shape))
    for target in list(mean.output(0).get_target_inputs()):
        target.replace_source_output(entry.output(0))
    final = graph.get_results()[0].input_value(0)
    dim = int(final.get_shape()[-1])
    head = openvino.Model([final], [entry], "head")  # raises where the image reaches the embedding another way
    candidates = [final]
    for node in reversed(head.get_ordered_ops()):
        if node.get_output_size() == 1 and list(node.output(0).get_shape()) == [1, dim] and node.output(0) != final:
            candidates.append(node.output(0))
    probes = np.random.default_rng(0).standard_normal((PROBES, *shape)).astype(np.float32)
    final_values = _run(openvino, openvino.Model([final], [entry], "complete_head"), probes)
    for candidate in candidates:
        partial_head = openvino.Model([candidate], [entry], "partial_head")
        bias_D = _run(openvino, partial_head, np.zeros((1, *shape), np.float32))[0]
        values = _run(openvino, partial_head, np.concatenate([probes, probes[:1] + probes[1:2], 3 * probes[2:3]]))
        if_linear = np.stack([values[0] + values[1] - bias_D, 3 * values[2] - 2 * bias_D])
        scale = max(float(np.abs(values).max()), 1e-9)
        if np.abs(values[-2:] - if_linear).max() > TOLERANCE * scale:
            continue
        lengths = np.linalg.norm(values[:PROBES], axis=1) * np.linalg.norm(final_values, axis=1)
        if np.abs((values[:PROBES] * final_values).sum(axis=1) / lengths - 1).max() > TOLERANCE:
            continue
        channels = int(np.prod(shape))
        basis = np.eye(channels, dtype=np.float32).reshape(channels, *shape)
        weight_CD = _run(openvino, partial_head, basis) - bias_D
        return np.ascontiguousarray(weight_CD.T), bias_D
    raise ModelError("the head after the network's mean is not linear", remedy=BY_OCCLUSION)


def _run(openvino: ModuleType, model: Any, inputs: np.ndarray) -> np.ndarray:
    """Outputs of a model for each row of its input."""
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.stack([np.array(compiled({0: row})[compiled.output(0)])[0] for row in inputs]).astype(np.float32)
