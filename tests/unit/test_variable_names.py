"""Variables are named for what they hold: ``images``, not ``found``; ``rows``, not ``kept``."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.support.paths import ROOT

PACKAGE = ROOT / "src" / "unalike"
# Participles that say what happened to a value and not what it is. Results of named operations (``resized``, ``quantized``),
# flags of the field (``pretrained``, ``frozen``), ``left`` beside ``right``, and attributes of saved formats are not among them.
WORDS = """
found held told shown kept drawn given seen spent asked done made taken said read written chosen declared opened
expected named started allowed needed changed stored fetched wanted tried used ranked refused ended counted removed
added broken delivered stopped resumed met begun listed recorded known collected configured measured missed loaded
picked reported called applied improved saved
"""
PARTICIPLES = frozenset(WORDS.split())
# The interface of UnalikeError and of what passes its arguments on; names of fields that are given by keyword.
ALLOWED = {
    ("errors.py", "found"), ("errors.py", "expected"),
    ("storage/outside_files.py", "found"), ("storage/outside_files.py", "expected"),
    ("serve/problems.py", "found"), ("serve/problems.py", "expected"), ("recognition/snapshot.py", "added"),
}  # fmt: skip


def variables(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each variable and parameter."""
    fields = {id(target) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for statement in node.body
              if isinstance(statement, ast.AnnAssign) for target in [statement.target]}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def test_no_variable_is_a_participle() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for line, variable in variables(ast.parse(path.read_text(encoding="utf-8"))):
            if variable in PARTICIPLES and (name, variable) not in ALLOWED:
                wrong.append(f"{name}:{line} {variable}")
    assert not wrong, wrong


def test_the_rule_reads_variables_and_parameters_but_no_fields() -> None:
    tree = ast.parse("class C:\n    kept: int\n    def f(self, told):\n        found = [done for done in told]\n")
    assert {name for _, name in variables(tree)} == {"self", "told", "found", "done"}
