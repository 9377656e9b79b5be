"""Records which leaves of a spec the code outside of ``unalike.spec`` reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import unalike
from unalike.spec.declare import Section
from unalike.spec.experiment import Experiment

SPEC = str(Path(unalike.__file__).parent / "spec")
# The spec's own modules, and those that look at fields to say that they are not used.
NOT_COUNTED = (
    SPEC,
    *(str(Path(unalike.__file__).parent / name / "unused_settings.py") for name in ("actions", "deploy")),
)


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path and help of every leaf."""
    for name, info in section.model_fields.items():
        inner = section_of(info.annotation)
        if inner is not None:
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, info.description or ""


def _sections(section: type[Section], prefix: str = "") -> Iterator[tuple[type[Section], str]]:
    for name, info in section.model_fields.items():
        inner = section_of(info.annotation)
        if inner is not None:
            yield inner, f"{prefix}{name}."
            yield from _sections(inner, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds; None for a leaf."""
    parts = [annotation, *getattr(annotation, "__args__", ())]
    return next((p for p in parts if isinstance(p, type) and issubclass(p, Section)), None)


# Where each section stands in the spec, the last place of one that stands in two.
PLACES = dict(_sections(Experiment))


@contextmanager
def recorded_reads() -> Iterator[set[str]]:
    """While inside, dotted paths of the leaves and sections that are read are added to the set.

    Reading by validation, by ``model_dump`` and by the spec's own modules does not count.
    """
    reads: set[str] = set()
    places: dict[int, tuple[Any, str]] = {}  # the section is kept, so that its id stays its own

    def prefix_of(section: Any) -> str:
        """Dotted path of a section and a dot; of one that is passed on by itself, where its class stands in the spec."""
        if isinstance(section, Experiment):
            return ""
        return places[id(section)][1] if id(section) in places else PLACES.get(type(section), "?.")

    def caller_counts() -> bool:
        return not sys._getframe(2).f_code.co_filename.startswith(NOT_COUNTED)

    def read(self: Any, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name.startswith("_") or name not in type(self).model_fields:
            return value
        prefix = prefix_of(self)
        if isinstance(value, Section):
            places[id(value)] = value, f"{prefix}{name}."
        if caller_counts():
            reads.add(prefix + name)
        return value

    def dump(self: Any, **options: Any) -> dict[str, Any]:
        if not isinstance(self, Experiment) and caller_counts():
            prefix = prefix_of(self)
            reads.update(prefix + path for path, _ in leaves(type(self)))
        return BaseModel.model_dump(self, **options)

    def is_set(self: Any, path: str) -> bool:
        if caller_counts():
            reads.add(path)
        return asked(self, path)

    asked = Experiment.is_set
    Section.__getattribute__ = read  # type: ignore[method-assign, assignment]
    Section.model_dump = dump  # type: ignore[method-assign, assignment]
    Experiment.is_set = is_set  # type: ignore[method-assign]
    try:
        yield reads
    finally:
        del Section.__getattribute__, Section.model_dump
        Experiment.is_set = asked  # type: ignore[method-assign]
