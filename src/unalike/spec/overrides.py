"""Apply dotted overrides (``a.b=c``, pairs or a dict) to the tree of a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unalike.spec.faults import Fault
from unalike.spec.fields import declared_fields
from unalike.spec.reading import format_value, parse_yaml, plain
from unalike.spec.shorthand import long_name

# ``a.b=c`` with YAML values, or pairs of a dotted name and a value; or a mapping of such pairs.
Overrides = Sequence[str | tuple[str, Any]] | Mapping[str, Any]


def _text_value(path: str, text: str) -> Any:
    """The YAML value of an override, or the text itself where the field holds text (``results_dir=2024``)."""
    node = declared_fields().get(path)
    is_text = node is not None and node.kind is str
    # A file may have such a name: YAML would take what follows "#" for a comment, and "&name" for an anchor of nothing.
    if is_text and ("#" in text or text.lstrip().startswith("&")) and text.lstrip()[:1] not in ("'", '"'):
        return text.strip()
    try:
        value = parse_yaml(text)
    except ValueError:
        if is_text:
            return text
        raise
    return text if is_text and not isinstance(value, str | None) else value


def _split(override: object) -> tuple[str, str]:
    if not isinstance(override, str) or "=" not in override:
        raise ValueError(f"found {format_value(override)}, expected key=value such as train.num_epochs=20")
    key, _, text = override.partition("=")
    key = key.strip()
    if not key or any(not part for part in key.split(".")):
        raise ValueError(f"found {format_value(override)}, expected a dotted key before the =")
    return key, text


def _pairs(overrides: Overrides, action: str) -> tuple[list[tuple[str, Any, str]], list[Fault]]:
    """(long path, value, key as the user wrote it) of every override, and the faults of those that cannot be read."""
    faults: list[Fault] = []
    pairs: list[tuple[str, Any, str]] = []
    if isinstance(overrides, Mapping):
        overrides = list(overrides.items())
    for override in [overrides] if isinstance(overrides, str) else overrides:
        try:
            pairs.append(_from_pair(override, action) if isinstance(override, tuple) else _from_text(override, action))
        except _Unreadable as error:
            faults.append(error.fault)
    return pairs, faults


class _Unreadable(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


def _from_pair(override: tuple[Any, ...], action: str) -> tuple[str, Any, str]:
    key, value = override
    if not (isinstance(key, str) and key and all(key.split("."))):
        raise _Unreadable(Fault("", f"override key {format_value(key)}, expected a dotted name"))
    return long_name(key, action), plain(value), key


def _from_text(override: object, action: str) -> tuple[str, Any, str]:
    try:
        key, text = _split(override)
    except ValueError as error:
        raise _Unreadable(Fault("", f"override: {error}")) from error
    path = long_name(key, action)
    try:
        return path, plain(_text_value(path, text)), key
    except ValueError as error:
        raise _Unreadable(Fault(key, f"found {format_value(text)}, which is not a YAML value: {error}")) from error


def _leaf_paths(path: str, value: Any) -> list[str]:
    """The dotted leaves that an override sets; a mapping for a section sets several."""
    node = declared_fields().get(path)
    if node is not None and node.section and isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in _leaf_paths(f"{path}.{key}", item)]
    return [path]


def apply_overrides(
    tree: dict[Any, Any], overrides: Overrides, action: str, leaves: list[str] | None = None
) -> list[Fault]:
    """Write overrides into the tree of a spec; a later one replaces an earlier one.

    Args:
        tree: The spec as nested dicts, which is changed.
        overrides: The overrides.
        action: The action, which decides the meaning of some short names.
        leaves: Receives the dotted paths of the leaves that the overrides set.

    Returns:
        The faults: overrides that cannot be read, and fields set by two different spellings.
    """
    pairs, faults = _pairs(overrides, action)
    spelling: dict[str, str] = {}
    for path, value, key in pairs:
        for leaf in _leaf_paths(path, value):
            full = key if key != path else leaf
            if leaves is not None:
                leaves.append(leaf)
            other = spelling.setdefault(leaf, full)
            if other != full:
                faults.append(Fault(leaf, f"given twice, as {other} and as {full}; keep one of the two"))
        faults += _write(tree, path, value)
    return faults


def _write(tree: dict[Any, Any], path: str, value: Any) -> list[Fault]:
    *parents, name = path.split(".")
    parent, table = tree, declared_fields()
    for depth, part in enumerate(parents, 1):
        inner = parent.get(part)
        if inner is None or inner in ("???", "<required>"):
            inner = parent[part] = {}
        if not isinstance(inner, dict):
            at = ".".join(parents[:depth])
            return [Fault(path, f"{at} is {format_value(inner)}, not a section")]
        parent = inner
    node = table.get(path)
    if node is not None and node.section and isinstance(value, dict):
        return [fault for key, item in value.items() for fault in _write_item(tree, path, key, item)]
    parent[name] = value
    return []


def _write_item(tree: dict[Any, Any], path: str, key: Any, item: Any) -> list[Fault]:
    if not isinstance(key, str) or not key or "." in key:
        return [Fault(path, f"a key is {format_value(key)}, expected a name")]
    return _write(tree, f"{path}.{key}", item)
