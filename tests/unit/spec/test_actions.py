"""Sections of the standalone actions: schemas, templates, and Python signatures with the same names and defaults."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from unalike.cli.commands import COMMANDS
from unalike.comparison.comparer import Comparer
from unalike.errors import SpecError
from unalike.spec import Experiment, load_spec, schema_for, template_for
from unalike.spec.actions import ACTIONS, MODEL_ACTIONS, STANDALONE_ACTIONS, TAO_ACTIONS, command_of
from unalike.spec.load import check_fields
from unalike.spec.schema import schema_text

# SHA-256 of the schemas of 2026-11-29. They change only when a field of TAO's sections does.
TAO_SCHEMAS = {
    "train": "d3039049f092e833cdf127389371e24707e95b607e265c4d0192fa06969510c9",
    "evaluate": "a3bd727a2cf402b7728193d9865f2b36a0e0de6935656d5ef3c009c6b9a52b44",
    "inference": "b4b55db3801037b40699a17e08b7957bd819fc8ef01dea27754744745e44ee9e",
    "export": "cb0a31c601dcc175279821234c36719c0b50136c57927b3895b8a9f38e192674",
    "gen_trt_engine": "05b882d68ae56c5b875fb95e3fa5e60171a1c7ccf509634810ed3fca0715788e",
}
# Functions whose keyword arguments are fields of a section, and the fields that they do not take.
SIGNATURES: tuple[tuple[str, Callable[..., Any], set[str]], ...] = (
    ("compare", Comparer, {"reference", "image", "results_dir"}),
)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("action", "function", "others"), SIGNATURES, ids=lambda value: getattr(value, "__name__", None)
)
def test_signatures_have_the_names_and_defaults_of_the_section(
    action: str, function: Callable[..., Any], others: set[str]
) -> None:
    section = getattr(Experiment(), action)
    parameters = inspect.signature(function).parameters
    shared = {name: parameters[name].default for name in type(section).model_fields if name in parameters}
    assert set(type(section).model_fields) - set(shared) == others
    assert {name: _plain(default) for name, default in shared.items()} == {
        name: getattr(section, name) for name in shared
    }


@pytest.mark.parametrize("action", TAO_ACTIONS)
def test_schemas_of_taos_actions_stay(action: str) -> None:
    assert hashlib.sha256(schema_text(action).encode()).hexdigest() == TAO_SCHEMAS[action]


@pytest.mark.parametrize("action", STANDALONE_ACTIONS)
def test_a_standalone_section_stands_in_its_own_spec_alone(action: str) -> None:
    assert set(schema_for(action)["properties"]) == {"results_dir", action}
    assert set(load_spec(action).to_dict()) == {"results_dir", action}
    for other in (name for name in ACTIONS if name != action):
        assert action not in load_spec(other).to_dict() and f"\n{action}:" not in template_for(other)
        assert f'"{action}"' not in schema_text(other)
    with pytest.raises(SpecError, match=f"{action}: belongs in a spec of its own"):
        load_spec("train", {action: {}})


def test_every_action_has_a_command() -> None:
    assert set(ACTIONS) == {*MODEL_ACTIONS, *STANDALONE_ACTIONS}
    assert {command_of(action).split()[0] for action in ACTIONS} <= set(COMMANDS)


def test_fields_are_checked_by_their_declarations() -> None:
    assert check_fields("compare", tolerance=5).tolerance == 5
    with pytest.raises(SpecError) as caught:
        check_fields("compare", tolerance=33, align="rigit")
    assert str(caught.value).splitlines() == [
        "2 faults",
        "  align: found 'rigit', expected one of auto, none, shift, rigid, affine, homography; did you mean 'rigid'?",
        "  tolerance: found 33, expected a whole number >= 0 and <= 32",
    ]
