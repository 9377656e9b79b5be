"""Compile an ONNX network to OpenVINO IR, or to ONNX optimized by ONNX Runtime, for a CPU."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from unalike.deploy.onnx_graph import read_network, write_facts
from unalike.engines.metadata import KEY, NetworkFacts
from unalike.engines.onnx_engine import import_onnxruntime
from unalike.engines.openvino_engine import import_openvino
from unalike.errors import ExportError
from unalike.storage.atomic import atomic_write
from unalike.storage.overwrite import refuse_existing


def write_ir(content: bytes, path: Path, facts: NetworkFacts) -> None:
    """An ONNX file's content as OpenVINO IR: ``path`` (.xml) and its weights beside it (.bin), facts within.

    ``facts.precision`` fp16 halves the weights; bf16 is written into the graph (``quantization.half_precision``). Raises
    ExportError, MissingExtra, and RunError when one of the two files exists.
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
    with atomic_write(path) as made, atomic_write(weights) as made_weights:  # the .bin is in place before the .xml
        openvino.save_model(graph, str(made), compress_to_fp16=facts.precision == "fp16")
        os.replace(made.with_suffix(".bin"), made_weights)


def write_optimized(content: bytes, path: Path, facts: NetworkFacts) -> None:
    """An ONNX file's content as ONNX Runtime rewrites it for this machine's CPU; not for others.

    Raises ExportError, MissingExtra, RunError when the file exists.
    """
    onnxruntime = import_onnxruntime("an optimized ONNX file")
    if path.suffix != ".onnx":
        raise ExportError(
            f"engine {path.name}", expected="a name that ends in .onnx", remedy="or gen_engine.runtime=openvino"
        )
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as made:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(made)
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions derive from nothing nearer than Exception
            raise ExportError(
                f"ONNX Runtime cannot optimize the network ({str(error).splitlines()[0][:200]})"
            ) from error
        proto = read_network(made.read_bytes(), path.name)
        extra = {**facts.extra, "optimised_by": f"onnxruntime {onnxruntime.__version__}"}
        write_facts(proto, replace(facts, extra=extra))
        made.write_bytes(proto.SerializeToString())
