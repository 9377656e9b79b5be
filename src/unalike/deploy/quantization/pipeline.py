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
    load_calibration_images,
    load_labeled_sets,
    load_source_network,
    reading_options,
)
from unalike.deploy.onnx_graph import (
    read_network,
    write_facts,
)
from unalike.deploy.quantization.accuracy_table import LabeledSets, compare_engines, evaluate_retrieval
from unalike.deploy.quantization.activation_ranges import CalibrationImages
from unalike.deploy.quantization.int8 import QuantizationOptions, finalize_graph
from unalike.deploy.quantization.mixed_precision import (
    QuantizationRequest,
    QuantizedNetwork,
    RetrievalCheck,
    open_engine,
    quantize_network,
)
from unalike.deploy.unused_settings import say_unused
from unalike.engines.checksum import append_onnx_checksum
from unalike.engines.metadata import NetworkFacts
from unalike.engines.protocol import Engine
from unalike.errors import MissingExtra, ModelError, SpecError
from unalike.progress import say
from unalike.runs.filenames import NOTICES_FILE
from unalike.runs.run import json_text
from unalike.spec.gen_trt_engine import TensorRT
from unalike.spec.quantize import Goal, Quantize, Ranges
from unalike.storage.atomic import write_bytes, write_text
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment
    from unalike.spec.gen_engine import GenEngine


def _retrieval_check(
    fp32: Engine, data: LabeledSets | None, view: View, limit: float | None, options: Mapping[str, Any]
) -> RetrievalCheck | None:
    """Return a function that compares an engine's R@1 with that of fp32; None without labeled data or limit."""
    if data is None or limit is None:
        return None
    fp32_recall, _, queries = evaluate_retrieval(fp32, data, view, options)
    if 0 < limit < 100 / queries:
        say(f"R@1 of {queries} queries changes in steps of {100 / queries:.2g} points: a single lost query exceeds goal.recall_loss "
            f"{limit:g}, and layers return to higher precision for it; give at least {math.ceil(100 / limit)} queries, or raise the "
            "goal")  # fmt: skip

    def check(engine: Engine) -> tuple[bool, str]:
        loss = 100 * (fp32_recall - evaluate_retrieval(engine, data, view, options)[0])
        return loss <= limit + 1e-9, f"R@1 loss {loss:+.2f} points (goal {limit:g})"

    return check


def quantize_source(
    experiment: Experiment, source: SourceNetwork, section: Quantize | GenEngine | TensorRT, images: CalibrationImages | None,
    cache: Path | None, notices: Notices, *, data_type: str, target: str, layers: Sequence[str],
    labeled_sets: LabeledSets | None,
) -> QuantizedNetwork:  # fmt: skip
    """Convert a network to INT8, FP16 or BF16 with the calibration and the goal of a section.

    Args:
        experiment: gives the options for reading images.
        source: the network. One that is quantized already is returned as it is.
        section: gives calibration, goal and ``per_channel``; defaults apply to what it lacks.
        images: for calibration and for the comparison with fp32; None where the network is quantized already.
        cache: file of the INT8 ranges.
        notices: collects unreadable files.
        data_type: ``INT8``, ``FP16`` or ``BF16``.
        target: one of ``int8.TARGETS``.
        layers: ``layer:precision`` entries.
        labeled_sets: on which the loss of R@1 is measured.

    Raises:
        SpecError: the network is quantized and another type than INT8 is requested, or a layer does not exist.
        ExportError: the goal cannot be met.
        MissingExtra: onnx or ONNX Runtime is not installed.
    """
    if source.quantized:
        if data_type != "INT8":
            raise SpecError(f"{source.stem} is quantized, {data_type} was requested", remedy="give the float network")
        say(f"{source.stem} is quantized already: its own Q/DQ nodes are used")
        proto = finalize_graph(read_network(source.content, source.stem))
        write_facts(proto, replace(source.facts, precision="int8"))
        return QuantizedNetwork(proto, ())
    assert images is not None
    if not isinstance(section, TensorRT) and section.backend == "nncf":
        name = "quantize" if isinstance(section, Quantize) else "gen_engine"
        say(f"{name}.backend: nncf selects ONNX Runtime's quantizer, which loses no more R@1", once=True)
    goal = Goal(recall_loss=None) if isinstance(section, TensorRT) else section.goal
    ranges = section.calibration if isinstance(section.calibration, Ranges) else Ranges()
    fp32 = open_engine(source.content, replace(source.facts, precision="fp32"))
    request = QuantizationRequest(
        data_type=data_type,
        options=QuantizationOptions(target, section.per_channel if isinstance(section, Quantize) else True),
        method=ranges.method, percentile=ranges.percentile, batch=section.calibration.cal_batch_size, cache=cache,
        layers_precision=tuple(layers), worst_cosine=goal.worst_cosine, most_layers=goal.most_layers,
        retrieval=_retrieval_check(fp32, labeled_sets, source.view, goal.recall_loss, reading_options(experiment, notices)),
    )  # fmt: skip
    return quantize_network(source.content, source.facts, images, request)


def write_comparison(
    experiment: Experiment, source: SourceNetwork, engines: list[Engine], images: CalibrationImages,
    labeled_sets: LabeledSets | None, quantized: QuantizedNetwork | None, path: Path, run: Run, notices: Notices,
) -> Mapping[str, Any]:  # fmt: skip
    """Compare a written network with fp32, print the table, and write it to ``<path>.parity.json`` and the run's record.

    Args:
        experiment: gives the options for reading images.
        source: the fp32 network, or a quantized one, which is dequantized.
        engines: of the written network, one for each runtime.
        images: the vectors of the validation images are compared.
        labeled_sets: on which retrieval is measured.
        quantized: gives the layers in higher precision and the notes.
        path: the written network.
        run: the run that wrote it.
        notices: the skipped images, printed and written to a file of the run.

    Returns:
        The figures of ``AccuracyTable.figures``.
    """
    fp32 = open_engine(source.as_float(), replace(source.facts, precision="fp32"))
    table = compare_engines(
        fp32, engines, images.validation_NHWC, data=labeled_sets, view=source.view,
        options=reading_options(experiment, notices), kept_layers=quantized.kept if quantized else (),
        notes=quantized.notes if quantized else (),
    )  # fmt: skip
    for line in table.lines():
        say(line)
    write_text(comparison_file(path), json_text(table.to_dict(), indent=1) + "\n")
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    figures = dict(table.figures())
    run.record(file=str(path), parity=figures)
    return figures


def comparison_file(path: Path) -> Path:
    """The file of a network's comparison with fp32."""
    return path.with_name(f"{path.name}.parity.json")


def _open_engines(content: bytes, facts: NetworkFacts) -> list[Engine]:
    """Engines of a network in every installed runtime, the usually fastest first."""
    from unalike.engines.onnx_engine import OnnxEngine

    engines = [open_engine(content, facts)]
    if engines[0].name == "openvino":
        try:
            engines.append(OnnxEngine(content))
        except (MissingExtra, ModelError) as error:
            say(f"onnxruntime is skipped: {error}")
    return engines


def run_quantization(experiment: Experiment, run: Run) -> tuple[Path, Mapping[str, Any]]:
    """Write a quantized ONNX file and its comparison with fp32; returns the file and the figures of the comparison."""
    section, notices = experiment.quantize, Notices()
    source = load_source_network(experiment, section, "quantize")
    path = Path(section.output) if section.output else run.dir / f"{source.stem}_{section.data_type.lower()}.onnx"
    refuse_existing(path)
    int8 = section.data_type == "INT8" and not source.quantized
    images = load_calibration_images(
        experiment, source, section.calibration, "quantize.calibration", section.parity_images, section.calibration.seed,
        notices, int8=int8,
    )  # fmt: skip
    labeled_sets = load_labeled_sets(experiment, notices)
    say_unused(experiment, "quantize", section.data_type, quantized=source.quantized, labeled=labeled_sets is not None)
    cache = cache_path(section.calibration.cal_cache_file, run) if int8 else None
    quantized = quantize_source(
        experiment, source, section, images, cache, notices, data_type=section.data_type, target=section.target,
        layers=section.layers_precision, labeled_sets=labeled_sets,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    run.own(path, comparison_file(path))  # before they are there: --overwrite removes them after a kill
    write_bytes(path, append_onnx_checksum(quantized.content))
    facts = replace(source.facts, precision=section.data_type.lower())
    figures = write_comparison(
        experiment, source, _open_engines(quantized.content, facts), images, labeled_sets, quantized, path, run, notices
    )
    say(
        f"{path}: {section.data_type}, {len(quantized.content) / 2**20:.1f} MiB, fp32 {len(source.content) / 2**20:.1f} MiB"
    )
    return path, figures


def cache_path(user_path: str | None, run: Run) -> Path:
    """Path of the file of INT8 ranges: the configured one, or ``calibration.json`` in the run's folder."""
    path = Path(user_path) if user_path else run.dir / "calibration.json"
    run.own(path)
    return path
