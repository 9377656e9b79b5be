"""YAML in: a file or an override's value to plain dicts, lists and scalars, with nothing lost on the way.

Differences from ``yaml.safe_load``, each for a reason: ``1e-4`` is a number (YAML 1.1 wants ``1.0e-4`` and would hand over a
string), a key that stands twice is an error (the first would vanish), dates stay text, and a document that unfolds beyond
all measure through aliases is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from unalike.errors import SpecError

MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_BYTES = 16 * 2**20


class _Loader(yaml.SafeLoader):
    """Safe loader with the differences above."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue  # `<<: *other` may be overridden by the keys beside it: that is what it is for
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or mapping", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError with one line that says what is wrong and where."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{what}{where}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (LookupError, AttributeError, TypeError) as error:  # `!!bool x`, `!!timestamp x`: PyYAML trusts the tag
        raise ValueError("a value does not fit its !! tag") from error


def yaml_line(value: Any) -> str:
    """A value as YAML on one line, as an override ``a.b=VALUE`` takes it."""
    if isinstance(value, str):
        # A JSON string is a YAML string; but PyYAML does not join the pairs of \\u escapes that JSON has beyond U+FFFF.
        text = json.dumps(value, ensure_ascii=False)
        return re.sub("[\x7f-\uffff]", lambda letter: f"\\u{ord(letter[0]):04x}", text)
    return yaml.safe_dump(value, default_flow_style=True, width=2**31, allow_unicode=True).removesuffix("...\n").strip()


def read_file(path: str | PurePath) -> dict[Any, Any]:
    """The mapping in a YAML file. Raises SpecError when there is no such file, or it holds none."""
    file = Path(path).expanduser()
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise SpecError(f"no spec file {file}", remedy=_nearby(file)) from None
    except IsADirectoryError:
        raise SpecError(f"{file} is a folder", expected="a YAML file",
                        remedy="give a folder of images without -e") from None  # fmt: skip
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"{file} cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{file} is {len(raw) // 2**20} MB", expected="a spec of a few kilobytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError(f"{file} is not text", expected="a YAML file in UTF-8") from None
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise SpecError(f"{file} is not valid YAML: {error}") from error
    if content is None:
        raise SpecError(f"{file} is empty", expected="a YAML mapping of options",
                        remedy="write a full one with: unalike default_specs train") from None  # fmt: skip
    if not isinstance(content, dict):
        raise SpecError(f"{file} holds a {type(content).__name__}", expected="a YAML mapping of options at the top")
    return content


def _nearby(file: Path) -> str:
    try:
        others = sorted(p.name for p in file.parent.iterdir() if p.suffix in (".yaml", ".yml"))
    except OSError:
        return f"there is no folder {file.parent} either"
    return f"beside it lie: {', '.join(others[:5])}" if others else ""


def plain(value: Any) -> Any:
    """A deep copy in plain dicts, lists and scalars: Path becomes text, tuples lists, numpy scalars Python numbers.

    Raises SpecError for a value that contains itself or unfolds too far.
    """
    budget = [MAX_NODES]
    return _copy(value, 0, budget)


def _copy(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise SpecError("the spec is nested too deeply or unfolds without end", expected="a plain mapping of options")
    if isinstance(value, Mapping):
        return {key: _copy(item, depth + 1, budget) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item, depth + 1, budget) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if (
        not isinstance(value, str | int | float | bool | None)
        and hasattr(value, "item")
        and not hasattr(value, "__len__")
    ):
        return value.item()
    return value


def shown(value: Any, limit: int = 60) -> str:
    """A value as a message shows it: short, on one line, in YAML's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # an int of more digits than Python prints, or a list inside itself
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
