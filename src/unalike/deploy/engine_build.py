"""Build OpenVINO, ONNX Runtime and TensorRT engine files and compare them with fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.notices import Notices
from unalike.deploy.conversion_inputs import (
    SourceNetwork,
    find_image_sources,
    load_calibration_images,
    load_labeled_sets,
    load_source_network,
)
from unalike.deploy.cpu_compile import write_ir, write_optimized
from unalike.deploy.quantization.mixed_precision import convert_named_layers
from unalike.deploy.quantization.pipeline import cache_path, comparison_file, quantize_source, write_comparison
from unalike.deploy.unused_settings import say_unused
from unalike.engines.protocol import Engine
from unalike.errors import SpecError
from unalike.progress import say
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment
    from unalike.spec.gen_engine import GenEngine

# The TensorRT section has no field for it.
COMPARED_IMAGES = 64


def run_gen_engine(experiment: Experiment, run: Run) -> tuple[Path, Mapping[str, Any]]:
    """Write OpenVINO IR or an optimized ONNX file and its comparison with fp32.

    Returns:
        The file, and the figures of the comparison.
    """
    section, notices = experiment.gen_engine, Notices()
    source = load_source_network(experiment, section, "gen_engine")
    suffix = ".xml" if section.runtime == "openvino" else "_optimised.onnx"
    path = Path(section.engine) if section.engine else run.dir / f"{source.stem}{suffix}"
    refuse_existing(path)
    refuse_settings(section)
    data_type = "INT8" if source.quantized else section.data_type
    int8 = data_type == "INT8" and not source.quantized
    images = load_calibration_images(
        experiment, source, section.calibration, "gen_engine.calibration", section.parity_images, section.calibration.seed,
        notices, int8=int8,
    )  # fmt: skip
    labeled_sets = load_labeled_sets(experiment, notices)
    say_unused(experiment, "gen_engine", data_type, quantized=source.quantized, labeled=labeled_sets is not None)
    content, quantized, facts = source.content, None, replace(source.facts, precision=data_type.lower())
    if data_type in ("INT8", "BF16"):
        cache = cache_path(section.calibration.cal_cache_file, run) if int8 else None
        quantized = quantize_source(
            experiment, source, section, images, cache, notices, data_type=data_type, target="cpu", layers=(),
            labeled_sets=labeled_sets,
        )  # fmt: skip
        content = quantized.content
    weights = [path.with_suffix(".bin")] if section.runtime == "openvino" else []
    run.own(path, comparison_file(path), *weights)  # before they are there: --overwrite removes them after a kill
    (write_ir if section.runtime == "openvino" else write_optimized)(content, path, facts)
    engine = _open_engine(path, section.runtime)
    figures = write_comparison(experiment, source, [engine], images, labeled_sets, quantized, path, run, notices)
    description = engine.describe()
    say(f"{path}: {description['runtime']} {description['precision']} on {description['device']}")
    if data_type == "BF16" and engine.precision != "bf16":
        say("this CPU does not compute in bfloat16: the figures are of fp32; on CPUs with bfloat16 they differ")
    return path, figures


def refuse_settings(section: GenEngine) -> None:
    """Raise SpecError for a number format that the runtime of an engine does not compute in, and for a file of another kind."""
    suffix = ".xml" if section.runtime == "openvino" else ".onnx"
    if section.engine and Path(section.engine).suffix != suffix:
        others = {".xml": "onnxruntime", ".onnx": "openvino"}
        raise SpecError(f"gen_engine.engine is {section.engine}", expected=f"a name that ends in {suffix}",
                        remedy=f"or set gen_engine.runtime={others[suffix]}")  # fmt: skip
    if section.runtime == "onnxruntime" and section.data_type in ("FP16", "BF16"):
        raise SpecError(f"gen_engine.data_type {section.data_type} with onnxruntime", expected="FP32 or INT8: its CPU kernels "
                        "compute in these", remedy="or set gen_engine.runtime=openvino")  # fmt: skip


def _open_engine(path: Path, runtime: str) -> Engine:
    if runtime == "openvino":
        from unalike.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(path)
    from unalike.engines.onnx_engine import OnnxEngine

    return OnnxEngine(path)


def run_gen_trt_engine(experiment: Experiment, run: Run) -> tuple[Path, Mapping[str, Any]]:
    """Build a TensorRT engine and compare it with fp32; the spec is checked before the build starts.

    Returns:
        The engine file, and the figures of the build and of the comparison.
    """
    from unalike.deploy.tensorrt_build import BuildOptions, build_engine
    from unalike.engines.tensorrt_engine import TensorRtEngine, facts_file, import_tensorrt

    section, notices = experiment.gen_trt_engine, Notices()
    source = load_source_network(experiment, section, "gen_trt_engine")
    batches = settle_batches(experiment, source)
    import_tensorrt()
    path = Path(section.trt_engine) if section.trt_engine else run.dir / f"{source.stem}.engine"
    for file in (path, facts_file(path)):
        refuse_existing(file)
    run.write_experiment(experiment)
    trt = section.tensorrt
    data_type = "INT8" if source.quantized else trt.data_type
    int8 = data_type == "INT8" and not source.quantized
    images, labeled_sets = None, load_labeled_sets(experiment, notices)
    if int8 or data_type in ("FP16", "BF16") or find_image_sources(experiment, trt.calibration.cal_image_dir):
        images = load_calibration_images(
            experiment, source, trt.calibration, "gen_trt_engine.tensorrt.calibration", COMPARED_IMAGES, 0, notices,
            int8=int8,
        )  # fmt: skip
    say_unused(
        experiment, "gen_trt_engine.tensorrt", data_type, quantized=source.quantized, labeled=labeled_sets is not None
    )
    quantized, facts = None, replace(source.facts, precision=data_type.lower())
    if data_type != "FP32":
        cache = cache_path(trt.calibration.cal_cache_file, run) if int8 else None
        quantized = quantize_source(
            experiment, source, trt, images, cache, notices, data_type=data_type, target="tensorrt",
            layers=trt.layers_precision, labeled_sets=None,
        )  # fmt: skip
    elif trt.layers_precision:
        quantized = convert_named_layers(source.content, facts, trt.layers_precision)
    timing_cache = Path(section.timing_cache) if section.timing_cache else None
    options = BuildOptions(*batches, trt.workspace_size, timing_cache, section.gpu_id, section.verbose)
    run.own(path, facts_file(path), comparison_file(path), *([timing_cache] if timing_cache else []))
    build_figures = build_engine(quantized.content if quantized else source.content, path, facts, options)
    figures: dict[str, Any] = dict(build_figures)
    if images is not None:
        engine = TensorRtEngine(path, section.gpu_id)
        figures |= write_comparison(experiment, source, [engine], images, labeled_sets, quantized, path, run, notices)
        engine.close()
    return path, figures


def settle_batches(experiment: Experiment, source: SourceNetwork) -> tuple[int, int, int]:
    """Return the smallest, best and largest batch: three times the network's fixed batch, else by the batches in use.

    An unset limit is the largest batch of evaluate and inference, so that the engine runs them (TAO D34). Raises SpecError
    for a limit below a batch in use, and for a batch that contradicts the fixed one.
    """
    from unalike.spec import settle

    section, prefix = experiment.gen_trt_engine, "gen_trt_engine.tensorrt."
    trt = section.tensorrt
    fixed_batch = source.fixed_batch
    if section.batch_size > 0 and fixed_batch and fixed_batch != section.batch_size:
        raise SpecError(f"gen_trt_engine.batch_size {section.batch_size}, and {source.stem} has a fixed batch of "
                        f"{fixed_batch}", remedy=f"set gen_trt_engine.batch_size={fixed_batch}, or export with export.batch_size=-1")  # fmt: skip
    if fixed_batch:
        wrong = [name for name in ("min", "opt", "max") if experiment.is_set(f"{prefix}{name}_batch_size")
                 and getattr(trt, f"{name}_batch_size") != fixed_batch]  # fmt: skip
        if wrong:
            raise SpecError(f"{prefix}{wrong[0]}_batch_size, and {source.stem} has a fixed batch of {fixed_batch}",
                            remedy=f"leave it out or set it to {fixed_batch}")  # fmt: skip
        return fixed_batch, fixed_batch, fixed_batch
    in_use = {"evaluate.batch_size": experiment.evaluate.batch_size, "inference.batch_size": experiment.inference.batch_size,
              "gen_trt_engine.batch_size": section.batch_size, f"{prefix}min_batch_size": trt.min_batch_size,
              f"{prefix}opt_batch_size": trt.opt_batch_size if experiment.is_set(f"{prefix}opt_batch_size") else 1}  # fmt: skip
    largest = max(in_use.values())
    if experiment.is_set(f"{prefix}max_batch_size"):
        over = [
            f"{name} {size}" for name, size in in_use.items() if size > trt.max_batch_size and experiment.is_set(name)
        ]
        if over:
            raise SpecError(f"{prefix}max_batch_size is {trt.max_batch_size}, and {', '.join(over)}",
                            expected="a limit that no batch in use exceeds",
                            remedy=f"set it to {largest}, or leave it out")  # fmt: skip
    settle(experiment, f"{prefix}max_batch_size", largest, "the largest batch in use")
    settle(experiment, f"{prefix}opt_batch_size", trt.max_batch_size, "the largest batch")
    return trt.min_batch_size, trt.opt_batch_size, trt.max_batch_size
