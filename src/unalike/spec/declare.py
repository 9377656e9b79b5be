"""Declare an option: default, bounds, choices, units, help and TAO facts, in one `field(...)`.

A field's validity (``ge``, ``gt``, ``le``, ``lt``) is what pydantic enforces. ``low`` and ``high`` are the bounds that TAO
publishes: they limit a search, not a user, and are minimum and maximum in the JSON schema; where the two differ the schema's
description states what is accepted. All other facts go into the schema under the names that TAO gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

from annotated_types import Ge, MaxLen, MinLen
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

# What a network may run in, and in which number format; ``auto`` is chosen by measurement.
Runtime = Literal["auto", "torch", "onnxruntime", "openvino", "tensorrt"]
EnginePrecision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
# Names for the stages of a trunk whose feature maps are used; ``model.feature_maps`` defines them for each trunk.
STAGES = ("auto", "middle")


class Section(BaseModel):
    """A node of the spec: unknown keys refused, no silent conversions except whole number to decimal number."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        validate_assignment=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


def _empty_is_null(value: object) -> object:
    return None if value == "" else value


# What an input takes: fact ``takes`` of its field.
IMAGES = "folder, archive, manifest or address of images"
IMAGES_OR_FILE = f"{IMAGES}; or a file"
IMAGE_OR_FOLDER = "image or folder of images"
MODEL = "file or address"
FILE = "file"


# TAO writes "" for an unset value; here that is None.
Text = Annotated[str | None, BeforeValidator(_empty_is_null)]


def _class_name(value: object) -> object:
    """An empty text is refused: it would count as unset, which means something else than a class without a name."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("an empty class name")
    return value


# Name of a class; None where there is none. Which characters it may have is checked where it is used (``data.class_names``).
CLASS_FORM = "the name of a class"
ClassName = Annotated[str | None, BeforeValidator(_class_name)]


def _in_capitals(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _as_list(value: object) -> object:
    return None if value == "" else [value] if isinstance(value, str) else value


def _pairs(value: object) -> object:
    """A mapping of names to a text or a whole number, or to several, as ``name=value`` each; others stay, to be refused."""
    if not isinstance(value, Mapping):
        return _as_list(value)
    several = {name: each if isinstance(each, list) else [each] for name, each in value.items()}
    pairs: list[object] = []
    for name, each in several.items():
        for one in each or [each]:
            is_text = isinstance(name, str) and isinstance(one, str | int) and not isinstance(one, bool)
            pairs.append(f"{name}={one}" if is_text else one)
    return pairs


def _separated(value: object) -> object:
    """``a,b`` or one number as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _separated_numbers(value: object) -> object:
    parts = _separated(value)
    return [_number(part) for part in parts] if isinstance(parts, list) else parts


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _decimals(value: object) -> object:
    parts = _separated(value)
    return [_decimal(part) for part in parts] if isinstance(parts, list) else parts


def _decimal(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _sides(value: object) -> object:
    """``320`` or ``320x256`` as [height, width]."""
    if isinstance(value, str):
        parts = [_number(side.strip()) for side in value.lower().split("x")]
        if not all(isinstance(part, int) for part in parts):
            return value  # the error then names what was written
        value = parts
    sides = value if isinstance(value, list) else [value]
    return [*sides, *sides] if len(sides) == 1 else sides


def _boxes(value: object) -> object:
    """``left,top,right,bottom``, several separated by semicolons, as a list of lists."""
    if isinstance(value, str):
        value = [part for part in value.split(";") if part.strip()]
    if isinstance(value, list) and len(value) == 4 and all(isinstance(number, int) for number in value):
        value = [value]
    return [_separated_numbers(box) for box in value] if isinstance(value, list) else value


def _stages(value: object) -> object:
    return value if value in STAGES else _separated_numbers(value)


# Several names, or several numbers, that a command line gives as ``a,b``.
Names = Annotated[list[str], BeforeValidator(_separated)]
Numbers = Annotated[list[Annotated[int, Ge(1)]], BeforeValidator(_separated_numbers), MinLen(1)]
# CPU cores by number, also as ``2,3``.
Cores = Annotated[list[Annotated[int, Ge(0)]], BeforeValidator(_separated_numbers), MinLen(1)]
# Height and width in pixels, also as ``320`` or ``320x256``.
Size = Annotated[list[Annotated[int, Ge(1)]], BeforeValidator(_sides), MinLen(2), MaxLen(2)]
# Boxes in pixels, also as ``left,top,right,bottom;left,top,right,bottom``.
Boxes = Annotated[list[Annotated[list[Annotated[int, Ge(0)]], MinLen(4), MaxLen(4)]], BeforeValidator(_boxes)]
BOXES_FORM = "left,top,right,bottom in pixels; several separated by semicolons"
# One box in pixels, also as ``x,y,width,height``, as regions of images are named.
RegionBox = Annotated[list[Annotated[int, Ge(0)]], BeforeValidator(_separated_numbers), MinLen(4), MaxLen(4)]
REGION_BOX_FORM = "x,y,width,height in pixels, of its left upper corner and its size"
# Feature maps by stride or name, also as ``8,16``; or one of STAGES.
Stages = Annotated[str | list[int | str], BeforeValidator(_stages)]
# A color: a name or #rrggbb.
GROUND_FORM = "white, black, gray or #rrggbb"
Ground = Annotated[str, StringConstraints(pattern=r"^(white|black|gray|#[0-9a-fA-F]{6})$")]
# The lowest and the highest value, also as ``0,4095``.
ValueRange = Annotated[list[float], BeforeValidator(_decimals), MinLen(2), MaxLen(2)]
RANGE_FORM = "the lowest and the highest value, such as 0,4095"
# A number format, a Literal in capitals, that TAO's examples also write in small letters (``fp32``, ``int8``).
Capitals = BeforeValidator(_in_capitals)
# One folder where TAO's examples write a text and its table a list.
Paths = Annotated[list[str] | None, BeforeValidator(_as_list)]

# Names with values, as ``name=value`` each, or a mapping of names to values.
Pairs = Annotated[list[str] | None, BeforeValidator(_pairs)]


def spelt_both_ways(*names: str) -> dict[str, Any]:
    """Schema keywords of a number format: in capitals, as TAO's examples have it, and in any mixture (``Fp16``)."""
    mixtures = ("".join(letters) for name in names for letters in product(*((c.upper(), c.lower()) for c in name)))
    return {"enum": list(dict.fromkeys([*names, *(name.lower() for name in names), *mixtures]))}


_FACTS = (
    "units",
    "form",
    "takes",
    "settled",
    "ours",
    "mandatory",
    "trunk_fact",
    "math_cond",
    "automl_enabled",
    "depends_on",
    "parent_param",
)


def _limits(valid: dict[str, Any], low: float | None, high: float | None) -> dict[str, Any]:
    """TAO's bounds as schema keywords, unless the bound of validity is the same number.

    They describe what a search takes, and a spec may exceed them: one of two alternatives, the other of which admits any value.
    """
    bounds: dict[str, Any] = {}
    if low is not None and valid.get("gt") != low and valid.get("ge") != low:
        bounds["minimum"] = low
    if high is not None and valid.get("le") != high:
        bounds["maximum"] = high
    return {"allOf": [{"anyOf": [bounds, {}]}]} if bounds else {}


def schema_bounds(facts: dict[str, Any]) -> dict[str, float]:
    """TAO's ``minimum`` and ``maximum`` in the facts of a field, where they are not bounds of validity."""
    bounds: dict[str, float] = facts["allOf"][0]["anyOf"][0] if "allOf" in facts else {}
    return bounds


def _accepted(valid: dict[str, Any], low: float | None, high: float | None) -> str:
    """A sentence for a field whose valid values exceed the range that is searched; else empty."""
    floor = valid["ge"] if valid["ge"] is not None else valid["gt"]
    ceiling = valid["le"] if valid["le"] is not None else valid["lt"]
    below, above = low is not None and floor != low, high is not None and ceiling != high
    if not (below or above):
        return ""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = " and ".join(f"{sign} {valid[key]}" for key, sign in signs.items() if valid.get(key) is not None)
    return f" A schema shows TAO's bounds, which a search keeps; a spec may hold any value {bounds or 'at all'}."


def field(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    low: float | None = None,
    high: float | None = None,
    min_length: int | None = None,
    popular: bool | list[str] = False,
    schema: dict[str, Any] | None = None,
    **facts: Any,
) -> Any:
    """Declare a field.

    Args:
        default: The default.
        help: What the field is, in one or two sentences.
        ge, gt, le, lt: Bounds of valid values.
        low, high: TAO's published bounds, which limit a search.
        min_length: Smallest length of a text or a list.
        popular: Whether users often set it; of a section, the names of such fields in it.
        schema: Keywords of the JSON schema that replace those of the type.
        **facts: ``units``; ``form``, the accepted values, where the type does not describe them completely; ``takes``, the
            kind of an input (IMAGES, MODEL, ...); ``settled``, data, trunk or machine may set it when the user did not;
            ``trunk_fact``, a value of the user that differs from the trunk's is reported; ``ours``, not in TAO;
            ``mandatory``, the action cannot run while it is unset; ``math_cond``, ``automl_enabled``, ``depends_on`` and
            ``parent_param``, which TAO's schemas contain.

    Raises:
        TypeError: A fact is unknown.
    """
    unknown = set(facts) - set(_FACTS)
    if unknown:
        raise TypeError(f"unknown facts {sorted(unknown)}")
    valid = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    extra = {name: value for name, value in facts.items() if value not in (None, False)}
    if facts.get("automl_enabled") is False:
        extra["automl_enabled"] = False
    extra |= _limits(valid, low, high) | (schema or {})
    if popular:
        extra["popular"] = popular
    text = help + _accepted(valid, low, high)
    constraints: dict[str, Any] = {
        key: value for key, value in (valid | {"min_length": min_length}).items() if value is not None
    }
    return Field(default=default, description=text, json_schema_extra=extra, **constraints)


def section(cls: type[Section], help: str, *, settled: bool = False, ours: bool = False, popular: Any = False) -> Any:
    """Declare a nested section, in which all fields have defaults.

    Args:
        cls: Class of the section.
        help: What the section is about.
        settled: Whether data, trunk or machine may set it when the user did not.
        ours: Whether TAO does not have it.
        popular: Names of fields in it that users often set.
    """
    extra: dict[str, Any] = {"automl_enabled": False}
    extra |= {name: value for name, value in (("settled", settled), ("ours", ours), ("popular", popular)) if value}
    return Field(default_factory=cls, description=help, json_schema_extra=extra)
