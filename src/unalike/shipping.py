"""What quantize, gen_engine and gen_trt_engine do: a trained network becomes a file for the machine where it must run.

Each measures what it wrote beside fp32 on real images, says so in a table, and leaves it as JSON beside the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unalike.data.checks import Notices
from unalike.data.sets import evaluation_sets, load_for
from unalike.data.view import View
from unalike.data.whole import write_bytes, write_text
from unalike.deploy.ahead import refuse_existing, write_ir, write_optimised
from unalike.deploy.calibration import CalibrationImages, calibration_images
from unalike.deploy.comparison import Comparison, Labelled, compare_forms, retrieval
from unalike.deploy.fewer_bits import FewerBits, Request, make_fewer_bits, runner, typed_layers
from unalike.deploy.graphs import (
    facts_in,
    is_quantised_graph,
    quantised_layers,
    read_network,
    restore_layers,
    write_facts,
)
from unalike.deploy.quantisation import QuantisingOptions, finish
from unalike.engines.metadata import NetworkFacts, file_key
from unalike.engines.protocol import Engine
from unalike.errors import MissingExtra, ModelError, SpecError
from unalike.progress import say
from unalike.run import json_text

Written = tuple[Path, Mapping[str, Any]]


@dataclass(frozen=True)
class Source:
    """The network to work on: its ONNX content, its facts and view, a name, and its batch (0 when open)."""

    content: bytes
    facts: NetworkFacts
    view: View
    stem: str
    quantised: bool = False
    fixed_batch: int = 0

    def as_float(self) -> bytes:
        """The content without Q and DQ: what a quantised file is compared with."""
        if not self.quantised:
            return self.content
        proto = read_network(self.content, self.stem)
        proto = restore_layers(proto, None, set(quantised_layers(proto)))
        write_facts(proto, replace(self.facts, precision="fp32"))
        return proto.SerializeToString()


def _source(experiment: Any, section: Any, name: str) -> Source:
    """The network that a section names: an ONNX file, or a checkpoint that is traced."""
    checkpoint = getattr(section, "checkpoint", None)
    known = [key for key in ("onnx_file", "checkpoint") if hasattr(section, key)]
    given = [key for key in known if getattr(section, key)]
    if len(given) != 1:
        found = " and ".join(f"{name}.{key}" for key in given or known)
        raise SpecError(f"{found} {'are both set' if given else 'is not set' if len(known) == 1 else 'are not set'}",
                        expected="one network to work on", remedy=f"set {name}.onnx_file=FILE.onnx")  # fmt: skip
    if checkpoint:
        return _traced(Path(checkpoint))
    path = Path(section.onnx_file)
    if not path.is_file():
        raise ModelError(f"{name}.onnx_file: there is no file {path}", remedy="write one: unalike export")
    content = path.read_bytes()
    proto = read_network(content, str(path))
    dataset = experiment.dataset
    said = experiment.is_set("dataset.pixel_mean") or experiment.is_set("dataset.pixel_std")
    facts = facts_in(proto, str(path), *((dataset.pixel_mean, dataset.pixel_std) if said else (None, None)))
    facts = facts if facts.network else replace(facts, network=file_key(content))
    sides = [side.dim_value for side in proto.graph.input[0].type.tensor_type.shape.dim]
    if len(sides) != 4 or not all(sides[2:]):
        raise ModelError(f"{path} has an input of shape {sides}", expected="batch x 3 x height x width, both fixed")
    view = View.from_dict(facts.view) if facts.view else View(sides[2], sides[3], **dataset.view.model_dump())
    return Source(proto.SerializeToString(), facts, view, path.stem, is_quantised_graph(proto), sides[0])


def _traced(path: Path) -> Source:
    from unalike.deploy.onnx_export import facts_of, trace
    from unalike.model.checkpoint import load_embedder, network_key

    embedder, meta = load_embedder(path)
    held = meta["facts"]
    view = View.from_dict(held["view"])
    facts = facts_of(
        embedder, view=view, mean=tuple(held["mean"]), std=tuple(held["std"]),
        metadata={"classes": list(meta["classes"]), "trunk": held["trunk"], "licence": held["licence"]},
        network=network_key(embedder, held["mean"], held["std"]),
    )  # fmt: skip
    proto = trace(embedder, (view.height, view.width), facts)
    return Source(proto.SerializeToString(), facts, view, path.stem)


# ---- images ----


def _image_sources(experiment: Any, said: Sequence[str] | None) -> list[str]:
    """Where images for a comparison may come from: those of the calibration, else the spec's data."""
    if said:
        return list(said)
    held = experiment.dataset.val_dataset
    found = [held.query if held else None, held.reference if held else None, experiment.dataset.train_dataset]
    return [str(source) for source in found if source][:1]


def _images(
    experiment: Any, source: Source, part: Any, name: str, count: int, seed: int, notices: Notices, *, needed: str = ""
) -> CalibrationImages:
    """Views for calibration and for the comparison. ``needed`` says what cannot be done without ``cal_image_dir``."""
    if needed and not part.cal_image_dir:
        raise SpecError(f"{name}.cal_image_dir is not set, and {needed}", expected="folders, archives or manifests of "
                        "images as the network will see them", remedy=f"set {name}.cal_image_dir=[DIR]")  # fmt: skip
    sources = _image_sources(experiment, part.cal_image_dir)
    if not sources:
        raise SpecError("no images to compare the result with fp32 on", expected=f"{name}.cal_image_dir or "
                        "dataset.val_dataset.query", remedy=f"set {name}.cal_image_dir=[DIR]")  # fmt: skip
    paths = [path for where in sources for path in load_for(experiment, where, notices, labelled=False).paths]
    return calibration_images(
        list(dict.fromkeys(paths)), source.view, count=part.cal_batch_size * part.cal_batches, others=count, seed=seed,
        notices=notices,
    )  # fmt: skip


def _labelled(experiment: Any, notices: Notices) -> Labelled | None:
    held = experiment.dataset.val_dataset
    if held is None or not (held.reference or held.query):
        return None
    return Labelled(*evaluation_sets(experiment, notices))


def _reading(experiment: Any, notices: Notices) -> dict[str, Any]:
    dataset = experiment.dataset
    return {"workers": dataset.workers, "max_unreadable": dataset.max_unreadable, "max_pixels": dataset.max_pixels,
            "notices": notices}  # fmt: skip


def _retrieval_goal(first: Engine, data: Labelled | None, view: View, limit: float | None, reading: Any) -> Any:
    """Judges an engine by what R@1 loses against fp32; None without labelled data or limit."""
    if data is None or limit is None:
        return None
    before, _, queries = retrieval(first, data, view, reading)
    if 0 < limit < 100 / queries:
        say(f"R@1 of {queries} queries moves in steps of {100 / queries:.2g} points: one query lost misses goal.recall_loss {limit:g}, "
            f"and layers go back for it; give at least {math.ceil(100 / limit)} queries, or raise it")  # fmt: skip

    def judge(engine: Engine) -> tuple[bool, str]:
        loss = 100 * (before - retrieval(engine, data, view, reading)[0])
        return loss <= limit + 1e-9, f"R@1 loss {loss:+.2f} points (goal {limit:g})"

    return judge


# ---- the actions ----


def _in_fewer_bits(
    experiment: Any, source: Source, section: Any, images: CalibrationImages, cache: Path | None, notices: Notices,
    *, data_type: str, target: str, layers: Sequence[str], labelled: Labelled | None,
) -> FewerBits:  # fmt: skip
    """The network in INT8, FP16 or BF16 by a section's calibration and goal; one that is quantised already stays."""
    if source.quantised:
        if data_type != "INT8":
            raise SpecError(f"{source.stem} is quantised, {data_type} was asked for", remedy="give the float network")
        say(f"{source.stem} is quantised already: its own Q/DQ is taken as it is")
        proto = finish(read_network(source.content, source.stem))
        write_facts(proto, replace(source.facts, precision="int8"))
        return FewerBits(proto, ())
    part = getattr(section, "calibration", None)
    goal = getattr(section, "goal", None)
    reading = _reading(experiment, notices)
    first = runner(source.content, replace(source.facts, precision="fp32"))
    limit = goal.recall_loss if goal is not None else None
    request = Request(
        data_type=data_type, backend=getattr(section, "backend", "auto"),
        options=QuantisingOptions(target, getattr(section, "per_channel", True)),
        method=getattr(part, "method", "min-max"), percentile=getattr(part, "percentile", 99.99),
        batch=getattr(part, "cal_batch_size", 8), cache=cache, layers_precision=tuple(layers),
        worst_cosine=goal.worst_cosine if goal is not None else None, most_layers=goal.most_layers if goal is not None else 0.5,
        retrieval=_retrieval_goal(first, labelled, source.view, limit, reading),
    )  # fmt: skip
    return make_fewer_bits(source.content, source.facts, images, request)


def _compared(
    experiment: Any, source: Source, engines: list[Engine], images: CalibrationImages, labelled: Labelled | None,
    made: FewerBits | None, path: Path, run: Any, notices: Notices,
) -> Mapping[str, Any]:  # fmt: skip
    """Measure, say and keep the comparison with fp32; its figures."""
    first = runner(source.as_float(), replace(source.facts, precision="fp32"))
    found: Comparison = compare_forms(
        first, engines, images.others_NHWC, data=labelled, view=source.view, options=_reading(experiment, notices),
        kept=made.kept if made else (), notes=made.notes if made else (),
    )  # fmt: skip
    for line in found.lines():
        say(line)
    beside = path.with_name(f"{path.name}.parity.json")
    write_text(beside, json_text(found.to_dict(), indent=1) + "\n")
    notices.say()
    notices.write(run.dir / "notices.txt")
    run.own(path, beside)
    figures = dict(found.figures())
    run.record(file=str(path), parity=figures)
    return figures


def _runners(content: bytes, facts: NetworkFacts) -> list[Engine]:
    """The new file in every runtime that is here, the fastest kind first."""
    from unalike.engines.onnx_engine import OnnxEngine

    engines = [runner(content, facts)]
    if engines[0].name == "openvino":
        try:
            engines.append(OnnxEngine(content))
        except (MissingExtra, ModelError) as error:
            say(f"onnxruntime is passed over: {error}")
    return engines


def run_quantisation(experiment: Any, run: Any) -> Written:
    """Write an ONNX file in fewer bits beside its comparison with fp32."""
    section, notices = experiment.quantize, Notices()
    source = _source(experiment, section, "quantize")
    path = Path(section.output) if section.output else run.dir / f"{source.stem}_{section.data_type.lower()}.onnx"
    refuse_existing(path)
    int8 = section.data_type == "INT8" and not source.quantised
    images = _images(experiment, source, section.calibration, "quantize.calibration", section.parity_images,
                     section.calibration.seed, notices, needed="INT8 needs images for its ranges" if int8 else "")  # fmt: skip
    labelled = _labelled(experiment, notices)
    cache = _cache(section.calibration.cal_cache_file, run) if int8 else None
    made = _in_fewer_bits(experiment, source, section, images, cache, notices, data_type=section.data_type,
                          target=section.target, layers=section.layers_precision, labelled=labelled)  # fmt: skip
    _write(path, made.content)
    facts = replace(source.facts, precision=section.data_type.lower())
    figures = _compared(experiment, source, _runners(made.content, facts), images, labelled, made, path, run, notices)
    say(f"{path}: {section.data_type}, {len(made.content) / 2**20:.1f} MiB, fp32 {len(source.content) / 2**20:.1f} MiB")
    return path, figures


def _cache(said: str | None, run: Any) -> Path:
    path = Path(said) if said else run.dir / "calibration.json"
    run.own(path)
    return path


def run_engine(experiment: Any, run: Any) -> Written:
    """Write OpenVINO IR or an optimised ONNX file beside its comparison with fp32."""
    section, notices = experiment.gen_engine, Notices()
    source = _source(experiment, section, "gen_engine")
    ending = ".xml" if section.runtime == "openvino" else "_optimised.onnx"
    path = Path(section.engine) if section.engine else run.dir / f"{source.stem}{ending}"
    refuse_existing(path)
    if section.runtime == "onnxruntime" and section.data_type in ("FP16", "BF16"):
        raise SpecError(f"gen_engine.data_type {section.data_type} with onnxruntime", expected="FP32 or INT8: its CPU kernels "
                        "compute in these", remedy="or set gen_engine.runtime=openvino")  # fmt: skip
    data_type = "INT8" if source.quantised else section.data_type
    int8 = data_type == "INT8" and not source.quantised
    images = _images(experiment, source, section.calibration, "gen_engine.calibration", section.parity_images,
                     section.calibration.seed, notices, needed="INT8 needs images for its ranges" if int8 else "")  # fmt: skip
    labelled = _labelled(experiment, notices)
    content, made, facts = source.content, None, replace(source.facts, precision=data_type.lower())
    if data_type in ("INT8", "BF16"):
        cache = _cache(section.calibration.cal_cache_file, run) if int8 else None
        made = _in_fewer_bits(experiment, source, section, images, cache, notices, data_type=data_type, target="cpu",
                              layers=(), labelled=labelled)  # fmt: skip
        content = made.content
    (write_ir if section.runtime == "openvino" else write_optimised)(content, path, facts)
    engine = _open_engine(path, section.runtime)
    figures = _compared(experiment, source, [engine], images, labelled, made, path, run, notices)
    if section.runtime == "openvino":
        run.own(path.with_suffix(".bin"))
    told = engine.describe()
    say(f"{path}: {told['runtime']} {told['precision']} on {told['device']}")
    if data_type == "BF16" and engine.precision != "bf16":
        say("this CPU does not compute in bfloat16: the figures are those of fp32, where it does they will differ")
    return path, figures


def _open_engine(path: Path, runtime: str) -> Engine:
    if runtime == "openvino":
        from unalike.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(path)
    from unalike.engines.onnx_engine import OnnxEngine

    return OnnxEngine(path)


def run_tensorrt(experiment: Any, run: Any) -> Written:
    """Build a TensorRT engine; everything that can be wrong with the spec is said before the building starts."""
    from unalike.deploy.tensorrt_build import BuildOptions, build_engine
    from unalike.engines.tensorrt_engine import TensorRtEngine, facts_file, import_tensorrt

    section, notices = experiment.gen_trt_engine, Notices()
    source = _source(experiment, section, "gen_trt_engine")
    batches = _batches(experiment, source)
    import_tensorrt()
    path = Path(section.trt_engine) if section.trt_engine else run.dir / f"{source.stem}.engine"
    for file in (path, facts_file(path)):
        refuse_existing(file)
    run.write_experiment(experiment)
    trt = section.tensorrt
    data_type = "INT8" if source.quantised else trt.data_type
    int8 = data_type == "INT8" and not source.quantised
    images, labelled = None, _labelled(experiment, notices)
    if int8 or data_type in ("FP16", "BF16") or _image_sources(experiment, trt.calibration.cal_image_dir):
        images = _images(experiment, source, trt.calibration, "gen_trt_engine.tensorrt.calibration", 64, 0, notices,
                         needed="INT8 needs images for its ranges" if int8 else "")  # fmt: skip
    made, facts = None, replace(source.facts, precision=data_type.lower())
    if data_type != "FP32":
        assert images is not None
        cache = _cache(trt.calibration.cal_cache_file, run) if int8 else None
        made = _in_fewer_bits(experiment, source, trt, images, cache, notices, data_type=data_type, target="tensorrt",
                              layers=trt.layers_precision, labelled=None)  # fmt: skip
    elif trt.layers_precision:
        made = typed_layers(source.content, facts, trt.layers_precision)
    timing = Path(section.timing_cache) if section.timing_cache else None
    options = BuildOptions(*batches, trt.workspace_size, timing, section.gpu_id, section.verbose)
    built = build_engine(made.content if made else source.content, path, facts, options)
    run.own(path, facts_file(path), *([timing] if timing else []))
    figures: dict[str, Any] = dict(built)
    if images is not None:
        engine = TensorRtEngine(path, section.gpu_id)
        figures |= _compared(experiment, source, [engine], images, labelled, made, path, run, notices)
        engine.close()
    return path, figures


def _batches(experiment: Any, source: Source) -> tuple[int, int, int]:
    """(least, best, greatest) batch: a fixed one, else what is in use (TAO D34); an error before anything is built."""
    from unalike.spec import settle

    section, prefix = experiment.gen_trt_engine, "gen_trt_engine.tensorrt."
    trt = section.tensorrt
    fixed = source.fixed_batch
    if section.batch_size > 0 and fixed and fixed != section.batch_size:
        raise SpecError(f"gen_trt_engine.batch_size {section.batch_size}, and {source.stem} has a fixed batch of {fixed}",
                        remedy=f"set gen_trt_engine.batch_size={fixed}, or export with export.batch_size=-1")  # fmt: skip
    if fixed:
        wrong = [n for n in ("min", "opt", "max") if experiment.is_set(f"{prefix}{n}_batch_size")
                 and getattr(trt, f"{n}_batch_size") != fixed]  # fmt: skip
        if wrong:
            raise SpecError(f"{prefix}{wrong[0]}_batch_size, and {source.stem} has a fixed batch of {fixed}",
                            remedy=f"leave it out or set it to {fixed}")  # fmt: skip
        return fixed, fixed, fixed
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


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
