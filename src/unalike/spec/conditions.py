"""Conditions between several fields, or between the items of one. Each yields (path, value, expectation) of a violation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial, reduce
from itertools import pairwise
from typing import Any

from unalike.errors import closest
from unalike.sanitize import redact
from unalike.spec.automl import ALGORITHMS, LANGUAGE_MODEL_ALGORITHMS
from unalike.spec.declare import RANGE_FORM
from unalike.spec.experiment import Experiment
from unalike.spec.faults import Fault
from unalike.spec.fields import declared_fields
from unalike.spec.ranges import flat_ranges, read_range, refusal
from unalike.spec.reading import format_value

Violation = tuple[str, Any, str]
Condition = Callable[[Experiment, str], Iterator[Violation]]
# Of whole numbers without a bound of their own: sizes and counts beyond it are no memory's, and overflow in libraries.
BOX_COLUMNS = ("x", "y", "width", "height")
MAX_WHOLE = 2**32 - 1
MAX_THREADS = 1024
MAX_VALUE = 1e30  # of a pixel
VALUE_RANGES = ("dataset.decoding.range", "verify.range", "compare.range", "inspect_fit.range")
CHANNELS = 3  # what every image is decoded to


def _channels(e: Experiment, action: str) -> Iterator[Violation]:
    if e.model.input_channels != CHANNELS:
        yield "model.input_channels", e.model.input_channels, f"{CHANNELS} (gray images are read as RGB)"
    for name in ("pixel_mean", "pixel_std"):
        value = getattr(e.dataset, name)
        if len(value) != CHANNELS:
            yield f"dataset.{name}", value, f"{CHANNELS} numbers, one a channel"
        elif not all(0 <= number <= 1 for number in value):
            yield f"dataset.{name}", value, "numbers on the scale 0 to 1; divide those of the scale 0 to 255 by 255"


def _blur(e: Experiment, action: str) -> Iterator[Violation]:
    blur = e.dataset.gaussian_blur
    if len(blur.kernel) != 2 or any(k < 1 or k % 2 == 0 for k in blur.kernel):
        yield "dataset.gaussian_blur.kernel", blur.kernel, "two odd numbers >= 1 (height, width)"
    elif blur.enabled and any(
        k // 2 >= side for k, side in zip(blur.kernel, (e.model.input_height, e.model.input_width), strict=True)
    ):
        yield (
            "dataset.gaussian_blur.kernel",
            blur.kernel,
            "a window whose half is smaller than the input (height, width)",
        )
    yield from _range("dataset.gaussian_blur.sigma", blur.sigma)


def _range(path: str, value: list[float], most: float | None = None) -> Iterator[Violation]:
    if len(value) != 2 or value[0] > value[1] or (most is not None and value[1] > most):
        bound = f", at most {most}" if most is not None else ""
        yield path, value, f"two numbers, the smaller first{bound}"


def _crops(e: Experiment, action: str) -> Iterator[Violation]:
    yield from _range("dataset.crop.scale", e.dataset.crop.scale, 1.0)
    yield from _range("dataset.crop.ratio", e.dataset.crop.ratio)


def _value_range(path: str, e: Experiment, action: str) -> Iterator[Violation]:
    """The range of 16-bit values: opening a network takes longer than to see that it is none."""
    value: Any = reduce(getattr, path.split("."), e)
    if value is not None and not (-MAX_VALUE < value[0] < value[1] < MAX_VALUE):
        yield path, value, RANGE_FORM


def _steps(e: Experiment, action: str) -> Iterator[Violation]:
    steps = e.train.optim.steps
    if any(s < 0 for s in steps) or any(a >= b for a, b in pairwise(steps)):
        yield "train.optim.steps", steps, "epochs >= 0 in rising order"


def _devices(name: str, e: Experiment, action: str) -> Iterator[Violation]:
    part, path = getattr(e, name), f"{name}.gpu_ids"
    if any(i < 0 for i in part.gpu_ids) or len(set(part.gpu_ids)) < len(part.gpu_ids):
        yield path, part.gpu_ids, "different indices >= 0"
    elif e.is_set(path) and len(part.gpu_ids) != part.num_gpus:
        yield path, part.gpu_ids, f"as many as {name}.num_gpus, {part.num_gpus}"


def _batches(e: Experiment, action: str) -> Iterator[Violation]:
    for name in ("export", "gen_trt_engine"):
        if getattr(e, name).batch_size == 0:
            yield f"{name}.batch_size", 0, "-1 (open) or a number >= 1"


def _engine_batches(e: Experiment, action: str) -> Iterator[Violation]:
    """Compare only the fields that the user set: the others follow from the batch sizes in use."""
    trt, prefix = e.gen_trt_engine.tensorrt, "gen_trt_engine.tensorrt."
    names = [n for n in ("min_batch_size", "opt_batch_size", "max_batch_size") if e.is_set(prefix + n)]
    for low, high in pairwise(names):
        if getattr(trt, low) > getattr(trt, high):
            yield prefix + high, getattr(trt, high), f"at least {prefix}{low}, {getattr(trt, low)}"


def _checkpointer(e: Experiment, action: str) -> Iterator[Violation]:
    if e.train.checkpointer.save_top_k == 0:
        yield "train.checkpointer.save_top_k", 0, "-1 (all) or a number >= 1"


OUTPUT_PATHS = ("export.onnx_file", "gen_trt_engine.trt_engine", "train.checkpointer.dirpath", "dataset.cache.directory",
           "gen_trt_engine.tensorrt.calibration.cal_cache_file")  # fmt: skip


def _outputs_are_local(e: Experiment, action: str) -> Iterator[Violation]:
    """Output files are paths of this machine; only a complete results folder is uploaded to a remote store."""
    for path in OUTPUT_PATHS:
        value = reduce(getattr, path.split("."), e)
        if "://" in str(value or ""):
            yield (
                path,
                redact(str(value)),
                "a path of this machine; only results_dir may be an address, to which the files in it are uploaded",
            )


def _something_trains(e: Experiment, action: str) -> Iterator[Violation]:
    if action == "train" and not (e.train.train_trunk or e.train.train_embedder or e.train.finish.enabled):
        yield (
            "train.train_embedder",
            False,
            "true when train.train_trunk is false: nothing would be trained (train.finish.enabled true would fit a head)",
        )


def _columns(e: Experiment, action: str) -> Iterator[Violation]:
    names = e.dataset.manifest_columns.to_names()
    default = type(e.dataset.manifest_columns)().to_names()
    # A label in a column y is no box: the boxes of such a table have other names, or there are none.
    own_names = [name for name, usual in zip(names, default, strict=True) if name != usual or name not in BOX_COLUMNS]
    if len(set(own_names)) < len(own_names):
        yield "dataset.manifest_columns", names, "different columns"


def _algorithm(e: Experiment, action: str) -> Iterator[Violation]:
    name = e.automl.algorithm
    if name in LANGUAGE_MODEL_ALGORITHMS:
        yield (
            "automl.algorithm",
            name,
            "an algorithm that runs on this machine, such as bayesian; this one sends settings and results to a language model",
        )
    elif name is not None and name not in ALGORITHMS:
        yield "automl.algorithm", name, closest(name, ALGORITHMS) or f"one of {', '.join(ALGORITHMS)}"
    if e.automl.address and e.automl.cluster != "ray":
        yield "automl.address", e.automl.address, "automl.cluster: ray beside it"


def _searched(e: Experiment, action: str) -> Iterator[Violation]:
    for path in e.automl.parameters:
        if reason := refusal(path):
            near = closest(path, [p for p in declared_fields() if not refusal(p)])
            yield "automl.parameters", path, f"a field that can be searched, and this is {reason}. {near}".strip(". ")
    for path, value in flat_ranges(e.automl.ranges):
        try:
            read_range(path, value)
        except ValueError as error:
            yield f"automl.ranges.{path}", value, f"a range that fits the field: {error}"


def _whole_numbers(e: Experiment, action: str) -> Iterator[Violation]:
    for path, node in declared_fields().items():
        if node.section is None:
            value: Any = e
            for name in path.split("."):
                value = getattr(value, name, None)
            most = MAX_THREADS if path.endswith((".threads", ".streams")) else MAX_WHOLE
            numbers = value if isinstance(value, list) else [value]
            if any(type(number) is int and abs(number) > most for number in numbers):
                yield path, value, f"whole numbers of at most {most}"


def _direction(e: Experiment, action: str) -> Iterator[Violation]:
    mode = e.train.checkpointer.mode
    if e.automl.direction and mode and not e.automl.direction.startswith(mode):
        yield "automl.direction", e.automl.direction, f"the same as train.checkpointer.mode, {mode}"


# Each condition with the fields that it reads: it is not checked in a spec in which one of those is invalid by itself.
CONDITIONS: tuple[tuple[Condition, tuple[str, ...]], ...] = (
    (_channels, ("dataset.pixel_mean", "dataset.pixel_std", "model.input_channels")),
    (_blur, ("dataset.gaussian_blur", "model.input_height", "model.input_width")),
    (_crops, ("dataset.crop",)),
    *((partial(_value_range, path), (path,)) for path in VALUE_RANGES),
    (_steps, ("train.optim.steps",)),
    (partial(_devices, "train"), ("train.gpu_ids", "train.num_gpus")),
    (partial(_devices, "evaluate"), ("evaluate.gpu_ids", "evaluate.num_gpus")),
    (partial(_devices, "inference"), ("inference.gpu_ids", "inference.num_gpus")),
    (_batches, ("export.batch_size", "gen_trt_engine.batch_size")),
    (_engine_batches, ("gen_trt_engine.tensorrt",)),
    (_checkpointer, ("train.checkpointer.save_top_k",)),
    (_outputs_are_local, OUTPUT_PATHS),
    (_something_trains, ("train.train_trunk", "train.train_embedder", "train.finish")),
    (_columns, ("dataset.manifest_columns",)),
    (_algorithm, ("automl.algorithm", "automl.address", "automl.cluster")),
    (_searched, ("automl.parameters", "automl.ranges")),
    (_whole_numbers, ()),
    (_direction, ("automl.direction", "train.checkpointer.mode")),
)


def _touches(bad_paths: Collection[str], field_path: str) -> bool:
    return any(b == field_path or b.startswith(field_path + ".") or field_path.startswith(b + ".") for b in bad_paths)


def check_conditions(experiment: Experiment, action: str, bad_paths: Collection[str] = ()) -> list[Fault]:
    """Check the conditions between fields.

    Args:
        experiment: The spec.
        action: Its action.
        bad_paths: Dotted paths of fields that are invalid by themselves; conditions that read them are not checked.

    Returns:
        A fault for each violation.
    """
    return [
        Fault(path, f"found {format_value(value)}, expected {expectation}")
        for condition, reads in CONDITIONS
        if not any(_touches(bad_paths, field_path) for field_path in reads)
        for path, value, expectation in condition(experiment, action)
    ]
