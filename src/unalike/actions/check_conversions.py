"""Check whether quantize and the engines could run: the network, images to calibrate on, and the files that they write."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unalike.actions.check_findings import Findings
from unalike.data.from_spec import load_from_spec
from unalike.data.notices import Notices
from unalike.errors import SpecError, WeightsError
from unalike.inference.loaded_model import require_model_file
from unalike.storage.outside_files import expand_home
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.deploy.conversion_inputs import SourceNetwork
    from unalike.spec import Experiment

# Action -> field of the file that it writes.
OUTPUT_FIELDS = {"quantize": "output", "gen_engine": "engine", "gen_trt_engine": "trt_engine"}


def required_modules(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """(module, extra, purpose) of what the conversions of a spec import."""
    for action in ("quantize", "gen_engine"):
        section = getattr(experiment, action)
        if section.checkpoint or section.onnx_file:
            yield from ((module, "train", action) for module in ("onnx", "onnxruntime"))
        if section.checkpoint:
            yield from ((module, "train", f"{action}.checkpoint") for module in ("torch", "timm", "onnxscript"))
    if experiment.gen_engine.onnx_file or experiment.gen_engine.checkpoint:
        runtime = experiment.gen_engine.runtime
        yield runtime, {"onnxruntime": "onnx"}.get(runtime, runtime), "gen_engine.runtime"
    if experiment.gen_trt_engine.onnx_file:
        yield "tensorrt", "tensorrt", "gen_trt_engine"


def check_conversions(experiment: Experiment, findings: Findings, *, trains: bool) -> None:
    """Check the conversions whose sections a spec holds; nothing is written and no network runs.

    Args:
        experiment: The spec.
        findings: Receives facts and faults.
        trains: Whether the spec trains too: a network that is not there yet may be what its training and export write.
    """
    for action, output in OUTPUT_FIELDS.items():
        section: Any = getattr(experiment, action)
        if not experiment.is_meant(action):
            continue
        quantized = _check_network(experiment, section, action, findings, trains=trains)
        calibration = section.tensorrt.calibration if action == "gen_trt_engine" else section.calibration
        prefix = f"{action}.tensorrt" if action == "gen_trt_engine" else action
        data_type = section.tensorrt.data_type if action == "gen_trt_engine" else section.data_type
        for number, source in enumerate(calibration.cal_image_dir or ()):
            with findings.collect(f"{prefix}.calibration.cal_image_dir[{number}]"):
                load_from_spec(experiment, source, Notices(), labeled=False)
        with findings.collect(f"{prefix}.calibration.cal_image_dir"):
            _check_images(experiment, calibration, action, prefix, data_type, quantized=quantized)
        if (path := getattr(section, output)) is not None:
            with findings.collect(f"{action}.{output}"):
                refuse_existing(path)
    if experiment.is_meant("gen_engine"):
        with findings.collect("gen_engine"):
            from unalike.deploy.engine_build import refuse_settings

            refuse_settings(experiment.gen_engine)


def _check_network(
    experiment: Experiment, section: Any, action: str, findings: Findings, *, trains: bool
) -> bool | None:
    """Whether the network is quantized already; None where there is none, or that cannot be told."""
    names = [name for name in ("checkpoint", "onnx_file") if getattr(section, name, None)]
    if len(names) > 1:
        with findings.collect(action):
            raise SpecError(f"{' and '.join(f'{action}.{name}' for name in names)} are both set",
                            expected="one network to convert", remedy=f"keep {action}.{names[-1]} alone")  # fmt: skip
    quantized = None
    for name in names:
        path = f"{action}.{name}"
        file = expand_home(str(getattr(section, name)))
        with findings.collect(path):
            if name == "checkpoint" and file.is_dir():
                file = require_model_file(file)
            if not file.is_file():
                if trains:
                    findings.facts[path] = "not there yet"
                    continue
                raise WeightsError(f"there is no file {file}", expected="an ONNX file" if name == "onnx_file" else "a trained model",
                                   remedy="unalike export writes one" if name == "onnx_file" else "correct the path")  # fmt: skip
            if len(names) == 1 and all(
                map(importlib.util.find_spec, ("onnx", *(["torch", "timm"] if name == "checkpoint" else [])))
            ):
                from unalike.deploy.conversion_inputs import describe_source_network

                findings.facts[path], source = describe_source_network(experiment, section, action)
                quantized = source is not None and source.quantized
                if source is not None:
                    _check_layers(source, section.tensorrt if action == "gen_trt_engine" else section)
                if action == "gen_trt_engine" and source is not None:
                    from unalike.deploy.engine_build import settle_batches

                    settle_batches(experiment.model_copy(deep=True), source)
    return quantized


def _check_layers(source: SourceNetwork, section: Any) -> None:
    """Raise SpecError where ``layers_precision`` names a layer that the network does not have."""
    entries = getattr(section, "layers_precision", None)
    if not entries or source.quantized:
        return
    from unalike.deploy.onnx_graph import parse_layers, read_network

    precisions = ("fp32",) if section.data_type == "INT8" else ("fp32", "fp16", "bf16")
    parse_layers(entries, read_network(source.content, source.stem), precisions)


def _check_images(
    experiment: Experiment, calibration: Any, action: str, prefix: str, data_type: str, *, quantized: bool | None
) -> None:
    """Raise the error of a run without the images that it needs."""
    from unalike.deploy.conversion_inputs import require_images

    int8 = data_type == "INT8" and not quantized
    if action == "gen_trt_engine" and not int8 and (data_type == "FP32" or quantized):
        return  # built without a comparison where there are no images
    require_images(experiment, calibration.cal_image_dir, f"{prefix}.calibration", int8=int8)
