"""Faults of a spec: one line for each, with close spellings, all in one error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, NamedTuple

from pydantic import ValidationError

from unalike.errors import SpecError, closest
from unalike.spec.fields import declared_fields, expectation
from unalike.spec.reading import format_value


class Fault(NamedTuple):
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


# Faults that are listed, and of which close spellings are looked for: a file may hold 100,000 keys.
MAX_FAULTS = 50
# Characters of a key that are shown; longer ones are no misspelt fields.
_MAX_KEY = 100
_INDEX = re.compile(r" at index \d+(?=, expected)")
# Names of other libraries -> the word by which fields here are named.
_OTHER_NAMES = {"learning_rate": "lr", "wd": "decay", "bs": "batch"}


def similar_fields(name: str) -> list[str]:
    """Fields with a name, or with it as a word of theirs, the likeliest first; empty where there is none.

    Args:
        name: One word, such as ``epochs`` or ``learning_rate``.
    """
    word = _OTHER_NAMES.get(name, name)
    names = {path: path.rpartition(".")[2] for path, node in declared_fields().items() if node.section is None}
    near = [path for path, last in names.items() if last == name or word in last.split("_")]

    def rank(path: str) -> tuple[bool, bool, int]:
        is_exact = names[path] == name
        return path.partition(".")[0] not in ("train", "model", "dataset"), not is_exact, path.count(".")

    return sorted(near, key=rank)


def suggestion(path: str) -> str:
    """A suggestion for an unknown dotted path.

    It is a sibling, a field of that name in another section, a field below the same section with that word in its name
    (``train.optim.lr``: ``train.optim.trunk.base_lr``), or a similar path.
    """
    table = declared_fields()
    parent, _, name = path.rpartition(".")
    siblings = [p.rpartition(".")[2] for p in table if p.rpartition(".")[0] == parent]
    near = closest(name, siblings)
    if near:
        return near
    if not parent and (fields := similar_fields(name)):
        return f"did you mean {' or '.join(map(repr, fields[:3]))}?"
    elsewhere = [p for p in table if p.rpartition(".")[2] == name] or [p for p in table if p.endswith("." + path)]
    word = _OTHER_NAMES.get(name, name)
    below = [p for p in table if p.startswith(f"{parent}.") and word in p.rpartition(".")[2].split("_")]
    suggestions = elsewhere or sorted(below, key=lambda p: not p.endswith(f"_{word}"))
    if suggestions:
        return f"did you mean {' or '.join(repr(p) for p in suggestions[:3])}?"
    return closest(path, table)


def _known(parent: str) -> str:
    names = [p.rpartition(".")[2] for p in declared_fields() if p.rpartition(".")[0] == parent]
    return f"known here: {', '.join(names)}" if 0 < len(names) <= 12 else ""


def unknown_key(path: str) -> Fault:
    """The fault of a key that is not declared, with a suggestion."""
    if len(path) > _MAX_KEY:
        return Fault(f"{path[:_MAX_KEY]}...", f"unknown key of {len(path)} characters")
    hint = suggestion(path) or _known(path.rpartition(".")[0])
    return Fault(path, "unknown key" + (f"; {hint}" if hint else ""))


def _from_pydantic(error: Any, *, suggest: bool) -> tuple[Fault, tuple[Any, ...]]:
    """The fault of a validation error, and the location to remove so that the other fields can be checked."""
    loc = tuple(error["loc"])
    names = []
    for part in loc:
        if not isinstance(part, str):
            break
        names.append(part)
    path = ".".join(names)
    if error["type"] == "extra_forbidden":
        if "." in str(loc[-1]) and path in declared_fields():
            return Fault(path, "a dotted key inside a spec; nest it there, or give it as an override"), loc
        return unknown_key(path) if suggest else Fault(path, "unknown key"), loc
    node = declared_fields().get(path)
    expectation_text = expectation(node) if node else str(error["msg"])
    index = f" at index {loc[len(names)]}" if len(loc) > len(names) and isinstance(loc[len(names)], int) else ""
    text = f"found {format_value(error['input'])}{index}, expected {expectation_text}"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        near = closest(error["input"], expectation_text.removeprefix("one of ").removesuffix(" or null").split(", "))
        text += f"; {near}" if near else ""
    if error["type"] in ("float_type", "int_type") and isinstance(error["input"], str) and _is_number(error["input"]):
        text += "; write it without quotes"
    return Fault(path, text + _quotes_hint(error)), tuple(names)


def _quotes_hint(error: Any) -> str:
    """What to do where YAML made another value of a text without quotes: a truth value, a number, a date."""
    if error["type"] not in ("string_type", "literal_error", "none_required"):
        return ""
    value = error["input"]
    if isinstance(value, bool):
        word = "yes, on and true" if value else "no, off and false"
        return f"; YAML reads {word} as {str(value).lower()}: put a name in quotes"
    if isinstance(value, int | float | date):
        return f"; YAML reads it as a {'date' if isinstance(value, date) else 'number'}: put a name in quotes"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def faults_of(error: ValidationError) -> tuple[list[Fault], list[tuple[Any, ...]]]:
    """The faults of a failed validation, and the locations that are invalid."""
    errors = error.errors(include_url=False)
    pairs = [_from_pydantic(e, suggest=number < MAX_FAULTS) for number, e in enumerate(errors)]
    unique: dict[tuple[str, str], Fault] = {}
    for fault, _ in pairs:
        key = (fault.path, _INDEX.sub("", fault.text))  # one value may stand for several items: 320 for both sides
        unique[key] = Fault(*key) if key in unique else fault
    return list(unique.values()), [loc for _, loc in pairs]


def spec_error(source: str, faults: Sequence[Fault] | Iterable[Fault]) -> SpecError:
    """One error for all faults, of which the first ``MAX_FAULTS`` are listed.

    Args:
        source: Name of the file, or empty.
        faults: The faults.
    """
    faults = list(dict.fromkeys(faults))
    lead = f"{source}: " if source else ""
    if len(faults) == 1:
        return SpecError(f"{lead}{faults[0]}")
    more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    return SpecError(f"{lead}{len(faults)} faults", details=[*map(str, faults[:MAX_FAULTS]), *more])
