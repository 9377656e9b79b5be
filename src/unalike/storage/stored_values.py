"""Check that values read from a file are of the types that their dataclass declares: checksums do not keep a forger out."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def require_types(value: T, name: str) -> T:
    """Check the fields of a dataclass, and of dataclasses in them, against their declared types.

    Args:
        value: The dataclass. Whole numbers may stand for floating point, as in JSON.
        name: What it is, for the error.

    Raises:
        ValueError: A field of another type. Readers run in ``outside_files.reader_errors``, which names the file.
    """
    kind: type = type(value)
    for field_name, hint in _hints(kind).items():
        content = getattr(value, field_name)
        if not _fits(content, hint):
            raise ValueError(f"{field_name} of the {name} does not fit: a {type(content).__name__}")
        if is_dataclass(content) and not isinstance(content, type):
            require_types(content, name)
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {entry.name: hints[entry.name] for entry in fields(kind)}


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        parts = arguments[:1] * len(value) if arguments[-1] is Ellipsis and isinstance(value, tuple) else arguments
        return isinstance(value, tuple) and len(parts) == len(value) and all(map(_fits, value, parts))
    if origin in (dict, Mapping):
        key, content = arguments
        return isinstance(value, Mapping) and all(_fits(k, key) and _fits(v, content) for k, v in value.items())
    if hint is float:
        return type(value) in (int, float)
    if hint in (int, str, bool):
        return type(value) is hint
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)
