"""Insert INT8 Q/DQ nodes into a float ONNX network, by ONNX Runtime's quantizer.

For a CPU activations are uint8 and weights int8 in 7 bits: without VNNI an x86 CPU adds products of 8 bits with
saturation (EfficientNet-Lite0 on AVX2, 2026-11-23: worst cosine 0.88 with 8 bits, 0.95 with 7). For TensorRT both are
symmetric int8. Biases are not quantized: the CPU runtimes fold them, TensorRT takes no others.
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

# Quantized operators: those with the multiplications, and those that pass values between them. Q/DQ pairs are at their
# inputs only, so that none separates a convolution from its activation.
OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "MaxPool")
STEEP = ("Sqrt", "Reciprocal", "Log")
TARGETS = ("cpu", "vnni", "tensorrt")


@dataclass(frozen=True)
class QuantizationOptions:
    """Options of the quantizer.

    Attributes:
        target: one of TARGETS: any CPU (weights in 7 bits), CPUs with VNNI (8 bits), or TensorRT.
        per_channel: whether each output channel of a weight has its own scale.
    """

    target: str = "cpu"
    per_channel: bool = True

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise SpecError(f"quantizing target {self.target!r}", expected=" or ".join(TARGETS))


def fold_batchnorm(content: bytes) -> bytes:
    """Fold every BatchNorm into its convolution, since ranges are needed after both; unalike's own exports have none.

    Args:
        content: bytes of the ONNX file.

    Returns:
        Bytes of the folded network, with the metadata of the file.

    Raises:
        ExportError: it is no ONNX file.
        MissingExtra: onnx or ONNX Runtime is not installed.
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
        network = read_network(Path(folder, "folded.onnx").read_bytes(), "the network")
    del network.metadata_props[:]
    network.metadata_props.extend(proto.metadata_props)
    folded_content: bytes = network.SerializeToString()
    return folded_content


def find_additions_under_roots(proto: onnx.ModelProto) -> list[str]:
    """Names of the additions whose sum goes into a root, reciprocal or logarithm: small values matter, and 8 bits round them to 0."""
    steep = {name for node in proto.graph.node if node.op_type in STEEP for name in node.input}
    return [node.name for node in proto.graph.node if node.op_type == "Add" and node.output[0] in steep and node.name]


def quantize_by_ranges(content: bytes, ranges: Ranges, options: QuantizationOptions) -> onnx.ModelProto:
    """Insert Q/DQ nodes with ONNX Runtime's quantizer.

    Args:
        content: bytes of the float ONNX file.
        ranges: of the activations (``activation_ranges.measure_ranges``).
        options: of the quantizer.

    Returns:
        The quantized network, all layers included; without metadata of its own precision.

    Raises:
        ExportError: ONNX Runtime cannot quantize the network.
        MissingExtra: onnx or ONNX Runtime is not installed.
    """
    calibrate = import_calibrate()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    for_cpu = options.target != "tensorrt"
    activation_ranges = calibrate.TensorsData(
        calibrate.CalibrationMethod.MinMax,
        {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
    )
    proto = read_network(content, "the network")
    signed_names = [name for name, (low, _) in ranges.items() if low < 0]
    quantizer = QDQQuantizer(
        proto, options.per_channel, options.target == "cpu", QuantType.QInt8, QuantType.QUInt8 if for_cpu else QuantType.QInt8,
        activation_ranges,
        None, find_additions_under_roots(proto), list(OPERATORS),
        {
            "QuantizeBias": False,
            "WeightSymmetric": True,
            "ActivationSymmetric": not for_cpu,
            "AddQDQPairToWeight": not for_cpu,
            "OpTypesToExcludeOutputQuantization": list(OPERATORS),
            # Signed values are symmetric around 0, so that no zero point has to be subtracted.
            "TensorQuantOverrides": {name: [{"symmetric": True}] for name in signed_names} if for_cpu else {},
        },
    )  # fmt: skip
    try:
        with suppress_stdout(), _errors_only(logging.getLogger()):
            quantizer.quantize_model()
    except Exception as error:  # the quantizer raises exceptions of any kind
        raise ExportError(f"ONNX Runtime cannot quantize this network ({str(error)[:200]})",
                          remedy="use data_type FP16 or BF16") from error  # fmt: skip
    return _normalize_nodes(quantizer.model.model)


@contextmanager
def _errors_only(logger: logging.Logger) -> Iterator[None]:
    """Suppress log messages below errors."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _normalize_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give nodes unique names and sort them: quantizers append nodes at the end."""
    proto = read_network(proto.SerializeToString(), "the quantized network")
    sort_nodes(proto)
    return proto


def finalize_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove redundant clips, in place, once the quantized layers are final, and check the graph.

    Raises:
        ExportError: onnx's checker finds the graph invalid.
    """
    import onnx

    drop_redundant_clips(proto)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the quantized network is not valid ONNX ({str(error)[:200]})") from error
    return proto
