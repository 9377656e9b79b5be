"""Options of ``compare``: they are those of the command, networks are chosen by name, and messages call them as the page does."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.inspected_parts import fitted_inspector
from unalike import comparison
from unalike.serve.comparison_options import (
    OPTIONS,
    TEXTS,
    choose_network,
    describe_left_out,
    in_words,
    make_comparer,
    read_settings,
)
from unalike.serve.problems import Problem
from unalike.serve.resources import InspectorResource
from unalike.serve.uploads import Parameters
from unalike.spec.compare import Compare

# Options of the command that a request cannot have: files of the machine, and how a network is run.
OF_THE_COMMAND = {
    "reference",
    "image",
    "results_dir",
    "ignore_mask",
    "ignore_boxes",
    "model",
    "runtime",
    "precision",
    "threads",
}


def settings(**values: Any) -> dict[str, Any]:
    return read_settings(Parameters(values))


def inspectors(*names: str) -> dict[str, InspectorResource]:
    return {name: InspectorResource(name, f"{name}.inspector", fitted_inspector()) for name in names}


def test_the_options_are_those_of_the_command() -> None:
    assert set(OPTIONS) == set(TEXTS) == set(settings()) == set(Compare.model_fields) - OF_THE_COMMAND | {"network"}
    section = Compare()
    for name, value in settings().items():
        if name != "network":
            assert value == getattr(section, name), name


@pytest.mark.parametrize(
    "values", [{"level": "feature"}, {"tolerance": "33"}, {"surprise": "1"}, {"network": ["a", "b"]}]
)
def test_what_is_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        settings(**values)


def test_the_network_is_that_of_the_inspector_that_is_named_or_of_the_first() -> None:
    served = inspectors("a", "b")
    assert choose_network(settings(), served) is None
    assert choose_network(settings(level="both"), served) == "a"
    assert choose_network(settings(level="features", network="b"), served) == "b"
    chosen = settings(level="features") | {"network": "b"}
    comparer = make_comparer(chosen, served)
    assert comparer.features is not None and comparer.features.engine is served["b"].loaded.network.engine
    assert make_comparer({"align": "none"}, {}).features is None, "settings of a decision of before"


@pytest.mark.parametrize(
    ("values", "names", "text"),
    [
        ({"level": "both"}, (), "no network is loaded"),
        ({"level": "both", "network": "c"}, ("a",), "no inspector 'c'"),
        ({"network": "a"}, ("a",), "to compare pixels"),
    ],
)
def test_a_network_that_is_not_there_is_refused(values: dict[str, Any], names: tuple[str, ...], text: str) -> None:
    with pytest.raises(Problem, match=text) as caught:
        choose_network(settings(**values), inspectors(*names))
    assert caught.value.status == 422 and caught.value.remedy or caught.value.expected


def test_an_inspector_that_is_gone_or_cannot_compare_is_named() -> None:
    chosen = settings(level="features") | {"network": "a"}
    with pytest.raises(Problem, match="'a', whose network was used, is no longer served"):
        make_comparer(chosen, {})
    served = inspectors("a")
    network = served["a"].loaded.network
    facts = tuple(replace(fact, stride=7) for fact in network.maps)
    broken = copy(served["a"].loaded)
    broken.network = replace(network, maps=facts)
    with pytest.raises(Problem, match="the network of the inspector 'a': maps of stride 7"):
        make_comparer(chosen, {"a": InspectorResource("a", "a.inspector", broken)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("compare with --align none", 'compare with "Alignment: none"'),
        ("compare with --mirror if that is meant", 'compare with "Accept a mirrored copy" if that is meant'),
        ("--tolerance 2 looks for finer ones", '"Tolerated displacement of edges, in pixels: 2" looks for finer ones'),
        ("(--max-shift 0.5)", '("Largest shift, as a share of the diagonal: 0.5")'),
        ("in another --precision, or", "in another precision, or"),
        ("nothing -- of the kind", "nothing -- of the kind"),
    ],
)
def test_options_are_called_as_the_page_calls_them(text: str, words: str) -> None:
    assert in_words(text) == words


def test_every_option_that_messages_of_a_comparison_name_has_words() -> None:
    folder = Path(comparison.__file__).parent
    names = {
        name for path in folder.glob("*.py") for name in re.findall(r"--([a-z]+(?:-[a-z]+)*)", path.read_text("utf-8"))
    }
    assert {"align", "lighting", "tolerance", "mirror"} <= names
    assert {name.replace("-", "_") for name in names} <= set(TEXTS) | OF_THE_COMMAND


def test_what_is_left_out_is_said_without_options_of_the_command_line() -> None:
    result = {
        "tolerated_displacement": 3, "smallest_area": 12,
        "not_looked_for": "edges displaced by up to 3 px, details that close to alike ones, and changes below 12 px in area; --tolerance 2 looks for finer ones"
        "; by features: changes smaller than 16 px across",
    }  # fmt: skip
    assert describe_left_out(result) == (
        "edges that moved by 3 pixels or less, details that have like ones as near as that, and spots of fewer than 12 pixels; "
        'in the features, what is smaller than 16 pixels across. The option "Tolerated displacement of edges, in pixels" at 2 '
        "looks for finer changes"
    )
    assert describe_left_out({"tolerated_displacement": 0, "smallest_area": 4, "not_looked_for": "x"}) == "spots of fewer than 4 pixels"  # fmt: skip
    assert describe_left_out({"not_looked_for": ""}) == describe_left_out({}) == ""
