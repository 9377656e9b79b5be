"""The declarations as a table by dotted path, and what each field expects, in words."""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from unalike.spec.actions import STANDALONE_ACTIONS
from unalike.spec.declare import Section
from unalike.spec.experiment import Experiment

# The nodes that the specs of all model actions hold besides the action's own section.
COMMON = (
    "model_name",
    "encryption_key",
    "results_dir",
    "automl_policy",
    "automl",
    "wandb",
    "train",
    "model",
    "dataset",
)


# What results_dir means in the spec of a standalone action.
ROOT_HELP = "Root of the results: the folder {action} in it, unless {action}.results_dir names the folder itself."


class Declared(NamedTuple):
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


def _walk(cls: type[Section], prefix: str) -> Iterator[Declared]:
    for name, info in cls.model_fields.items():
        kind, nullable, metadata = _unwrap(info.annotation)
        inner = kind if isinstance(kind, type) and issubclass(kind, Section) else None
        yield Declared(prefix + name, info, info.description or "", inner, kind, nullable, (*metadata, *info.metadata))
        if inner:
            yield from _walk(inner, f"{prefix}{name}.")


@cache
def declared_fields() -> dict[str, Declared]:
    """Every node of the spec by its dotted path, parents before children."""
    return {d.path: d for d in _walk(Experiment, "")}


def top_level(action: str) -> tuple[str, ...]:
    """The nodes at the top of an action's schema and template: the common ones and the action's own section."""
    return ("results_dir", action) if action in STANDALONE_ACTIONS else (*COMMON, action)


def fields_of(action: str) -> dict[str, Declared]:
    """The nodes that the schema and template of an action hold, by dotted path."""
    tops = top_level(action)
    nodes = {path: d for path, d in declared_fields().items() if path.split(".")[0] in tops}
    if action in STANDALONE_ACTIONS:
        root = nodes["results_dir"]
        nodes["results_dir"] = root._replace(help=ROOT_HELP.format(action=action))
    return nodes


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _bounds(metadata: Any) -> str:
    found = ((sign, getattr(m, key, None)) for m in metadata for key, sign in _SIGNS.items())
    return " and ".join(f"{sign} {bound}" for sign, bound in found if bound is not None)


def _kind_in_words(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *metadata = get_args(kind)
        return f"{_kind_in_words(inner)} {_bounds(metadata)}".strip()
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in get_args(kind))
    if origin is list:
        item = _kind_in_words(get_args(kind)[0]).removeprefix("a ")
        return f"a list of {item.replace('number', 'numbers').replace('text', 'texts')}"
    return _NAMES.get(origin or kind, "a value")


def expectation(declared: Declared) -> str:
    """What a field expects: ``a number > 0``, ``one of step, cosine``, ``a list of whole numbers``."""
    if declared.section:
        return "a section, or null" if declared.nullable else "a section with fields of its own"
    if "form" in declared.facts:
        return f"{declared.facts['form']}{' or null' if declared.nullable else ''}"
    words = f"{_kind_in_words(declared.kind)} {_bounds(declared.metadata)}".strip()
    if any(getattr(m, "min_length", None) for m in declared.metadata):
        words += ", not empty"
    return words + (" or null" if declared.nullable else "")
