"""Insert INT8 Q/DQ nodes into a float ONNX network, by ONNX Runtime's quantizer.

For a CPU activations are uint8 and weights int8 in 7 bits: without VNNI an x86 CPU adds products of 8 bits with
saturation (EfficientNet-Lite0 on AVX2, 2026-11-23: worst cosine 0.88 with 8 bits, 0.95 with 7). For TensorRT both are
symmetric int8, and no bias is quantized anywhere: both CPU runtimes fold it, TensorRT takes no other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unalike.deploy.onnx_graph import drop_redundant_clips, read_network, sort_nodes
from unalike.deploy.quantization.activation_ranges import Ranges, import_calibrate, suppress_stdout
from unalike.engines.onnx_engine import import_onnxruntime
from unalike.errors import ExportError, SpecError

if TYPE_CHECKING:
    import onnx

# What is worth quantizing: where the multiplications are, and what passes values between them. Q/DQ pairs stand at
# their inputs alone, so that no pair falls between a convolution and the activation that belongs to it.
OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "MaxPool")
STEEP = ("Sqrt", "Reciprocal", "Log")
TARGETS = ("cpu", "vnni", "tensorrt")


@dataclass(frozen=True)
class QuantizationOptions:
    """``target``: one of TARGETS; ``per_channel``: a scale for every output channel of a weight."""

    target: str = "cpu"
    per_channel: bool = True

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise SpecError(f"quantizing target {self.target!r}", expected=" or ".join(TARGETS))


def fold_batchnorm(content: bytes) -> bytes:
    """The network with every BatchNorm folded into its convolution, since a range behind both is what must be known.

    Our own exports have none; those of others may.
    """
    proto = read_network(content, "the network")
    if not any(node.op_type == "BatchNormalization" for node in proto.graph.node):
        content = proto.SerializeToString()
        return content
    import tempfile
    from pathlib import Path

    onnxruntime = import_onnxruntime("quantizing", "train")
    with tempfile.TemporaryDirectory(prefix="unalike-fold-") as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        folded = read_network(Path(folder, "folded.onnx").read_bytes(), "the network")
    del folded.metadata_props[:]
    folded.metadata_props.extend(proto.metadata_props)
    folded_content: bytes = folded.SerializeToString()
    return folded_content


def additions_under_roots(proto: onnx.ModelProto) -> list[str]:
    """Additions that a root, a reciprocal or a logarithm reads: their small values tell most, and eight bits make them 0."""
    steep = {name for node in proto.graph.node if node.op_type in STEEP for name in node.input}
    return [node.name for node in proto.graph.node if node.op_type == "Add" and node.output[0] in steep and node.name]


def quantize_by_ranges(content: bytes, ranges: Ranges, options: QuantizationOptions) -> onnx.ModelProto:
    """Q/DQ by ONNX Runtime's quantizer with ``ranges`` of the activations (``calibration.measure_ranges``)."""
    calibrate = import_calibrate()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    for_cpu = options.target != "tensorrt"
    kept = calibrate.TensorsData(
        calibrate.CalibrationMethod.MinMax,
        {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
    )
    proto = read_network(content, "the network")
    signed = [name for name, (low, _) in ranges.items() if low < 0]
    quantizer = QDQQuantizer(
        proto, options.per_channel, options.target == "cpu", QuantType.QInt8, QuantType.QUInt8 if for_cpu else QuantType.QInt8, kept,
        None, additions_under_roots(proto), list(OPERATORS),
        {
            "QuantizeBias": False,
            "WeightSymmetric": True,
            "ActivationSymmetric": not for_cpu,
            "AddQDQPairToWeight": not for_cpu,
            "OpTypesToExcludeOutputQuantization": list(OPERATORS),
            # Signed values symmetric around 0: no zero point to make up for.
            "TensorQuantOverrides": {name: [{"symmetric": True}] for name in signed} if for_cpu else {},
        },
    )  # fmt: skip
    try:
        with suppress_stdout(), _hushed("root"):
            quantizer.quantize_model()
    except Exception as error:  # the quantizer raises whatever its parts raise
        raise ExportError(f"ONNX Runtime cannot quantize this network ({str(error)[:200]})",
                          remedy="use data_type FP16 or BF16") from error  # fmt: skip
    return _named(quantizer.model.model)


@contextmanager
def _hushed(name: str) -> Iterator[None]:
    """That library's logger says errors alone; what fails is raised anyway."""
    logger = logging.getLogger(None if name == "root" else name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Quantizers append their nodes at the end and name them as they like."""
    proto = read_network(proto.SerializeToString(), "the quantized network")
    sort_nodes(proto)
    return proto


def finalize_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The last touch once the layers are chosen: clips that quantizing does anyway go. Checked by onnx itself."""
    import onnx

    drop_redundant_clips(proto)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the quantized network is not valid ONNX ({str(error)[:200]})") from error
    return proto
