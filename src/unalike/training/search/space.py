"""What a search varies: axes of dotted fields, each on a sane scale around the value that plain training would take.

TAO draws learning rates uniformly from [0, 1] and 85 to 100 % of its trials diverge (D38); here numbers that span orders
of magnitude are drawn on a log scale around the settled value, inside the bounds that TAO publishes. A field that does not
act (momentum with Adam, D11; the margin of a loss that is not used) is no axis, or one only in the trials where it acts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
from unalike.training.losses import has_parameters

Get = Callable[[str], Any]


@dataclass(frozen=True)
class Rule:
    """``path`` (or what lies below it) acts where ``acts(get)`` says so, which looks at the fields ``reads``."""

    path: str
    reads: tuple[str, ...]
    acts: Callable[[Get], bool]
    reason: str


def _switch(path: str, reason: str, *below: str) -> tuple[Rule, ...]:
    return tuple(Rule(b, (path,), lambda get: bool(get(path)), reason) for b in below)


def _uses(kind: str, name: str, parameter: str) -> Callable[[Get], bool]:
    return lambda get: get(f"train.{kind}.name") == name and parameter not in (get(f"train.{kind}.parameters") or {})


def _steps_act(get: Get) -> bool:
    steps = get("train.optim.steps")
    return get("train.optim.schedule") == "step" and bool(steps) and min(steps) < get("train.num_epochs")


_STEPS = ("train.optim.schedule", "train.optim.steps", "train.num_epochs")
_LOSS, _MINER = (("train.loss.name", "train.loss.parameters"), ("train.miner.name", "train.miner.parameters"))
_TRIPLET = "TripletMarginLoss with this argument left open is not the loss"
RULES: tuple[Rule, ...] = (
    *(Rule(f"train.optim.{part}.momentum", ("train.optim.name",), lambda get: get("train.optim.name") == "SGD",
           "only SGD reads it") for part in ("trunk", "embedder")),
    *_switch("train.train_trunk", "the trunk does not learn", "train.optim.trunk", "train.frozen_stages", "train.head_epochs"),
    *_switch("train.train_embedder", "the embedder does not learn", "train.optim.embedder"),
    Rule("train.optim.gamma", _STEPS, _steps_act, "no step of the schedule lies within the epochs"),
    Rule("train.optim.steps", _STEPS[:1], lambda get: get("train.optim.schedule") == "step", "the schedule has no steps"),
    *_switch("train.optim.warmup_iters", "there is no warm-up", "train.optim.warmup_factor", "train.optim.warmup_method"),
    Rule("train.optim.triplet_loss_margin", _LOSS, _uses("loss", "TripletMarginLoss", "margin"), _TRIPLET),
    Rule("train.smooth_loss", _LOSS, _uses("loss", "TripletMarginLoss", "smooth_loss"), _TRIPLET),
    Rule("train.optim.miner_function_margin", _MINER, _uses("miner", "MultiSimilarityMiner", "epsilon"),
         "MultiSimilarityMiner with this argument left open is not the miner"),
    Rule("train.optim.loss_lr", _LOSS, lambda get: has_parameters(get("train.loss.name"), get("train.loss.parameters")),
         "the loss has no weights of its own"),
    *_switch("train.ema.enabled", "no average is kept", "train.ema.decay"),
    *_switch("dataset.gaussian_blur.enabled", "there is no blur", "dataset.gaussian_blur.kernel",
             "dataset.gaussian_blur.sigma"),
    *_switch("dataset.color_augmentation.enabled", "colours are left alone",
             *(f"dataset.color_augmentation.{n}" for n in ("brightness", "contrast", "saturation", "hue"))),
)  # fmt: skip


def _rules_of(path: str) -> Iterable[Rule]:
    return (rule for rule in RULES if path == rule.path or path.startswith(rule.path + "."))


def idle(path: str, get: Get) -> str:
    """Why a field does not act where the other fields are as ``get`` gives them, or nothing."""
    return next((rule.reason for rule in _rules_of(path) if not rule.acts(get)), "")


@dataclass(frozen=True)
class Axis:
    """One searched field: ``base`` is what plain training takes; drawn values below ``zero_below`` stand for 0."""

    path: str
    base: Any
    distribution: BaseDistribution
    zero_below: float = 0.0

    def value(self, drawn: Any) -> Any:
        """What a drawn value means in a spec."""
        if isinstance(self.distribution, CategoricalDistribution):
            return json.loads(drawn)
        if self.zero_below and drawn < self.zero_below:
            return 0.0
        return float(f"{drawn:.6g}") if isinstance(self.distribution, FloatDistribution) else drawn

    def drawn(self, value: Any) -> Any:
        """What would have to be drawn for a value of a spec, or None where it lies outside."""
        if isinstance(self.distribution, CategoricalDistribution):
            text = json.dumps(value)
            return text if text in self.distribution.choices else None
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        limits: Any = self.distribution
        if self.zero_below and value == 0:
            return math.sqrt(limits.low * self.zero_below)
        inside = limits.low <= value <= limits.high
        return type(limits.low)(value) if inside else None

    def in_words(self) -> str:
        """``0.0001 to 0.01, log`` or the choices."""
        limits: Any = self.distribution
        if isinstance(limits, CategoricalDistribution):
            return ", ".join(str(choice) for choice in limits.choices)
        zero = "0 or " if self.zero_below else ""
        low = self.zero_below or limits.low
        return f"{zero}{low:.4g} to {limits.high:.4g}{', log' if limits.log else ''}"


@dataclass(frozen=True)
class Space:
    """The axes in an order in which each finds those it depends on drawn already; what was left out, and why."""

    axes: tuple[Axis, ...]
    base: Get
    left_out: Mapping[str, str] = field(default_factory=dict)

    def draw(self, suggest: Callable[[str, BaseDistribution], Any], *, own: bool = False) -> dict[str, Any]:
        """Values by dotted path of the axes that act, each drawn by ``suggest(name, distribution)``.

        ``own``: the user's spec; only values that the axes hold are told to ``suggest``, and nothing is changed.
        """
        values: dict[str, Any] = {}

        def get(path: str) -> Any:
            return values[path] if path in values else self.base(path)

        for axis in self.axes:
            if idle(axis.path, get) or _other_class(axis.path, get, self.base):
                continue
            if own:
                if axis.drawn(axis.base) is not None:
                    suggest(axis.path, axis.distribution)
                values[axis.path] = axis.base
            else:
                values[axis.path] = axis.value(suggest(axis.path, axis.distribution))
        return {} if own else values

    def own(self) -> dict[str, Any]:
        """What has to be drawn for the user's own spec, as far as the axes hold it."""
        drawn = {axis.path: axis.drawn(axis.base) for axis in self.axes}
        return {path: value for path, value in drawn.items() if value is not None}

    def fingerprint(self) -> str:
        """Equal for searches whose trials may be compared."""
        text = json.dumps([[axis.path, str(axis.distribution), axis.zero_below] for axis in self.axes])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _other_class(path: str, get: Get, base: Get) -> bool:
    """Whether a free parameter belongs to another loss or miner than the one drawn."""
    root = path.rpartition(".")[0]
    if root not in FREE:
        return False
    name = root.replace(".parameters", ".name")
    return bool(get(name) != base(name))


def getter(experiment: Any) -> Get:
    """``get("train.optim.name")`` of a spec, free parameters of loss and miner included; None for what is not there."""

    def get(path: str) -> Any:
        value = experiment
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
        return value

    return get


def build_space(automl: Any, base: Any) -> Space:
    """The space of a search over ``base``, a settled spec. Raises SpecError where nothing is left to search."""
    get = getter(base)
    ranges = {path: read_range(path, value) for path, value in flat_ranges(automl.ranges)}
    named = list(dict.fromkeys([*(automl.parameters or usual_parameters(get)), *ranges]))
    left_out: dict[str, str] = {}
    axes = []
    for path in named:
        rules = [rule for rule in _rules_of(path) if not rule.acts(get)]
        if rules and not any(read in named for rule in rules for read in rule.reads):
            left_out[path] = rules[0].reason
            continue
        axes.append(_axis(path, get, ranges.get(path), automl.max_epochs))
    if not axes:
        raise SpecError("nothing is left to search", expected="a field that acts in this training",
                        remedy="; ".join(f"{path}: {why}" for path, why in left_out.items()))  # fmt: skip
    read = {r for rule in RULES for r in rule.reads}
    axes.sort(key=lambda axis: (axis.path not in read, any(True for _ in _rules_of(axis.path))))
    return Space(tuple(axes), get, left_out)


def usual_parameters(get: Get) -> list[str]:
    """TAO's fifteen, and what takes their place where another loss or miner is used: its numbers and its own rate."""
    names = [path for path, declared in declared_fields().items() if declared.facts.get("automl_enabled") is True]
    if not idle("train.optim.loss_lr", get):
        names.append("train.optim.loss_lr")
    for root in FREE:
        numbers = (
            name for name, v in (get(root) or {}).items() if isinstance(v, float | int) and v > 0 and v is not True
        )
        names += [f"{root}.{name}" for name in numbers]
    return names


# ---- scales ----


def _axis(path: str, get: Get, wanted: Range | None, max_epochs: int | None) -> Axis:
    base = get(path)
    if base is None and path == "train.optim.loss_lr":
        base = get("train.optim.embedder.base_lr")
    if wanted is not None and wanted.values is not None:
        return Axis(path, base, _choice(wanted.values))
    if wanted is None and (few := _few(path, base)) is not None:
        return Axis(path, base, _choice(few))
    kind = numeric(path)
    if kind is None or (base is None and wanted is None) or isinstance(base, bool | str | list | dict):
        raise SpecError(f"automl: {path} is to be searched, and what it may become is not known",
                        remedy=f"give it values: automl.ranges: {{{path}: [a, b, c]}}")  # fmt: skip
    low, high, log, zero = _scale(path, base, get)
    if wanted is not None:
        low = wanted.low if wanted.low is not None else low
        high = wanted.high if wanted.high is not None else high
        zero, log = False, log if wanted.log is None else wanted.log
    if path == "train.num_epochs" and max_epochs:
        high = min(high, max_epochs)
    low, high, log = _within(path, low, high, log, asked=wanted)
    if kind is int and not free_parameter(path):
        step = int(wanted.step) if wanted and wanted.step else 1
        whole = IntDistribution(math.ceil(low), math.floor(high), log=log and low >= 1 and step == 1, step=step)
        return Axis(path, base, whole)
    if wanted is not None and wanted.step:
        return Axis(path, base, FloatDistribution(low, high, step=wanted.step))
    if zero:  # one tenth of the scale, below its low end, stands for 0
        notch = low / (high / low) ** 0.1
        return Axis(path, base, FloatDistribution(notch, high, log=True), zero_below=low)
    return Axis(path, base, FloatDistribution(low, high, log=log))


def _choice(values: Iterable[Any]) -> CategoricalDistribution:
    return CategoricalDistribution(tuple(dict.fromkeys(json.dumps(value) for value in values)))


def _few(path: str, base: Any) -> tuple[Any, ...] | None:
    """The values of fields that are best chosen from a few: words, switches, sizes in powers of two, image sides."""
    words = choices(path)
    if words is not None:
        return words
    name = path.rpartition(".")[2]
    if name in ("batch_size", "feat_dim", "num_instance") and base:
        least = {"batch_size": 4, "feat_dim": 8, "num_instance": 1}[name]
        return tuple(sorted({base, *(int(base * f) for f in (0.25, 0.5, 2, 4) if base * f >= least)}))
    if name in ("input_height", "input_width", "train_height", "train_width") and base:
        return tuple(sorted({base, *(max(32, round(base * f / 32) * 32) for f in (0.75, 1.25))}))
    return None


def _scale(path: str, base: Any, get: Get) -> tuple[float, float, bool, bool]:
    """(low, high, log, whether 0 is drawn too) of a number by the field's name and its present value."""
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


def _within(path: str, low: float, high: float, log: bool, *, asked: Range | None) -> tuple[float, float, bool]:
    """Ends inside the published bounds; rates that a user lets begin at 0 are drawn on a log scale all the same."""
    least, most, low_open, high_open = search_bounds(path)
    low, high = max(low, least), min(high, most)
    if high_open and high == most:
        high -= (high - low) / 1000
    if low_open and low <= least:
        low = high * 1e-4 if log or least == 0 and asked is not None else least + (high - least) / 1000
    if log and low <= 0:
        low = high * 1e-4
    if asked is not None and asked.log is None and numeric(path) is float:
        log = low > 0 and high / low >= 10
    if low > high:
        raise SpecError(f"automl.ranges.{path} holds nothing that may be searched",
                        expected=f"values from {least:g} to {most:g}")  # fmt: skip
    return low, high, log
