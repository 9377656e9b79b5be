"""The fields of the spec by dotted path, those of each action, and a description of the values that a field takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from unalike.spec.actions import STANDALONE_ACTIONS, top_level_of
from unalike.spec.experiment import Experiment
from unalike.spec.nodes import SpecNode, walk
from unalike.spec.reading import yaml_line

# The nodes that the specs of all model actions hold besides the action's own section.
COMMON = (
    "model_name",
    "encryption_key",
    "results_dir",
    "automl_policy",
    "automl",
    "wandb",
    "mlflow",
    "train",
    "model",
    "dataset",
)


# What results_dir means in the spec of a standalone action.
ROOT_HELP = "Root of the results: the folder {action} in it, unless {action}.results_dir names the folder itself."


@cache
def declared_fields() -> dict[str, SpecNode]:
    """Every node of the spec by its dotted path, parents before children."""
    return {d.path: d for d in walk(Experiment)}


def top_level(action: str) -> tuple[str, ...]:
    """The nodes at the top of an action's schema and template: the common ones and the action's own section."""
    return top_level_of(action) if action in STANDALONE_ACTIONS else (*COMMON, action)


def fields_of(action: str) -> dict[str, SpecNode]:
    """The nodes that the schema and template of an action hold, by dotted path."""
    tops = top_level(action)
    nodes = {path: d for path, d in declared_fields().items() if path.split(".")[0] in tops}
    if action in STANDALONE_ACTIONS and "results_dir" in nodes:
        root = nodes["results_dir"]
        nodes["results_dir"] = root._replace(help=ROOT_HELP.format(action=action))
    return nodes


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _bounds(metadata: Any) -> str:
    bounds = ((sign, getattr(m, key, None)) for m in metadata for key, sign in _SIGNS.items())
    return " and ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)


def _describe_type(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *metadata = get_args(kind)
        return f"{_describe_type(inner)} {_bounds(metadata)}".strip()
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in get_args(kind))
    if origin is list:
        item = _describe_type(get_args(kind)[0]).removeprefix("a ")
        return f"a list of {item.replace('number', 'numbers').replace('text', 'texts')}"
    return _NAMES.get(origin or kind, "a value")


def expectation(node: SpecNode) -> str:
    """Describe the values that a field takes: ``a number > 0``, ``one of step, cosine``, ``a list of whole numbers``."""
    if node.section:
        return "a section, or null" if node.nullable else "a section with fields of its own"
    if "form" in node.facts:
        return f"{node.facts['form']}{' or null' if node.nullable else ''}"
    text = f"{_describe_type(node.kind)} {_bounds(node.metadata)}".strip()
    if any(getattr(m, "min_length", None) for m in node.metadata):
        text += ", not empty"
    return text + (" or null" if node.nullable else "")


def matching_keys(fields: Mapping[str, SpecNode], word: str) -> dict[str, dict[str, str]]:
    """The leaves among fields whose path or help holds a word, by path; those whose path holds it come first.

    Returns:
        Path -> ``default`` (as YAML), ``expected`` (the values that it takes) and ``help``.
    """
    word = word.lower()
    leaves = [(path, node) for path, node in fields.items() if node.section is None]
    by_path = [(path, node) for path, node in leaves if word in path.lower()]
    by_help = [(path, node) for path, node in leaves if word not in path.lower() and word in node.help.lower()]
    return {
        path: {"default": yaml_line(node.info.get_default(call_default_factory=True)), "expected": expectation(node),
               "help": node.help}
        for path, node in [*by_path, *by_help]
    }  # fmt: skip
