"""Search ranges of fields: ``automl.ranges`` parsed, validated and clipped to the bounds that TAO publishes."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from unalike.spec.actions import STANDALONE_ACTIONS
from unalike.spec.declare import schema_bounds
from unalike.spec.fields import declared_fields
from unalike.spec.nodes import SpecNode
from unalike.spec.reading import format_value

# Free parameters of a loss or miner are fields too: train.loss.parameters.margin.
FREE = ("train.loss.parameters", "train.miner.parameters")
# Sections and fields that decide how a trial is measured, where it writes, or that training does not read.
FIXED = (
    "results_dir", "automl", "automl_policy", "wandb", "mlflow", "evaluate", "inference", "export", "gen_trt_engine", "quantize",
    "gen_engine", *STANDALONE_ACTIONS, "model_name", "encryption_key", "dataset.train_dataset", "dataset.val_dataset", "dataset.validation", "dataset.class_from",
    "dataset.class_map", "dataset.manifest_columns", "dataset.view", "dataset.decoding", "train.checkpointer", "train.recipe",
    "train.results_dir", "train.resume_training_checkpoint_path", "train.validation_interval", "train.val_batch_size",
    "train.checkpoint_interval", "train.checkpoint_interval_unit", "train.log_every", "train.num_gpus", "train.gpu_ids",
    "train.num_nodes", "train.cluster", "train.address", "train.workers", "train.report_accuracy_per_class",
)  # fmt: skip
_KEYS = {
    "low": "low", "min": "low", "valid_min": "low", "high": "high", "max": "high", "valid_max": "high",
    "values": "values", "options": "values", "valid_options": "values", "log": "log", "step": "step",
}  # fmt: skip
_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Range(NamedTuple):
    """A user's range: ``values`` alone, or one or both ends. ``log`` is None where the user did not set it."""

    low: float | None = None
    high: float | None = None
    log: bool | None = None
    step: float | None = None
    values: tuple[Any, ...] | None = None


def free_parameter(path: str) -> bool:
    """Whether the path names an argument of the loss or miner."""
    return any(path.startswith(f"{root}.") and "." not in path[len(root) + 1 :] for root in FREE)


def refusal(path: str) -> str:
    """Why a dotted path cannot be searched, or nothing."""
    for pattern in FIXED:
        if path == pattern or path.startswith(pattern + "."):
            return "a field that takes no part in training, or that decides how a trial is measured"
    node = declared_fields().get(path)
    if node is None and not free_parameter(path):
        return "no field of this name"
    return "a section; name fields of it" if node is not None and node.section else ""


def numeric(path: str) -> type | None:
    """``int`` or ``float`` for a field that holds a number (float for free parameters), else None."""
    node = declared_fields().get(path)
    if node is None:
        return float
    return node.kind if node.kind in (int, float) else None


def flat_ranges(ranges: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, range); an override writes nested mappings where a spec writes dotted names."""
    for key, value in ranges.items():
        path = f"{prefix}{key}"
        node = declared_fields().get(path)
        inner = node is not None and node.section is not None or path in FREE
        if inner and isinstance(value, Mapping) and value:
            yield from flat_ranges(value, path + ".")
        else:
            yield path, value


def read_range(path: str, value: Any) -> Range:
    """Parse the range that a user set for a field. Raises ValueError that states what was expected."""
    if reason := refusal(path):
        raise ValueError(reason)
    number = numeric(path)
    if isinstance(value, Mapping):
        result = _from_mapping(value)
    elif isinstance(value, list | tuple) and number and len(value) == 2 and all(_is_number(v) for v in value):
        result = Range(low=value[0], high=value[1])
    elif isinstance(value, list | tuple) and value:
        result = Range(values=tuple(value))
    else:
        raise ValueError("expected [low, high], a list of values, or a mapping of low, high, log, step, values")
    if result.values is None and number is None:
        raise ValueError("expected a list of values, as the field does not hold a number")
    for item in result.values or tuple(v for v in (result.low, result.high) if v is not None):
        _refuse_invalid(path, item, end=result.values is None)
    if result.low is not None and result.high is not None and result.low > result.high:
        raise ValueError(
            f"expected the smaller number first, found {format_value(result.low)} before {format_value(result.high)}"
        )
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _from_mapping(value: Mapping[Any, Any]) -> Range:
    unknown = [key for key in value if key not in _KEYS]
    if unknown or not value:
        raise ValueError(
            f"expected low, high, log, step or values, found {format_value(unknown[0]) if unknown else 'nothing'}"
        )
    arguments: dict[str, Any] = {}
    for key, item in value.items():
        if arguments.setdefault(_KEYS[key], item) is not item:
            raise ValueError(f"{_KEYS[key]} given twice, the second time as {key}")
    for key in ("low", "high", "step"):
        if arguments.get(key) is not None and not _is_number(arguments[key]):
            raise ValueError(f"expected a number for {key}, found {format_value(arguments[key])}")
    if arguments.get("step") is not None and arguments["step"] <= 0:
        raise ValueError("expected a step > 0")
    if arguments.get("log") not in (None, True, False):
        raise ValueError("expected true or false for log")
    if "values" in arguments:
        if not isinstance(arguments["values"], list | tuple) or not arguments["values"]:
            raise ValueError("expected a list for values")
        arguments["values"] = tuple(arguments["values"])
    elif arguments.get("low") is None and arguments.get("high") is None:
        raise ValueError("expected low, high or values")
    return Range(**arguments)


def _refuse_invalid(path: str, value: Any, *, end: bool) -> None:
    """Raise ValueError for a value that the field does not allow; the end of a range may equal an excluded bound."""
    node = declared_fields().get(path)
    if node is None:
        return
    kind: Any = node.info.annotation
    try:
        valid_value: Any = TypeAdapter(kind | None if node.nullable else kind).validate_python(value, strict=True)
    except ValidationError:
        raise ValueError(f"{format_value(value)} is not a valid value of this field") from None
    for bound in node.info.metadata:
        for name, compare in (("gt", operator.gt), ("ge", operator.ge), ("lt", operator.lt), ("le", operator.le)):
            limit = getattr(bound, name, None)
            if end and limit is not None and valid_value == limit:
                continue
            if limit is not None and valid_value is not None and not compare(valid_value, limit):
                raise ValueError(f"{format_value(value)} is not a valid value of this field: it must be {name} {limit}")


def choices(path: str) -> tuple[Any, ...] | None:
    """All values of a boolean field or of one with fixed choices; else None."""
    node = declared_fields().get(path)
    if node is None:
        return None
    if node.kind is bool:
        return (False, True)
    return get_args(node.kind) if get_origin(node.kind) is Literal else None


def search_bounds(path: str) -> tuple[float, float, bool, bool]:
    """(low, high, low is excluded, high is excluded) of a search: from TAO's bounds and condition, and from validity."""
    node = declared_fields().get(path)
    low, high, low_open, high_open = -math.inf, math.inf, False, False
    if node is None:
        return low, high, low_open, high_open
    for sign, bound in _limits(node):
        if sign.startswith(">") and (bound > low or (bound == low and sign == ">")):
            low, low_open = bound, sign == ">"
        if sign.startswith("<") and (bound < high or (bound == high and sign == "<")):
            high, high_open = bound, sign == "<"
    return low, high, low_open, high_open


def _limits(node: SpecNode) -> Iterator[tuple[str, float]]:
    facts, bounds = node.facts, schema_bounds(node.facts)
    for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
        for bound in node.info.metadata:
            if getattr(bound, name, None) is not None:
                yield sign, float(getattr(bound, name))
    for name, sign in (("minimum", ">="), ("maximum", "<=")):
        if bounds.get(name) is not None:
            yield sign, float(bounds[name])
    condition = str(facts.get("math_cond") or "").split()
    if len(condition) == 2 and condition[0] in _COMPARE:
        yield condition[0], float(condition[1])
