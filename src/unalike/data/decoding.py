"""Decoding rule: how pixel formats other than 8-bit RGB become 8-bit RGB; versioned, kept with every model.

Version 1 (files written before the rule was kept with them): transparency over white; 16-bit colors cut to their high byte,
16-bit gray by the full range, floating point and 32-bit integers by a range chosen for each image; color profiles ignored.
Version 2: transparency over one ground, and more than 8 bits by one range, both chosen once for a set of images
(``data.decoding_fit``); color profiles converted to sRGB.

8-bit RGB without transparency and with an sRGB profile or none is the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unalike.errors import SpecError, closest
from unalike.installation import upgrade_command

if TYPE_CHECKING:
    from unalike.spec.dataset import Decoding as DecodingSection

VERSION = 2
Color = tuple[int, int, int]
GROUNDS: dict[str, Color] = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
GRAY = GROUNDS["gray"]


@dataclass(frozen=True)
class Decoding:
    """How image files become 8-bit RGB.

    Attributes:
        version: 1 or 2, see above.
        ground: The color (0 to 255 each) that shows through transparent pixels. None: not chosen, as no image of the set
            is transparent; mid-gray then.
        range: (low, high), the values that become 0 and 255 in images of more than 8 bits a channel. None: not chosen, as
            no image of the set has more; the range of the number format then.

    Raises:
        SpecError: A version, color or range that does not exist.
    """

    version: int = VERSION
    ground: Color | None = None
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.version not in (1, VERSION):
            raise SpecError(f"decoding version {self.version!r}", expected=f"1 or {VERSION}",
                            remedy=f"a newer unalike wrote it: {upgrade_command()}" if _is_later(self.version) else "")  # fmt: skip
        if self.version == 1 and (self.ground is not None or self.range is not None):
            raise SpecError("a ground or a range with decoding version 1", expected=f"decoding version {VERSION}")
        if self.ground is not None:
            object.__setattr__(self, "ground", parse_ground(self.ground))
        if self.range is not None:
            object.__setattr__(self, "range", parse_range(self.range))

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be chosen from a set of images."""
        return self.version == 1 or (self.ground is not None and self.range is not None)

    def conflict(self, other: Decoding) -> str:
        """Say how images decoded by ``other`` differ from those decoded by this rule; empty where they can be compared."""
        for name in ("version", "ground", "range"):
            own, its = getattr(self, name), getattr(other, name)
            if own != its and own is not None and its is not None:
                return f"decoding {name} {_format(own)}, not {_format(its)}"
        return ""

    def completed(self, other: Decoding) -> Decoding:
        """This rule, with what is not chosen taken from ``other`` where that is of the same version."""
        if self.version != other.version or self.version == 1:
            return self
        return replace(self, ground=self.ground or other.ground, range=self.range or other.range)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model's metadata."""
        return {
            "version": self.version,
            "ground": None if self.ground is None else list(self.ground),
            "range": None if self.range is None else list(self.range),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Decoding:
        """The inverse of ``to_dict``; None, as in files that do not know the rule, is version 1."""
        if values is None:
            return cls(1)
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise SpecError("a decoding that is no table of names", expected="version, ground, range")
        unknown = sorted(set(values) - {"version", "ground", "range"})
        if unknown or "version" not in values:
            raise SpecError(f"a decoding with {', '.join(sorted(values)) or 'nothing'}", expected="version, ground, range",
                            remedy=f"a newer unalike wrote it: {upgrade_command()}" if unknown else "")  # fmt: skip
        return cls(values["version"], values.get("ground"), values.get("range"))

    @classmethod
    def from_options(cls, ground: str | Sequence[int] | None, range: str | Sequence[float] | None) -> Decoding:
        """From what a user says; None leaves a value to be chosen from the images."""
        return cls(
            VERSION, None if ground is None else parse_ground(ground), None if range is None else parse_range(range)
        )

    @classmethod
    def from_section(cls, section: DecodingSection) -> Decoding:
        """From ``dataset.decoding`` of a spec."""
        if section.version == 1:
            return cls(1)
        return cls.from_options(section.ground, section.range)


def parse_ground(value: str | Sequence[int]) -> Color:
    """Read a color: white, black, gray, #rrggbb, or three values of 0 to 255. Raises SpecError."""
    if isinstance(value, str):
        name = value.strip().lower().replace("grey", "gray")
        if name in GROUNDS:
            return GROUNDS[name]
        if re.fullmatch(r"#[0-9a-f]{6}", name):
            return int(name[1:3], 16), int(name[3:5], 16), int(name[5:7], 16)
    elif (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    ):
        red, green, blue = value
        return red, green, blue
    raise SpecError(f"ground {value!r}", expected="white, black, gray or #rrggbb",
                    remedy=closest(value, GROUNDS) if isinstance(value, str) else "")  # fmt: skip


def parse_range(value: str | Sequence[float]) -> tuple[float, float]:
    """Read two values, the lower one first: ``0,4095``, or a sequence. Raises SpecError."""
    try:
        parts = [float(part) for part in (re.split(r"[,:\s]+", value.strip()) if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        parts = []
    if len(parts) != 2 or not parts[0] < parts[1] or not all(abs(part) < 1e30 for part in parts):
        raise SpecError(f"range {value!r}", expected="the lowest and the highest value, such as 0,4095")
    return parts[0], parts[1]


def format_ground(color: Color) -> str:
    """The name of a color, or #rrggbb."""
    return next((name for name, ground in GROUNDS.items() if ground == color), "#{:02x}{:02x}{:02x}".format(*color))


def format_range(value: tuple[float, float]) -> str:
    """``0 to 4095``."""
    return f"{value[0]:.10g} to {value[1]:.10g}"


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return format_ground(value) if len(value) == 3 else format_range((value[0], value[1]))
    return str(value)


def _is_later(version: Any) -> bool:
    return isinstance(version, int) and version > VERSION
