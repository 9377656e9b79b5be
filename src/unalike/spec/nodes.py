"""A node of the spec as it was declared: path, help, type, bounds; and the mandatory fields of a section that are unset."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from unalike.errors import SpecError
from unalike.spec.actions import command_of
from unalike.spec.declare import Section


class SpecNode(NamedTuple):
    """A node of the spec: a section or a leaf.

    Attributes:
        path: Dotted path.
        info: The declaration.
        help: What the node is, in one or two sentences.
        section: Class of a node that has fields of its own, else None.
        kind: Type of a leaf, without null.
        nullable: Whether it may be null.
        metadata: Bounds of a leaf, as annotated_types has them.
    """

    path: str
    info: FieldInfo
    help: str
    section: type[Section] | None
    kind: Any
    nullable: bool
    metadata: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def facts(self) -> dict[str, Any]:
        """What else was declared of it (units, settled, ...)."""
        extra = self.info.json_schema_extra
        return extra if isinstance(extra, dict) else {}


def _unwrap(annotation: Any) -> tuple[Any, bool, tuple[Any, ...]]:
    """The type without Annotated and null, whether null was there, and the metadata."""
    nullable, metadata = False, ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *inner = get_args(annotation)
            metadata = (*metadata, *inner)
        elif get_origin(annotation) in (types.UnionType, Union):
            rest = [a for a in get_args(annotation) if a is not type(None)]
            nullable = nullable or len(rest) < len(get_args(annotation))
            annotation = rest[0]
        else:
            return annotation, nullable, metadata


def walk(cls: type[Section], prefix: str = "") -> Iterator[SpecNode]:
    """Every node below a section, parents before children; the paths begin with ``prefix``."""
    for name, info in cls.model_fields.items():
        kind, nullable, metadata = _unwrap(info.annotation)
        inner = kind if isinstance(kind, type) and issubclass(kind, Section) else None
        yield SpecNode(prefix + name, info, info.description or "", inner, kind, nullable, (*metadata, *info.metadata))
        if inner:
            yield from walk(inner, f"{prefix}{name}.")


class FieldsNotSet(SpecError):
    """Mandatory fields of an action's section that are not set."""


def check_mandatory(action: str, section: Section) -> None:
    """Raise SpecError that names every mandatory field of an action's section that is not set."""
    missing = [
        node.path for node in walk(type(section), f"{action}.")
        if node.facts.get("mandatory") and getattr(section, node.name) in (None, [])
    ]  # fmt: skip
    if missing:
        raise FieldsNotSet(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
                           remedy=f"see unalike {command_of(action)} --help")  # fmt: skip
