"""Options of the endpoint and the page ``compare``: their declarations, how they are read, and the comparer that follows from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from unalike.errors import ModelError, closest
from unalike.serve.problems import Problem
from unalike.serve.resources import InspectorResource
from unalike.serve.uploads import Parameters, shown
from unalike.spec.compare import Alignment, Level, Lighting, Preset

if TYPE_CHECKING:
    from unalike.comparison.comparer import Comparer

_ALIGNMENTS, _LIGHTINGS, _LEVELS, _PRESETS = (get_args(kind) for kind in (Alignment, Lighting, Level, Preset))
PIXELS = "pixels"
# What the options are called on the page and in messages; those of motion, lighting kind and level stand in selects.
TEXTS = {
    "level": "What is compared", "network": "Network of the features", "align": "Alignment", "lighting": "Lighting that does not count",
    "preset": "Kind of images", "tolerance": "Tolerated displacement of edges, in pixels", "contrast": "Smallest difference, in gray levels",
    "min_area": "Smallest area, in pixels", "margin": "Margin of a box, in pixels", "min_compared": "Least share that must be compared",
    "max_rotation": "Largest rotation, in degrees", "max_scale": "Largest enlargement or reduction",
    "max_shift": "Largest shift, as a share of the diagonal", "flexible": "Correct small deformations",
    "mirror": "Accept a mirrored copy", "any_pose": "Any rotation, scale and shift",
    "ground": "Color behind transparent pixels", "range": "Lowest and highest value of deep images",
}  # fmt: skip
_SCHEMAS: dict[str, dict[str, Any]] = {
    "level": {"type": "string", "enum": list(_LEVELS), "default": PIXELS},
    "network": {"type": "string", "description": "Name of the inspector whose network computes the features; unset, the first one."},
    "align": {"type": "string", "enum": list(_ALIGNMENTS), "default": "auto"},
    "lighting": {"type": "string", "enum": list(_LIGHTINGS), "default": "local"},
    "preset": {"type": "string", "enum": list(_PRESETS), "default": "auto"},
    "tolerance": {"type": "integer", "minimum": 0, "maximum": 32, "description": "In pixels; unset, measured in each pair."},
    "contrast": {"type": "number", "minimum": 1, "maximum": 255, "description": "In gray levels; unset, that of the kind of images."},
    "min_area": {"type": "integer", "minimum": 1, "maximum": 10**9, "description": "In pixels; unset, that of the kind of images."},
    "margin": {"type": "integer", "minimum": 0, "maximum": 10**5,
               "description": "Pixels around each box; unset, 1/64 of the shorter side."},
    "min_compared": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.95},
    "max_rotation": {"type": "number", "minimum": 0, "maximum": 180, "default": 15},
    "max_scale": {"type": "number", "minimum": 1, "maximum": 8, "default": 1.5},
    "max_shift": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.15},
    "flexible": {"type": "boolean", "default": True},
    "mirror": {"type": "boolean", "default": False},
    "any_pose": {"type": "boolean", "default": False},
    "ground": {"type": "string", "description": "Color behind transparent pixels: white, black, gray or #rrggbb."},
    "range": {"type": "string", "description": "Lowest and highest value of images of more than 8 bits, such as 0,4095."},
}  # fmt: skip
OPTIONS = {name: {"title": TEXTS[name], **schema} for name, schema in _SCHEMAS.items()}
_COMMAND_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)(?: (none|auto|both|\d+(?:\.\d+)?)\b)?")
# The words of ``ComparisonResult.not_looked_for``, as they are or as ``in_words`` gives them.
_FINER = re.compile(rf"(?:--tolerance |{re.escape(TEXTS['tolerance'])}: )(\d+)")
_FEATURE_CELL = re.compile(r"by features: changes smaller than (\d+) px")


def read_settings(parameters: Parameters) -> dict[str, Any]:
    """What the parameters of a request set of a comparer. Raises Problem."""
    margin, tolerance = parameters.integer("margin", -1, 0, 10**5), parameters.integer("tolerance", -1, 0, 32)
    contrast, min_area = parameters.number("contrast", 0.0, 1, 255), parameters.integer("min_area", 0, 1, 10**9)
    settings: dict[str, Any] = {
        "level": parameters.choice("level", _LEVELS) or PIXELS, "network": parameters.text("network", most=200),
        "align": parameters.choice("align", _ALIGNMENTS) or "auto",
        "lighting": parameters.choice("lighting", _LIGHTINGS) or "local",
        "preset": parameters.choice("preset", _PRESETS) or "auto", "tolerance": None if tolerance < 0 else tolerance,
        "contrast": contrast or None, "min_area": min_area or None, "margin": None if margin < 0 else margin,
        "min_compared": parameters.number("min_compared", 0.95, 1e-6, 1), "max_rotation": parameters.number("max_rotation", 15.0, 0, 180),
        "max_scale": parameters.number("max_scale", 1.5, 1, 8), "max_shift": parameters.number("max_shift", 0.15, 0, 1),
        "flexible": parameters.boolean("flexible", True), "mirror": parameters.boolean("mirror"),
        "any_pose": parameters.boolean("any_pose"), "ground": parameters.text("ground", most=40), "range": parameters.text("range", most=60),
    }  # fmt: skip
    parameters.finish()
    return settings


def choose_network(settings: Mapping[str, Any], inspectors: Mapping[str, InspectorResource]) -> str | None:
    """The inspector whose network computes the features; None where pixels alone are compared.

    Args:
        settings: as of ``read_settings``.
        inspectors: those that are served.

    Raises:
        Problem: 422, no network is loaded, none has this name, or one is named to compare pixels.
    """
    name = settings["network"]
    if settings["level"] == PIXELS:
        if name is not None:
            raise Problem(422, "invalid-value", f"the network {shown(name)} to compare pixels", expected="the level features or both",
                          remedy="name a level, or leave the network out")  # fmt: skip
        return None
    if not inspectors:
        raise Problem(422, "no-network", f"the level {settings['level']}, and no network is loaded that gives features",
                      expected="an inspector, whose network is used",
                      remedy="compare the level pixels, or fit an inspector, or start the service with one")  # fmt: skip
    if name is None:
        return next(iter(inspectors))
    if name not in inspectors:
        raise Problem(422, "invalid-value", f"no inspector {shown(name)} whose network could be used",
                      expected=f"one of {', '.join(inspectors)}", remedy=closest(name, inspectors))  # fmt: skip
    return str(name)


def make_comparer(settings: Mapping[str, Any], inspectors: Mapping[str, InspectorResource]) -> Comparer:
    """The comparer of settings.

    Args:
        settings: as of ``read_settings``, with the network that was chosen; those of earlier releases have no level.
        inspectors: those that are served.

    Raises:
        SpecError, MissingExtra: as of ``Comparer``.
        Problem: 422, the network is not loaded any more, or gives no maps that can be compared.
    """
    from unalike.comparison.comparer import Comparer

    options = dict(settings)
    name = options.pop("network", None)
    if options.get("level", PIXELS) == PIXELS:
        return Comparer(**options)
    resource = inspectors.get(name)
    if resource is None:
        raise Problem(422, "no-network", f"the inspector {shown(str(name))}, whose network was used, is no longer served",
                      expected="an inspector that is served", remedy="compare again with another network")  # fmt: skip
    try:
        return Comparer(**options, model=resource.loaded.network)
    except ModelError as error:
        raise Problem(422, "no-network", f"the network of the inspector {shown(str(name))}: {error.found}", expected=error.expected,
                      remedy="compare with the network of another inspector, or the level pixels") from error  # fmt: skip


def in_words(text: str) -> str:
    """A message of a comparison in which options of the command line have their names of the page: ``--align none``, "Alignment: none"."""

    def name_of(match: re.Match[str]) -> str:
        option, value = match[1].replace("-", "_"), match[2]
        if option not in TEXTS:
            return " ".join(word for word in (option.replace("_", " "), value) if word)
        return f'"{TEXTS[option]}: {value}"' if value else f'"{TEXTS[option]}"'

    return _COMMAND_OPTION.sub(name_of, text)


def describe_left_out(result: Mapping[str, Any]) -> str:
    """Which changes a comparison does not look for, in the words of the page; empty where it looks for all.

    Args:
        result: the answer of a comparison, plain data.
    """
    text, displacement, area = result.get("not_looked_for") or "", result.get("tolerated_displacement"), result.get("smallest_area")  # fmt: skip
    parts = []
    if area is not None:
        moved = (
            f"edges that moved by {displacement} pixel{'s' if displacement > 1 else ''} or less, details that have like ones as near as that, "
            if displacement
            else ""
        )
        parts.append(f"{moved}{'and ' if moved else ''}spots of fewer than {area} pixels")
    if cell := _FEATURE_CELL.search(text):
        parts.append(f"in the features, what is smaller than {cell[1]} pixels across")
    finer = _FINER.search(text)
    return "; ".join(parts) + (
        f'. The option "{TEXTS["tolerance"]}" at {finer[1]} looks for finer changes' if finer else ""
    )
