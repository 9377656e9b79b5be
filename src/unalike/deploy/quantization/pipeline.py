"""Run `unalike quantize`: write a quantized network and its comparison with fp32."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.deploy.conversion_inputs import (
    SourceNetwork,
    Written,
    load_calibration_images,
    load_labeled_sets,
    load_source_network,
    reading_options,
)
from unalike.deploy.onnx_graph import (
    read_network,
    write_facts,
)
from unalike.deploy.quantization.accuracy_table import AccuracyTable, LabeledSets, compare_engines, evaluate_retrieval
from unalike.deploy.quantization.activation_ranges import CalibrationImages
from unalike.deploy.quantization.int8 import QuantizationOptions, finalize_graph
from unalike.deploy.quantization.mixed_precision import (
    QuantizationRequest,
    QuantizedNetwork,
    open_engine,
    quantize_network,
)
from unalike.engines.metadata import NetworkFacts
from unalike.engines.protocol import Engine
from unalike.errors import MissingExtra, ModelError, SpecError
from unalike.progress import say
from unalike.runs.filenames import NOTICES_FILE
from unalike.runs.run import json_text
from unalike.storage.atomic import write_bytes, write_text
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment


def _retrieval_goal(first: Engine, data: LabeledSets | None, view: View, limit: float | None, reading: Any) -> Any:
    """Return a function that compares an engine's R@1 with that of fp32; None without labelled data or limit."""
    if data is None or limit is None:
        return None
    before, _, queries = evaluate_retrieval(first, data, view, reading)
    if 0 < limit < 100 / queries:
        say(f"R@1 of {queries} queries moves in steps of {100 / queries:.2g} points: one query lost misses goal.recall_loss {limit:g}, "
            f"and layers go back for it; give at least {math.ceil(100 / limit)} queries, or raise it")  # fmt: skip

    def evaluate(engine: Engine) -> tuple[bool, str]:
        loss = 100 * (before - evaluate_retrieval(engine, data, view, reading)[0])
        return loss <= limit + 1e-9, f"R@1 loss {loss:+.2f} points (goal {limit:g})"

    return evaluate


def quantize_source(
    experiment: Experiment, source: SourceNetwork, section: Any, images: CalibrationImages, cache: Path | None, notices: Notices,
    *, data_type: str, target: str, layers: Sequence[str], labelled: LabeledSets | None,
) -> QuantizedNetwork:  # fmt: skip
    """The network in INT8, FP16 or BF16 by a section's calibration and goal; one that is quantized already stays."""
    if source.quantized:
        if data_type != "INT8":
            raise SpecError(f"{source.stem} is quantized, {data_type} was asked for", remedy="give the float network")
        say(f"{source.stem} is quantized already: its own Q/DQ is taken as it is")
        proto = finalize_graph(read_network(source.content, source.stem))
        write_facts(proto, replace(source.facts, precision="int8"))
        return QuantizedNetwork(proto, ())
    if getattr(section, "backend", "auto") == "nncf":
        say("quantize.backend: nncf is ONNX Runtime's quantizer here, which loses no more R@1", once=True)
    part = getattr(section, "calibration", None)
    goal = getattr(section, "goal", None)
    reading = reading_options(experiment, notices)
    first = open_engine(source.content, replace(source.facts, precision="fp32"))
    limit = goal.recall_loss if goal is not None else None
    request = QuantizationRequest(
        data_type=data_type,
        options=QuantizationOptions(target, getattr(section, "per_channel", True)),
        method=getattr(part, "method", "min-max"), percentile=getattr(part, "percentile", 99.99),
        batch=getattr(part, "cal_batch_size", 8), cache=cache, layers_precision=tuple(layers),
        worst_cosine=goal.worst_cosine if goal is not None else None, most_layers=goal.most_layers if goal is not None else 0.5,
        retrieval=_retrieval_goal(first, labelled, source.view, limit, reading),
    )  # fmt: skip
    return quantize_network(source.content, source.facts, images, request)


def write_comparison(
    experiment: Experiment, source: SourceNetwork, engines: list[Engine], images: CalibrationImages, labelled: LabeledSets | None,
    quantized: QuantizedNetwork | None, path: Path, run: Run, notices: Notices,
) -> Mapping[str, Any]:  # fmt: skip
    """Measure, say and keep the comparison with fp32; its figures."""
    first = open_engine(source.as_float(), replace(source.facts, precision="fp32"))
    found: AccuracyTable = compare_engines(
        first, engines, images.validation_NHWC, data=labelled, view=source.view, options=reading_options(experiment, notices),
        kept=quantized.kept if quantized else (), notes=quantized.notes if quantized else (),
    )  # fmt: skip
    for line in found.lines():
        say(line)
    beside = path.with_name(f"{path.name}.parity.json")
    write_text(beside, json_text(found.to_dict(), indent=1) + "\n")
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    run.own(path, beside)
    figures = dict(found.figures())
    run.record(file=str(path), parity=figures)
    return figures


def _open_engines(content: bytes, facts: NetworkFacts) -> list[Engine]:
    """The new file in every runtime that is here, the fastest kind first."""
    from unalike.engines.onnx_engine import OnnxEngine

    engines = [open_engine(content, facts)]
    if engines[0].name == "openvino":
        try:
            engines.append(OnnxEngine(content))
        except (MissingExtra, ModelError) as error:
            say(f"onnxruntime is skipped: {error}")
    return engines


def run_quantization(experiment: Experiment, run: Run) -> Written:
    """Write a quantized ONNX file and, beside it, its comparison with fp32."""
    section, notices = experiment.quantize, Notices()
    source = load_source_network(experiment, section, "quantize")
    path = Path(section.output) if section.output else run.dir / f"{source.stem}_{section.data_type.lower()}.onnx"
    refuse_existing(path)
    int8 = section.data_type == "INT8" and not source.quantized
    images = load_calibration_images(experiment, source, section.calibration, "quantize.calibration", section.parity_images,
                     section.calibration.seed, notices, needed="INT8 needs images for its ranges" if int8 else "")  # fmt: skip
    labelled = load_labeled_sets(experiment, notices)
    cache = cache_path(section.calibration.cal_cache_file, run) if int8 else None
    quantized = quantize_source(experiment, source, section, images, cache, notices, data_type=section.data_type,
                          target=section.target, layers=section.layers_precision, labelled=labelled)  # fmt: skip
    _write(path, quantized.content)
    facts = replace(source.facts, precision=section.data_type.lower())
    figures = write_comparison(
        experiment, source, _open_engines(quantized.content, facts), images, labelled, quantized, path, run, notices
    )
    say(
        f"{path}: {section.data_type}, {len(quantized.content) / 2**20:.1f} MiB, fp32 {len(source.content) / 2**20:.1f} MiB"
    )
    return path, figures


def cache_path(configured: str | None, run: Run) -> Path:
    path = Path(configured) if configured else run.dir / "calibration.json"
    run.own(path)
    return path


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
