"""200 specs, each broken in one place, through the real command line: refused with a line that names the key."""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unalike import progress
from unalike.cli import run_command
from unalike.spec import ACTIONS, template_for
from unalike.spec.actions import command_of
from unalike.spec.fields import declared_fields, fields_of
from unalike.spec.nodes import SpecNode

EXAMPLES = 200
TEMPLATES = {action: yaml.safe_load(template_for(action)) for action in ACTIONS}
counted = {"specs": 0}


def broken_value(declared: SpecNode) -> st.SearchStrategy[Any]:
    """A value that the field cannot hold: another type, or a number beyond its bounds."""
    kind = get_origin(declared.kind) or declared.kind
    mapping = st.just({"a": 1})
    if "form" in declared.facts:
        return mapping | st.booleans() | st.just([{"a": 1}])
    if declared.section:
        return st.just(3) | st.just("text") | st.just([1, 2])
    if kind is bool:
        return st.just("maybe") | st.integers(2, 9) | mapping
    if kind in (int, float):
        beyond = []
        for fact in declared.info.metadata:
            for name, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                bound = getattr(fact, name, None)
                if bound is not None:
                    beyond.append(st.just(kind(bound + step)))
        return st.one_of(st.just("many"), st.just([1]), mapping, st.just(float("nan")), *beyond)
    if kind in (list, dict):
        return st.integers(0, 9) | st.booleans()
    return st.just(7.5) | st.just([{"a": 1}]) | mapping


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """An action, the key that is wrong, and its template with that one fault."""
    action = draw(st.sampled_from(ACTIONS))
    tree = copy.deepcopy(TEMPLATES[action])
    nodes = fields_of(action)
    how = draw(st.sampled_from(("value", "value", "misspelt", "moved")))
    sections = [path for path, declared in nodes.items() if declared.section]
    if how == "value":
        leaves = [
            path for path, declared in nodes.items() if not (declared.kind is str and declared.facts.get("schema"))
        ]
        path = draw(st.sampled_from(leaves))
        place(tree, path, draw(broken_value(nodes[path])))
        return action, path, tree
    if how == "misspelt":
        parent = draw(st.sampled_from(sections))
        siblings = [p.rpartition(".")[2] for p in nodes if p.rpartition(".")[0] == parent]
        name = draw(st.sampled_from(siblings))
        cut = draw(st.integers(0, len(name) - 1))
        wrong = name[:cut] + name[cut + 1 :] + "q"
    else:
        parent, wrong = draw(st.sampled_from(sections)), draw(st.sampled_from(("backbone_name", "lr", "momentun", "x")))
    path = f"{parent}.{wrong}"
    if path in declared_fields():
        path += "z"
    place(tree, path, 1)
    return action, path, tree


def place(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for part in parents:
        inner = tree.get(part)
        tree[part] = tree = inner if isinstance(inner, dict) else {}
    tree[name] = value


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])  # fmt: skip
@given(mutated())
def test_a_mutated_spec_is_refused_by_name(tmp_path: Path, case: tuple[str, str, dict[str, Any]]) -> None:
    action, path, tree = case
    counted["specs"] += 1
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(tree))
    out, err = io.StringIO(), io.StringIO()
    progress._said.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command([*command_of(action).split(), "-e", str(file)])
    said = err.getvalue()
    assert code == 2, said
    assert "error: " in said and path in said, (path, said)
    assert "Traceback" not in said and "unexpected" not in said
    assert not out.getvalue() and sorted(p.name for p in tmp_path.iterdir()) == ["spec.yaml"]


def test_there_were_two_hundred() -> None:
    assert counted["specs"] >= EXAMPLES
