"""Quantize to INT8, FP16 or BF16, and keep sensitive layers in higher precision.

The layers that lose most accuracy return to higher precision (``quantization.sensitivity``). Every candidate runs on real images
in an installed runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike import progress
from unalike.deploy.onnx_graph import parse_layers, quantized_layers, read_network, restore_layers, write_facts
from unalike.deploy.quantization.accuracy_table import cosines
from unalike.deploy.quantization.activation_ranges import (
    CalibrationImages,
    RangeSettings,
    measure_ranges,
    read_ranges,
    write_ranges,
)
from unalike.deploy.quantization.bias_correction import correct_biases
from unalike.deploy.quantization.half_precision import KEEP_FP32, convert_precision, emulate_bf16, find_early_nodes
from unalike.deploy.quantization.int8 import (
    QuantizationOptions,
    finalize_graph,
    fold_batchnorm,
    quantize_by_ranges,
)
from unalike.deploy.quantization.sensitivity import CandidateAccuracy, choose_layers
from unalike.engines.metadata import NetworkFacts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.protocol import Engine
from unalike.errors import MissingExtra, ModelError, SpecError
from unalike.storage.digests import content_sha256

if TYPE_CHECKING:
    import onnx

# Default goals: INT8 as reached with a frozen EfficientNet-Lite0 on an AVX2 machine; 16 bits must lose next to nothing.
WORST_COSINE = {"INT8": 0.95, "FP16": 0.999, "BF16": 0.999}
# Number of images on which the loss of a single layer is measured: only the ranking of layers is needed.
LAYER_LOSS_IMAGES = 16

# Evaluates an engine on labeled data; returns whether the goal is met, and a text with the figures.
RetrievalCheck = Callable[[Engine], tuple[bool, str]]


@dataclass(frozen=True)
class QuantizationRequest:
    """Options of a quantization.

    Attributes:
        data_type: ``INT8``, ``FP16`` or ``BF16``.
        options: of the INT8 quantizer.
        method, percentile: of the INT8 ranges (``activation_ranges.RangeSettings``).
        batch: images a pass in calibration.
        cache: file of the INT8 ranges; None to measure them each time.
        layers_precision: ``layer:precision`` entries.
        worst_cosine: goal: the lowest cosine with an fp32 vector; None for WORST_COSINE of the type.
        most_layers: share of the layers that may return to higher precision, 0..1.
        retrieval: checks a candidate on labeled data; None where there is none.
    """

    data_type: str = "INT8"
    options: QuantizationOptions = field(default_factory=QuantizationOptions)
    method: str = "min-max"
    percentile: float = 99.99
    batch: int = 8
    cache: Path | None = None
    layers_precision: Sequence[str] = ()
    worst_cosine: float | None = None
    most_layers: float = 0.5
    retrieval: RetrievalCheck | None = None


@dataclass(frozen=True)
class QuantizedNetwork:
    """A quantized network.

    Attributes:
        proto: the graph, with its metadata.
        kept: names of the layers in higher precision.
        notes: lines for the reader of its comparison.
    """

    proto: onnx.ModelProto
    kept: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def content(self) -> bytes:
        """Bytes of its ONNX file."""
        content: bytes = self.proto.SerializeToString()
        return content


def open_engine(content: bytes, facts: NetworkFacts) -> Engine:
    """Open a network in OpenVINO, else in ONNX Runtime; bfloat16 is emulated where no runtime computes in it."""
    from unalike.engines.openvino_engine import OpenVinoEngine

    if facts.precision == "bf16" and not computes_bf16():
        wide = emulate_bf16(read_network(content, "the network"))
        write_facts(wide, facts)
        return OnnxEngine(wide.SerializeToString())
    if facts.precision == "fp16":
        return OnnxEngine(content)  # it rounds after every layer; OpenVINO computes fp16 in fp32 on a CPU
    try:
        return OpenVinoEngine(content, precision=facts.precision)
    except (MissingExtra, ModelError):
        return OnnxEngine(content)


def computes_bf16() -> bool:
    """Whether a runtime of this machine computes in bfloat16."""
    from unalike.engines.openvino_engine import has_fast_bf16

    try:
        return has_fast_bf16()
    except MissingExtra:
        return False


def quantize_network(
    content: bytes, facts: NetworkFacts, images: CalibrationImages, request: QuantizationRequest
) -> QuantizedNetwork:
    """Quantize a network and keep as many layers in higher precision as the goal needs.

    Args:
        content: bytes of the fp32 ONNX file.
        facts: its metadata.
        images: for calibration and comparison.
        request: type, goal and further options.

    Raises:
        ExportError: the goal cannot be met, or the network cannot be quantized.
        SpecError: an entry of ``layers_precision`` is wrong.
        MissingExtra: onnx or ONNX Runtime is not installed.
    """
    content = fold_batchnorm(content)
    expected_ND = open_engine(content, replace(facts, precision="fp32"))(images.validation_NHWC)
    if request.data_type == "INT8":
        return _quantize_to_int8(content, facts, images, request, expected_ND)
    return _convert_to_half(content, facts, images, request, expected_ND)


def _candidate_evaluators(
    build: Callable[[Collection[str]], onnx.ModelProto], facts: NetworkFacts, images_NHWC: np.ndarray,
    expected_ND: np.ndarray, request: QuantizationRequest,
) -> tuple[Callable[[Collection[str]], CandidateAccuracy], Callable[[onnx.ModelProto], float]]:  # fmt: skip
    """Return two functions: the accuracy with some layers in higher precision, and the loss of a graph on a few images."""
    goal = request.worst_cosine if request.worst_cosine is not None else WORST_COSINE[request.data_type]

    def evaluate(float_layers: Collection[str]) -> CandidateAccuracy:
        proto = build(float_layers)
        write_facts(proto, facts)
        engine = open_engine(proto.SerializeToString(), facts)
        worst = float(cosines(expected_ND, engine(images_NHWC)).min())
        text, meets_goal = f"worst cosine {worst:.5f} (goal {goal:g})", worst >= goal
        if meets_goal and request.retrieval is not None:
            meets_goal, detail = request.retrieval(engine)
            text = f"{text}, {detail}"
        progress.say(f"{len(float_layers)} layers in higher precision: {text}")
        return CandidateAccuracy(1.0 - worst, meets_goal, text)

    def loss(proto: onnx.ModelProto) -> float:
        write_facts(proto, facts)
        vectors_ND = open_engine(proto.SerializeToString(), facts)(images_NHWC[:LAYER_LOSS_IMAGES])
        return 1.0 - float(cosines(expected_ND[:LAYER_LOSS_IMAGES], vectors_ND).min())

    return evaluate, loss


def _quantize_to_int8(
    content: bytes,
    facts: NetworkFacts,
    images: CalibrationImages,
    request: QuantizationRequest,
    expected_ND: np.ndarray,
) -> QuantizedNetwork:
    facts = replace(facts, precision="int8")
    original = read_network(content, "the network")
    quantized = _insert_qdq(content, facts, images, request)
    layers = quantized_layers(quantized)
    fixed_layers = set(parse_layers(request.layers_precision, original, ("fp32",)))

    def build(float_layers: Collection[str]) -> onnx.ModelProto:
        return finalize_graph(restore_layers(quantized, original, float_layers))

    evaluate, loss = _candidate_evaluators(build, facts, images.validation_NHWC, expected_ND, request)
    selection = choose_layers(
        layers, evaluate, lambda name: loss(build(set(layers) - {name})), always=fixed_layers, most=request.most_layers
    )
    proto = build(selection.kept)
    write_facts(proto, _with_kept_layers(facts, selection.kept))
    return QuantizedNetwork(proto, selection.kept)


def _insert_qdq(
    content: bytes, facts: NetworkFacts, images: CalibrationImages, request: QuantizationRequest
) -> onnx.ModelProto:
    settings = RangeSettings(
        content_sha256(content), images.key(), request.method, request.percentile,
        request.options.target == "tensorrt",
    )  # fmt: skip
    ranges = read_ranges(request.cache, settings) if request.cache is not None else None
    if ranges is None:
        ranges = measure_ranges(content, facts, images.calibration_NHWC, settings, batch=request.batch)
        if request.cache is not None:
            write_ranges(request.cache, settings, ranges)
    else:
        progress.say(f"ranges of {request.cache} are used: same network, same images")
    proto = quantize_by_ranges(content, ranges, request.options)
    original = read_network(content, "the network")
    corrected_count = correct_biases(proto, original, facts, images.calibration_NHWC, batch=request.batch)
    progress.say(f"biases corrected: {corrected_count} layers", level=2)
    return proto


def _convert_to_half(
    content: bytes,
    facts: NetworkFacts,
    images: CalibrationImages,
    request: QuantizationRequest,
    expected_ND: np.ndarray,
) -> QuantizedNetwork:
    precision = request.data_type.lower()
    facts = replace(facts, precision=precision)
    original = read_network(content, "the network")
    layer_precisions = parse_layers(request.layers_precision, original, ("fp32", "fp16", "bf16"))
    early = find_early_nodes(original) if precision == "bf16" else []
    # Only layers with weights or sums are candidates: the others follow them.
    layers = [node.name for node in original.graph.node
              if node.op_type in ("Conv", "Gemm", "MatMul", "Add", "Mul") and node.name not in set(early)]  # fmt: skip

    def build(float_layers: Collection[str]) -> onnx.ModelProto:
        return convert_precision(
            original, precision, {**dict.fromkeys((*early, *float_layers), "fp32"), **layer_precisions}
        )

    def layer_loss(name: str) -> float:
        return loss(convert_precision(original, "fp32", {name: precision}))

    evaluate, loss = _candidate_evaluators(build, facts, images.validation_NHWC, expected_ND, request)
    fixed_layers = [name for name, kind in layer_precisions.items() if kind == "fp32"]
    selection = choose_layers(layers, evaluate, layer_loss, always=fixed_layers, most=request.most_layers)
    sums = [node.name for node in original.graph.node if node.op_type in KEEP_FP32]
    float_layers = tuple(
        name for name in dict.fromkeys((*early, *selection.kept, *sums)) if layer_precisions.get(name, "fp32") == "fp32"
    )
    proto = build(selection.kept)
    write_facts(proto, _with_kept_layers(facts, float_layers))
    notes = ("bf16 is emulated here: each layer's inputs and outputs are rounded, its sums are not",)
    return QuantizedNetwork(proto, float_layers, notes if precision == "bf16" and not computes_bf16() else ())


def _with_kept_layers(facts: NetworkFacts, float_layers: Sequence[str]) -> NetworkFacts:
    extra: Mapping[str, Any] = {**facts.extra, "layers_in_higher_precision": list(float_layers)}
    return replace(facts, extra=dict(extra))


def convert_named_layers(content: bytes, facts: NetworkFacts, entries: Sequence[str]) -> QuantizedNetwork:
    """Convert the named layers of a float network to fp16 or bf16; the others stay in fp32.

    Args:
        content: bytes of the ONNX file.
        facts: its metadata.
        entries: ``layer:precision`` each.

    Raises:
        SpecError: no entry names fp16 or bf16, or there is no such layer.
        ExportError, MissingExtra: as in ``half_precision.convert_precision``.
    """
    proto = read_network(content, "the network")
    layer_precisions = parse_layers(entries, proto, ("fp32", "fp16", "bf16"))
    if not any(kind != "fp32" for kind in layer_precisions.values()):
        raise SpecError("layers_precision without a layer in fp16 or bf16", remedy="leave it out for FP32")
    converted = convert_precision(proto, "fp32", layer_precisions)
    write_facts(converted, facts)
    return QuantizedNetwork(converted, ())
