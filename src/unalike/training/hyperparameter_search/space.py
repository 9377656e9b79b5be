"""The hyperparameters that a search varies, and the range and scale of each.

TAO draws learning rates uniformly from [0, 1], and 85 to 100 % of its trials diverge (D38); here numbers that span orders
of magnitude are drawn on a log scale around the settled value, inside the bounds that TAO publishes. A field without effect
(momentum with Adam, D11; the margin of a loss that is not used) is no axis, or one only in the trials where it has effect.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from unalike.errors import SpecError
from unalike.spec.fields import declared_fields
from unalike.spec.ranges import (
    FREE,
    Range,
    choices,
    flat_ranges,
    free_parameter,
    numeric,
    read_range,
    search_bounds,
)
from unalike.storage.digests import text_sha256
from unalike.training.losses import has_parameters

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.spec.automl import Automl

FieldGetter = Callable[[str], Any]  # from a dotted path to its value


@dataclass(frozen=True)
class ActivityRule:
    """When a field has an effect.

    Attributes:
        path: the field; fields below it follow the same rule.
        reads: the fields that decide.
        is_active: maps a getter of field values to whether the field has an effect.
        reason: why it has none.
    """

    path: str
    reads: tuple[str, ...]
    is_active: Callable[[FieldGetter], bool]
    reason: str


def _switch(path: str, reason: str, *dependents: str) -> tuple[ActivityRule, ...]:
    """Rules for fields that have an effect only if ``path`` is true."""
    return tuple(ActivityRule(d, (path,), lambda get: bool(get(path)), reason) for d in dependents)


def _uses(kind: str, name: str, parameter: str) -> Callable[[FieldGetter], bool]:
    """Whether the loss or miner is ``name`` and its parameter is not set explicitly."""
    return lambda get: get(f"train.{kind}.name") == name and parameter not in (get(f"train.{kind}.parameters") or {})


def _has_schedule_steps(get: FieldGetter) -> bool:
    steps = get("train.optim.steps")
    return get("train.optim.schedule") == "step" and bool(steps) and min(steps) < get("train.num_epochs")


_STEPS = ("train.optim.schedule", "train.optim.steps", "train.num_epochs")
_LOSS, _MINER = (("train.loss.name", "train.loss.parameters"), ("train.miner.name", "train.miner.parameters"))
_TRIPLET = "TripletMarginLoss with this argument left open is not the loss"
RULES: tuple[ActivityRule, ...] = (
    *(ActivityRule(f"train.optim.{part}.momentum", ("train.optim.name",), lambda get: get("train.optim.name") == "SGD",
                   "only SGD reads it") for part in ("trunk", "embedder")),
    *_switch("train.train_trunk", "the trunk does not learn", "train.optim.trunk", "train.frozen_stages", "train.head_epochs"),
    *_switch("train.train_embedder", "the embedder does not learn", "train.optim.embedder"),
    ActivityRule("train.optim.gamma", _STEPS, _has_schedule_steps, "no step of the schedule lies within the epochs"),
    ActivityRule("train.optim.steps", _STEPS[:1], lambda get: get("train.optim.schedule") == "step",
                 "the schedule has no steps"),
    *_switch("train.optim.warmup_iters", "there is no warm-up", "train.optim.warmup_factor", "train.optim.warmup_method"),
    ActivityRule("train.optim.triplet_loss_margin", _LOSS, _uses("loss", "TripletMarginLoss", "margin"), _TRIPLET),
    ActivityRule("train.smooth_loss", _LOSS, _uses("loss", "TripletMarginLoss", "smooth_loss"), _TRIPLET),
    ActivityRule("train.optim.miner_function_margin", _MINER, _uses("miner", "MultiSimilarityMiner", "epsilon"),
                 "MultiSimilarityMiner with this argument left open is not the miner"),
    ActivityRule("train.optim.loss_lr", _LOSS,
                 lambda get: has_parameters(get("train.loss.name"), get("train.loss.parameters")),
                 "the loss has no weights of its own"),
    *_switch("train.ema.enabled", "no average is kept", "train.ema.decay"),
    *_switch("dataset.gaussian_blur.enabled", "there is no blur", "dataset.gaussian_blur.kernel",
             "dataset.gaussian_blur.sigma"),
    *_switch("dataset.color_augmentation.enabled", "colors are left alone",
             *(f"dataset.color_augmentation.{n}" for n in ("brightness", "contrast", "saturation", "hue"))),
)  # fmt: skip


def _rules_of(path: str) -> Iterable[ActivityRule]:
    return (rule for rule in RULES if path == rule.path or path.startswith(rule.path + "."))


def inactive_reason(path: str, get: FieldGetter) -> str:
    """Return why a field has no effect; an empty string if it has one.

    Args:
        path: the field.
        get: getter of the other fields' values.
    """
    return next((rule.reason for rule in _rules_of(path) if not rule.is_active(get)), "")


@dataclass(frozen=True)
class Axis:
    """One searched field.

    Attributes:
        path: the field.
        base: the value that plain training uses.
        distribution: what Optuna draws from; of choices, their JSON.
        zero_below: drawn values below it stand for 0; 0 where 0 is not drawn.
    """

    path: str
    base: Any
    distribution: BaseDistribution
    zero_below: float = 0.0

    def to_value(self, suggestion: Any) -> Any:
        """Convert a drawn value to a value of the spec."""
        if isinstance(self.distribution, CategoricalDistribution):
            return json.loads(suggestion)
        if self.zero_below and suggestion < self.zero_below:
            return 0.0
        return float(f"{suggestion:.6g}") if isinstance(self.distribution, FloatDistribution) else suggestion

    def to_drawn(self, value: Any) -> Any:
        """Convert a value of the spec to the drawn value that stands for it; None where it is outside the distribution."""
        if isinstance(self.distribution, CategoricalDistribution):
            text = json.dumps(value)
            return text if text in self.distribution.choices else None
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        limits = self.distribution
        assert isinstance(limits, FloatDistribution | IntDistribution)
        if self.zero_below and value == 0:
            return math.sqrt(limits.low * self.zero_below)
        inside = limits.low <= value <= limits.high
        return type(limits.low)(value) if inside else None

    def describe(self) -> str:
        """Describe the range, as in ``0.0001 to 0.01, log``, or the choices."""
        limits = self.distribution
        if isinstance(limits, CategoricalDistribution):
            return ", ".join(str(choice) for choice in limits.choices)
        assert isinstance(limits, FloatDistribution | IntDistribution)
        zero = "0 or " if self.zero_below else ""
        low = self.zero_below or limits.low
        return f"{zero}{low:.4g} to {limits.high:.4g}{', log' if limits.log else ''}"


@dataclass(frozen=True)
class SearchSpace:
    """The axes of a search.

    Attributes:
        axes: each one after those that decide whether it has an effect.
        base: getter of the settled spec.
        left_out: requested fields that are not searched, with the reason.
    """

    axes: tuple[Axis, ...]
    base: FieldGetter
    left_out: Mapping[str, str] = field(default_factory=dict)

    def draw(self, suggest: Callable[[str, BaseDistribution], Any], *, user_spec: bool = False) -> dict[str, Any]:
        """Draw values of the axes that have an effect.

        Args:
            suggest: ``suggest(path, distribution)`` draws one value.
            user_spec: whether this is the trial of the user's own spec: its values are only reported to ``suggest``, where
                the axes contain them, and nothing is returned.

        Returns:
            Values by field.
        """
        values: dict[str, Any] = {}

        def get(path: str) -> Any:
            return values[path] if path in values else self.base(path)

        for axis in self.axes:
            if inactive_reason(axis.path, get) or _belongs_to_other_class(axis.path, get, self.base):
                continue
            if user_spec:
                if axis.to_drawn(axis.base) is not None:
                    suggest(axis.path, axis.distribution)
                values[axis.path] = axis.base
            else:
                values[axis.path] = axis.to_value(suggest(axis.path, axis.distribution))
        return {} if user_spec else values

    def user_values(self) -> dict[str, Any]:
        """Return the drawn values that stand for the user's own spec, of the axes that contain them."""
        suggestions = {axis.path: axis.to_drawn(axis.base) for axis in self.axes}
        return {path: value for path, value in suggestions.items() if value is not None}

    def fingerprint(self) -> str:
        """Return a digest that is equal for searches whose trials can be compared."""
        text = json.dumps([[axis.path, str(axis.distribution), axis.zero_below] for axis in self.axes])
        return text_sha256(text, 16)


def _belongs_to_other_class(path: str, get: FieldGetter, base: FieldGetter) -> bool:
    """Whether a free parameter belongs to another loss or miner than the one drawn."""
    root = path.rpartition(".")[0]
    if root not in FREE:
        return False
    name = root.replace(".parameters", ".name")
    return bool(get(name) != base(name))


def field_getter(experiment: Experiment) -> FieldGetter:
    """Make the getter of a spec's fields, free parameters of loss and miner included; it returns None for unknown paths."""

    def get(path: str) -> Any:
        value: Any = experiment
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
        return value

    return get


def build_space(automl: Automl, base: Experiment) -> SearchSpace:
    """Build the space of a search around a settled spec.

    Args:
        automl: ``parameters`` and ``ranges`` say what to search; by default ``default_parameters``.
        base: the settled spec.

    Raises:
        SpecError: no field is left to search, or a range is not valid.
    """
    get = field_getter(base)
    ranges = {path: read_range(path, value) for path, value in flat_ranges(automl.ranges)}
    paths = list(dict.fromkeys([*(automl.parameters or default_parameters(get)), *ranges]))
    left_out: dict[str, str] = {}
    axes = []
    for path in paths:
        rules = [rule for rule in _rules_of(path) if not rule.is_active(get)]
        if rules and not any(read_fields in paths for rule in rules for read_fields in rule.reads):
            left_out[path] = rules[0].reason
            continue
        axes.append(_build_axis(path, get, ranges.get(path), automl.max_epochs))
    if not axes:
        raise SpecError("nothing is left to search", expected="a field that has an effect in this training",
                        remedy="; ".join(f"{path}: {why}" for path, why in left_out.items()))  # fmt: skip
    read_fields = {r for rule in RULES for r in rule.reads}
    axes.sort(key=lambda axis: (axis.path not in read_fields, any(True for _ in _rules_of(axis.path))))
    return SearchSpace(tuple(axes), get, left_out)


def default_parameters(get: FieldGetter) -> list[str]:
    """Return TAO's fifteen searched fields; for another loss or miner also its numbers and its learning rate."""
    names = [path for path, node in declared_fields().items() if node.facts.get("automl_enabled") is True]
    if not inactive_reason("train.optim.loss_lr", get):
        names.append("train.optim.loss_lr")
    for root in FREE:
        numbers = (
            name for name, v in (get(root) or {}).items() if isinstance(v, float | int) and v > 0 and v is not True
        )
        names += [f"{root}.{name}" for name in numbers]
    return names


# ---- scales ----


def _build_axis(path: str, get: FieldGetter, user_range: Range | None, max_epochs: int | None) -> Axis:
    """Build the axis of a field: of the requested range, of a few choices, or around its present value."""
    base = get(path)
    if base is None and path == "train.optim.loss_lr":
        base = get("train.optim.embedder.base_lr")
    if user_range is not None and user_range.values is not None:
        return Axis(path, base, _categorical(user_range.values))
    if user_range is None and (values := _discrete_values(path, base)) is not None:
        return Axis(path, base, _categorical(values))
    kind = numeric(path)
    if kind is None or (base is None and user_range is None) or isinstance(base, bool | str | list | dict):
        raise SpecError(f"automl: {path} is to be searched, and what it may become is not known",
                        remedy=f"give it values: automl.ranges: {{{path}: [a, b, c]}}")  # fmt: skip
    low, high, log, zero = _default_scale(path, base, get)
    if user_range is not None:
        low = user_range.low if user_range.low is not None else low
        high = user_range.high if user_range.high is not None else high
        zero, log = False, log if user_range.log is None else user_range.log
    if path == "train.num_epochs" and max_epochs:
        high = min(high, max_epochs)
    low, high, log = _clip_to_bounds(path, low, high, log, user_range=user_range)
    if kind is int and not free_parameter(path):
        step = int(user_range.step) if user_range and user_range.step else 1
        integers = IntDistribution(math.ceil(low), math.floor(high), log=log and low >= 1 and step == 1, step=step)
        return Axis(path, base, integers)
    if user_range is not None and user_range.step:
        return Axis(path, base, FloatDistribution(low, high, step=user_range.step))
    if zero:  # a tenth of the scale is added below the low end, and stands for 0
        extended_low = low / (high / low) ** 0.1
        return Axis(path, base, FloatDistribution(extended_low, high, log=True), zero_below=low)
    return Axis(path, base, FloatDistribution(low, high, log=log))


def _categorical(values: Iterable[Any]) -> CategoricalDistribution:
    return CategoricalDistribution(tuple(dict.fromkeys(json.dumps(value) for value in values)))


def _discrete_values(path: str, base: Any) -> tuple[Any, ...] | None:
    """The values of fields that are drawn from a few choices: names, switches, sizes in powers of two, image sides."""
    names = choices(path)
    if names is not None:
        return names
    name = path.rpartition(".")[2]
    if name in ("batch_size", "feat_dim", "num_instance") and base:
        least = {"batch_size": 4, "feat_dim": 8, "num_instance": 1}[name]
        return tuple(sorted({base, *(int(base * f) for f in (0.25, 0.5, 2, 4) if base * f >= least)}))
    if name in ("input_height", "input_width", "train_height", "train_width") and base:
        return tuple(sorted({base, *(max(32, round(base * f / 32) * 32) for f in (0.75, 1.25))}))
    return None


def _default_scale(path: str, base: Any, get: FieldGetter) -> tuple[float, float, bool, bool]:
    """(low, high, log scale, whether 0 is drawn too) of a number, by the field's name and its present value."""
    name = path.rpartition(".")[2]
    v = float(base or 0)
    epochs = get("train.num_epochs") or 1
    if name in ("base_lr", "loss_lr", "weight_decay", "weight_decay_bias", "clip_grad_norm"):
        low, high = {"clip_grad_norm": (0.1, 10.0)}.get(name, (1e-5, 1e-1))
        return (v / 10, v * 10, True, False) if v > 0 else (low, high, True, True)
    ranges: dict[str, tuple[float, float, bool]] = {
        "momentum": (min(0.5, v), max(0.99, v), False), "bias_lr_factor": (1.0, 10.0, True),
        "gamma": (0.02, 0.8, True), "warmup_factor": (1e-3, 1.0, True),
        "warmup_iters": (0, max(v, epochs // 3, 1), False), "num_epochs": (max(1, v // 2), 2 * v, True),
        "head_epochs": (0, max(v, min(3, epochs - 1)), False), "decay": (0.9, 0.9999, False),
        "frozen_stages": (0, max(v, 4), False),
    }  # fmt: skip
    if name in ranges and not free_parameter(path):
        low, high, log = ranges[name]
        return low, max(high, v), log, log and v == 0
    bounds = search_bounds(path)
    if (bounds[0], bounds[1]) == (0.0, 1.0):
        return 0.0, 1.0, False, False
    if numeric(path) is int:
        return max(0, v // 2), max(2 * v, 1), v >= 8, False
    if v > 0:
        return v / 4, v * 4, True, False
    return 0.0, bounds[1] if math.isfinite(bounds[1]) else 1.0, False, False


def _clip_to_bounds(
    path: str, low: float, high: float, log: bool, *, user_range: Range | None
) -> tuple[float, float, bool]:
    """Clip a range to the published bounds; a requested range that starts at 0 still gets a log scale for a rate."""
    least, most, low_open, high_open = search_bounds(path)
    low, high = max(low, least), min(high, most)
    if high_open and high == most:
        high -= (high - low) / 1000
    if low_open and low <= least:
        low = high * 1e-4 if log or least == 0 and user_range is not None else least + (high - least) / 1000
    if log and low <= 0:
        low = high * 1e-4
    if user_range is not None and user_range.log is None and numeric(path) is float:
        log = low > 0 and high / low >= 10
    if low > high:
        raise SpecError(f"automl.ranges.{path} holds nothing that may be searched",
                        expected=f"values from {least:g} to {most:g}")  # fmt: skip
    return low, high, log
