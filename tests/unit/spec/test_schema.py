"""The schemas and the loading of specs agree on random values of every field."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import reduce
from typing import Any, Literal, get_args, get_origin

import pytest

from unalike.errors import SpecError
from unalike.spec import ACTIONS, load_spec, schema_for
from unalike.spec.fields import fields_of
from unalike.spec.nodes import SpecNode

jsonschema = pytest.importorskip("jsonschema")

CASES = 2400
VALUES: tuple[Any, ...] = (
    None, "", "???", "<required>", True, False, 0, 1, -1, 2, 3, 7, 100, 65536, 2**32 - 1, 2**32, 0.0, 0.5, 1.0, 1.5, -0.5, 1e-6,
    1e9, "text", "auto", "3", "a,b", "1,2", [], [1], [1, 2], [3, 2], [1, 1, 1], [0.5] * 3, [0.1, 0.9], [0.9, 0.1], [103.5, 1, 1],
    ["a"], ["a", "b"], [None], ["???"], {}, {"a": 1}, "none", "s3://b/x", "/tmp/x", [[0, 0, 1, 1]], "0,0,1,1", "320x256", "white",
    "#ff0000", "off", "on",
)  # fmt: skip
# What JSON Schema cannot say: fields whose value is compared with another field, or names one; two numbers in order.
BESIDE_OTHERS = {"automl.address", "automl.parameters", "automl.ranges"}
ORDERED = {"dataset.gaussian_blur.sigma", "dataset.crop.scale", "dataset.crop.ratio", "dataset.decoding.range", "verify.range",
           "compare.range", "inspect_fit.range", "train.optim.steps"}  # fmt: skip


def choices(kind: Any) -> Iterator[Any]:
    """The values of every Literal in a type."""
    for part in get_args(kind):
        if get_origin(kind) is Literal:
            yield part
        else:
            yield from choices(part)


def values_of(node: SpecNode) -> list[Any]:
    """Values of all kinds, those at the bounds of the field, and its choices in several spellings."""
    bounds = [getattr(fact, name, None) for fact in node.metadata for name in ("ge", "gt", "le", "lt")]
    near = [number + step for number in bounds if number is not None for step in (0, 1, -1, 1e-3, -1e-3)]
    words = list(choices(node.info.annotation))
    return [*VALUES, *near, *words, *(word.capitalize() for word in words if isinstance(word, str))]


def is_known(path: str, value: Any, *, by_schema: bool) -> bool:
    """Whether this is one of the known differences between a schema and the loading."""
    if not by_schema:  # A value that has yet to be filled in is a gap to an editor, and unset to an action.
        return value in ("???", ["???"], "<required>")
    is_whole = isinstance(value, float) and value.is_integer()  # JSON has one kind of number
    return is_whole or path in BESIDE_OTHERS or (path in ORDERED and isinstance(value, list) and value != sorted(value))


def loads(action: str, tree: dict[str, Any]) -> bool:
    try:
        load_spec(action, tree)
    except SpecError:
        return False
    return True


@pytest.mark.parametrize(
    ("action", "name"), [("gallery_add", "label"), ("gallery_rename", "label"), ("gallery_rename", "new"), ("gallery_merge", "into")]
)  # fmt: skip
def test_an_empty_class_name_is_refused_by_schema_and_loading(action: str, name: str) -> None:
    validator = jsonschema.Draft202012Validator(schema_for(action))
    for value, is_valid in (("", False), ("  ", False), ("cup", True), (" a\nb", True)):
        assert validator.is_valid({action: {name: value}}) == loads(action, {action: {name: value}}) == is_valid


def test_schemas_accept_what_a_spec_may_hold_and_refuse_the_rest() -> None:
    draws = random.Random(7)
    validators = {action: jsonschema.Draft202012Validator(schema_for(action)) for action in ACTIONS}
    fields = [(action, path, node) for action in ACTIONS for path, node in fields_of(action).items()]
    wrong, valid = [], 0
    for _ in range(CASES):
        action, path, node = draws.choice(fields)
        value = draws.choice(values_of(node))
        tree = reduce(lambda inner, name: {name: inner}, reversed(path.split(".")), value)
        by_schema, by_loading = validators[action].is_valid(json.loads(json.dumps(tree))), loads(action, tree)
        valid += by_loading
        if by_schema != by_loading and not is_known(path, value, by_schema=by_schema):
            wrong.append((action, path, value, by_schema))
    assert not wrong
    assert valid > CASES / 20  # both kinds were there


@pytest.mark.parametrize(("path", "value"), [("dataset.decoding.version", True), ("train.optim.steps", [-1]), ("model.input_channels", 1),
                                             ("export.onnx_file", "s3://b/x.onnx"), ("evaluate.topk", 2**32)])  # fmt: skip
def test_what_an_action_refuses_is_refused_by_its_schema(path: str, value: Any) -> None:
    action = "export" if path.startswith("export") else "evaluate"
    tree = reduce(lambda inner, name: {name: inner}, reversed(path.split(".")), value)
    assert not jsonschema.Draft202012Validator(schema_for(action)).is_valid(tree) and not loads(action, tree)


def test_a_section_without_a_line_is_empty() -> None:
    tree = {"train": None, "dataset": {"crop": None}, "evaluate": None}
    assert jsonschema.Draft202012Validator(schema_for("evaluate")).is_valid(tree) and loads("evaluate", tree)
    assert jsonschema.Draft202012Validator(schema_for("train")).is_valid(tree)  # a section of another action
