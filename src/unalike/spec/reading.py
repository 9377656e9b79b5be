"""YAML in: a file or an override's value to plain dicts, lists and scalars, with nothing lost on the way.

Differences from ``yaml.safe_load``, each for a reason: ``1e-4`` is a number (YAML 1.1 wants ``1.0e-4`` and would hand over a
string), a key that stands twice is an error (the first would vanish), dates stay text, ``12:30`` stays text (YAML 1.1 reads a
number of base 60, in quadratic time), and a document that is larger than ``MAX_BYTES``, nested deeper than ``MAX_DEPTH``, or
unfolds to more than ``MAX_NODES`` values through aliases and merge keys is refused, before it has taken time or memory.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from unalike.errors import SpecError
from unalike.storage.outside_files import expand_home, read_bytes, reason, shorten

MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_BYTES = 2**20
MAX_DIGITS = 1000  # of a number
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Safe loader with the differences above."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = self._depth = 0
        self._sizes: dict[int, int] = {}  # nodes below each composed node, by id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, counted; an alias counts as much as what it repeats."""
        before, is_alias = self._nodes, self.check_event(yaml.AliasEvent)
        self._depth += 1
        self._count(1)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias:
            if id(node) not in self._sizes:
                raise yaml.YAMLError("a value contains itself")
            self._count(self._sizes[id(node)])
        else:
            self._sizes[id(node)] = self._nodes - before
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace merge keys by the pairs that they stand for; what an alias repeats is counted each time."""
        own, merge_pairs = [], []
        pairs, node.value = node.value, []  # a mapping that merges itself finds nothing here
        for key_node, value_node in pairs:
            if key_node.tag != f"{_TAG}merge":
                own.append((key_node, value_node))
                continue
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in reversed(sources):  # the first of a list wins: a later pair replaces an earlier one
                if not isinstance(source, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, "a merge key needs a mapping or a list of them", key_node.start_mark
                    )
                self.flatten_mapping(source)
                self._count(len(source.value))
                merge_pairs += source.value
        node.value = merge_pairs + own

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested too deeply, more than {MAX_DEPTH} levels")
        if self._nodes > MAX_NODES:
            raise yaml.YAMLError(f"unfolds to more than {MAX_NODES} values")


# Without base 60, without octal numbers (007 is a name, and 010 is no eight to anybody), and with 1e-4. PyYAML's patterns of
# numbers read base 60 too.
_OWN_NUMBERS = {
    f"{_TAG}int": r"^(?:[-+]?0b[01_]+|[-+]?(?:0|[1-9][\d_]*)|[-+]?0x[\da-fA-F_]+)$",
    f"{_TAG}float": r"^(?:[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*)|[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (f"{_TAG}timestamp", *_OWN_NUMBERS)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _OWN_NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern, re.ASCII), list("-+0123456789."))


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == f"{_TAG}merge":
            continue  # `<<: *other` may be overridden by the keys beside it: that is what it is for
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or mapping", key_node.start_mark)
        if key in keys:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is repeated", key_node.start_mark)
        keys.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """A number that an explicit tag may have made of any text."""
    if ":" in node.value or len(node.value) > MAX_DIGITS:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(node.value)} characters or of base 60", node.start_mark
        )
    kind = node.tag.removeprefix(_TAG)
    return loader.construct_yaml_int(node) if kind == "int" else loader.construct_yaml_float(node)


_Loader.add_constructor(f"{_TAG}map", _mapping)
_Loader.add_constructor(f"{_TAG}int", _number)
_Loader.add_constructor(f"{_TAG}float", _number)


def parse_yaml(text: str) -> Any:
    """Parse a YAML text. Raises ValueError with the reason and the position in one line."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"{len(text) / 2**20:.1f} MiB, expected at most {MAX_BYTES // 2**20}")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{shorten(what)}{where}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except MemoryError:
        raise
    except Exception as error:  # `!!bool x`, `!!timestamp x`, `!!int 1:x`: PyYAML trusts the tag
        raise ValueError(f"a value does not fit its !! tag, or has too many digits ({reason(error)})") from error


def yaml_line(value: Any) -> str:
    """A value as YAML on one line, as an override ``a.b=VALUE`` takes it."""
    if isinstance(value, str):
        # A JSON string is a YAML string; but PyYAML does not join the pairs of \\u escapes that JSON has beyond U+FFFF.
        text = json.dumps(value, ensure_ascii=False)
        return re.sub("[\x7f-\uffff]", lambda letter: f"\\u{ord(letter[0]):04x}", text)
    return yaml.safe_dump(value, default_flow_style=True, width=2**31, allow_unicode=True).removesuffix("...\n").strip()


def read_file(path: str | PurePath) -> dict[Any, Any]:
    """The mapping in a YAML file. Raises SpecError when there is no such file, or it holds none."""
    file = expand_home(path)
    if file.is_dir():
        raise SpecError(f"{file} is a folder", expected="a YAML file", remedy="give a folder of images without -e")
    if not os.path.lexists(file):
        raise SpecError(f"no spec file {file}", remedy=_nearby(file))
    try:
        text = read_bytes(file, MAX_BYTES, error=SpecError).decode("utf-8-sig")
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
        kind = "a text" if isinstance(content, str) else f"a {type(content).__name__}"
        raise SpecError(f"{file} holds {kind}", expected="a YAML mapping of options at the top")
    return content


def _nearby(file: Path) -> str:
    try:
        others = sorted(p.name for p in file.parent.iterdir() if p.suffix in (".yaml", ".yml"))
    except OSError:
        return f"there is no folder {file.parent} either"
    return f"files beside it: {', '.join(others[:5])}" if others else ""


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


def format_value(value: Any, limit: int = 60) -> str:
    """Format a value for a message: short, on one line, as YAML writes it."""
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
