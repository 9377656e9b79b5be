"""Compile an ONNX network to OpenVINO IR, or to ONNX optimized by ONNX Runtime, for a CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unalike.deploy.onnx_graph import read_network, write_facts
from unalike.engines.checksum import append_onnx_checksum, append_xml_checksum
from unalike.engines.metadata import KEY, NetworkFacts
from unalike.engines.onnx_engine import import_onnxruntime
from unalike.engines.openvino_engine import import_openvino
from unalike.errors import ExportError
from unalike.storage.atomic import atomic_write
from unalike.storage.overwrite import refuse_existing


def write_ir(content: bytes, path: Path, facts: NetworkFacts) -> None:
    """Compile an ONNX network to OpenVINO IR.

    Args:
        content: bytes of the ONNX file.
        path: the ``.xml`` file to write; the weights go into a ``.bin`` beside it.
        facts: metadata to store in it. With precision fp16 the weights are stored in half precision; bf16 is a property of
            the graph (``quantization.half_precision``).

    Raises:
        ExportError: ``path`` has another suffix, or OpenVINO cannot read the network.
        MissingExtra: OpenVINO is not installed.
        RunError: one of the two files exists.
    """
    openvino = import_openvino()
    if path.suffix != ".xml":
        raise ExportError(
            f"engine {path.name}", expected="a name that ends in .xml", remedy="or gen_engine.runtime=onnxruntime"
        )
    weights = path.with_suffix(".bin")
    for file in (path, weights):
        refuse_existing(file)
    try:
        graph = openvino.Core().read_model(model=content, weights=b"")
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read the network ({str(error).splitlines()[-1][:200]})") from error
    graph.set_rt_info(facts.to_json(), ["framework", KEY])
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenVINO makes the name of the weights of that of the graph: under a name of its own their file would have no lock, and
    # whoever writes into the folder meanwhile would remove it. The .bin is in place before the .xml.
    with atomic_write(path) as partial, atomic_write(weights, beside=partial) as partial_weights:
        openvino.save_model(graph, str(partial), compress_to_fp16=facts.precision == "fp16")
        append_xml_checksum(partial, partial_weights)


def write_optimized(content: bytes, path: Path, facts: NetworkFacts) -> None:
    """Write an ONNX network as ONNX Runtime optimizes it for this machine's CPU; it is not for other machines.

    Args:
        content: bytes of the ONNX file.
        path: the ``.onnx`` file to write.
        facts: metadata to store in it.

    Raises:
        ExportError: ``path`` has another suffix, or ONNX Runtime cannot optimize the network.
        MissingExtra: ONNX Runtime is not installed.
        RunError: the file exists.
    """
    onnxruntime = import_onnxruntime("an optimized ONNX file")
    if path.suffix != ".onnx":
        raise ExportError(
            f"engine {path.name}", expected="a name that ends in .onnx", remedy="or gen_engine.runtime=openvino"
        )
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(partial)
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exception classes derive directly from Exception
            raise ExportError(
                f"ONNX Runtime cannot optimize the network ({str(error).splitlines()[0][:200]})"
            ) from error
        proto = read_network(partial.read_bytes(), path.name)
        extra = {**facts.extra, "optimised_by": f"onnxruntime {onnxruntime.__version__}"}
        write_facts(proto, replace(facts, extra=extra))
        partial.write_bytes(append_onnx_checksum(proto.SerializeToString()))
